"""Replies to writes, withheld until replicas have the writes (see replica_acks.pyx)."""
from libc.stddef cimport size_t
from sidecar.core.records cimport Link

cdef int link_seal(Link* l) noexcept nogil
cdef int link_receive_acked(Link* l, const char* p, size_t n) noexcept nogil
