# cython: language_level=3, cdivision=True
"""The near cache's store: how values come into it, and how they go.

Invalidations name keys without their database, so a key's record holds its values in all spaces,
and dropping a key drops them all.

`budget` bounds the memory. Beyond it, a few values are picked at random, and the one that was used
least goes. Each look halves a value's count of uses, so old fame fades. Hashes are seeded, since keys
are a client's bytes.
"""
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy
from sidecar.core.hashing cimport next_random
from sidecar.core.link.barrier cimport bucket_of

cdef enum:
    PAYS = 32               # answers from a value asked for at the expense of those who waited
    PATIENCE = 200          # and if there were fewer, chances let go before it is tried again
    LOOKS = 6               # values looked at for each one evicted


cdef void split_slot(Cache* k) noexcept nogil:
    """Add a chain to each table."""
    cdef uint32_t slot = k.slots
    k.slots += 1
    if slot > k.mask:
        k.mask = 2 * k.mask + 1
    split_chain(k, <Chained**>k.values, slot)
    split_chain(k, <Chained**>k.keys, slot)


cdef void split_chain(const Cache* k, Chained** table, uint32_t slot) noexcept nogil:
    """Fill the new chain with what belongs there of the one it was part of."""
    cdef Chained** at = &table[slot & (k.mask >> 1)]
    cdef Chained* one
    while at[0] != NULL:
        one = at[0]
        if slot_of(k, one.hash) == slot:
            at[0] = one.next
            one.next = table[slot]
            table[slot] = one
        else:
            at = &one.next


cdef KeyRecord* make_key(Cache* k, uint64_t hash, const char* key, size_t n) noexcept nogil:
    cdef KeyRecord* r = find_key(k, hash, key, n)
    cdef NamedKey* named
    cdef KeyRecord** slot
    cdef uint8_t* known = &k.core.barriers.known[bucket_of(hash)]
    if r != NULL:
        return r
    r = <KeyRecord*>calloc(1, sizeof(KeyRecord) if k.mode == CACHE_RULES else sizeof(NamedKey) + n)
    if r == NULL:
        return NULL
    r.hash = <uint32_t>hash
    if k.mode != CACHE_RULES:
        named = <NamedKey*>r
        named.size = <uint32_t>n
        named.since = k.core.barriers.epoch
        memcpy(<char*>named + sizeof(NamedKey), key, n)
    slot = &k.keys[slot_of(k, <uint32_t>hash)]
    r.next = slot[0]
    slot[0] = r
    known[0] += known[0] != 255
    k.bytes += record_size(k, r)
    return r


cdef size_t record_size(Cache* k, const KeyRecord* r) noexcept nogil:
    if k.mode == CACHE_RULES:
        return block(sizeof(KeyRecord))
    return block(sizeof(NamedKey) + (<NamedKey*>r).size)


cdef void leave_key(Cache* k, KeyRecord* r) noexcept nogil:
    """Free the record if nothing needs it."""
    cdef KeyRecord** slot
    cdef uint8_t* known
    if r.values != NULL or r.wanted:
        return
    slot = &k.keys[slot_of(k, r.hash)]
    while slot[0] != r:
        slot = &slot[0].next
    slot[0] = r.next
    known = &k.core.barriers.known[bucket_of(r.hash)]
    known[0] -= known[0] != 255     # how many there are of 255 is not known
    k.bytes -= record_size(k, r)
    free(r)


cdef uint64_t hash_of(Cache* k, Value* v) noexcept nogil:
    """`value_hash` of a value that is there."""
    cdef Cursor c
    value_cursor(&c, v)
    cursor_next(&c)
    return value_hash(k, v.space, v.command, sidecar_hash(k.seed, c.arg, c.size), c.at,
                      <size_t>(c.end - c.at))


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
    k.reading -= v.reading
    k.spaces[v.space].values -= 1


