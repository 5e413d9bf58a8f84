"""Which space a key of a cluster has, and whether its slot is still there (see slot_watch.pyx)."""
from libc.stddef cimport size_t
from libc.stdint cimport uint16_t, uint64_t
from sidecar.core.cache.store cimport Cache, Space, Value, find_value
from sidecar.core.protocol.slots cimport Slots, slot_of
from sidecar.core.records cimport Session

cdef enum SlotState:
    SLOT_UNKNOWN = 0        # the shard's server is not asked to tell when it loses the slot
    SLOT_ASKED = 1          # it is being asked
    SLOT_WATCHED = 2        # it will tell
    SLOT_STALE = 3          # it has lost the slot: values of it may be here still

cdef enum:
    CHANNEL_MAX = 24        # of the name of a slot's channel

cdef size_t slot_channel(uint16_t slot, char* p) noexcept nogil
cdef void slot_asked(Cache* k, uint16_t space, uint16_t slot) noexcept nogil
cdef void slot_lost(Space* space, uint16_t slot) noexcept nogil
cdef uint16_t slot_of_value(Value* v) noexcept nogil
cdef Value* find_stale(Cache* k, Value* v, const char* key, size_t n) noexcept nogil

cdef inline uint16_t space_of(Cache* k, const Session* s, const char* key,
                              size_t n) noexcept nogil:
    """The space of a key for this session; 0: there is none."""
    cdef const Space* mine = &k.spaces[s.space]
    cdef uint16_t shard
    if mine.parts == NULL:
        return s.space
    shard = (<Slots*>k.core.slots).shard[slot_of(key, n)]
    return mine.parts[shard] if shard < mine.part_count else 0

cdef inline Value* find_watched(Cache* k, uint64_t hash, uint16_t space, uint16_t command,
                                const char* args, size_t n, const char* key,
                                size_t key_size) noexcept nogil:
    """`find_value`, if the key's slot has not left the shard since; what is stale goes."""
    cdef Value* v = find_value(k, hash, space, command, args, n)
    return v if v == NULL or k.spaces[space].slots == NULL else find_stale(k, v, key, key_size)

cdef inline bint value_watched(Cache* k, Value* v) noexcept nogil:
    """Whether the server will tell when it loses the slot of this value."""
    cdef const Space* space = &k.spaces[v.space]
    return space.slots == NULL or space.slots[slot_of_value(v)] == SLOT_WATCHED
