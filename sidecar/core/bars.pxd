"""Which keys a command is under way for, past the near cache (see bars.pyx)."""
from libc.stddef cimport size_t
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from sidecar.core.records cimport BUCKETS_OF_KEYS, Bars, ENTRY_LAST, Entry, Link

cdef int bars_take(Link* l, Entry* e, uint64_t hash) noexcept nogil
cdef void bars_take_all(Link* l, Entry* e) noexcept nogil
cdef void bars_release(Link* l, Entry* e) noexcept nogil
cdef void bars_give_up(Link* l, uint32_t head, uint32_t tail) noexcept nogil
cdef void bars_take_back(Link* l, uint32_t from_) noexcept nogil

cdef inline void entry_over(Link* l, Entry* e) noexcept nogil:
    """This entry leaves the ring's head: what it barred may be cached again."""
    if e.loose:
        l.core.bars.loose[e.loose - 1] -= 1
        e.loose = 0
    if e.bars or (e.flags & ENTRY_LAST and l.deferred.end != l.deferred.start):
        bars_release(l, e)

cdef inline void bars_let_pass(Bars* b, Entry* e) noexcept nogil:
    """The newest entry's key is one the cache does not know."""
    if e.loose == 0:
        e.loose = 1 + (b.epoch & 1)
        b.loose[e.loose - 1] += 1

cdef inline bint bars_settled(Bars* b, uint32_t since) noexcept nogil:
    """Whether no loose command of the epoch `since`, or an earlier one, is under way."""
    while b.epoch - since < 2 and b.loose[(b.epoch + 1) & 1] == 0:
        b.epoch += 1
    return b.epoch - since >= 2

cdef inline uint16_t bucket_of(uint64_t hash) noexcept nogil:
    return <uint16_t>(hash & (BUCKETS_OF_KEYS - 1))
