# cython: language_level=3
"""The connection that reads values for the near cache, and receives their invalidations.

RESP3, `CLIENT TRACKING ON`; one for each space. Everything read on it is tracked, and nothing is
read on it but what is to be stored:

    PTTL key    <the read>      2 replies
    heartbeat: PING             1 reply
    a check: the read           1 reply     (a share of what was answered from the cache)
    TOUCH key ...               1 reply     (see touch.pyx)

The server writes invalidations into the same stream: one that was sent before the value was read
arrives before its reply, one sent after it arrives later and drops it. So the order of bytes is
the order of events. The key is tracked from PTTL on: if it changes before the value is read, the
invalidation arrives between the two replies and what is read then is not stored, so TTL and value
are of one moment without a transaction (which would be five commands instead of two).

Each reply proves that the space is up to date as of the moment its request was queued: whatever
the server had to say before that has been received.

The bytes of a value larger than `cache.max_value` are passed over as they come. Nobody waits for it,
or for what was asked for behind it. The store remembers that it is too large.

If the server refuses a read (the user may not read that key), nothing is kept, and nothing else
happens. Anything unexpected ends the connection, and with it every value of the space: a value
without a TTL, since the user may read but not use PTTL, a reply that nobody asked for, a push that
tells of lost tracking.
"""
from libc.stdint cimport uint16_t, uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, strlen
from sidecar.core.cache.fill cimport (cache_compare, cache_filled, cache_may_ask, cache_not_filled,
    cache_passing, cache_too_large, pass_by)
from sidecar.core.cache.proof cimport space_lost, space_pass_by, space_proved, space_used
from sidecar.core.cache.store cimport (ASKING, Cache, Space, Value, cache_drop_all, cache_drop_key,
    cache_drop_space, fill_of, hash_of, value_bytes, value_cursor)
from sidecar.core.memory cimport (buffer_append, buffer_head, buffer_release, buffer_reserve,
    buffer_size, ring_grown, ring_new)
from sidecar.core.protocol.commands cimport NAME_MAX, Command
from sidecar.core.records cimport Barriers
from sidecar.core.protocol.reply cimport (FRAME_ERROR, FRAME_MORE, FRAME_PUSH, frame_reply, framer_reset)
from sidecar.core.protocol.cursor cimport (Cursor, cursor_begin, cursor_next, put_header,
    read_line_number)

cdef enum:
    PART_MOST = 1 << 30     # bytes of a push or a reply that is kept whole

cdef const char* BEFORE = b"*2\r\n$4\r\nPTTL\r\n"
cdef size_t BEFORE_LEN = strlen(BEFORE)
# Asked.check of a TOUCH: its reply tells nothing.
cdef Check TOUCH_MARK
cdef Check* TOUCH = &TOUCH_MARK
cdef const char* PING = b"*1\r\n$4\r\nPING\r\n"
cdef size_t PING_LEN = strlen(PING)


cdef Tracked* tracked_new(Cache* cache, void* owner, uint16_t space) noexcept nogil:
    """A tracked link without a connection, or NULL when memory is out."""
    cdef Tracked* t = <Tracked*>calloc(1, sizeof(Tracked))
    if t == NULL:
        return NULL
    t.ring = <Asked*>ring_new(&t.mask, sizeof(Asked))
    if t.ring == NULL:
        free(t)
        return NULL
    t.cache, t.owner, t.space = cache, owner, space
    framer_reset(&t.framer)
    return t


cdef void tracked_free(Tracked* t) noexcept nogil:
    """Free it; tracked_end first."""
    buffer_release(&t.out)
    buffer_release(&t.partial_reply)
    buffer_release(&t.touching)
    free(t.ring)
    free(t)


cdef void tracked_begin(Tracked* t) noexcept nogil:
    """Its connection is there, and tracks."""
    framer_reset(&t.framer)
    t.cache.spaces[t.space].link = t


cdef int grow(Tracked* t) noexcept nogil:
    cdef void* ring = ring_grown(t.ring, &t.mask, t.head, sizeof(Asked))
    if ring == NULL:
        return -1
    t.ring = <Asked*>ring
    return 0


