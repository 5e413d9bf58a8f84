"""What becomes of requests whose link is lost, held up, or given up (see recovery.pyx)."""
from libc.stddef cimport size_t
from sidecar.core.records cimport Link

cdef int link_divert(Link* old, Link* l) noexcept nogil
cdef int link_move(Link* old, Link* l) noexcept nogil
cdef int link_lost(Link* l, bint resend) noexcept nogil
cdef void link_send_elsewhere(Link* l) noexcept nogil
cdef void link_fail(Link* l, const char* error, size_t n) noexcept nogil
