"""Which keys a command is under way for, past the near cache (see barrier.pyx)."""
from libc.stddef cimport size_t
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from sidecar.core.link.fence cimport entry_told
from sidecar.core.records cimport (BUCKETS_OF_KEYS, Barriers, ENTRY_LAST, ENTRY_OPAQUE, Entry, Link)

cdef int barriers_raise(Link* l, Entry* e, uint64_t hash) noexcept nogil
cdef void barriers_raise_all(Link* l, Entry* e, bint drops) noexcept nogil
cdef void barriers_lower(Link* l, Entry* e, bint refused) noexcept nogil
cdef void barriers_abandon(Link* l, uint32_t head, uint32_t tail) noexcept nogil
cdef void barriers_undo(Link* l, uint32_t from_) noexcept nogil

cdef inline bint is_refusal(const Entry* e, char first) noexcept nogil:
    """Whether a reply that begins with this byte says that nothing was executed. Programs put what
    they like into their errors."""
    return first == c'-' and not e.flags & ENTRY_OPAQUE


cdef inline void entry_finished(Link* l, Entry* e, bint refused) noexcept nogil:
    """This entry leaves the ring's head: what it barred may be cached again. `refused`: the server
    said that it did nothing."""
    if e.loose_epoch:
        l.core.barriers.loose[e.loose_epoch - 1] -= 1
        e.loose_epoch = 0
    if e.tells:
        entry_told(l, e, refused)
    if e.barriers or (e.flags & ENTRY_LAST and l.deferred_buckets.end != l.deferred_buckets.start):
        barriers_lower(l, e, refused)

cdef inline void barriers_count_loose(Barriers* b, Entry* e) noexcept nogil:
    """The newest entry's key is one the cache does not know."""
    if e.loose_epoch == 0:
        e.loose_epoch = 1 + (b.epoch & 1)
        b.loose[e.loose_epoch - 1] += 1

cdef inline bint loose_commands_over(Barriers* b, uint32_t since) noexcept nogil:
    """Whether no loose command of the epoch `since`, or an earlier one, is under way."""
    while b.epoch - since < 2 and b.loose[(b.epoch + 1) & 1] == 0:
        b.epoch += 1
    return b.epoch - since >= 2

cdef inline uint16_t bucket_of(uint64_t hash) noexcept nogil:
    return <uint16_t>(hash & (BUCKETS_OF_KEYS - 1))
