# cython: language_level=3, cdivision=True
"""What is served from the near cache, and when it no longer may be. The contract: serve.pxd.

    request --> value by (space, command, arguments) --> here, and its space's lease runs: SERVED
                  | not here: is its key wanted?       --> no: NOT_SERVED, past the cache
                  v
                a value without bytes (`fill`), asked for on the space's tracked link; who asks for
                the same meanwhile waits for the same reading: single flight

A *space* is one (user, database): nobody is served what another user's connection has read. On a
cluster it is one (user, database, shard), and a key's is that of its slot (slot_watch.pyx). Its
tracked link (tracked.pyx) reads values, and gets the server's invalidations in the same stream
of bytes. A value may be served until its own deadline (the key's TTL when it was read, or less),
and for `staleness` microseconds from the sending of the newest request that the tracked link has
answered (`proved_at`). All invalidations from before that moment have been received then, so a value
is never older than that: the bound is proved by each answer, and ends by itself without any.

Commands that are not answered from here: past.pyx. What a client was told meanwhile: proof.pyx.

Invalidations name keys without their database, so a key's record holds its values in all spaces
(`sibling`), and dropping a key drops them all. Replies are kept in RESP3's form, as the tracked
link speaks it, and in RESP2's where it differs.
"""
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint64_t
from sidecar.core.protocol.commands cimport COMMAND_CACHEABLE_EACH, Command
from sidecar.core.cache.proof cimport is_proved, space_used, wait_for_proof
from sidecar.core.cache.slot_watch cimport find_watched, space_of
from sidecar.core.protocol.slots cimport Slots
from sidecar.core.cache.fill cimport begin_fill, being_written, has_time, put_off, wait_for
from sidecar.core.protocol.keys cimport KeySpan, first_key
from sidecar.core.link.pending cimport link_local
from sidecar.core.link.receiver cimport session_say
from sidecar.core.memory cimport Buffer, buffer_append, buffer_head, buffer_release, buffer_size
from sidecar.core.records cimport Session
from sidecar.core.protocol.request cimport Scanner, arguments_of
from sidecar.core.protocol.cursor cimport Cursor, cursor_next, cursor_on, put_header
from sidecar.core.cache.touch cimport note_use
from sidecar.core.cache.store cimport (CACHE_HOT, CACHE_OBSERVE, Cache, KeyRecord, NO_FORM, Rule,
    Value, drop_value, drop_what_is_due, fill_of, find_key, knows, now_ms, rule_for,
    settled, sidecar_hash, value_bytes, value_hash, wanted)
from sidecar.core.guard.guard cimport guard_exceeds

cdef enum:
    MANY_BYTES = 1048576    # of values in one reply that is served from here
    MANY_COLD = 1024        # keys of an MGET that are asked for at once
    ASKS_MOST = 2           # times that one read has values asked for: then it goes past the cache
    WAITS_MOST = 2          # times that it waits for each of its keys


cdef bint fresh(Cache* k, Value* v) noexcept nogil:
    """Whether a value that is here may be served; one that is too old goes."""
    if <int32_t>(v.expires - now_ms(k)) <= 0:
        k.counts.expired += 1
        drop_value(k, v)
        return False
    return True


cdef int give(Session* s, Command* c, const char* p, size_t n) noexcept nogil:
    """A reply for the session, now or behind those it waits for."""
    s.core.stats.calls[c.id] += 1
    if s.outstanding == 0:
        session_say(s, p, n)
    elif s.say_in_turn != NULL:
        return SERVED if s.say_in_turn(s, p, n) == 0 else NOT_SERVED
    elif link_local(s.link, s, p, n) < 0:
        return NOT_SERVED
    return SERVED


cdef inline bint splits(const Session* s) noexcept nogil:
    """Whether the session may read keys of several slots in one command."""
    return s.branches != NULL and (<Slots*>s.core.slots).splits


cdef inline const char* form(Value* v, uint8_t proto, size_t* n) noexcept nogil:
    """The reply in the form of this protocol; NULL when there is none."""
    cdef const char* p = value_bytes(v) + v.args_size
    if proto != 2 or v.resp2_size == 0:
        n[0] = v.reply_size
        return p
    if v.resp2_size == NO_FORM:
        return NULL
    n[0] = v.resp2_size
    return p + v.reply_size