cdef void link_value(Cache* k, Value* v) noexcept nogil:
    cdef Value** slot = &k.values[slot_of(k, v.hash)]
    v.next = slot[0]
    slot[0] = v
    v.sibling = v.key.values
    v.key.values = v
    k.bytes += value_size(v)
    k.count += 1
    k.reading += v.reading
    k.spaces[v.space].values += 1
    if k.count > k.slots and k.slots < k.slots_max:
        split_slot(k)


cdef void drop_value(Cache* k, Value* v) noexcept nogil:
    cdef KeyRecord* r = v.key
    unlink_value(k, v)
    free_value(v)
    leave_key(k, r)


cdef void free_value(Value* v) noexcept nogil:
    cdef Fill* f = fill_of(v)
    if f != NULL:
        free(f)
    else:
        free(v)


cdef int drop_values(Cache* k, KeyRecord* r, bint read) noexcept nogil:
    """All values of a key: those that are here go, those being read will not be stored. `read`: for a
    read that passes; what is too large to be kept is known still."""
    cdef Value* v = r.values
    cdef Value* after
    cdef int dropped = 0
    r.ghost = False
    while v != NULL:
        after = v.sibling
        if read and (v.large or (v.reading and fill_of(v).large)):
            pass
        elif v.reading:
            fill_of(v).doomed = True
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
    dropped = drop_values(k, r, False)
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
            drop_values(k, r, False)
            r = after


cdef void drop_what_is_due(Cache* k) noexcept nogil:
    """Drop every value if a command that means all of them has been answered since."""
    if k.core.barriers.drop_all:
        k.core.barriers.drop_all = False
        cache_drop_all(k)


cdef void cache_drop_space(Cache* k, uint16_t space) noexcept nogil:
    """Drop every value of one space."""
    cdef uint32_t i
    cdef Value* v
    cdef Value* after
    for i in range(k.slots if k.spaces[space].values else 0):
        v = k.values[i]
        while v != NULL:
            after = v.next
            if v.space == space:
                if v.reading:
                    fill_of(v).doomed = True
                else:
                    drop_value(k, v)
            v = after


cdef Value* cache_any_of(Cache* k, uint16_t space) noexcept nogil:
    """Some value of a space, or NULL."""
    cdef uint32_t i
    cdef Value* v
    for i in range(k.slots if k.spaces[space].values else 0):
        v = k.values[i]
        while v != NULL:
            if v.space == space:
                return v
            v = v.next
    return NULL


cdef void evict(Cache* k, size_t room) noexcept nogil:
    """Let go of values until `room` bytes more are within the budget. What is being read stays."""
    cdef uint32_t now = now_ms(k)
    cdef Value* v
    cdef Value* victim
    cdef uint32_t i, looked, empty
    while k.bytes + room > k.budget and k.count > k.reading:
        victim = NULL
        looked = empty = 0
        while looked < LOOKS and empty < k.slots:
            i = <uint32_t>next_random(&k.random) % k.slots
            v = k.values[i]
            while v == NULL and empty < k.slots:
                i = (i + 1) % k.slots
                v = k.values[i]
                empty += 1
            while v != NULL:
                if not v.reading:
                    looked += 1
                    if <int32_t>(v.expires - now) <= 0:
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


cdef bint wanted(Cache* k, uint64_t hash, const char* key, size_t n) noexcept nogil:
    """Whether this key is one to be cached."""
    cdef KeyRecord* r
    if not may_be_wanted(k, key, n):
        return False
    if k.mode == CACHE_RULES:
        return True
    r = find_key(k, hash, key, n)
    return r != NULL and r.wanted != 0


cdef bint may_be_wanted(Cache* k, const char* key, size_t n) noexcept nogil:
    """Whether the rules let the key be cached; in the mode `rules`, whether one names it."""
    cdef const Rule* rule = rule_for(k, key, n) if k.rule_count else NULL
    if rule != NULL:
        return not rule.never
    return k.mode != CACHE_RULES
