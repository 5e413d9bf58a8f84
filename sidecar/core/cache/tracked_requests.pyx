# cython: language_level=3
"""What is asked on a tracked link (tracked.pyx): readings, heartbeats, checks, TOUCH, SSUBSCRIBE.

Each is queued as one piece, with a record of what its reply is for. The shell sends what is queued.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, strlen
from sidecar.core.cache.fill cimport cache_may_ask, cache_not_filled
from sidecar.core.cache.proof cimport space_used
from sidecar.core.cache.slot_watch cimport (CHANNEL_MAX, SLOT_ASKED, SLOT_WATCHED, slot_asked,
    slot_channel, slot_of_value)
from sidecar.core.cache.store cimport (ASKING, Cache, Space, Value, cache_any_of, fill_of, hash_of,
    value_bytes, value_cursor)
from sidecar.core.memory cimport (buffer_append, buffer_head, buffer_release, buffer_reserve,
    buffer_size, ring_grown)
from sidecar.core.protocol.commands cimport NAME_MAX, Command
from sidecar.core.protocol.cursor cimport Cursor, cursor_next, put_header
from sidecar.core.records cimport Barriers

cdef const char* BEFORE = b"*2\r\n$4\r\nPTTL\r\n"
cdef size_t BEFORE_LEN = strlen(BEFORE)
cdef Check TOUCH_MARK
TOUCH = &TOUCH_MARK
cdef Check WATCH_MARK
WATCH = &WATCH_MARK
cdef const char* PING = b"*1\r\n$4\r\nPING\r\n"
cdef size_t PING_LEN = strlen(PING)


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
    if t.cache.spaces[t.space].slots == NULL or not has_beat_key(t):
        return tracked_say(t, PING, PING_LEN)
    if room_for(t, BEFORE_LEN + buffer_size(&t.beat_key)) < 0:
        return -1
    buffer_append(&t.out, BEFORE, BEFORE_LEN)
    buffer_append(&t.out, buffer_head(&t.beat_key), buffer_size(&t.beat_key))
    queued(t, NULL)
    return 0


cdef bint has_beat_key(Tracked* t) noexcept nogil:
    """Whether there is a key to ask for; if need be, that of some value."""
    cdef Value* v
    if buffer_size(&t.beat_key) == 0:
        v = cache_any_of(t.cache, t.space)
        if v != NULL:
            use_beat_key(t, v)
    return buffer_size(&t.beat_key) != 0


cdef void use_beat_key(Tracked* t, Value* v) noexcept nogil:
    """Heartbeats ask for the key of this value from now on."""
    cdef Cursor c
    value_cursor(&c, v)
    cursor_next(&c)
    buffer_release(&t.beat_key)
    buffer_append(&t.beat_key, value_bytes(v), <size_t>(c.at - value_bytes(v)))


cdef int tracked_watch(Tracked* t, uint16_t slot) noexcept nogil:
    """Have the server tell when it loses this slot: 0, or -1 without memory."""
    cdef char[CHANNEL_MAX] channel
    cdef size_t n = slot_channel(slot, channel)
    cdef uint64_t newest = t.newest_request
    cdef Asked* asked
    cdef size_t more = 1 + t.user_len if t.user_len else 0
    if room_for(t, 64 + n + more) < 0:
        return -1
    buffer_append(&t.out, b"*2\r\n$10\r\nSSUBSCRIBE\r\n", 21)
    put_header(&t.out, c'$', n + more)
    buffer_append(&t.out, channel, n)
    if more:
        buffer_append(&t.out, b":", 1)
        buffer_append(&t.out, t.user, t.user_len)
    buffer_append(&t.out, b"\r\n", 2)
    asked = queued(t, NULL)
    asked.check, asked.slot = WATCH, slot
    t.newest_request = newest           # its answer proves nothing
    slot_asked(t.cache, t.space, slot)
    return 0


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
    if t.cache.spaces[t.space].slots != NULL and watch_slot_of(t, v) < 0:
        return -1
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


cdef int watch_slot_of(Tracked* t, Value* v) noexcept nogil:
    """See that the slot of a value about to be read is watched: 0, or -1 without memory."""
    cdef uint16_t slot = slot_of_value(v)
    cdef uint8_t state = t.cache.spaces[t.space].slots[slot]
    if state == SLOT_WATCHED or state == SLOT_ASKED:
        return 0
    return tracked_watch(t, slot)


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
