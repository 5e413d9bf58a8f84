"""Whether a key fits a pattern of the server's (see glob.pyx)."""
from libc.stddef cimport size_t

cdef bint glob_matches(const char* pattern, size_t m, const char* key, size_t n) noexcept nogil
