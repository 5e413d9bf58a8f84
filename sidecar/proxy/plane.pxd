"""The sockets of the data path (see plane.pyx)."""
from libc.stddef cimport size_t
from sidecar.core.commands cimport CommandTable
from sidecar.core.link cimport Core, Link, Session
from sidecar.core.memory cimport Buffer
from sidecar.core.stats cimport Stats
from sidecar.proxy.poller cimport poller_event

cdef enum:
    EVENTS = 256

cdef class Plane:
    cdef Core core
    cdef Stats* stats
    cdef readonly CommandTable table
    cdef readonly object loop
    cdef readonly object handler
    cdef readonly set clients
    cdef readonly set upstreams
    cdef char* received         # what a socket gave, or what TLS made of it
    cdef char* sealed           # what a TLS socket gave
    cdef object received_view
    cdef object sealed_view
    cdef list unflushed
    cdef set waiting_for_room
    cdef bint flush_due
    cdef bint settling
    cdef int poller             # -1: the loop watches each socket itself
    cdef bint polling
    cdef list closed_meanwhile  # closed while events for them may still be in hand
    cdef list again             # read to the brim of the buffer: there may be more
    cdef poller_event events[EVENTS]
    cdef size_t output_max
    cdef object flush_callback
    cdef public dict closed_for

    cdef void stamp(self) noexcept
    cdef int settle(self) except -1
    cdef int serve(self, Connection c, bint readable) noexcept
    cdef int serve_flush(self, Upstream up) noexcept
    cdef int serve_session(self, Client c) noexcept
    cdef int later(self, Upstream up) except -1
    cdef int room(self) except -1

cdef class Connection:
    cdef readonly Plane plane
    cdef int fd
    cdef object sock
    cdef object tls
    cdef object tls_in
    cdef object tls_out
    cdef Buffer tls_rest        # sealed bytes the socket has not taken yet
    cdef bint reading
    cdef bint writing
    cdef readonly bint closed
    cdef bint ended             # the peer will send no more

    cdef int readable(self) except -1
    cdef int writable(self) except -1
    cdef int watch(self, bint reading, bint writing) except -1
    cdef int open(self, object sock, tuple tls) except -1
    cdef int detach(self) except -1
    cdef int watch_reading(self, bint on) except -1
    cdef int watch_writing(self, bint on) except -1
    cdef Py_ssize_t fill(self) except -2
    cdef Py_ssize_t send_now(self, const char* p, size_t n) except -2
    cdef Py_ssize_t seal(self, const char* p, size_t n) except -2
    cdef int flush_sealed(self) except -1

cdef class Client(Connection):
    cdef Session* s
    cdef readonly long long id
    cdef readonly bint finishing
    cdef bint retiring
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
    cdef int attend(self) except -1
    cdef int sent_to_link(self) except -1
    cdef int give_back(self) except -1
    cdef int next_reading(self) except -1
    cdef int go_on(self) except -1
    cdef bint never_answered(self) noexcept
    cdef int end_of_input(self) except -1
    cdef int protocol_error(self) except -1

cdef class Upstream(Connection):
    cdef Link* link
    cdef bint queued
    cdef readonly bint shared
    cdef readonly object identity
    cdef readonly Client client
    cdef public object hello
    cdef public long long server_id
    cdef public double idle_since
    cdef object refusal_text
    cdef bint shut

    cdef int flush(self) except -1
    cdef int lost(self, str reason) except -1
