"""Taking the prefix off the names in a whole reply (see walk.pyx)."""
from libc.stddef cimport size_t
from libc.stdint cimport int64_t
from sidecar.core.memory cimport Buffer

cdef struct Walk:
    const char* p           # a whole reply
    size_t n
    size_t at               # what is before has been looked at
    size_t given            # what is before has been written
    Buffer* out
    const char* prefix
    size_t size             # of the prefix

cdef struct Bulk:
    size_t header           # where its header begins
    const char* p           # NULL: it is the null string
    size_t n

cdef void walk_begin(Walk* w, const char* p, size_t n, Buffer* out, const char* prefix,
                     size_t size) noexcept nogil
cdef bint walk_length(Walk* w, int64_t* length) noexcept nogil
cdef bint walk_bulk(Walk* w, Bulk* b) noexcept nogil
cdef bint walk_skip(Walk* w) noexcept nogil
cdef bint walk_element(Walk* w, int shape) noexcept nogil
cdef bint walk_value(Walk* w, int shape) noexcept nogil
cdef bint walk_cut(Walk* w, const Bulk* b, size_t at) noexcept nogil
cdef int walk_end(Walk* w) noexcept nogil
