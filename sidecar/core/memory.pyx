# cython: language_level=3
"""Growable memory for the data path: byte buffers, and rings of records (see memory.pxd).

Out of memory is reported as -1 and ends the connection it happened to, never the process.
"""
from libc.stdlib cimport free, malloc, realloc
from libc.stdint cimport uint32_t
from libc.string cimport memcpy, memmove

# Blocks of this size are recycled: it holds the requests or replies of one busy event.
cdef enum:
    BLOCK = 16384
    MAX_FREE = 256
    FIRST_RING = 16         # records, a power of two

cdef char* free_blocks[MAX_FREE]
cdef int free_count = 0
cdef size_t taken = 0           # bytes that buffers hold; spare blocks are not counted


cdef size_t buffers_taken() noexcept nogil:
    """Bytes that all buffers of the process hold."""
    return taken


cdef char* take_block() noexcept nogil:
    global free_count
    if free_count > 0:
        free_count -= 1
        return free_blocks[free_count]
    return <char*>malloc(BLOCK)


cdef void give_block(char* block) noexcept nogil:
    global free_count
    if free_count < MAX_FREE:
        free_blocks[free_count] = block
        free_count += 1
    else:
        free(block)


cdef void buffer_release(Buffer* b) noexcept nogil:
    """Give the block back; the buffer is empty and may be used again."""
    global taken
    if b.data != NULL:
        taken -= b.cap
        if b.cap == BLOCK:
            give_block(b.data)
        else:
            free(b.data)
    b.data = NULL
    b.start = b.end = b.cap = 0


cdef int buffer_reserve(Buffer* b, size_t extra) noexcept nogil:
    """Make room for `extra` bytes after the end: 0, or -1 when memory is out.

    Bytes may move; offsets from `start` stay valid, pointers do not.
    """
    global taken
    cdef size_t used = b.end - b.start
    cdef size_t cap
    cdef char* data
    if b.cap - b.end >= extra:
        return 0
    if b.data == NULL and extra <= BLOCK:
        b.data = take_block()
        if b.data == NULL:
            return -1
        b.cap = BLOCK
        taken += BLOCK
        return 0
    if used + extra <= b.cap and b.start >= b.cap // 2:
        memmove(b.data, b.data + b.start, used)
        b.start = 0
        b.end = used
        return 0
    cap = b.cap if b.cap > BLOCK else BLOCK
    while cap < used + extra:
        cap *= 2
    if b.start == 0 and b.cap != BLOCK and b.data != NULL:
        data = <char*>realloc(b.data, cap)
        if data == NULL:
            return -1
        taken += cap - b.cap
    else:
        data = <char*>malloc(cap)
        if data == NULL:
            return -1
        if used:
            memcpy(data, b.data + b.start, used)
        buffer_release(b)
        taken += cap
    b.data = data
    b.start = 0
    b.end = used
    b.cap = cap
    return 0


cdef int buffer_append(Buffer* b, const char* p, size_t n) noexcept nogil:
    """Copy n bytes to the end: 0, or -1 when memory is out."""
    if n == 0:
        return 0            # an empty buffer has no block, and memcpy takes no NULL
    if b.cap - b.end < n and buffer_reserve(b, n) < 0:
        return -1
    memcpy(b.data + b.end, p, n)
    b.end += n
    return 0


cdef void* ring_new(uint32_t* mask, size_t each) noexcept nogil:
    """An empty ring of records of `each` bytes, or NULL without memory."""
    mask[0] = FIRST_RING - 1
    return malloc(FIRST_RING * each)


cdef void* ring_grown(void* ring, uint32_t* mask, uint32_t head, size_t each) noexcept nogil:
    """The full ring, twice as large, or NULL without memory: then the old one stays."""
    cdef uint32_t size = mask[0] + 1
    cdef char* grown = <char*>malloc(2 * <size_t>size * each)
    cdef uint32_t i
    if grown == NULL:
        return NULL
    for i in range(size):
        memcpy(grown + ((head + i) & (2 * size - 1)) * each,
               <char*>ring + ((head + i) & mask[0]) * each, each)
    free(ring)
    mask[0] = 2 * size - 1
    return grown