cdef int room_for(Tracked* t, size_t n) noexcept nogil:
    """Make room to queue one piece of n bytes: 0, or -1 without memory."""
    if t.tail - t.head > t.mask and grow(t) < 0:
        return -1
    return buffer_reserve(&t.out, n)


cdef Asked* queued(Tracked* t, Value* v) noexcept nogil:
    """The bytes of a piece have been put into `out`: its reply is due."""
    cdef Asked* asked = t.ring + (t.tail & t.mask)
    asked.value = v
    asked.check = NULL
    asked.at = t.cache.core.clock
    t.cache.core.barriers.tracked_requests += 1
    asked.number = t.newest_request = t.cache.core.barriers.tracked_requests
    t.tail += 1
    t.due = t.cache.due = True
    return asked


cdef int tracked_beat(Tracked* t) noexcept nogil:
    """Queue a heartbeat: 0, or -1 without memory."""
    return tracked_say(t, PING, PING_LEN)


cdef int tracked_say(Tracked* t, const char* p, size_t n) noexcept nogil:
    """Queue a request that is answered with a simple string, as a heartbeat is: 0, or -1 without
    memory."""
    if room_for(t, n) < 0:
        return -1
    buffer_append(&t.out, p, n)
    queued(t, NULL)
    return 0


cdef uint32_t tracked_touch(Tracked* t) noexcept nogil:
    """Queue a TOUCH of the keys in `touching`: how many; 0 if there are none, or no memory."""
    cdef uint32_t count = t.touching_count
    t.touching_count = 0
    if count == 0:
        return 0
    if room_for(t, 32 + buffer_size(&t.touching)) < 0:
        count = 0
    else:
        put_header(&t.out, c'*', count + 1)
        buffer_append(&t.out, b"$5\r\nTOUCH\r\n", 11)
        buffer_append(&t.out, buffer_head(&t.touching), buffer_size(&t.touching))
        queued(t, NULL).check = TOUCH
    buffer_release(&t.touching)
    return count


cdef int ask(Tracked* t, Value* v) noexcept nogil:
    """Queue the reading of a value: 0, or -1 without memory.

    The request is made of the value's own bytes, which are the arguments behind the command's name;
    the key is the first of them.
    """
    cdef const Command* c = t.cache.commands + v.command
    cdef const char* args = value_bytes(v)
    cdef Cursor a
    cdef size_t key
    cdef size_t count = 2               # the command's name, and the key
    cdef int k
    cdef char name[NAME_MAX]            # in capitals, as everybody writes it
    value_cursor(&a, v)
    cursor_next(&a)
    key = <size_t>(a.at - args)
    while cursor_next(&a):
        count += 1
    if room_for(t, ASKING + key + v.args_size) < 0:
        return -1
    buffer_append(&t.out, BEFORE, BEFORE_LEN)
    buffer_append(&t.out, args, key)
    put_header(&t.out, c'*', count)
    put_header(&t.out, c'$', c.name_len)
    for k in range(c.name_len):
        name[k] = c.name[k] - 32 if c'a' <= c.name[k] <= c'z' else c.name[k]
    buffer_append(&t.out, name, c.name_len)
    buffer_append(&t.out, b"\r\n", 2)
    buffer_append(&t.out, args, v.args_size)
    queued(t, v)
    return 0


cdef void tracked_ask(Value* v, Cache* k) noexcept nogil:
    """Read a value: one that has just been begun, or whose reading could not be kept."""
    cdef Tracked* t = <Tracked*>k.spaces[v.space].link
    if t == NULL or ask(t, v) < 0:
        cache_not_filled(k, v)


cdef void tracked_check(Value* v, Cache* k, const char* p, size_t n) noexcept nogil:
    """Read what is here once more, to compare: p[0:n] is a request that was answered with it."""
    cdef Tracked* t = <Tracked*>k.spaces[v.space].link
    cdef Check* check
    if t == NULL:
        return
    check = <Check*>malloc(sizeof(Check) + v.args_size)
    if check == NULL:
        return
    check.hash, check.args, check.command = hash_of(k, v), v.args_size, v.command
    memcpy(<char*>check + sizeof(Check), value_bytes(v), v.args_size)
    if room_for(t, n) < 0:
        free(check)
        return
    buffer_append(&t.out, p, n)
    queued(t, NULL).check = check


