"""What is left of a link whose server is not the master any more (see demotion.pyx)."""
from libc.stddef cimport size_t
from sidecar.core.records cimport Entry, Link

cdef bint not_executed(const char* p, size_t n) noexcept nogil
cdef bint may_be_not_executed(const char* p, size_t n) noexcept nogil
cdef int link_demote(Link* l, const char* p, size_t n) noexcept nogil
cdef int receive_demoted(Link* l, const char* p, size_t n) noexcept nogil
cdef void link_count(Link* l, const Entry* e, const char* p, size_t n,
                     size_t size) noexcept nogil
