"""Sockets on an event loop (see reactor.pyx)."""
from libc.stddef cimport size_t
from sidecar.core.memory cimport Buffer
from sidecar.proxy.io.poller cimport poller_event

cdef enum:
    EVENTS = 256            # sockets told of by one call
    NOTHING_YET = -1        # Connection.fill: nothing there now
    ENDED = 0               # Connection.fill: nothing more will come

cdef class Reactor:
    cdef readonly object loop
    cdef char* received         # what a socket gave, or what TLS made of it
    cdef char* sealed           # what a TLS socket gave
    cdef object received_view
    cdef object sealed_view
    cdef int poller             # -1: the loop watches each socket itself
    cdef bint polling
    cdef list closed_meanwhile  # closed while events for them may still be in hand
    cdef list read_again        # read to the brim of the buffer: there may be more
    cdef poller_event events[EVENTS]

    cdef int serve(self, Connection c, bint readable) noexcept
    cdef void before_events(self) noexcept
    cdef int after_events(self) except -1
    cdef int failed(self, Connection c, error) except -1

cdef class Connection:
    cdef Reactor reactor
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
    cdef int push_out(self) except -1
    cdef int watch(self, bint reading, bint writing) except -1
    cdef int open(self, object sock, tuple tls) except -1
    cdef int detach(self) except -1
    cdef int watch_reading(self, bint on) except -1
    cdef int watch_writing(self, bint on) except -1
    cdef Py_ssize_t fill(self) except -2
    cdef Py_ssize_t send_now(self, const char* p, size_t n) except -2
    cdef Py_ssize_t seal(self, const char* p, size_t n) except -2
    cdef int flush_sealed(self) except -1
