"""The connections of one event loop (see plane.pyx)."""
from libc.stddef cimport size_t
from libc.stdint cimport uint64_t
from sidecar.core.observe.audit_notes cimport Notes
from sidecar.core.cache.near_cache cimport NearCache
from sidecar.core.link.scripts cimport Scripts
from sidecar.core.protocol.slots cimport SlotTable
from sidecar.core.link.silence cimport Silence
from sidecar.core.protocol.commands cimport CommandTable
from sidecar.core.records cimport Barriers, Core, Session
from sidecar.core.hotkeys.detector cimport HotKeys
from sidecar.core.stats cimport Stats
from sidecar.core.observe.trace_records cimport Traces
from sidecar.proxy.io.reactor cimport Connection, Reactor

cdef class Plane(Reactor):
    cdef Core core
    cdef Stats* stats
    cdef readonly CommandTable table
    cdef readonly object handler
    cdef readonly set clients
    cdef readonly set upstreams
    cdef list unflushed
    cdef set waiting_for_room
    cdef list gathering         # clients whose replies wait for others of the same batch
    cdef list replied           # and for the end of the events at hand: of a cluster
    cdef set limited            # clients that have to wait for their limits (guard.pyx)
    cdef bint limited_due       # the loop is to look at them
    cdef set held               # clients whose next command is kept back (Core.holds)
    cdef bytes ack_request
    cdef readonly NearCache near_cache
    cdef readonly HotKeys hot_keys
    cdef readonly Traces traces
    cdef Barriers* barriers
    cdef Notes* notes           # for the audit stream; NULL: there is none
    cdef readonly uint64_t notes_lost
    cdef readonly list tracked  # the connections that read for the near cache
    cdef bint flush_due
    cdef bint settling
    cdef size_t client_share    # bytes of requests that a client may have waiting for room
    cdef public bint short_of_memory
    cdef readonly SlotTable slots   # of a cluster; None: the upstream is none
    cdef readonly Scripts scripts   # that clients of a cluster have given; None: the upstream is none
    cdef object doubted         # called when an answer shows that the slots may be known wrongly
    cdef bint retry_due
    cdef public double retry_within     # seconds for which redirected requests may wait
    cdef object flush_callback
    cdef public dict closed_for

    cdef void stamp(self) noexcept
    cdef int settle(self) except -1
    cdef int serve_flush(self, PlaneConnection up) noexcept
    cdef int serve_session(self, PlaneConnection c) noexcept
    cdef int later(self, PlaneConnection up) except -1
    cdef int schedule(self) except -1
    cdef int push_out(self) except -1
    cdef int send_replies(self, list clients) except -1
    cdef int room(self) except -1
    cdef int tell_notes(self) except -1
    cdef int tell_failed(self, error) noexcept
    cdef int feed_links(self) except -1
    cdef int see_to_waiting(self) except -1
    cdef int see_to_limited(self) except -1

cdef class PlaneConnection(Connection):
    cdef bint gathering         # a client's: replies wait for others of the same batch,
    cdef bint replying          #   and until the end of the events at hand
    cdef public object lines    # of a client: None, or what its own link receives goes through it
    cdef readonly Plane plane
    cdef Session* s             # a client's; NULL: a server's
    cdef bint queued            # a server's: its link is flushed at the end of this iteration

    cdef int attend(self) except -1
    cdef int send_gathered(self) except -1
    cdef int flush(self) except -1
    cdef void look(self, Silence* found) noexcept
