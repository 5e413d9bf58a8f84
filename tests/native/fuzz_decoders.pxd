"""Text for the native fuzzers (see fuzz_decoders.pyx)."""
from libc.stddef cimport size_t
from libc.stdint cimport int64_t

cdef enum:
    TEXT_MAX = 4096

cdef struct Text:
    size_t n
    char data[TEXT_MAX]

cdef void put(Text* t, const char* p, size_t n) noexcept nogil
cdef void put_text(Text* t, const char* p) noexcept nogil
cdef void put_header(Text* t, char kind, int64_t n) noexcept nogil
