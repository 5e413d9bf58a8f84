"""Random bytes for the native fuzzers (see fuzz_decoders.pyx)."""
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef enum:
    TEXT_MAX = 4096

cdef struct Text:
    size_t n
    char data[TEXT_MAX]

cdef inline uint64_t draw(uint64_t* state) noexcept nogil:
    """xorshift64*: 64 random bits; the state is never zero."""
    cdef uint64_t x = state[0]
    x ^= x >> 12
    x ^= x << 25
    x ^= x >> 27
    state[0] = x
    return x * <uint64_t>2685821657736338717

cdef inline uint32_t below(uint64_t* state, uint32_t n) noexcept nogil:
    return <uint32_t>(draw(state) >> 33) % n

cdef uint64_t seeded(uint64_t seed) noexcept nogil
cdef void put(Text* t, const char* p, size_t n) noexcept nogil
cdef void put_text(Text* t, const char* p) noexcept nogil
cdef void put_header(Text* t, char kind, int64_t n) noexcept nogil
