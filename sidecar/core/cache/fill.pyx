# cython: language_level=3, cdivision=True
"""What the near cache reads: values that are on their way into the store.

A value that is being read is in the store already, with a `Fill` and no reply: sessions that ask for
the same value wait for it (single flight). It is kept if no command on its key was under way meanwhile
(barrier.pyx). Otherwise it is read again, or given up, and the sessions that wait go past the cache.

In the middle of a pipeline nobody waits: the command passes, and the value is put off until no
command on its key is under way, or for a few rounds.

A share of what was answered from the store is read once more, and compared.
"""
from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, malloc
from libc.string cimport memchr, memcmp, memcpy, memset
from sidecar.core.hashing cimport next_random
from sidecar.core.link.barrier cimport bucket_of
from sidecar.core.protocol.commands cimport COMMAND_CACHEABLE, Command
from sidecar.core.protocol.keys cimport KeySpan, first_key
from sidecar.core.cache.proof cimport stop_waiting
from sidecar.core.cache.slot_watch cimport find_watched, value_watched
from sidecar.core.link.receiver cimport session_mark
from sidecar.core.memory cimport Buffer, buffer_head, buffer_release
from sidecar.core.records cimport Barrier, Barriers, Session
from sidecar.core.protocol.cursor cimport Cursor, cursor_next
from sidecar.core.protocol.request cimport Scanner, arguments_of
from sidecar.core.protocol.resp2 cimport to_resp2
from sidecar.core.cache.store cimport (ASKING, CACHE_RULES, Cache, Fill, KeyRecord, NO_FORM, Rule, Value,
    block, drop_value, drop_values, drop_what_is_due, evict, fill_of, find_value, free_value, has_room,
    key_of, leave_key, link_value, make_key, may_be_wanted, now_ms, rule_for, settled,
    sidecar_hash, unlink_value, value_bytes, value_cursor, value_hash)

cdef enum:
    ROUNDS = 4              # times a value is put off before it is asked for, come what may
    TRIES = 3               # readings of a value before those who wait for it go past the cache,
    TRIES_WISHED = 20       # and before it is given up where nobody does


cdef void wait_for(Session* s, Value* v) noexcept nogil:
    """The session waits for a value that is being read, or will be soon: now at once."""
    cdef Cache* k = <Cache*>s.core.cache
    cdef Fill* f = fill_of(v)
    k.due = k.due or f.waiting_for_quiet
    s.awaited = v
    s.next_waiting = f.waiting
    f.waiting = s


cdef void put_off(Cache* k, Value* v) noexcept nogil:
    """Have a value asked for when no command on its key is under way, or soon at any rate."""
    cdef Fill* f = fill_of(v)
    f.waiting_for_quiet = True
    f.next = k.put_off
    k.put_off = v
    k.due = True


cdef bint cache_may_ask(Cache* k, Value* v) noexcept nogil:
    """Whether a value that was put off is to be asked for now; it is put off again, or given up,
    otherwise."""
    cdef KeyRecord* r = v.key
    cdef Fill* f = fill_of(v)
    cdef Barrier* barrier = &k.core.barriers.sets[bucket_of(r.hash)]
    cdef bint quiet = barrier.pending == 0 and k.core.barriers.pending_all == 0
    f.tries += 1
    if not quiet and f.waiting == NULL:
        if f.tries < ROUNDS:
            put_off(k, v)
            return False
        if r.poor:
            r.poor -= 1
        if r.poor or being_written(k, r.hash):
            cache_not_filled(k, v)
            return False
    f.waiting_for_quiet = False
    f.forced = not quiet
    f.tries = 0
    begin_reading(k, v)
    return True


cdef void begin_reading(Cache* k, Value* v) noexcept nogil:
    """The value is asked for now: note what counts from here on."""
    cdef Barriers* b = k.core.barriers
    cdef Barrier* barrier = &b.sets[bucket_of(v.key.hash)]
    cdef Fill* f = fill_of(v)
    f.asked_at = k.core.clock
    # Commands under way now must not be, later: `begun` is made to differ if there are any.
    f.begun = barrier.begun - (barrier.pending != 0 or not settled(k, v.key))
    f.begun_all = b.begun_all - (b.pending_all != 0)
    f.doomed = False


cdef Value* begin_fill(Cache* k, uint64_t hash, uint64_t key_hash, uint16_t space,
                       uint16_t command, const char* args, size_t n, const char* key,
                       size_t key_size) noexcept nogil:
    """A value that is about to be read, or NULL: the budget or memory is used up."""
    cdef KeyRecord* r
    cdef Fill* f
    cdef Value* v
    if not has_room(k, n):
        evict(k, sizeof(Fill) + sizeof(Value) + ASKING + 3 * n)
        if not has_room(k, n):
            return NULL
    r = make_key(k, key_hash, key, key_size)
    if r == NULL:
        return NULL
    f = <Fill*>calloc(1, sizeof(Fill) + sizeof(Value) + n)
    if f == NULL:
        leave_key(k, r)
        return NULL
    v = <Value*>(f + 1)
    v.reading = True
    v.key, v.hash, v.args_size = r, <uint32_t>hash, <uint32_t>n
    v.space, v.command = space, command
    memcpy(value_bytes(v), args, n)
    begin_reading(k, v)
    link_value(k, v)
    k.counts.fills += 1
    return v


