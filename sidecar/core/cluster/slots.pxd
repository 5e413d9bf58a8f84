"""Which shard has which slot of a cluster, and which slot has a key (see slots.pyx)."""
from libc.stddef cimport size_t
from libc.stdint cimport uint16_t, uint32_t

cdef enum:
    SLOT_COUNT = 16384
    NO_SHARD = 65535
    ADDRESS_MAX = 262       # of a host name, a colon and a port

cdef struct ShardAddress:
    char text[ADDRESS_MAX]
    uint16_t size

# The same for all sessions of a plane. Shards are numbered by the shell.
cdef struct Slots:
    uint16_t shard[SLOT_COUNT]      # NO_SHARD: nobody has it, as far as is known
    uint32_t changes                # how often a slot has changed its shard
    uint32_t moved                  # redirections that told of another shard,
    uint32_t unknown                #   and those to an address that no shard has
    ShardAddress* addresses         # of each shard, as its servers write it
    uint16_t count                  # shards

cdef uint16_t slot_of(const char* p, size_t n) noexcept nogil
cdef uint16_t shard_at(const Slots* slots, const char* p, size_t n) noexcept nogil
cdef void slots_put(Slots* slots, uint16_t slot, uint16_t shard) noexcept nogil