cdef inline bint lease_runs(Cache* k, uint16_t space, const char* key, size_t n) noexcept nogil:
    """Whether the space has proved, recently enough, that it has all invalidations."""
    cdef uint64_t bound = k.staleness
    cdef const Rule* rule
    if k.rule_count:
        rule = rule_for(k, key, n)
        if rule != NULL and rule.staleness and rule.staleness < bound:
            bound = rule.staleness
    return k.core.clock < k.spaces[space].proved_at + bound


cdef int look(Session* s, Command* c, const char* args, size_t n, const char* key,
              size_t key_size, uint64_t key_hash, uint16_t* space, Value** found) noexcept nogil:
    """Find the value that answers, and its space: SERVED, or UNPROVED. FILLING: it is being read.
    ASK: it is not here, and may be read (`begin`)."""
    cdef Cache* k = <Cache*>s.core.cache
    cdef uint16_t id = k.get_id if c.flags & COMMAND_CACHEABLE_EACH else c.id
    cdef Value* v = NULL
    cdef KeyRecord* r
    if k.mode == CACHE_HOT and not knows(k, key_hash):
        return NOT_SERVED
    space[0] = space_of(k, s, key, key_size)
    if knows(k, key_hash):
        v = find_watched(k, hash_for(k, space[0], id, args, n, key, key_size, key_hash), space[0],
                         id, args, n, key, key_size)
    found[0] = v
    if v != NULL and v.reading:
        if fill_of(v).large:
            k.counts.miss_size += 1
            return NOT_SERVED
        k.counts.miss_filling += 1
        if k.spaces[space[0]].busy:
            return NOT_SERVED
        return NOT_SERVED if fill_of(v).waiting_for_quiet and not has_time(s) else FILLING
    if v != NULL and fresh(k, v):
        if v.large:
            k.counts.miss_size += 1
            return NOT_SERVED
        if lease_runs(k, space[0], key, key_size):
            if not is_proved(k, s, space[0]):
                return UNPROVED
            v.used += v.used < 255
            v.served += v.served < 65535
            note_use(k, v)
            return SERVED
        k.counts.miss_lease += 1
        return NOT_SERVED
    if not wanted(k, key_hash, key, key_size):
        return NOT_SERVED
    if k.spaces[space[0]].link == NULL or k.spaces[space[0]].busy:
        k.counts.miss_lease += 1
        return NOT_SERVED
    r = find_key(k, key_hash, key, key_size)
    if being_written(k, key_hash) or (r != NULL and not settled(k, r)):
        k.counts.miss_barred += 1
        return NOT_SERVED             # a value read now could not be stored
    return ASK


cdef inline uint64_t hash_for(Cache* k, uint16_t space, uint16_t id, const char* args, size_t n,
                              const char* key, size_t key_size, uint64_t key_hash) noexcept nogil:
    cdef size_t head = <size_t>(key - args) + key_size + 2
    return value_hash(k, space, id, key_hash, args + head, n - head)


cdef int begin(Session* s, Command* c, const char* args, size_t n, const char* key,
               size_t key_size, uint64_t key_hash, uint16_t space, Value** chain) noexcept nogil:
    """After ASK: begin to read it. ASK with the value put before `chain`; in the middle of a pipeline
    PUT_OFF; NOT_SERVED when it cannot be, or has come and gone again already."""
    cdef Cache* k = <Cache*>s.core.cache
    cdef uint16_t id = k.get_id if c.flags & COMMAND_CACHEABLE_EACH else c.id
    cdef Value* v = NULL
    if s.fill_asks < ASKS_MOST:
        v = begin_fill(k, hash_for(k, space, id, args, n, key, key_size, key_hash), key_hash,
                       space, id, args, n, key, key_size)
    if v == NULL:
        return NOT_SERVED
    k.counts.miss_cold += 1
    if not has_time(s):
        put_off(k, v)
        return PUT_OFF
    fill_of(v).next = chain[0]
    chain[0] = v
    return ASK


