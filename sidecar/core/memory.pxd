"""Growable memory for the data path: byte buffers, and rings of records.

A buffer is a window [start, end) into one block. Idle connections hold none: an emptied
buffer gives its block back. Blocks of the common size are kept in a small free list, so that
steady traffic does not go through malloc. Everything runs on one thread.
"""
from libc.stddef cimport size_t
from libc.stdint cimport uint32_t

cdef struct Buffer:
    char* data
    size_t start
    size_t end
    size_t cap

cdef size_t buffers_taken() noexcept nogil
cdef int buffer_reserve(Buffer* b, size_t extra) noexcept nogil
cdef void buffer_release(Buffer* b) noexcept nogil
cdef int buffer_append(Buffer* b, const char* p, size_t n) noexcept nogil

# A ring holds the records [head, tail) of a queue, record i at ring[i & mask]; head and tail only go up,
# and wrap. A record keeps its number when the ring grows, but not its address.
cdef void* ring_new(uint32_t* mask, size_t each) noexcept nogil
cdef void* ring_grown(void* ring, uint32_t* mask, uint32_t head, size_t each) noexcept nogil

cdef inline size_t buffer_size(const Buffer* b) noexcept nogil:
    return b.end - b.start

cdef inline char* buffer_head(const Buffer* b) noexcept nogil:
    return b.data + b.start

cdef inline void buffer_drop(Buffer* b, size_t n) noexcept nogil:
    """Forget the first n bytes; an emptied buffer gives its block back."""
    b.start += n
    if b.start >= b.end:
        buffer_release(b)

cdef inline void buffer_truncate(Buffer* b, size_t size) noexcept nogil:
    """Keep only the first `size` bytes."""
    b.end = b.start + size
    if size == 0:
        buffer_release(b)
