"""A client whose names are not the server's (see rewriting.pyx)."""
from sidecar.core.rewrite.rewriter cimport Rewriter
from sidecar.proxy.io.plane cimport PlaneConnection

cdef class RewritingConnection(PlaneConnection):
    cdef Rewriter rewriter      # None: its names are the server's
    cdef size_t shown           # bytes of Session.out, from the beginning, that have the client's names

    cdef int feed(self, const char* p, size_t n) except -2
    cdef int feed_given(self) except -2
    cdef int show(self) except -1
    cdef bint rewrite_on(self) except -1
    cdef size_t kept_back(self) noexcept
    cdef bint reads_too_far(self) noexcept