cdef int await_value(Session* s, Value* v, int r, size_t keys) noexcept nogil:
    """The session waits for a value of its read of so many keys; r, ASK or FILLING, says how.
    NOT_SERVED: it has waited often enough, and what came was gone again."""
    if s.fill_waits >= WAITS_MOST * keys:
        return NOT_SERVED
    s.fill_waits += 1
    s.fill_asks += r == ASK
    wait_for(s, v)
    return r


cdef int observe(Cache* k, uint64_t hash, const char* key, size_t n) noexcept nogil:
    """Count whether the key's value would have been here, as far as this process can know."""
    cdef KeyRecord* r = find_key(k, hash, key, n)
    if r != NULL and r.wanted:
        if r.ghost:
            k.counts.ghost_hits += 1
        else:
            k.counts.miss_cold += 1
            r.ghost = 2         # the command that passes now drops it, and this is its trace
    return NOT_SERVED


cdef int cache_serve(Session* s, Command* c, const char* p, size_t n, const Scanner* scan,
                     Value** ask) noexcept nogil:
    """Answer a cacheable read from here, or say what it has to wait for.

    `ask`: with SERVED the value, if it is one; otherwise the first of those (by `fill.next`) that
    are to be asked for now. With ASK the session waits for one of them.
    """
    cdef int r = serve(s, c, p, n, scan, ask)
    if r != FILLING and r != ASK:
        s.fill_waits = s.fill_asks = 0
    return r


cdef int serve(Session* s, Command* c, const char* p, size_t n, const Scanner* scan,
               Value** ask) noexcept nogil:
    cdef Cache* k = <Cache*>s.core.cache
    cdef uint16_t space = s.space
    cdef int r
    if scan.argc < -c.arity or (c.arity > 0 and scan.argc != c.arity):
        return NOT_SERVED           # the server refuses it: wrong number of arguments
    if k.core.barriers.drop_all:
        drop_what_is_due(k)
    if k.core.barriers.drops_pending:
        k.counts.miss_barred += 1
        return NOT_SERVED           # what is here may be about to go
    if s.bypass_next:
        s.bypass_next = False
        k.counts.bypassed += 1
        return NOT_SERVED
    if s.telling_replies:
        k.counts.miss_told += k.mode != CACHE_OBSERVE
        return NOT_SERVED
    if c.flags & COMMAND_CACHEABLE_EACH:
        if k.in_cluster and scan.argc > 2 and not splits(s):
            return NOT_SERVED       # the server refuses keys of several slots
        r = serve_many(s, c, p, n, scan, &space, ask)
    else:
        r = serve_one(s, c, p, n, scan, &space, ask)
    if r == UNPROVED and (s.outstanding or k.spaces[space].busy or s.proof_space):
        # `proof_space`: another shard's proof was waited for, and new news may have come meanwhile.
        k.counts.miss_told += 1
        r = NOT_SERVED
    s.proof_space = 0
    if r != UNPROVED:
        return r
    k.counts.waited += 1
    wait_for_proof(s, space)
    return FILLING


cdef int serve_one(Session* s, Command* c, const char* p, size_t n, const Scanner* scan,
                   uint16_t* space, Value** ask) noexcept nogil:
    """A read of one key, which has its values in `space`."""
    cdef Cache* k = <Cache*>s.core.cache
    cdef Value* v = NULL
    cdef KeySpan key
    cdef size_t at = 0
    cdef size_t size = 0
    cdef int r
    cdef const char* reply
    if not first_key(c, p, n, scan, &key):
        return NOT_SERVED             # EXISTS and the like, of several keys
    s.core.key_hash = sidecar_hash(k.seed, key.p, key.n)
    s.core.key_hashed = True
    if k.mode == CACHE_OBSERVE:
        return observe(k, s.core.key_hash, key.p, key.n)
    if k.mode == CACHE_HOT and not knows(k, s.core.key_hash):
        return NOT_SERVED             # most reads
    at = <size_t>scan.name_at + scan.name_len + 2       # behind the command's name
    r = look(s, c, p + at, n - at, key.p, key.n, s.core.key_hash, space, &v)
    if r == ASK:
        r = begin(s, c, p + at, n - at, key.p, key.n, s.core.key_hash, space[0], ask)
        v = ask[0]
    if r == SERVED:
        reply = form(v, s.proto, &size)
        if reply == NULL or guard_exceeds(s, size):
            return NOT_SERVED
        k.counts.hits += 1
        space_used(k, &k.spaces[space[0]])
        if give(s, c, reply, size) != SERVED:
            return NOT_SERVED
        ask[0] = v
        return SERVED
    return await_value(s, v, r, 1) if r == FILLING or r == ASK else r


