# cython: language_level=3
"""The connection that reads values for the near cache, and receives their invalidations.

RESP3, `CLIENT TRACKING ON`; one for each space. Everything read on it is tracked, and nothing is
read on it but what is to be stored:

    PTTL key    <the read>      2 replies
    heartbeat: PING             1 reply
    a check: the read           1 reply     (a share of what was answered from the cache)
    TOUCH key ...               1 reply     (see touch.pyx)

and of a cluster, where heartbeats are PTTL of a key that was read (slot_watch.pyx)

    SSUBSCRIBE channel          1 push, or an error

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
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memset
from sidecar.core.cache.fill cimport (cache_compare, cache_filled, cache_not_filled, cache_passing,
    cache_too_large, pass_by)
from sidecar.core.cache.proof cimport space_lost, space_pass_by, space_proved
from sidecar.core.cache.store cimport (Cache, Space, Value, cache_drop_all, cache_drop_key,
    cache_drop_space)
from sidecar.core.cache.tracked_requests cimport Asked, Check, TOUCH, WATCH, tracked_ask, use_beat_key
from sidecar.core.memory cimport (buffer_append, buffer_head, buffer_release, buffer_size, ring_new)
from sidecar.core.protocol.reply cimport (FRAME_ERROR, FRAME_MORE, FRAME_PUSH, frame_reply, framer_reset)
from sidecar.core.cache.slot_watch cimport (SLOT_ASKED, SLOT_UNKNOWN, SLOT_WATCHED, slot_lost,
    value_watched)
from sidecar.core.protocol.slots cimport SLOT_COUNT, slot_of
from sidecar.core.protocol.cursor cimport (Cursor, cursor_begin, cursor_next, cursor_on,
    read_line_number)

cdef enum:
    PART_MOST = 1 << 30     # bytes of a push or a reply that is kept whole



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
    buffer_release(&t.beat_key)
    free(t.ring)
    free(t)


cdef void tracked_begin(Tracked* t) noexcept nogil:
    """Its connection is there, and tracks."""
    framer_reset(&t.framer)
    t.cache.spaces[t.space].link = t


cdef void compare(Tracked* t, Asked* asked, const char* p, size_t n) noexcept nogil:
    cdef Check* check = asked.check
    if p[0] != c'-':
        cache_compare(t.cache, check.hash, t.space, check.command, <char*>check + sizeof(Check),
                      check.args, p, n)
    free(check)


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
    elif not value_watched(t.cache, asked.value):
        cache_not_filled(t.cache, asked.value)
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
    if n > 12 and memcmp(p, b"-CLUSTERDOWN", 12) == 0 and t.cache.spaces[t.space].slots != NULL:
        return -1                       # others may have its slots by now
    if asked.check == WATCH:
        return watch_refused(t, asked, p, n)
    if asked.value == NULL:
        t.head += 1
        space_proved(&t.cache.spaces[t.space], asked.at, asked.number)
        if asked.check == TOUCH:
            t.no_touch = t.no_touch or (n > 7 and memcmp(p, b"-NOPERM", 7) == 0)
            return 0
        if asked.check != NULL:
            compare(t, asked, p, n)
            return 0
        if is_elsewhere(p, n):
            buffer_release(&t.beat_key)
            return 0
        return 0 if p[0] == c'+' or p[0] == c':' else -1
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
    if t.cache.spaces[t.space].slots != NULL:
        if not value_watched(t.cache, asked.value):
            cache_not_filled(t.cache, asked.value)
            return 0
        if buffer_size(&t.beat_key) == 0:
            use_beat_key(t, asked.value)
    if cache_filled(t.cache, asked.value, t.ttl, p, n):
        tracked_ask(asked.value, t.cache)
    return 0


cdef inline bint is_elsewhere(const char* p, size_t n) noexcept nogil:
    """Whether the reply says that another server of the cluster has the key."""
    return (n > 7 and memcmp(p, b"-MOVED ", 7) == 0) or (n > 5 and memcmp(p, b"-ASK ", 5) == 0)


cdef int watch_refused(Tracked* t, Asked* asked, const char* p, size_t n) noexcept nogil:
    """The server does not watch a slot: usually it does not have it. As `tracked_receive`."""
    t.head += 1
    if t.cache.spaces[t.space].slots[asked.slot] == SLOT_ASKED:
        t.cache.spaces[t.space].slots[asked.slot] = SLOT_UNKNOWN
    if n > 7 and memcmp(p, b"-NOPERM", 7) == 0:
        return NOT_ALLOWED
    return 0 if p[0] == c'-' else -1


cdef int take_slot_push(Tracked* t, const char* p, size_t n) noexcept nogil:
    """The server watches a slot from now on, or has lost one: 0, or -1 if it is another push."""
    cdef Asked* asked = t.ring + (t.head & t.mask)
    cdef Space* space = &t.cache.spaces[t.space]
    cdef Cursor c
    cdef bint gone
    if n < 4 or memcmp(p, b">3\r\n", 4) != 0:
        return -1
    cursor_on(&c, p + 4, n - 4)
    if not cursor_next(&c):
        return -1
    gone = c.size == 12 and memcmp(c.arg, b"sunsubscribe", 12) == 0
    if not gone and (c.size != 10 or memcmp(c.arg, b"ssubscribe", 10) != 0):
        return -1
    if not cursor_next(&c):
        return -1
    if gone:
        slot_lost(space, slot_of(c.arg, c.size))
        return 0
    if t.head == t.tail or asked.check != WATCH or asked.slot != slot_of(c.arg, c.size):
        return -1
    t.head += 1
    if space.slots[asked.slot] == SLOT_ASKED:
        space.slots[asked.slot] = SLOT_WATCHED
    return 0


cdef int take_push(Tracked* t, const char* p, size_t n) noexcept nogil:
    """An invalidation, of some keys or of everything; or it is about a slot."""
    cdef Cursor c
    t.pushes += 1
    if t.cache.spaces[t.space].slots != NULL and take_slot_push(t, p, n) == 0:
        return 0
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
        if asked.check != TOUCH and asked.check != WATCH:
            free(asked.check)
        if asked.value != NULL:
            cache_not_filled(t.cache, asked.value)
    t.ttl_came = t.due = t.passing = False
    t.cache.spaces[t.space].busy = False
    buffer_release(&t.out)
    buffer_release(&t.partial_reply)
    buffer_release(&t.touching)
    buffer_release(&t.beat_key)
    t.touching_count = 0
    if t.cache.spaces[t.space].slots != NULL:
        memset(t.cache.spaces[t.space].slots, SLOT_UNKNOWN, SLOT_COUNT)
    space_lost(&t.cache.spaces[t.space])
    cache_drop_space(t.cache, t.space)
