"""A reply of RESP3 in the form of RESP2 (see resp2.pyx)."""
from libc.stddef cimport size_t
from libc.stdint cimport uint32_t
from sidecar.core.memory cimport Buffer

cdef uint32_t to_resp2(Buffer* out, const char* p, size_t n, bint null_array) noexcept nogil