cdef int serve_many(Session* s, Command* c, const char* p, size_t n, const Scanner* scan,
                    uint16_t* unproved, Value** ask) noexcept nogil:
    """MGET: all of its keys from here, or none. Those that are not are read all at once. `unproved`:
    with UNPROVED, a space whose proof is needed."""
    cdef Cache* k = <Cache*>s.core.cache
    cdef Buffer out
    cdef Value* v = NULL
    cdef Value* filling = NULL
    cdef Cursor a
    cdef const char* first
    cdef const char* at
    cdef size_t size = 0
    cdef int keys = 0
    cdef int cold = 0
    cdef uint16_t space = s.space
    cdef uint16_t waits_for = 0
    cdef int r = SERVED
    cdef const char* reply
    if k.mode == CACHE_OBSERVE:
        return NOT_SERVED
    out.data = NULL
    out.start = out.end = out.cap = 0
    arguments_of(&a, p, n, scan)
    first = at = a.at
    while r != NOT_SERVED and cursor_next(&a):
        r = look(s, c, at, <size_t>(a.at - at), a.arg, a.size,
                 sidecar_hash(k.seed, a.arg, a.size), &space, &v)
        at = a.at
        keys += 1
        if r == ASK:
            cold += 1
        elif r == FILLING:
            filling = v
        elif r == UNPROVED:
            waits_for = space
        elif r == SERVED:
            space_used(k, &k.spaces[space])
            reply = form(v, s.proto, &size)
            if reply == NULL or buffer_size(&out) + size > MANY_BYTES \
                    or buffer_append(&out, reply, size) < 0:
                r = NOT_SERVED
    if r == NOT_SERVED or cold > MANY_COLD:
        r = NOT_SERVED
    elif cold:
        r = begin_many(s, c, first, <size_t>(p + n - first), keys, ask)
    elif filling != NULL:
        r = await_value(s, filling, FILLING, keys)
    elif waits_for:
        unproved[0] = waits_for
        r = UNPROVED
    elif guard_exceeds(s, buffer_size(&out)):
        r = NOT_SERVED                  # so that all that is refused is refused in one place
    else:
        k.counts.hits += 1
        r = give_many(s, c, &out, keys)
    buffer_release(&out)
    return r


cdef int begin_many(Session* s, Command* c, const char* p, size_t n, size_t keys,
                    Value** ask) noexcept nogil:
    """Begin to read the values of an MGET that are not here; p[0:n] are its keys. The MGET waits only
    if all of them can be read."""
    cdef Cache* k = <Cache*>s.core.cache
    cdef Value* v = NULL
    cdef Cursor a
    cdef size_t size
    cdef uint64_t hash
    cdef uint16_t space = s.space
    cdef bint all = True
    cursor_on(&a, p, n)
    while cursor_next(&a):
        size = <size_t>(a.at - p)
        hash = sidecar_hash(k.seed, a.arg, a.size)
        if look(s, c, p, size, a.arg, a.size, hash, &space, &v) == ASK:
            all &= begin(s, c, p, size, a.arg, a.size, hash, space, ask) != NOT_SERVED
        p = a.at
    if ask[0] == NULL or not all:
        return NOT_SERVED               # or PUT_OFF, which is the same for it
    return await_value(s, ask[0], ASK, keys)


cdef int give_many(Session* s, Command* c, Buffer* values, int count) noexcept nogil:
    cdef Buffer out
    cdef int r = NOT_SERVED
    out.data = NULL
    out.start = out.end = out.cap = 0
    if put_header(&out, c'*', count) == 0 \
            and buffer_append(&out, buffer_head(values), buffer_size(values)) == 0:
        r = give(s, c, buffer_head(&out), buffer_size(&out))
    buffer_release(&out)
    return r
