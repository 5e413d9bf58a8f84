"""What the near cache holds: values by (space, command, arguments), and the keys they are of.

    Cache.keys   -> KeyRecord -> its values in all spaces, by `sibling`
    Cache.values -> Value (hash, arguments, reply in RESP3 and, where it differs, in RESP2)

Memory counts. With rules a record lives as long as its values, and its key's bytes are theirs;
otherwise it is a NamedKey, which may have no values. A value that is being read has a Fill before it,
and counts for what its request takes on the way to the server too.

This file has the structures, and what is looked up for every command; store.pyx has the rest.
serve.pyx decides what is served, fill.pyx what is read.
"""
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp
from sidecar.core.link.barrier cimport loose_commands_over, bucket_of
from sidecar.core.hashing cimport sidecar_fold, sidecar_hash
from sidecar.core.protocol.commands cimport Command
from sidecar.core.protocol.cursor cimport Cursor, cursor_next, cursor_on
from sidecar.core.records cimport Core, Session

cdef enum CacheMode:
    CACHE_OBSERVE = 1       # counts what it would have served
    CACHE_HOT = 2           # keys that the detector names
    CACHE_RULES = 3         # keys that a rule names

cdef enum:
    SPACES = 1024
    RULES_MAX = 64
    USED_MOST = 16384       # values in the list of those served (touch.pyx): a power of two
    NO_FORM = 0xffffffff    # Value.resp2_size: the reply cannot be put into RESP2's form
    ASKING = 128            # what a request takes beside the value's arguments, twice (tracked.pyx)

# What the tables hold: the beginning of a KeyRecord and of a Value.
cdef struct Chained:
    Chained* next
    uint32_t hash

cdef struct KeyRecord:
    KeyRecord* next
    uint32_t hash
    uint8_t wanted          # hot: may be cached
    uint8_t poor            # reading it in spite of commands under way has not paid, lately
    uint8_t ghost           # observe: its value would be here
    Value* values

cdef struct NamedKey:
    KeyRecord record
    uint32_t since          # epoch when it was made: see barrier.pyx
    uint32_t size           # of the key, whose bytes follow

cdef struct Fill:
    Session* waiting
    Value* next             # the next one put off, or of those that a request has begun
    int tries
    bint waiting_for_quiet  # put off: not asked for yet
    bint forced             # asked for while commands were under way: those who come wait
    bint wished             # nobody asked: it was to be here (warm start)
    uint64_t asked_at
    uint32_t begun
    uint32_t begun_all
    bint doomed             # what is being read must not be stored
    bint large              # more of it has come than is kept

cdef struct Value:
    Value* next
    uint32_t hash
    uint32_t args_size      # bytes of the request after the command's name,
    Value* sibling          # other values of the same key
    KeyRecord* key
    uint32_t reply_size     # of the reply in RESP3,
    uint32_t resp2_size     # and in RESP2 where that differs; they follow the record
    uint32_t expires        # milliseconds of the cache's own clock
    uint16_t space
    uint16_t command
    uint16_t served
    uint8_t used
    uint8_t forced
    uint8_t reading         # it is not here yet: see `fill_of`
    uint8_t large           # it is larger than `value_max`: known, not kept
    uint8_t hits            # times it was served since its key was last touched (touch.pyx)

cdef struct Space:
    bint used
    uint64_t proved_at      # all invalidations from before this moment (Core.clock) are here; 0: no
    uint64_t answered_request  # and from before this request on its link was queued (Barriers.tracked_requests)
    void* link              # the Tracked that reads for it; NULL: none
    Session* waiting        # for a proof
    uint32_t values         # here, or being read
    uint8_t* slots          # of a shard: SlotState of each slot (slot_watch.pyx); NULL: of one server
    uint16_t* parts         # of a cluster's: the space for each shard; NULL: it has one itself
    uint16_t part_count
    Space* next_awake
    bint busy               # its link is taken up by a reply that is too large to be kept
    bint awake              # served from, or waited for, since its last heartbeat for a fence

cdef struct Rule:
    char* prefix
    size_t size
    bint never
    uint64_t ttl            # microseconds; 0: the cache's own
    uint64_t staleness      # likewise

