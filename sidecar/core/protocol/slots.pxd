"""Which shard has which slot of a cluster, and which slot has a key (see slots.pyx)."""
from libc.stddef cimport size_t
from libc.stdint cimport uint16_t, uint32_t, uint64_t

cdef enum:
    SLOT_COUNT = 16384
    NO_SHARD = 65535
    ADDRESS_MAX = 262       # of a host name, a colon and a port

cdef struct ServerAddress:
    char text[ADDRESS_MAX]  # as the cluster's servers write it
    uint16_t size
    uint16_t shard          # whose server it is
    bint in_use             # the links to that shard lead there

# The same for all sessions of a plane. Shards are numbered by the shell.
cdef struct Slots:
    uint16_t shard[SLOT_COUNT]      # NO_SHARD: nobody has it, as far as is known
    uint32_t changes                # how often a slot has changed its shard
    uint64_t moved                  # redirections: MOVED,
    uint64_t asked                  #   ASK,
    uint64_t unknown                #   those of both that name a server to which no link leads,
    uint64_t refused                #   and the other answers that mean "not now": see redirection.pyx
    ServerAddress* addresses
    uint32_t count                  # of the addresses
    bint splits                     # commands over several slots are split: gather.pyx
    void* waiting                   # sessions with redirected requests that wait, by next_waiting

cdef uint16_t slot_of(const char* p, size_t n) noexcept nogil
cdef const ServerAddress* server_at(const Slots* slots, const char* p, size_t n) noexcept nogil
cdef const ServerAddress* redirection_target(const Slots* slots, const char* p, size_t n,
                                             int* slot) noexcept nogil
cdef void slots_put(Slots* slots, uint16_t slot, uint16_t shard) noexcept nogil

cdef class SlotTable:
    cdef Slots* slots