cdef Value* cache_begin(Cache* k, uint16_t space, Command* c, const char* p, size_t n,
                        const Scanner* scan) noexcept nogil:
    """Begin to read what answers the whole request p[0:n], as if somebody had asked; its key is
    wanted from now on, unless it is rules that say so. NULL when it is here, is being read, or
    can't be."""
    cdef uint64_t key_hash, hash
    cdef Value* v
    cdef KeySpan key
    cdef Cursor a
    cdef const char* args
    cdef size_t size
    if not c.flags & COMMAND_CACHEABLE or not has_room(k, n) \
            or not first_key(c, p, n, scan, &key):
        return NULL
    arguments_of(&a, p, n, scan)
    args = a.at
    size = <size_t>(a.end - args)
    cursor_next(&a)                     # the key
    key_hash = sidecar_hash(k.seed, a.arg, a.size)
    hash = value_hash(k, space, c.id, key_hash, a.at, <size_t>(a.end - a.at))
    if find_watched(k, hash, space, c.id, args, size, a.arg, a.size) != NULL or being_written(k, key_hash) \
            or not may_be_wanted(k, a.arg, a.size):
        return NULL
    v = begin_fill(k, hash, key_hash, space, c.id, args, size, a.arg, a.size)
    if v != NULL:
        fill_of(v).wished = True
        if k.mode != CACHE_RULES:
            v.key.wanted = True
    return v


cdef void cache_leave(Session* s) noexcept nogil:
    """The session is closed: it waits for its value no more."""
    cdef Value* v = <Value*>s.awaited
    cdef Session** slot
    if v == NULL:
        return
    if s.awaits_proof:
        stop_waiting(s)
        return
    slot = &fill_of(v).waiting
    while slot[0] != s:
        slot = &slot[0].next_waiting
    slot[0] = s.next_waiting
    s.awaited = NULL


cdef void wake(Fill* f, bint bypass) noexcept nogil:
    """Sessions that waited look again; with `bypass`, past the cache."""
    cdef Session* s = f.waiting
    cdef Session* after
    f.waiting = NULL
    while s != NULL:
        after = s.next_waiting
        s.awaited = NULL
        s.bypass_next = bypass
        session_mark(s)
        s = after


cdef void cache_not_filled(Cache* k, Value* v) noexcept nogil:
    """The value will not be read, or may not be kept."""
    wake(fill_of(v), True)
    drop_value(k, v)


cdef bint was_alone(Cache* k, Value* v) noexcept nogil:
    """Whether no command on the key was under way from the asking until now."""
    cdef Barriers* b = k.core.barriers
    cdef Fill* f = fill_of(v)
    return not f.doomed and b.sets[bucket_of(v.key.hash)].begun == f.begun \
        and b.begun_all == f.begun_all


cdef bint ask_again(Cache* k, Value* v) noexcept nogil:
    """What was read cannot be kept. Reads that passed before the key was wanted are over soon,
    and new ones wait: so it is worth another try, unless the key is being written."""
    cdef Fill* f = fill_of(v)
    k.counts.miss_barred += 1
    f.tries += 1
    if f.tries >= (TRIES_WISHED if f.wished and f.waiting == NULL else TRIES) \
            or being_written(k, v.key.hash) \
            or (f.waiting == NULL and not f.forced and not f.wished):
        cache_not_filled(k, v)
        return False
    begin_reading(k, v)
    return True


cdef void pass_by(Value* v) noexcept nogil:
    """Sessions that wait for a value that is being read go past the cache. It is read all the
    same."""
    wake(fill_of(v), True)


cdef void cache_passing(Value* v) noexcept nogil:
    """More of the value has come than is kept: nobody waits for the rest."""
    fill_of(v).large = True
    pass_by(v)


cdef void cache_too_large(Cache* k, Value* v, int64_t ttl) noexcept nogil:
    """A value has been read that is too large to be kept: that is known, like a value, until the key
    changes. Meanwhile it is read from the server directly, and not for the cache as well."""
    cdef Value* known = NULL
    cdef Fill* f = fill_of(v)
    cdef uint64_t life = life_of(k, v, ttl)
    k.counts.miss_size += 1
    if life != 0 and not f.doomed:
        known = make_room(k, sizeof(Value) + v.args_size)
    if known == NULL:
        cache_not_filled(k, v)
        return
    known.large = True
    put_in_place(k, v, known, life)
    wake(f, True)
    free_value(v)


cdef bint null_is_array(Cache* k, Value* v) noexcept nogil:
    """Whether the command's null is a null array in RESP2, not a null string."""
    cdef Cursor c
    cdef int count = 0
    if v.command == k.geopos_id:
        return True
    if v.command != k.zrank_id and v.command != k.zrevrank_id:
        return False
    value_cursor(&c, v)
    while cursor_next(&c):
        count += 1
    return count > 2            # WITHSCORE


