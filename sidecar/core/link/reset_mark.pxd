"""The end of RESET on a pinned link (see reset_mark.pyx)."""
from libc.stddef cimport size_t
from sidecar.core.records cimport Link

cdef int reset_mark(Link* l) noexcept nogil
cdef bint may_be_reset_mark(const Link* l, const char* p, size_t n) noexcept nogil
cdef bint is_reset_mark(const Link* l, const char* p, size_t n) noexcept nogil