cdef void compare(Tracked* t, Asked* asked, const char* p, size_t n) noexcept nogil:
    cdef Check* check = asked.check
    if p[0] != c'-':
        cache_compare(t.cache, check.hash, t.space, check.command, <char*>check + sizeof(Check),
                      check.args, p, n)
    free(check)


cdef void beat_due(Cache* k) noexcept nogil:
    """Queue the heartbeats that prove what was told of since the last ones (see proof.pyx)."""
    cdef Barriers* b = k.core.barriers
    cdef Space* space = k.awake
    cdef Space* after
    cdef Tracked* t
    cdef bint raised = b.fence_raised
    k.awake = NULL
    b.fence_raised = False
    while space != NULL:
        after = space.next_awake
        space.awake = False
        t = <Tracked*>space.link
        if t != NULL and t.newest_request > b.fence:
            space_used(k, space)            # what is on its way will prove it
        elif t != NULL and (space.waiting != NULL or (raised and t.head == t.tail)):
            tracked_beat(t)
        space = after


cdef void tracked_ask_due(Cache* k) noexcept nogil:
    """Queue what is due: heartbeats, and those of the values put off whose time has come."""
    cdef Value* v = k.put_off
    cdef Value* after
    k.put_off = NULL
    beat_due(k)
    while v != NULL:
        after = fill_of(v).next
        if cache_may_ask(k, v):
            tracked_ask(v, k)
        v = after


cdef int tracked_receive(Tracked* t, const char* p, size_t n) noexcept nogil:
    """Take bytes from upstream: 0, or when the connection must be closed, -1 or NOT_ALLOWED: its
    user may not do what the cache needs."""
    cdef size_t i = 0
    cdef size_t at = 0
    cdef int r
    t.received += n
    while i < n:
        r = frame_reply(&t.framer, p, n, &i)
        if r == FRAME_ERROR:
            return -1
        if r == FRAME_MORE:
            break
        r = take_whole(t, r, p + at, i - at)
        t.framer.first = 0
        if r < 0:
            return r
        at = i
    return keep_part(t, p + at, n - at) if at < n else 0


cdef int take_whole(Tracked* t, int kind, const char* p, size_t n) noexcept nogil:
    """A push or a reply ends with p[0:n]."""
    cdef int r
    if t.passing:
        return take_passed(t, t.framer.first)
    if buffer_size(&t.partial_reply) == 0:
        return take(t, kind, p, n)
    if buffer_append(&t.partial_reply, p, n) < 0:
        return -1
    r = take(t, kind, buffer_head(&t.partial_reply), buffer_size(&t.partial_reply))
    buffer_release(&t.partial_reply)
    return r


cdef int keep_part(Tracked* t, const char* p, size_t n) noexcept nogil:
    """p[0:n] is part of a push or a reply: keep it, unless the whole is too large for that."""
    cdef size_t size = buffer_size(&t.partial_reply) + n + <size_t>t.framer.bulk  # the rest of a string
    if t.passing:
        return 0
    if t.framer.first == c'>' or size <= t.cache.value_max or not is_value(t):
        return -1 if size > PART_MOST else buffer_append(&t.partial_reply, p, n)
    t.passing = True
    buffer_release(&t.partial_reply)
    link_busy(t)
    return 0


cdef bint is_value(const Tracked* t) noexcept nogil:
    """Whether the reply being read is one to a read, and not to PTTL or PING."""
    cdef const Asked* asked = t.ring + (t.head & t.mask)
    return t.head != t.tail and (asked.check != NULL or (asked.value != NULL and t.ttl_came))


