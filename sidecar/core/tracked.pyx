# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The connection that reads values for the near cache, and receives their invalidations.

RESP3, `CLIENT TRACKING ON OPTIN`; one for each space. A value is asked for in one piece:

    CLIENT CACHING YES    MULTI    PTTL key    <the read>    EXEC        5 replies
    heartbeat: PING                                                      1 reply

so that what is tracked, its TTL and the value are of one moment. The server writes
invalidations into the same stream: one that was sent before the value was read arrives before
it, one sent after it arrives later and drops it. So the order of bytes is the order of events.

Each reply proves that the space is up to date as of the moment its request was queued: whatever
the server had to say before that has been received.

Anything unexpected ends the connection, and with it every value of the space: a piece that was
refused (the user may not use MULTI, PTTL or CLIENT), a reply that nobody asked for, a push that
tells of lost tracking.
"""
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, strlen
from sidecar.core.cache cimport (Cache, Value, cache_drop_all, cache_drop_key, cache_drop_space,
    cache_filled, cache_not_filled)
from sidecar.core.memory cimport (Buffer, buffer_append, buffer_head, buffer_release, buffer_size)
from sidecar.core.records cimport Session
from sidecar.core.reply cimport (FRAME_ERROR, FRAME_MORE, FRAME_PUSH, frame_reply, framer_reset)

cdef enum:
    FIRST = 64
    PIECES = 5              # replies to a piece that reads a value

cdef const char* BEFORE = (b"*3\r\n$6\r\nCLIENT\r\n$7\r\nCACHING\r\n$3\r\nYES\r\n"
                           b"*1\r\n$5\r\nMULTI\r\n*2\r\n$4\r\nPTTL\r\n")
cdef size_t BEFORE_LEN = strlen(BEFORE)
cdef const char* EXEC = b"*1\r\n$4\r\nEXEC\r\n"
cdef size_t EXEC_LEN = strlen(EXEC)
cdef const char* PING = b"*1\r\n$4\r\nPING\r\n"
cdef size_t PING_LEN = strlen(PING)


cdef Tracked* tracked_new(Cache* cache, void* owner, uint16_t space) noexcept nogil:
    """A tracked link without a connection, or NULL when memory is out."""
    cdef Tracked* t = <Tracked*>calloc(1, sizeof(Tracked))
    if t == NULL:
        return NULL
    t.ring = <Asked*>malloc(FIRST * sizeof(Asked))
    if t.ring == NULL:
        free(t)
        return NULL
    t.mask = FIRST - 1
    t.cache, t.owner, t.space = cache, owner, space
    framer_reset(&t.framer)
    return t


cdef void tracked_free(Tracked* t) noexcept nogil:
    """Free it; tracked_end first."""
    buffer_release(&t.out)
    buffer_release(&t.got)
    free(t.ring)
    free(t)


cdef void tracked_begin(Tracked* t) noexcept nogil:
    """Its connection is there, and tracks."""
    framer_reset(&t.framer)
    t.cache.spaces[t.space].link = t


cdef int grow(Tracked* t) noexcept nogil:
    cdef uint32_t size = t.mask + 1
    cdef uint32_t first = size - (t.head & t.mask)
    cdef Asked* ring = <Asked*>malloc(2 * size * sizeof(Asked))
    if ring == NULL:
        return -1
    memcpy(ring, t.ring + (t.head & t.mask), first * sizeof(Asked))
    memcpy(ring + first, t.ring, (size - first) * sizeof(Asked))
    free(t.ring)
    t.ring, t.mask, t.head, t.tail = ring, 2 * size - 1, 0, size
    return 0


cdef int put(Tracked* t, Value* v, const char* p, size_t n) noexcept nogil:
    """Queue one piece."""
    if t.tail - t.head > t.mask and grow(t) < 0:
        return -1
    if buffer_append(&t.out, p, n) < 0:
        return -1
    t.ring[t.tail & t.mask].value = v
    t.ring[t.tail & t.mask].at = t.cache.core.clock
    t.tail += 1
    t.due = t.cache.due = True
    return 0


cdef int tracked_beat(Tracked* t) noexcept nogil:
    """Queue a heartbeat: 0, or -1 without memory."""
    return put(t, NULL, PING, PING_LEN)


cdef void tracked_ask(Session* s, Value* v, const char* p, size_t n) noexcept nogil:
    """Read a value: p[0:n] is the request that is to be answered with it.

    Its key is the first argument in the value's own bytes. For one key of an MGET, the read is
    a GET of that key.
    """
    cdef Cache* k = <Cache*>s.core.cache
    cdef Tracked* t = <Tracked*>k.spaces[v.space].link
    cdef Buffer* b = &v.fill.request
    cdef const char* args = <const char*>v + sizeof(Value)
    cdef size_t key = first_argument(args)
    cdef int r = buffer_append(b, BEFORE, BEFORE_LEN)
    r |= buffer_append(b, args, key)
    if v.command == k.get_id:
        r |= buffer_append(b, b"*2\r\n$3\r\nGET\r\n", 13)
        r |= buffer_append(b, args, key)
    else:
        r |= buffer_append(b, p, n)
    r |= buffer_append(b, EXEC, EXEC_LEN)
    if r < 0 or put(t, v, buffer_head(b), buffer_size(b)) < 0:
        cache_not_filled(k, v)


cdef size_t first_argument(const char* p) noexcept nogil:
    """How long the argument at p is, header and line ends included."""
    cdef size_t i = 1
    cdef size_t v = 0
    while p[i] != 13:
        v = v * 10 + <size_t>(p[i] - 48)
        i += 1
    return i + 2 + v + 2


cdef int tracked_receive(Tracked* t, const char* p, size_t n) noexcept nogil:
    """Take bytes from upstream: 0, or -1 when the connection must be closed."""
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
        t.framer.first = 0
        if buffer_size(&t.got):
            if buffer_append(&t.got, p + at, i - at) < 0:
                return -1
            r = take(t, r, buffer_head(&t.got), buffer_size(&t.got))
            buffer_release(&t.got)
        else:
            r = take(t, r, p + at, i - at)
        if r < 0:
            return -1
        at = i
    if at < n and buffer_append(&t.got, p + at, n - at) < 0:
        return -1
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
        prove(t, asked.at)
        return 0 if p[0] == c'+' else -1
    t.step += 1
    if t.step < PIECES:
        return -1 if p[0] == c'-' else 0
    t.step = 0
    t.head += 1
    prove(t, asked.at)
    return take_value(t, asked.value, p, n)


cdef void prove(Tracked* t, uint64_t at) noexcept nogil:
    t.cache.spaces[t.space].proved = at


cdef int take_value(Tracked* t, Value* v, const char* p, size_t n) noexcept nogil:
    """The reply to EXEC: an array of the TTL and the value."""
    cdef long long ttl = 0
    cdef size_t i = 5
    cdef bint negative
    if n < 8 or memcmp(p, b"*2\r\n:", 5) != 0:
        return -1
    negative = p[i] == c'-'
    i += negative
    while p[i] != 13:
        ttl = ttl * 10 + (p[i] - 48)
        i += 1
    if cache_filled(t.cache, v, -ttl if negative else ttl, p + i + 2, n - i - 2):
        if put(t, v, buffer_head(&v.fill.request), buffer_size(&v.fill.request)) < 0:
            cache_not_filled(t.cache, v)
    return 0


cdef int take_push(Tracked* t, const char* p, size_t n) noexcept nogil:
    """An invalidation: of some keys, or of everything."""
    cdef size_t i = 20
    cdef size_t size, k
    t.pushes += 1
    if n < 24 or memcmp(p, b">2\r\n$10\r\ninvalidate\r\n", 21) != 0:
        return -1
    i = 21
    if p[i] == c'_' or (p[i] == c'*' and p[i + 1] == c'-'):
        cache_drop_all(t.cache)
        return 0
    if p[i] != c'*':
        return -1
    while p[i] != 10:
        i += 1
    i += 1
    while i < n:
        if p[i] != c'$':
            return -1
        size = 0
        i += 1
        while p[i] != 13:
            size = size * 10 + <size_t>(p[i] - 48)
            i += 1
        i += 2
        cache_drop_key(t.cache, p + i, size, True)
        i += size + 2
    return 0


cdef void tracked_end(Tracked* t) noexcept nogil:
    """Its connection is gone: who waits goes past the cache, and the space's values go."""
    cdef Asked* asked
    t.cache.spaces[t.space].link = NULL
    while t.head != t.tail:
        asked = t.ring + (t.head & t.mask)
        t.head += 1
        if asked.value != NULL:
            cache_not_filled(t.cache, asked.value)
    t.step = 0
    t.due = False
    buffer_release(&t.out)
    buffer_release(&t.got)
    cache_drop_space(t.cache, t.space)
