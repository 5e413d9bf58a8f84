# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The near cache's store: what is served from here, and when it no longer may be.

    request --> value by (space, command, arguments) --> here, and its space's lease runs: SERVED
                  | not here: is its key wanted?       --> no: PASS, past the cache
                  v
                a value without bytes (`fill`), asked for on the space's tracked link; who asks for
                the same meanwhile waits for the same reading: single flight

A *space* is one (user, database): nobody is served what another user's connection has read. Its
tracked link (tracked.pyx) reads values, and gets the server's invalidations in the same stream
of bytes. A value may be served until its own deadline (the key's TTL when it was read, or less),
and for `staleness` microseconds from the sending of the newest request that the tracked link has
answered (`proved`). All invalidations from before that moment have been received then, so a value
is never older than that: the bound is proved by each answer, and ends by itself without any.

Own commands: see bars.pyx. Every command that goes past the cache drops its keys' values, and
while it is under way none is stored.

Invalidations name keys without their database, so a key's record holds its values in all spaces
(`sibling`), and dropping a key drops them all. Replies are kept in RESP3's form, as the tracked
link speaks it, and in RESP2's where it differs.

Memory is bounded by `budget`: beyond it, of a few values looked at by chance the one that was
used least goes; each look halves what is known of a value's use, so old fame fades. Hashes are seeded, since keys are a client's bytes.
"""
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memchr, memcmp, memcpy
from sidecar.core.bars cimport (bars_let_pass, bars_settled, bars_take, bars_take_all, bucket_of)
from sidecar.core.commands cimport COMMAND_CACHEABLE, COMMAND_CACHEABLE_EACH, Command, FORM_MASK, FORM_ONE
from sidecar.core.keys cimport KeySpan, find_keys, first_key
from sidecar.core.link cimport link_local, session_mark, session_say
from sidecar.core.memory cimport Buffer, buffer_append, buffer_head, buffer_release, buffer_size
from sidecar.core.records cimport Bar, Bars, Core, ENTRY_IN_MULTI, Entry, Link, Session
from sidecar.core.request cimport Scanner
from sidecar.core.resp2 cimport to_resp2

cdef enum:
    KEYS_MOST = 64
    ROUNDS = 4              # times a value is put off before it is asked for, come what may
    PAYS = 32               # answers from a value asked for at the expense of those who waited
    PATIENCE = 200          # and if there were fewer, chances let go before it is tried again
    TRIES = 3               # readings of a value before those who wait for it go past the cache
    LOOKS = 6               # values looked at for each one evicted
    MANY_MOST = 128         # keys of an MGET that may be served from here
    SLOTS_LEAST = 1024      # chains of the tables, to begin with

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    static inline uint64_t sidecar_mix(uint64_t a, uint64_t b) {
        /* 64 x 64 -> 128 bits, folded; in halves, where the compiler has no 128-bit type. */
    #ifdef __SIZEOF_INT128__
        unsigned __int128 r = (unsigned __int128)a * b;
        return (uint64_t)r ^ (uint64_t)(r >> 64);
    #else
        uint64_t ah = a >> 32, al = (uint32_t)a, bh = b >> 32, bl = (uint32_t)b;
        uint64_t hh = ah * bh, hl = ah * bl, lh = al * bh, ll = al * bl;
        uint64_t mid = (ll >> 32) + (uint32_t)hl + (uint32_t)lh;
        return ((mid << 32) | (uint32_t)ll) ^ (hh + (hl >> 32) + (lh >> 32) + (mid >> 32));
    #endif
    }
    static inline uint64_t sidecar_hash(uint64_t seed, const char *p, size_t n) {
        const uint64_t k = 0x9e3779b97f4a7c15ull;
        uint64_t h = seed ^ (n * k), w = 0;
        while (n >= 8) {
            memcpy(&w, p, 8);
            h = sidecar_mix(h ^ w, k ^ seed);
            p += 8;
            n -= 8;
        }
        w = 0;
        memcpy(&w, p, n);
        h = sidecar_mix(h ^ w, k ^ seed);
        return sidecar_mix(h, seed ^ k);
    }
    """
    uint64_t sidecar_mix(uint64_t a, uint64_t b) nogil
    uint64_t sidecar_hash(uint64_t seed, const char* p, size_t n) nogil


cdef inline char* key_bytes(KeyRecord* r) noexcept nogil:
    return <char*>r + sizeof(KeyRecord)


cdef inline char* value_bytes(Value* v) noexcept nogil:
    return <char*>v + sizeof(Value)


cdef inline uint32_t now_ms(Cache* k) noexcept nogil:
    return <uint32_t>((k.core.clock - k.start) // 1000)


cdef inline size_t value_size(const Value* v) noexcept nogil:
    cdef size_t n = sizeof(Value) + v.args + v.reply
    return n + v.reply2 if v.reply2 != NO_FORM else n


# The tables. Chains are added one at a time, as values come (linear hashing): what is looked up is
# as dense as can be, and nobody waits for a table to be made anew.

cdef inline uint32_t slot_of(const Cache* k, uint32_t hash) noexcept nogil:
    cdef uint32_t slot = hash & k.mask
    return slot if slot < k.slots else slot & (k.mask >> 1)


cdef void split_slot(Cache* k) noexcept nogil:
    """Add a chain to each table: it takes what belongs there from the one it was part of."""
    cdef uint32_t slot = k.slots
    cdef Value** v
    cdef KeyRecord** r
    cdef Value* value
    cdef KeyRecord* record
    k.slots += 1
    if slot > k.mask:
        k.mask = 2 * k.mask + 1
    v = &k.values[slot & (k.mask >> 1)]
    while v[0] != NULL:
        value = v[0]
        if slot_of(k, value.hash) == slot:
            v[0] = value.next
            value.next = k.values[slot]
            k.values[slot] = value
        else:
            v = &value.next
    r = &k.keys[slot & (k.mask >> 1)]
    while r[0] != NULL:
        record = r[0]
        if slot_of(k, record.hash) == slot:
            r[0] = record.next
            record.next = k.keys[slot]
            k.keys[slot] = record
        else:
            r = &record.next


# Records of keys.

cdef inline bint knows(Cache* k, uint64_t hash) noexcept nogil:
    """Whether there may be a record of the key: of most there is none."""
    return k.core.bars.known[bucket_of(hash)] != 0


cdef KeyRecord* find_key(Cache* k, uint64_t hash, const char* key, size_t n) noexcept nogil:
    cdef KeyRecord* r
    if not knows(k, hash):
        return NULL
    r = k.keys[slot_of(k, <uint32_t>hash)]
    while r != NULL:
        if r.hash == <uint32_t>hash and r.size == n and memcmp(key_bytes(r), key, n) == 0:
            return r
        r = r.next
    return NULL


cdef KeyRecord* make_key(Cache* k, uint64_t hash, const char* key, size_t n) noexcept nogil:
    cdef KeyRecord* r = find_key(k, hash, key, n)
    cdef KeyRecord** slot
    cdef uint8_t* known = &k.core.bars.known[bucket_of(hash)]
    if r != NULL:
        return r
    r = <KeyRecord*>calloc(1, sizeof(KeyRecord) + n)
    if r == NULL:
        return NULL
    r.hash, r.size = <uint32_t>hash, <uint32_t>n
    memcpy(key_bytes(r), key, n)
    slot = &k.keys[slot_of(k, <uint32_t>hash)]
    r.next = slot[0]
    slot[0] = r
    # With rules, the keys they name are barred whether there are records of them or not.
    r.since = k.core.bars.epoch
    if k.mode == CACHE_RULES and wanted(k, hash, key, n):
        r.since -= 2
    known[0] += known[0] != 255
    k.bytes += sizeof(KeyRecord) + n
    return r


cdef void leave_key(Cache* k, KeyRecord* r) noexcept nogil:
    """Free the record if nothing needs it."""
    cdef uint64_t hash
    cdef KeyRecord** slot
    cdef uint8_t* known
    if r.values != NULL or r.wanted:
        return
    hash = sidecar_hash(k.seed, key_bytes(r), r.size)
    slot = &k.keys[slot_of(k, <uint32_t>hash)]
    while slot[0] != r:
        slot = &slot[0].next
    slot[0] = r.next
    known = &k.core.bars.known[bucket_of(hash)]
    known[0] -= known[0] != 255     # how many there are of 255 is not known
    k.bytes -= sizeof(KeyRecord) + r.size
    free(r)


# Values.

cdef inline uint64_t value_hash(Cache* k, uint16_t space, uint16_t command, uint64_t key_hash,
                                const char* rest, size_t n) noexcept nogil:
    """Of a command's arguments: its key's hash, and rest[0:n], what follows the key."""
    cdef uint64_t h = sidecar_mix(key_hash ^ (<uint64_t>space << 32) ^ <uint64_t>command,
                                  k.seed | 1)
    return h if n == 0 else sidecar_hash(h, rest, n)


cdef uint64_t hash_of(Cache* k, Value* v) noexcept nogil:
    """`value_hash` of a value that is there."""
    cdef KeyRecord* r = v.key
    cdef size_t size = 0
    cdef size_t head = argument(value_bytes(v), &size) + size + 2
    return value_hash(k, v.space, v.command, sidecar_hash(k.seed, key_bytes(r), r.size),
                      value_bytes(v) + head, v.args - head)


cdef Value* find_value(Cache* k, uint64_t hash, uint16_t space, uint16_t command,
                       const char* args, size_t n) noexcept nogil:
    cdef Value* v = k.values[slot_of(k, <uint32_t>hash)]
    while v != NULL:
        if v.hash == <uint32_t>hash and v.args == n and v.space == space \
                and v.command == command and memcmp(value_bytes(v), args, n) == 0:
            return v
        v = v.next
    return NULL


cdef void unlink_value(Cache* k, Value* v) noexcept nogil:
    """Take a value out of the tables. Its key's record stays."""
    cdef Value** slot = &k.values[slot_of(k, v.hash)]
    while slot[0] != v:
        slot = &slot[0].next
    slot[0] = v.next
    slot = &v.key.values
    while slot[0] != v:
        slot = &slot[0].sibling
    slot[0] = v.sibling
    k.bytes -= value_size(v)
    k.count -= 1


cdef void link_value(Cache* k, Value* v, uint64_t hash) noexcept nogil:
    cdef Value** slot = &k.values[slot_of(k, <uint32_t>hash)]
    v.next = slot[0]
    slot[0] = v
    v.sibling = v.key.values
    v.key.values = v
    k.bytes += value_size(v)
    k.count += 1
    if k.count > k.slots and k.slots < k.slots_max:
        split_slot(k)


cdef void drop_value(Cache* k, Value* v) noexcept nogil:
    cdef KeyRecord* r = v.key
    unlink_value(k, v)
    free(v)
    leave_key(k, r)


cdef int drop_values(Cache* k, KeyRecord* r) noexcept nogil:
    """All values of a key: those that are here go, those being read will not be stored."""
    cdef Value* v = r.values
    cdef Value* after
    cdef int dropped = 0
    r.ghost = False
    while v != NULL:
        after = v.sibling
        if v.fill != NULL:
            v.fill.doomed = True
        else:
            if v.forced:
                r.poor = PATIENCE if v.served < PAYS else 0
            unlink_value(k, v)
            free(v)
            dropped += 1
        v = after
    leave_key(k, r)
    return dropped


cdef void cache_drop_key(Cache* k, const char* key, size_t n, bint pushed) noexcept nogil:
    """Drop a key's values, in all spaces. `pushed`: the server said so."""
    cdef KeyRecord* r = find_key(k, sidecar_hash(k.seed, key, n), key, n)
    cdef int dropped
    if r == NULL:
        return
    dropped = drop_values(k, r)
    if pushed:
        k.counts.dropped_pushed += dropped
    else:
        k.counts.dropped_here += dropped


cdef void cache_drop_all(Cache* k) noexcept nogil:
    """Drop every value; what is being read will not be stored."""
    cdef uint32_t i
    cdef KeyRecord* r
    cdef KeyRecord* after
    k.counts.flushed += 1
    if k.count == 0 and k.mode != CACHE_OBSERVE:
        return
    for i in range(k.slots):
        r = k.keys[i]
        while r != NULL:
            after = r.next
            drop_values(k, r)
            r = after


cdef void cache_drop_space(Cache* k, uint16_t space) noexcept nogil:
    """Drop every value of one space; nothing is proved of it any more."""
    cdef uint32_t i
    cdef Value* v
    cdef Value* after
    k.spaces[space].proved = 0
    for i in range(k.slots):
        v = k.values[i]
        while v != NULL:
            after = v.next
            if v.space == space:
                if v.fill != NULL:
                    v.fill.doomed = True
                else:
                    drop_value(k, v)
            v = after


cdef void evict(Cache* k) noexcept nogil:
    """Let go of values until the budget holds."""
    cdef uint32_t now = now_ms(k)
    cdef Value* v
    cdef Value* victim
    cdef uint32_t i, looked, empty
    while k.bytes > k.budget and k.count:
        victim = NULL
        looked = empty = 0
        while looked < LOOKS and empty < k.slots:
            i = <uint32_t>chance(k) % k.slots
            v = k.values[i]
            while v == NULL and empty < k.slots:
                i = (i + 1) % k.slots
                v = k.values[i]
                empty += 1
            while v != NULL:
                if v.fill == NULL:
                    looked += 1
                    if <int32_t>(v.until - now) <= 0:
                        v.used = 0
                    if victim == NULL or v.used < victim.used:
                        victim = v
                    v.used >>= 1
                v = v.next
            empty += 1
        if victim == NULL:
            return
        drop_value(k, victim)
        k.counts.evicted += 1


# Serving.

cdef bint arguments(const char* p, size_t n, size_t* at) noexcept nogil:
    """Where the arguments of a whole request begin, after the command's name."""
    cdef const char* line = <const char*>memchr(p, 10, n)
    cdef size_t i, size = 0
    if line == NULL:
        return False
    i = <size_t>(line - p) + 2
    while p[i] != 13:
        size = size * 10 + <size_t>(p[i] - 48)
        i += 1
    at[0] = i + 4 + size
    return at[0] < n


cdef size_t argument(const char* p, size_t* size) noexcept nogil:
    """The argument at p ($n CRLF bytes CRLF): its size, and how far in its bytes begin."""
    cdef size_t i = 1
    cdef size_t v = 0
    while p[i] != 13:
        v = v * 10 + <size_t>(p[i] - 48)
        i += 1
    size[0] = v
    return i + 2


cdef const Rule* rule_for(Cache* k, const char* key, size_t n) noexcept nogil:
    """The first rule whose prefix the key has, or NULL."""
    cdef int i
    for i in range(k.rule_count):
        if k.rules[i].size <= n and memcmp(k.rules[i].prefix, key, k.rules[i].size) == 0:
            return &k.rules[i]
    return NULL


cdef bint wanted(Cache* k, uint64_t hash, const char* key, size_t n) noexcept nogil:
    """Whether this key is one to be cached."""
    cdef const Rule* rule = rule_for(k, key, n) if k.rule_count else NULL
    cdef KeyRecord* r
    if rule != NULL and rule.never:
        return False
    if k.mode == CACHE_RULES:
        return rule != NULL
    r = find_key(k, hash, key, n)
    return r != NULL and r.wanted != 0


cdef bint fresh(Cache* k, Value* v) noexcept nogil:
    """Whether a value that is here may be served; one that is too old goes."""
    if <int32_t>(v.until - now_ms(k)) <= 0:
        k.counts.expired += 1
        drop_value(k, v)
        return False
    return True


cdef int give(Session* s, Command* c, const char* p, size_t n) noexcept nogil:
    """A reply for the session, now or behind those it waits for."""
    s.core.stats.calls[c.id] += 1
    if s.outstanding == 0:
        session_say(s, p, n)
    elif link_local(s.link, s, p, n) < 0:
        return PASS
    return SERVED


cdef inline const char* form(Value* v, uint8_t proto, size_t* n) noexcept nogil:
    """The reply in the form of this protocol; NULL when there is none."""
    cdef const char* p = value_bytes(v) + v.args
    if proto != 2 or v.reply2 == 0:
        n[0] = v.reply
        return p
    if v.reply2 == NO_FORM:
        return NULL
    n[0] = v.reply2
    return p + v.reply


cdef inline bint lease_runs(Cache* k, uint16_t space, const char* key, size_t n) noexcept nogil:
    """Whether the space has proved, recently enough, that it has all invalidations."""
    cdef uint64_t bound = k.staleness
    cdef const Rule* rule
    if k.rule_count:
        rule = rule_for(k, key, n)
        if rule != NULL and rule.staleness and rule.staleness < bound:
            bound = rule.staleness
    return k.core.clock < k.spaces[space].proved + bound


cdef int look(Session* s, Command* c, const char* args, size_t n, const char* key,
              size_t key_size, uint64_t key_hash, Value** found) noexcept nogil:
    """Find the value that answers: SERVED; FILLING: it is being read; ASK: it may be (`begin`).
    """
    cdef Cache* k = <Cache*>s.core.cache
    cdef uint16_t id = k.get_id if c.flags & COMMAND_CACHEABLE_EACH else c.id
    cdef Value* v = NULL
    cdef KeyRecord* r
    if k.mode == CACHE_HOT and not knows(k, key_hash):
        return PASS
    if knows(k, key_hash):
        v = find_value(k, hash_for(s, id, args, n, key, key_size, key_hash), s.space, id, args, n)
    found[0] = v
    if v != NULL and v.fill != NULL:
        k.counts.miss_filling += 1
        return PASS if v.fill.waiting_for_quiet and not has_time(s) else FILLING
    if v != NULL and fresh(k, v):
        if lease_runs(k, s.space, key, key_size):
            v.used += v.used < 255
            v.served += v.served < 65535
            return SERVED
        k.counts.miss_lease += 1
        return PASS
    if not wanted(k, key_hash, key, key_size):
        return PASS
    if k.spaces[s.space].link == NULL:
        k.counts.miss_lease += 1
        return PASS
    r = find_key(k, key_hash, key, key_size)
    if being_written(k, key_hash) or (r != NULL and not bars_settled(k.core.bars, r.since)):
        k.counts.miss_barred += 1
        return PASS             # a value read now could not be stored
    return ASK


cdef inline uint64_t hash_for(Session* s, uint16_t id, const char* args, size_t n,
                              const char* key, size_t key_size, uint64_t key_hash) noexcept nogil:
    cdef size_t head = <size_t>(key - args) + key_size + 2
    return value_hash(<Cache*>s.core.cache, s.space, id, key_hash, args + head, n - head)


cdef int begin(Session* s, Command* c, const char* args, size_t n, const char* key,
               size_t key_size, uint64_t key_hash, Value** chain) noexcept nogil:
    """After ASK: begin to read it, at once or, in the middle of a pipeline, soon. PUT_OFF, ASK with
    the value put before `chain`, or PASS."""
    cdef Cache* k = <Cache*>s.core.cache
    cdef uint16_t id = k.get_id if c.flags & COMMAND_CACHEABLE_EACH else c.id
    cdef Value* v = begin_fill(k, hash_for(s, id, args, n, key, key_size, key_hash), key_hash,
                               s.space, id, args, n, key, key_size)
    if v == NULL:
        return PASS
    k.counts.miss_cold += 1
    if not has_time(s):
        put_off(k, v)
        chain[0] = v
        return PUT_OFF
    v.fill.after = chain[0]
    chain[0] = v
    return ASK


cdef Value* cache_begin(Cache* k, uint16_t space, Command* c, const char* p, size_t n,
                        const Scanner* scan) noexcept nogil:
    """Begin to read what answers the whole request p[0:n], as if somebody had asked; its key is
    wanted from now on. NULL when it is here, is being read, or can't be."""
    cdef size_t at = 0
    cdef size_t size = 0
    cdef size_t head
    cdef uint64_t key_hash, hash
    cdef Value* v
    cdef KeySpan key
    if not c.flags & COMMAND_CACHEABLE or not arguments(p, n, &at) or k.bytes + n > k.budget \
            or not first_key(c, p, scan.name_at, scan.name_len, scan.argc, &key):
        return NULL
    head = argument(p + at, &size)
    key_hash = sidecar_hash(k.seed, p + at + head, size)
    hash = value_hash(k, space, c.id, key_hash, p + at + head + size + 2,
                      n - at - head - size - 2)
    if find_value(k, hash, space, c.id, p + at, n - at) != NULL or being_written(k, key_hash):
        return NULL
    v = begin_fill(k, hash, key_hash, space, c.id, p + at, n - at, p + at + head, size)
    if v != NULL:
        v.key.wanted = True
    return v


cdef inline bint has_time(const Session* s) noexcept nogil:
    """Whether the session loses nothing by waiting: nothing of it is under way, and nothing lies
    behind. One in the middle of a pipeline would be cut in two."""
    return s.outstanding == 0 and not s.core.more


cdef bint cache_check_due(Cache* k) noexcept nogil:
    """Whether the answer just given is one to be compared with the server's: at random, one in
    `check_every` on average."""
    if k.check_every == 0:
        return False
    k.check_in -= 1
    if k.check_in:
        return False
    draw_check(k)
    return True


cdef void draw_check(Cache* k) noexcept nogil:
    """How many answers until the next that is compared."""
    k.check_in = 1 + <uint32_t>(chance(k) % (2 * <uint64_t>k.check_every - 1))


cdef uint64_t cache_value_hash(Cache* k, Value* v) noexcept nogil:
    """By which it is found again, if it is still there."""
    return hash_of(k, v)


cdef void cache_compare(Cache* k, uint64_t hash, uint16_t space, uint16_t command,
                        const char* args, size_t n, const char* reply, size_t size) noexcept nogil:
    """The server has answered a read on the tracked link of `space`: is the value that is here the
    same?

    Whatever changed it since it was read there has been pushed before this reply, and own commands
    drop it when they are begun. So a value that is still here has to be what the server has, or the
    contract is broken; it goes, then.
    """
    cdef Value* v = find_value(k, hash, space, command, args, n)
    if v == NULL or v.fill != NULL or <int32_t>(v.until - now_ms(k)) <= 0:
        return
    k.counts.checked += 1
    if v.reply == size and (memcmp(value_bytes(v) + v.args, reply, size) == 0
                            or shuffled(k, value_bytes(v) + v.args, size)
                            == shuffled(k, reply, size)):
        return
    k.counts.mismatched += 1
    drop_values(k, v.key)


cdef uint64_t shuffled(Cache* k, const char* p, size_t n) noexcept nogil:
    """A hash of the lines, whatever their order: sets and hashes have none."""
    cdef uint64_t h = 0
    cdef size_t size
    cdef const char* line
    if p[0] != c'*' and p[0] != c'~' and p[0] != c'%':
        return sidecar_hash(k.seed, p, n)
    while n:
        line = <const char*>memchr(p, 10, n)
        size = n if line == NULL else <size_t>(line - p) + 1
        h += sidecar_hash(k.seed, p, size)
        p += size
        n -= size
    return h


cdef inline uint64_t chance(Cache* k) noexcept nogil:
    """xorshift64; its upper bits are the better ones."""
    k.chance ^= k.chance << 13
    k.chance ^= k.chance >> 7
    k.chance ^= k.chance << 17
    return k.chance >> 24


cdef void wait_for(Session* s, Value* v) noexcept nogil:
    """The session waits for a value that is being read, or will be soon: now at once."""
    cdef Cache* k = <Cache*>s.core.cache
    k.due = k.due or v.fill.waiting_for_quiet
    s.value = v
    s.next_waiting = v.fill.waiting
    v.fill.waiting = s


cdef void put_off(Cache* k, Value* v) noexcept nogil:
    """Have a value asked for when no command on its key is under way, or soon at any rate."""
    v.fill.waiting_for_quiet = True
    v.fill.after = k.put_off
    k.put_off = v
    k.due = True


cdef bint cache_may_ask(Cache* k, Value* v) noexcept nogil:
    """Whether a value that was put off is to be asked for now; it is put off again, or given up,
    otherwise."""
    cdef KeyRecord* r = v.key
    cdef uint64_t hash = sidecar_hash(k.seed, key_bytes(r), r.size)
    cdef Bar* bar = &k.core.bars.sets[bucket_of(hash)]
    cdef bint quiet = bar.pending == 0 and k.core.bars.pending_all == 0
    v.fill.tries += 1
    if not quiet and v.fill.waiting == NULL:
        if v.fill.tries < ROUNDS:
            put_off(k, v)
            return False
        if r.poor:
            r.poor -= 1
        if r.poor or being_written(k, hash):
            cache_not_filled(k, v)
            return False
    v.fill.waiting_for_quiet = False
    v.fill.forced = not quiet
    v.fill.tries = 0
    begin_reading(k, v, hash)
    return True


cdef inline bint being_written(Cache* k, uint64_t hash) noexcept nogil:
    cdef Bars* b = k.core.bars
    return b.pending_all != 0 or b.sets[bucket_of(hash)].writing != 0


cdef void begin_reading(Cache* k, Value* v, uint64_t key_hash) noexcept nogil:
    """The value is asked for now: note what counts from here on."""
    cdef Bars* b = k.core.bars
    cdef uint16_t bucket = bucket_of(key_hash)
    v.fill.asked = k.core.clock
    # Commands under way now must not be, later: `begun` is made to differ if there are any.
    v.fill.begun = b.sets[bucket].begun - (
        b.sets[bucket].pending != 0 or not bars_settled(b, v.key.since))
    v.fill.begun_all = b.begun_all - (b.pending_all != 0)
    v.fill.doomed = False


cdef Value* begin_fill(Cache* k, uint64_t hash, uint64_t key_hash, uint16_t space,
                       uint16_t command, const char* args, size_t n, const char* key,
                       size_t key_size) noexcept nogil:
    cdef KeyRecord* r = make_key(k, key_hash, key, key_size)
    cdef Value* v
    if r == NULL:
        return NULL
    v = <Value*>calloc(1, sizeof(Value) + n)
    if v != NULL:
        v.fill = <Fill*>calloc(1, sizeof(Fill))
    if v == NULL or v.fill == NULL:
        free(v)
        leave_key(k, r)
        return NULL
    v.key, v.hash, v.args = r, <uint32_t>hash, <uint32_t>n
    v.space, v.command = space, command
    memcpy(value_bytes(v), args, n)
    begin_reading(k, v, key_hash)
    link_value(k, v, hash)
    k.counts.fills += 1
    return v


cdef int observe(Cache* k, uint64_t hash, const char* key, size_t n) noexcept nogil:
    """Count whether the key's value would have been here, as far as this process can know."""
    cdef KeyRecord* r = find_key(k, hash, key, n)
    if r != NULL and r.wanted:
        if r.ghost:
            k.counts.ghost_hits += 1
        else:
            k.counts.miss_cold += 1
            r.ghost = 2         # the command that passes now drops it, and this is its trace
    return PASS


cdef int cache_serve(Session* s, Command* c, const char* p, size_t n, const Scanner* scan,
                     Value** ask, int* count) noexcept nogil:
    """Answer a cacheable read from here, or say what it has to wait for.

    ASK and PUT_OFF: `ask` is the first of `count` values (by `fill.after`) whose reading is to be
    prepared, and with ASK begun; the session waits for one of them. SERVED: `ask` is the value, if
    it is one.
    """
    cdef Cache* k = <Cache*>s.core.cache
    cdef Value* v = NULL
    cdef KeySpan key
    cdef size_t at = 0
    cdef size_t size = 0
    cdef int r
    cdef const char* reply
    if s.bypass:
        s.bypass = False
        k.counts.bypassed += 1
        return PASS
    if c.flags & COMMAND_CACHEABLE_EACH:
        return serve_many(s, c, p, n, at, ask, count) if arguments(p, n, &at) else PASS
    if not first_key(c, p, scan.name_at, scan.name_len, scan.argc, &key):
        return PASS             # EXISTS and the like, of several keys
    s.core.hash = sidecar_hash(k.seed, key.p, key.n)
    s.core.hashed = True
    if k.mode == CACHE_OBSERVE:
        return observe(k, s.core.hash, key.p, key.n)
    if k.mode == CACHE_HOT and not knows(k, s.core.hash):
        return PASS             # most reads
    if not arguments(p, n, &at):
        return PASS
    r = look(s, c, p + at, n - at, key.p, key.n, s.core.hash, &v)
    if r == ASK:
        r = begin(s, c, p + at, n - at, key.p, key.n, s.core.hash, ask)
        count[0] = r != PASS
        v = ask[0]
    if r == SERVED:
        reply = form(v, s.proto, &size)
        if reply == NULL:
            return PASS
        k.counts.hits += 1
        ask[0] = v
        return give(s, c, reply, size)
    if r == FILLING or r == ASK:
        wait_for(s, v)
    return r


cdef int serve_many(Session* s, Command* c, const char* p, size_t n, size_t at,
                    Value** ask, int* count) noexcept nogil:
    """MGET: all of its keys from here, or none. Those that are not are read all at once."""
    cdef Cache* k = <Cache*>s.core.cache
    cdef Buffer out
    cdef Value* v = NULL
    cdef Value* filling = NULL
    cdef size_t i = at
    cdef size_t size = 0
    cdef size_t head
    cdef int keys = 0
    cdef int cold = 0
    cdef int r = SERVED
    cdef const char* reply
    if k.mode == CACHE_OBSERVE:
        return PASS
    out.data = NULL
    out.start = out.end = out.cap = 0
    while i < n and r != PASS:
        head = argument(p + i, &size)
        r = look(s, c, p + i, head + size + 2, p + i + head, size,
                 sidecar_hash(k.seed, p + i + head, size), &v)
        i += head + size + 2
        keys += 1
        if keys > MANY_MOST:
            r = PASS
        elif r == ASK:
            cold += 1
        elif r == FILLING:
            filling = v
        elif r == SERVED:
            reply = form(v, s.proto, &size)
            if reply == NULL or buffer_append(&out, reply, size) < 0:
                r = PASS
    if r == PASS:
        pass
    elif cold:
        r = begin_many(s, c, p, n, at, ask, count)
    elif filling != NULL:
        wait_for(s, filling)
        r = FILLING
    else:
        k.counts.hits += 1
        r = give_many(s, c, &out, keys)
    buffer_release(&out)
    return r


cdef int begin_many(Session* s, Command* c, const char* p, size_t n, size_t at,
                    Value** ask, int* count) noexcept nogil:
    """Begin to read the values of an MGET that are not here."""
    cdef Cache* k = <Cache*>s.core.cache
    cdef Value* v = NULL
    cdef size_t i = at
    cdef size_t size = 0
    cdef size_t head
    cdef uint64_t hash
    cdef int r = PASS
    while i < n:
        head = argument(p + i, &size)
        hash = sidecar_hash(k.seed, p + i + head, size)
        if look(s, c, p + i, head + size + 2, p + i + head, size, hash, &v) == ASK:
            r = begin(s, c, p + i, head + size + 2, p + i + head, size, hash, ask)
            count[0] += r != PASS
        i += head + size + 2
    if count[0] == 0:
        return PASS
    if not has_time(s):
        return PUT_OFF
    wait_for(s, ask[0])
    return ASK


cdef int give_many(Session* s, Command* c, Buffer* values, int count) noexcept nogil:
    cdef Buffer out
    cdef char line[16]
    cdef int i = 15
    cdef int r = PASS
    out.data = NULL
    out.start = out.end = out.cap = 0
    line[15] = 10
    line[14] = 13
    i = 14
    while count or i == 14:
        i -= 1
        line[i] = <char>(48 + count % 10)
        count //= 10
    i -= 1
    line[i] = 42
    if buffer_append(&out, line + i, 16 - i) == 0 \
            and buffer_append(&out, buffer_head(values), buffer_size(values)) == 0:
        r = give(s, c, buffer_head(&out), buffer_size(&out))
    buffer_release(&out)
    return r


cdef void cache_leave(Session* s) noexcept nogil:
    """The session waits for its value no more: it is closed."""
    cdef Value* v = <Value*>s.value
    cdef Session** slot
    if v == NULL:
        return
    slot = &v.fill.waiting
    while slot[0] != s:
        slot = &slot[0].next_waiting
    slot[0] = s.next_waiting
    s.value = NULL


# What the tracked link has read.

cdef void wake(Fill* f, bint bypass) noexcept nogil:
    """Those who waited look again; with `bypass`, past the cache."""
    cdef Session* s = f.waiting
    cdef Session* after
    f.waiting = NULL
    while s != NULL:
        after = s.next_waiting
        s.value = NULL
        s.bypass = bypass
        session_mark(s)
        s = after


cdef void cache_not_filled(Cache* k, Value* v) noexcept nogil:
    """The value will not be read, or may not be kept."""
    cdef Fill* f = v.fill
    wake(f, True)
    drop_value(k, v)
    end_fill(f)


cdef void end_fill(Fill* f) noexcept nogil:
    buffer_release(&f.request)
    free(f)


cdef bint was_alone(Cache* k, Value* v) noexcept nogil:
    """Whether no command on the key was under way from the asking until now."""
    cdef Bars* b = k.core.bars
    cdef uint16_t bucket = bucket_of(sidecar_hash(k.seed, key_bytes(v.key), v.key.size))
    return not v.fill.doomed and b.sets[bucket].begun == v.fill.begun \
        and b.begun_all == v.fill.begun_all


cdef bint ask_again(Cache* k, Value* v) noexcept nogil:
    """What was read cannot be kept. Reads that passed before the key was wanted are over soon,
    and new ones wait: so it is worth another try, unless the key is being written."""
    cdef uint64_t hash = sidecar_hash(k.seed, key_bytes(v.key), v.key.size)
    k.counts.miss_barred += 1
    v.fill.tries += 1
    if v.fill.tries >= TRIES or being_written(k, hash) \
            or (v.fill.waiting == NULL and not v.fill.forced):
        cache_not_filled(k, v)
        return False
    begin_reading(k, v, hash)
    return True


cdef bint may_store(Cache* k, const char* p, size_t n) noexcept nogil:
    """Whether the reply is one to keep."""
    if p[0] == c'-' or p[0] == c'|' or p[0] == c'!':
        k.counts.miss_error += 1
        return False
    if n > k.value_max:
        k.counts.miss_size += 1
        return False
    return True


cdef bint null_is_array(Cache* k, Value* v) noexcept nogil:
    """Whether the command's null is a null array in RESP2, not a null string."""
    cdef size_t i = 0
    cdef size_t size = 0
    cdef int count = 0
    if v.command == k.geopos_id:
        return True
    if v.command != k.zrank_id and v.command != k.zrevrank_id:
        return False
    while i < v.args:
        i += argument(value_bytes(v) + i, &size) + size + 2
        count += 1
    return count > 2            # WITHSCORE


cdef bint cache_filled(Cache* k, Value* v, long long ttl, const char* p, size_t n) noexcept nogil:
    """A value has been read: `ttl` is what PTTL said, p[0:n] the reply in RESP3.

    True when it must be read again (`fill.request`); otherwise `v` is not to be used any more.
    """
    cdef Buffer form2
    cdef Value* kept
    cdef Fill* f = v.fill
    cdef KeyRecord* r = v.key
    cdef uint64_t hash
    cdef uint64_t life = k.ttl_max
    cdef const Rule* rule
    cdef size_t size2 = 0
    if not was_alone(k, v):
        return ask_again(k, v)
    if not may_store(k, p, n):
        cache_not_filled(k, v)
        return False
    rule = rule_for(k, key_bytes(r), r.size) if k.rule_count else NULL
    if rule != NULL and rule.ttl and rule.ttl < life:
        life = rule.ttl
    if ttl == -2 and k.ttl_missing < life:
        life = k.ttl_missing
    if ttl >= 0 and <uint64_t>ttl * 1000 < life:
        life = <uint64_t>ttl * 1000
    form2.data = NULL
    form2.start = form2.end = form2.cap = 0
    v.reply2 = to_resp2(&form2, p, n, null_is_array(k, v))
    if v.reply2 != NO_FORM:
        size2 = v.reply2
    kept = <Value*>malloc(sizeof(Value) + v.args + n + size2)
    if kept == NULL or life == 0:
        free(kept)
        v.reply2 = 0
        buffer_release(&form2)
        cache_not_filled(k, v)
        return False
    hash = hash_of(k, v)
    kept[0] = v[0]
    kept.fill = NULL
    kept.used = 1
    kept.forced = f.forced
    kept.reply = <uint32_t>n
    # From the moment it was asked for: it cannot have been read earlier, nor be older.
    kept.until = <uint32_t>((f.asked + life - k.start) // 1000)
    memcpy(value_bytes(kept), value_bytes(v), v.args)
    memcpy(value_bytes(kept) + v.args, p, n)
    if size2:
        memcpy(value_bytes(kept) + v.args + n, buffer_head(&form2), size2)
    buffer_release(&form2)
    v.reply2 = 0
    unlink_value(k, v)
    free(v)
    link_value(k, kept, hash)
    k.counts.stored += 1
    wake(f, False)
    end_fill(f)
    if k.bytes > k.budget:
        evict(k)
    return False


# What goes past.

cdef void pass_key(Cache* k, Link* l, Entry* e, uint64_t hash, const char* key,
                   size_t n) noexcept nogil:
    cdef KeyRecord* r
    if not knows(k, hash):
        if e == NULL:
            return
        if l.shared and not e.flags & ENTRY_IN_MULTI \
                and (k.mode != CACHE_RULES or not wanted(k, hash, key, n)):
            bars_let_pass(k.core.bars, e)
        else:
            bars_take(l, e, hash)
        return
    r = find_key(k, hash, key, n)
    if r != NULL:
        if r.ghost == 2:
            r.ghost = 1
        else:
            k.counts.dropped_here += drop_values(k, r)
    if e != NULL:
        bars_take(l, e, hash)


cdef void cache_touch(Core* core, Link* l, Entry* e, Command* c, const char* p, size_t n,
                      const Scanner* scan) noexcept nogil:
    """A command goes past the cache: drop its keys' values, and bar them for entry `e` of `l`.

    With `e` NULL there is none: a pinned link, whose replies are not matched. `scan` has just
    found the request whole.
    """
    cdef Cache* k = <Cache*>core.cache
    cdef KeySpan spans[KEYS_MOST]
    cdef int count, i
    if first_key(c, p, scan.name_at, scan.name_len, scan.argc, spans):
        if not core.hashed:
            core.hash = sidecar_hash(k.seed, spans[0].p, spans[0].n)
        pass_key(k, l, e, core.hash, spans[0].p, spans[0].n)
        return
    count = find_keys(c, p, n, spans, KEYS_MOST)
    if count < 0 or c.id == k.acl_id:       # who may read what may be about to change
        cache_drop_all(k)
        if e != NULL:
            bars_take_all(l, e)
        return
    for i in range(count):
        pass_key(k, l, e, sidecar_hash(k.seed, spans[i].p, spans[i].n), spans[i].p, spans[i].n)


cdef void cache_pass_part(Link* l, Command* c, const char* p, size_t n) noexcept nogil:
    """The beginning of a large command has just been queued on `l`: p[0:n], its name included."""
    cdef Cache* k = <Cache*>l.core.cache
    cdef Entry* e = l.ring + ((l.tail - 1) & l.mask)
    cdef size_t at = 0
    cdef size_t size = 0
    cdef size_t head
    if c.keys & FORM_MASK == FORM_ONE and arguments(p, n, &at) and at + 24 < n:
        head = argument(p + at, &size)
        if at + head + size <= n:
            cache_drop_key(k, p + at + head, size, False)
            bars_take(l, e, sidecar_hash(k.seed, p + at + head, size))
            return
    cache_drop_all(k)
    bars_take_all(l, e)


cdef void cache_pass(Link* l, Command* c, const char* p, size_t n,
                     const Scanner* scan) noexcept nogil:
    """The command has just been queued on `l`."""
    cache_touch(l.core, l, l.ring + ((l.tail - 1) & l.mask), c, p, n, scan)


# For the shell.

def by_use(found):
    """Sorts what `dump` has found."""
    return found[:2]


cdef class NearCache:
    """The near cache of one plane, as the control plane sees it.

    NearCache(seed, *, mode, budget, value_max, staleness, ttl_max, ttl_missing): `mode` is
    "observe", "hot" or "rules"; sizes in bytes, times in seconds; `check` is the share of answers
    that are compared with the server's, from 1e-9 to 1, or 0.
    """

    def __cinit__(self, uint64_t seed, *, str mode, size_t budget, size_t value_max,
                  double staleness, double ttl_max, double ttl_missing, double check=0.0):
        cdef uint32_t slots = SLOTS_LEAST
        cdef Cache* k = <Cache*>calloc(1, sizeof(Cache))
        if k == NULL:
            raise MemoryError
        self.cache = k
        while slots < budget // 512 and slots < 1 << 24:
            slots *= 2
        k.keys = <KeyRecord**>calloc(slots, sizeof(KeyRecord*))
        k.values = <Value**>calloc(slots, sizeof(Value*))
        if k.keys == NULL or k.values == NULL:
            raise MemoryError
        k.slots, k.slots_max, k.mask = SLOTS_LEAST, slots, SLOTS_LEAST - 1
        k.seed = seed
        k.chance = seed | 1
        if check > 0:
            k.check_every = <uint32_t>(1 / check)
            draw_check(k)
        k.mode = {"observe": CACHE_OBSERVE, "hot": CACHE_HOT, "rules": CACHE_RULES}[mode]
        k.budget, k.value_max = budget, value_max
        k.staleness = <uint64_t>(staleness * 1e6)
        k.ttl_max, k.ttl_missing = <uint64_t>(ttl_max * 1e6), <uint64_t>(ttl_missing * 1e6)
        k.spaces[0].used = True         # 0 is "none"

    def __dealloc__(self):
        cdef int i
        cdef uint32_t slot
        cdef KeyRecord* r
        cdef Value* v
        cdef Cache* k = self.cache
        if k == NULL:
            return
        if k.keys != NULL and k.values != NULL:
            for slot in range(k.slots):
                while k.values[slot] != NULL:
                    if k.values[slot].fill != NULL:
                        end_fill(k.values[slot].fill)
                    v = k.values[slot]
                    unlink_value(k, v)
                    free(v)
                while k.keys[slot] != NULL:
                    r = k.keys[slot]
                    k.keys[slot] = r.next
                    free(r)
        for i in range(k.rule_count):
            free(k.rules[i].prefix)
        free(k.keys)
        free(k.values)
        free(k)


    def rule(self, bytes prefix, *, bint never=False, double ttl=0.0, double staleness=0.0):
        """Add a rule for keys that begin with `prefix`; the first that fits counts.

        `ttl` and `staleness` in seconds, 0 for the cache's own; they can only be shorter.
        """
        cdef Rule* rule
        if self.cache.rule_count == RULES_MAX:
            raise ValueError(f"more than {RULES_MAX} rules")
        rule = &self.cache.rules[self.cache.rule_count]
        rule.size = len(prefix)
        rule.prefix = <char*>malloc(len(prefix) + 1)
        if rule.prefix == NULL:
            raise MemoryError
        memcpy(rule.prefix, <const char*>prefix, len(prefix))
        rule.never, rule.ttl = never, <uint64_t>(ttl * 1e6)
        rule.staleness = <uint64_t>(staleness * 1e6)
        self.cache.rule_count += 1

    def want(self, bytes key, bint yes):
        """Whether this key is one to be cached (hot, or to be warmed)."""
        cdef Cache* k = self.cache
        cdef const char* p = key
        if k.core == NULL:
            raise ValueError("no plane uses this near cache yet")
        cdef uint64_t hash = sidecar_hash(k.seed, p, len(key))
        cdef KeyRecord* r
        if yes:
            r = make_key(k, hash, p, len(key))
            if r != NULL:
                r.wanted = True
            return
        r = find_key(k, hash, p, len(key))
        if r != NULL:
            r.wanted = False
            k.counts.dropped_here += drop_values(k, r)

    def dump(self, table, size_t most):
        """What is here, the most used first: (space, command's name, its arguments' bytes), at
        most so many."""
        cdef Cache* k = self.cache
        cdef uint32_t i
        cdef Value* v
        found = []
        for i in range(k.slots):
            v = k.values[i]
            while v != NULL:
                if v.fill == NULL:
                    found.append((v.used, v.served, v.space, table.name(v.command),
                                  value_bytes(v)[:v.args]))
                v = v.next
        found.sort(key=by_use, reverse=True)
        return [(space, name, args) for _, _, space, name, args in found[:most]]

    def holds(self, bytes key):
        """How many values of this key are here."""
        cdef Cache* k = self.cache
        cdef KeyRecord* r = find_key(k, sidecar_hash(k.seed, key, len(key)), key, len(key))
        cdef Value* v
        cdef int count = 0
        if r != NULL:
            v = r.values
            while v != NULL:
                count += v.fill == NULL
                v = v.sibling
        return count

    def open_space(self):
        """A new space: its number, 0 when there are no more."""
        cdef int i
        for i in range(1, SPACES):
            if not self.cache.spaces[i].used:
                self.cache.spaces[i].used = True
                self.cache.spaces[i].proved = 0
                self.cache.spaces[i].link = NULL
                return i
        return 0

    def close_space(self, uint16_t space):
        """Nobody uses this space any more."""
        cache_drop_space(self.cache, space)
        self.cache.spaces[space].used = False

    def drop_all(self):
        """Drop every value."""
        cache_drop_all(self.cache)

    def drop_space(self, uint16_t space):
        """Drop every value of a space; nothing is proved of it any more."""
        cache_drop_space(self.cache, space)

    def drop(self, bytes key):
        """Drop a key's values."""
        cache_drop_key(self.cache, key, len(key), False)

    def proof_age(self, uint16_t space, double now):
        """Seconds since the newest proof that the space has all invalidations; None without one."""
        cdef uint64_t proved = self.cache.spaces[space].proved
        return None if proved == 0 else now - <double>proved / 1e6

    @property
    def mismatches(self):
        """Values that were here and not what the server had, as far as it was asked."""
        return self.cache.counts.mismatched

    def snapshot(self):
        """Counters since the start, and what is here now."""
        cdef Counts* n = &self.cache.counts
        return {
            "entries": self.cache.count, "bytes": self.cache.bytes, "budget": self.cache.budget,
            "hits": n.hits, "observed_hits": n.ghost_hits, "fills": n.fills,
            "stored": n.stored, "evicted": n.evicted, "expired": n.expired,
            "flushed": n.flushed, "invalidated_here": n.dropped_here,
            "invalidated_pushed": n.dropped_pushed,
            "misses": {"cold": n.miss_cold, "lease": n.miss_lease, "barred": n.miss_barred,
                       "filling": n.miss_filling, "size": n.miss_size, "error": n.miss_error,
                       "bypassed": n.bypassed},
            "checks": {"same": n.checked - n.mismatched, "different": n.mismatched},
        }