cdef void link_busy(Tracked* t) noexcept nogil:
    """The reply being read takes a while and is of no use: nobody waits for it, nor behind it."""
    cdef uint32_t i = t.head
    cdef Value* v
    t.cache.spaces[t.space].busy = True
    space_pass_by(&t.cache.spaces[t.space])
    while i != t.tail:
        v = t.ring[i & t.mask].value
        if v != NULL and i == t.head:
            cache_passing(v)
        elif v != NULL:
            pass_by(v)
        i += 1


cdef int take_passed(Tracked* t, char first) noexcept nogil:
    """The reply that was passed over has come to its end; `first` is its first byte."""
    cdef Asked* asked = t.ring + (t.head & t.mask)
    t.passing = t.ttl_came = False
    t.cache.spaces[t.space].busy = False
    t.head += 1
    space_proved(&t.cache.spaces[t.space], asked.at, asked.number)
    if asked.value == NULL:
        free(asked.check)
    elif t.no_ttl or first == c'-' or first == c'!' or first == c'|':
        cache_not_filled(t.cache, asked.value)
        return NOT_ALLOWED if t.not_allowed and first != c'-' else 0
    else:
        cache_too_large(t.cache, asked.value, t.ttl)
    return 0


cdef int take(Tracked* t, int kind, const char* p, size_t n) noexcept nogil:
    """One whole push or reply."""
    cdef Asked* asked
    if kind == FRAME_PUSH:
        return take_push(t, p, n)
    if t.head == t.tail:
        return -1
    asked = t.ring + (t.head & t.mask)
    if asked.value == NULL:
        t.head += 1
        space_proved(&t.cache.spaces[t.space], asked.at, asked.number)
        if asked.check == TOUCH:
            t.no_touch = t.no_touch or (n > 7 and memcmp(p, b"-NOPERM", 7) == 0)
            return 0
        if asked.check != NULL:
            compare(t, asked, p, n)
            return 0
        return 0 if p[0] == c'+' else -1
    if not t.ttl_came:
        t.no_ttl = p[0] == c'-'
        t.not_allowed = n > 7 and memcmp(p, b"-NOPERM", 7) == 0
        if not t.no_ttl and (p[0] != c':' or not read_line_number(p + 1, n - 1, &t.ttl)):
            return -1
        t.ttl_came = True
        return 0
    t.ttl_came = False
    t.head += 1
    space_proved(&t.cache.spaces[t.space], asked.at, asked.number)
    if t.no_ttl:
        cache_not_filled(t.cache, asked.value)
        return NOT_ALLOWED if t.not_allowed and p[0] != c'-' else 0
    if cache_filled(t.cache, asked.value, t.ttl, p, n):
        tracked_ask(asked.value, t.cache)
    return 0


cdef int take_push(Tracked* t, const char* p, size_t n) noexcept nogil:
    """An invalidation: of some keys, or of everything."""
    cdef Cursor c
    t.pushes += 1
    if n < 24 or memcmp(p, b">2\r\n$10\r\ninvalidate\r\n", 21) != 0:
        return -1
    p += 21
    n -= 21
    if p[0] == c'_' or (p[0] == c'*' and p[1] == c'-'):
        cache_drop_all(t.cache)
        return 0
    if cursor_begin(&c, p, n) < 0:
        return -1
    while cursor_next(&c):
        cache_drop_key(t.cache, c.arg, c.size, True)
    return 0 if c.at == c.end else -1


cdef void tracked_end(Tracked* t) noexcept nogil:
    """Its connection is gone: sessions that wait go past the cache, and the space's values go."""
    cdef Asked* asked
    t.cache.spaces[t.space].link = NULL
    while t.head != t.tail:
        asked = t.ring + (t.head & t.mask)
        t.head += 1
        if asked.check != TOUCH:
            free(asked.check)
        if asked.value != NULL:
            cache_not_filled(t.cache, asked.value)
    t.ttl_came = t.due = t.passing = False
    t.cache.spaces[t.space].busy = False
    buffer_release(&t.out)
    buffer_release(&t.partial_reply)
    buffer_release(&t.touching)
    t.touching_count = 0
    space_lost(&t.cache.spaces[t.space])
    cache_drop_space(t.cache, t.space)
