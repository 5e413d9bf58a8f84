"""Requests that are refused behind others on a link of the client's own (see refused.pyx)."""
from libc.stddef cimport size_t
from libc.stdint cimport uint16_t
from sidecar.core.records cimport Link, Session

cdef int link_refuse(Link* l, Session* s, uint16_t command, const char* error,
                     size_t n) noexcept nogil
cdef bint may_be_stand_in(const char* p, size_t n) noexcept nogil
cdef bint is_stand_in(const Link* l, const char* p, size_t n) noexcept nogil
cdef void say_refusal(Link* l, Session* s, const char* p, size_t n) noexcept nogil
