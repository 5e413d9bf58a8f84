"""The sockets of the data path (see plane.pyx)."""
from libc.stddef cimport size_t
from sidecar.core.audit cimport Notes
from sidecar.core.cache cimport NearCache
from sidecar.core.commands cimport CommandTable
from sidecar.core.records cimport Bars, Core, Link, Session
from sidecar.core.sketch cimport HotKeys
from sidecar.core.stats cimport Stats
from sidecar.core.trace cimport Traces
from sidecar.proxy.reactor cimport Connection, Reactor

cdef class Plane(Reactor):
    cdef Core core
    cdef Stats* stats
    cdef readonly CommandTable table
    cdef readonly object handler
    cdef readonly set clients
    cdef readonly set upstreams
    cdef list unflushed
    cdef set waiting_for_room
    cdef set held               # clients whose next command waits for release_writes
    cdef bytes ack_request
    cdef readonly NearCache near_cache
    cdef readonly HotKeys hot_keys
    cdef readonly Traces traces
    cdef Bars* bars
    cdef Notes* notes           # for the audit stream; NULL: there is none
    cdef readonly list tracked  # the connections that read for the near cache
    cdef bint flush_due
    cdef bint settling
    cdef size_t output_max
    cdef object flush_callback
    cdef public dict closed_for

    cdef void stamp(self) noexcept
    cdef int settle(self) except -1
    cdef int serve_flush(self, Upstream up) noexcept
    cdef int serve_session(self, Client c) noexcept
    cdef int later(self, Upstream up) except -1
    cdef int schedule(self) except -1
    cdef int push_out(self) except -1
    cdef int room(self) except -1
    cdef int tell_notes(self) except -1

cdef class Client(Connection):
    cdef readonly Plane plane
    cdef Session* s
    cdef readonly long long id
    cdef readonly bint finishing
    cdef bint retiring
    cdef bint parsed            # requests have just been parsed, and nothing of theirs sent since
    cdef public object identity
    cdef public object name
    cdef public object lib_name
    cdef public object lib_version
    cdef public object task
    cdef public object peer
    cdef readonly double since
    cdef bint exact             # session pooling: ids are the server's own
    cdef readonly object local

    cdef int flush(self) except -1
    cdef bint more_to_come(self, bint parsed) noexcept
    cdef int keep(self) except -1
    cdef int attend(self) except -1
    cdef int sent_to_link(self) except -1
    cdef int give_back(self) except -1
    cdef int next_reading(self) except -1
    cdef int go_on(self) except -1
    cdef int record_refusal(self, bytes reply) except -1
    cdef bint never_answered(self) noexcept
    cdef bint gave_up(self) noexcept
    cdef int end_of_input(self) except -1
    cdef int protocol_error(self) except -1

cdef class Upstream(Connection):
    cdef readonly Plane plane
    cdef Link* link
    cdef bint queued
    cdef readonly bint shared
    cdef readonly object identity
    cdef readonly Client client
    cdef public object target   # where its connection leads, or led
    cdef public object hello
    cdef public long long server_id
    cdef public double idle_since
    cdef object refusal_text
    cdef bint shut

    cdef int flush(self) except -1
    cdef bint in_the_middle(self) noexcept
    cdef int lost(self, str reason) except -1