cdef struct Counts:
    uint64_t hits
    uint64_t ghost_hits
    uint64_t fills
    uint64_t stored
    uint64_t evicted
    uint64_t expired
    uint64_t flushed        # times that everything was dropped
    uint64_t dropped_here   # values dropped for a command of our own
    uint64_t dropped_pushed  # for a push of the server
    uint64_t miss_cold
    uint64_t miss_lease
    uint64_t miss_barred    # a value read was not stored: something was under way
    uint64_t miss_filling
    uint64_t miss_told      # news was on its way to the client, or behind it and not proved yet
    uint64_t miss_size
    uint64_t miss_error
    uint64_t bypassed
    uint64_t waited         # for the proof that all is here that was told of
    uint64_t checked        # values that were here were read again and compared:
    uint64_t mismatched     # they were not what the server has
    uint64_t touched        # keys named to the server as in use

cdef struct Cache:
    Core* core
    KeyRecord** keys        # tables of chains; both have as many
    Value** values
    uint32_t slots          # chains in use,
    uint32_t slots_max      # of so many there is room for
    uint32_t mask           # the power of two that is not less than `slots`, less one
    uint32_t count
    uint32_t reading        # of those, values that are not here yet
    uint64_t seed
    uint64_t start          # Core.clock at its beginning
    uint64_t random         # state of next_random
    size_t bytes            # what records, values and their places in the tables take
    size_t budget
    size_t value_max
    uint64_t staleness      # how old a value may be, at most, microseconds
    uint64_t ttl_max
    uint64_t ttl_missing
    int mode
    bint due                # something was queued on a tracked link since the shell last looked
    const Command* commands  # the command table's rows, by id
    uint32_t check_every    # one answer in so many is compared with the server's; 0: none
    uint32_t check_in       # answers until the next
    bint in_cluster         # the server belongs to a cluster
    bint tells_use          # the server is told which keys are in use: see touch.pyx
    uint32_t* used          # hashes of values served since they were last told of,
    uint32_t used_head      # a ring of USED_MOST
    uint32_t used_tail
    uint16_t get_id
    uint16_t geopos_id
    uint16_t zrank_id
    uint16_t zrevrank_id
    uint16_t acl_id
    Rule rules[RULES_MAX]
    int rule_count
    Value* put_off
    Space* awake
    Space spaces[SPACES]
    Counts counts

cdef KeyRecord* make_key(Cache* k, uint64_t hash, const char* key, size_t n) noexcept nogil
cdef void leave_key(Cache* k, KeyRecord* r) noexcept nogil
cdef uint64_t hash_of(Cache* k, Value* v) noexcept nogil
cdef void unlink_value(Cache* k, Value* v) noexcept nogil
cdef void link_value(Cache* k, Value* v) noexcept nogil
cdef void drop_value(Cache* k, Value* v) noexcept nogil
cdef void free_value(Value* v) noexcept nogil
cdef int drop_values(Cache* k, KeyRecord* r, bint read) noexcept nogil
cdef void cache_drop_key(Cache* k, const char* key, size_t n, bint pushed) noexcept nogil
cdef void cache_drop_all(Cache* k) noexcept nogil
cdef void drop_what_is_due(Cache* k) noexcept nogil
cdef void cache_drop_space(Cache* k, uint16_t space) noexcept nogil
cdef Value* cache_any_of(Cache* k, uint16_t space) noexcept nogil
cdef void evict(Cache* k, size_t room) noexcept nogil
cdef bint may_be_wanted(Cache* k, const char* key, size_t n) noexcept nogil
cdef bint wanted(Cache* k, uint64_t hash, const char* key, size_t n) noexcept nogil

cdef inline char* value_bytes(Value* v) noexcept nogil:
    return <char*>v + sizeof(Value)


cdef inline void value_cursor(Cursor* c, Value* v) noexcept nogil:
    """Read a value's arguments. They are whole, and the key is the first of them."""
    cursor_on(c, value_bytes(v), v.args_size)


