"""Chance for the native fuzzers (see chance.pyx)."""
from libc.stdint cimport uint32_t, uint64_t

cdef uint64_t seeded(uint64_t seed) noexcept nogil
cdef uint32_t below(uint64_t* state, uint32_t n) noexcept nogil
