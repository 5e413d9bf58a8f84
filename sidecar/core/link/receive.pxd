"""Splitting what comes from upstream into replies (see receive.pyx)."""
from libc.stddef cimport size_t
from sidecar.core.records cimport Link

cdef int link_receive(Link* l, const char* p, size_t n) noexcept nogil