cdef inline uint32_t now_ms(Cache* k) noexcept nogil:
    return <uint32_t>((k.core.clock - k.start) // 1000)


cdef inline Fill* fill_of(Value* v) noexcept nogil:
    """How it is being read; NULL: it is here."""
    return <Fill*>v - 1 if v.reading else NULL


cdef inline size_t block(size_t n) noexcept nogil:
    """What n bytes take of the allocator: glibc's has 8 for itself, in steps of 16."""
    return (n + 8 + 15) & ~<size_t>15


cdef inline size_t value_size(const Value* v) noexcept nogil:
    cdef size_t n = sizeof(Value) + v.args_size + v.reply_size
    if v.resp2_size != NO_FORM:
        n += v.resp2_size
    if v.reading:
        n += sizeof(Fill) + ASKING + 2 * v.args_size
    return block(n) + sizeof(KeyRecord*) + sizeof(Value*)


# Chains are added one at a time, as values come (linear hashing): what is looked up is as dense as
# can be, and nobody waits for a table to be made anew.

cdef inline uint32_t slot_of(const Cache* k, uint32_t hash) noexcept nogil:
    cdef uint32_t slot = hash & k.mask
    return slot if slot < k.slots else slot & (k.mask >> 1)


cdef inline bint knows(Cache* k, uint64_t hash) noexcept nogil:
    """Whether there may be a record of the key: of most there is none."""
    return k.core.barriers.known[bucket_of(hash)] != 0


cdef inline const char* key_of(Cache* k, const KeyRecord* r, size_t* n) noexcept nogil:
    """The key a record is of. With rules it must have a value."""
    cdef Cursor c
    if k.mode == CACHE_RULES:
        value_cursor(&c, r.values)
        cursor_next(&c)
        n[0] = c.size
        return c.arg
    n[0] = (<NamedKey*>r).size
    return <char*>r + sizeof(NamedKey)


cdef inline bint is_of(Cache* k, const KeyRecord* r, const char* key, size_t n) noexcept nogil:
    cdef size_t size = 0
    cdef const char* p = key_of(k, r, &size)
    return size == n and memcmp(p, key, n) == 0


cdef inline bint settled(Cache* k, const KeyRecord* r) noexcept nogil:
    """Whether all commands on the key from before its record was made are over. With rules there
    are none: there are barriers on the keys they name, whether these have records or not."""
    return k.mode == CACHE_RULES or loose_commands_over(k.core.barriers, (<NamedKey*>r).since)


cdef inline KeyRecord* find_key(Cache* k, uint64_t hash, const char* key, size_t n) noexcept nogil:
    cdef KeyRecord* r
    if not knows(k, hash):
        return NULL
    r = k.keys[slot_of(k, <uint32_t>hash)]
    while r != NULL:
        if r.hash == <uint32_t>hash and is_of(k, r, key, n):
            return r
        r = r.next
    return NULL


cdef inline uint64_t value_hash(Cache* k, uint16_t space, uint16_t command, uint64_t key_hash,
                                const char* rest, size_t n) noexcept nogil:
    """Of a command's arguments: its key's hash, and rest[0:n], what follows the key."""
    cdef uint64_t h = sidecar_fold(key_hash ^ (<uint64_t>space << 32) ^ <uint64_t>command,
                                  k.seed | 1)
    return h if n == 0 else sidecar_hash(h, rest, n)


cdef inline Value* find_value(Cache* k, uint64_t hash, uint16_t space, uint16_t command,
                       const char* args, size_t n) noexcept nogil:
    cdef Value* v = k.values[slot_of(k, <uint32_t>hash)]
    while v != NULL:
        if v.hash == <uint32_t>hash and v.args_size == n and v.space == space \
                and v.command == command and memcmp(value_bytes(v), args, n) == 0:
            return v
        v = v.next
    return NULL


cdef inline const Rule* rule_for(Cache* k, const char* key, size_t n) noexcept nogil:
    """The first rule whose prefix the key has, or NULL."""
    cdef int i
    for i in range(k.rule_count):
        if k.rules[i].size <= n and memcmp(k.rules[i].prefix, key, k.rules[i].size) == 0:
            return &k.rules[i]
    return NULL


cdef inline bint has_room(const Cache* k, size_t n) noexcept nogil:
    """Whether a value of n bytes of arguments may be read within the budget."""
    return k.bytes + sizeof(Fill) + sizeof(Value) + ASKING + 3 * n <= k.budget