cdef Value* make_room(Cache* k, size_t n) noexcept nogil:
    """Memory for a value of n bytes, within the budget: others go for it. NULL: there is none."""
    cdef size_t size = block(n) + sizeof(KeyRecord*) + sizeof(Value*)
    cdef Value* v
    if k.bytes + size > k.budget:
        evict(k, size)
        if k.bytes + size > k.budget:
            return NULL
    v = <Value*>malloc(n)
    if v != NULL:
        memset(v, 0, sizeof(Value))
    return v


cdef uint64_t life_of(Cache* k, const Value* v, int64_t ttl) noexcept nogil:
    """How long a value may be kept whose PTTL was this, microseconds."""
    cdef size_t size = 0
    cdef const char* key = key_of(k, v.key, &size)
    cdef const Rule* rule = rule_for(k, key, size) if k.rule_count else NULL
    cdef uint64_t life = k.ttl_max
    if rule != NULL and rule.ttl and rule.ttl < life:
        life = rule.ttl
    if ttl == -2 and k.core.slots != NULL:
        return 0                        # see slot_watch.pyx
    if ttl == -2 and k.ttl_missing < life:
        life = k.ttl_missing
    if ttl >= 0 and <uint64_t>ttl * 1000 < life:
        life = <uint64_t>ttl * 1000
    return life


cdef void put_in_place(Cache* k, Value* v, Value* kept, uint64_t life) noexcept nogil:
    """What has been read takes the place of the value that was being read."""
    kept.key, kept.hash, kept.args_size = v.key, v.hash, v.args_size
    kept.space, kept.command = v.space, v.command
    kept.used = 1
    kept.forced = fill_of(v).forced
    # From the moment it was asked for: it cannot have been read earlier, nor be older.
    kept.expires = <uint32_t>((fill_of(v).asked_at + life - k.start) // 1000)
    memcpy(value_bytes(kept), value_bytes(v), v.args_size)
    unlink_value(k, v)
    link_value(k, kept)


cdef bint cache_filled(Cache* k, Value* v, int64_t ttl, const char* p, size_t n) noexcept nogil:
    """A value has been read: `ttl` is what PTTL said, p[0:n] the reply in RESP3.

    True when it must be read again; otherwise `v` is not to be used any more.
    """
    cdef Buffer form2
    cdef Value* kept
    cdef Fill* f = fill_of(v)
    cdef uint64_t life = life_of(k, v, ttl)
    cdef uint32_t form
    cdef size_t size2 = 0
    drop_what_is_due(k)
    if p[0] == c'-' or p[0] == c'|' or p[0] == c'!':
        k.counts.miss_error += 1
        cache_not_filled(k, v)
        return False
    if n > k.value_max:
        cache_too_large(k, v, ttl)
        return False
    if not was_alone(k, v):
        return ask_again(k, v)
    form2.data = NULL
    form2.start = form2.end = form2.cap = 0
    form = to_resp2(&form2, p, n, null_is_array(k, v))
    size2 = form if form != NO_FORM else 0
    kept = NULL if life == 0 else make_room(k, sizeof(Value) + v.args_size + n + size2)
    if kept == NULL:
        buffer_release(&form2)
        cache_not_filled(k, v)
        return False
    kept.reply_size, kept.resp2_size = <uint32_t>n, form
    memcpy(value_bytes(kept) + v.args_size, p, n)
    if size2:
        memcpy(value_bytes(kept) + v.args_size + n, buffer_head(&form2), size2)
    buffer_release(&form2)
    put_in_place(k, v, kept, life)
    k.counts.stored += 1
    wake(f, False)
    free_value(v)
    return False


# Checks.

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
    k.check_in = 1 + <uint32_t>(next_random(&k.random) % (2 * <uint64_t>k.check_every - 1))


cdef void cache_compare(Cache* k, uint64_t hash, uint16_t space, uint16_t command,
                        const char* args, size_t n, const char* reply, size_t size) noexcept nogil:
    """The server has answered a read on the tracked link of `space`: is the value that is here the
    same?

    Whatever changed it since it was read there has been pushed before this reply, and own commands
    drop it when they are begun. So a value that is still here has to be what the server has, or the
    contract is broken; it goes, then.
    """
    cdef Value* v
    drop_what_is_due(k)
    v = find_value(k, hash, space, command, args, n)
    if v == NULL or v.reading or v.large or <int32_t>(v.expires - now_ms(k)) <= 0 \
            or not value_watched(k, v):
        return
    k.counts.checked += 1
    if v.reply_size == size and (memcmp(value_bytes(v) + v.args_size, reply, size) == 0
                            or shuffled(k, value_bytes(v) + v.args_size, size)
                            == shuffled(k, reply, size)):
        return
    k.counts.mismatched += 1
    drop_values(k, v.key, False)


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
