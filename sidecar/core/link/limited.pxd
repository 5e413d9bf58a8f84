"""Limits of what is passed on as it comes (see limited.pyx)."""
from libc.stddef cimport size_t
from sidecar.core.records cimport Link, Session

cdef size_t limit_raw_reply(Link* l, const char* p, size_t begin, size_t at, size_t end, int kind,
                            bint first) noexcept nogil
cdef bint limit_streamed(Session* s, size_t n) noexcept nogil
