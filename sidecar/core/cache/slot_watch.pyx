# cython: language_level=3
"""Slots of a cluster that leave the shard their values were read from.

On a cluster a client has a space for each shard, and a key's space is that of the shard which has its
slot, as far as is known. A tracked link to a shard's server gets the invalidations of what that server
has. But a slot may leave it, and be written to elsewhere, before anybody here knows. Two things follow.

The server has to say so in the same stream of bytes. No push exists for that, but this one does: who
has subscribed to a shard channel (SSUBSCRIBE) gets `sunsubscribe` when the channel's slot leaves the
server, at that moment, whatever the reason: a migration, of either kind, or a failover. So the tracked
link subscribes to one channel of each slot from which something is read (`slot_channel`), before it
reads, and a value is kept only if its slot is SLOT_WATCHED when it comes. Nothing is published there. The
channel's name ends with the user (`sidecar:{1}:shop`): so each tenant may be given those of its own only.

    UNKNOWN --SSUBSCRIBE--> ASKED --ssubscribe--> WATCHED --sunsubscribe--> STALE --> ASKED ...

Values of a stale slot are not served. They go one by one as they are looked for, and all of them before
the slot is watched anew.

While a slot is being migrated key by key, a key that its old server does not have may be created at the
new one (ASK), and nothing tells the old one. So of a cluster nothing is kept of keys that do not exist.

A server that is cut off from the others goes on for `cluster-node-timeout`, as without a cache, and then
refuses to serve keys. It would still answer PING. So on a cluster the heartbeat is PTTL of a key that
was read (tracked.pyx), and a server that answers CLUSTERDOWN proves nothing.
"""
from libc.stdint cimport uint32_t
from libc.stdio cimport snprintf
from libc.string cimport memset
from sidecar.core.cache.store cimport drop_value, value_cursor
from sidecar.core.protocol.slots cimport SLOT_COUNT
from sidecar.core.protocol.cursor cimport Cursor, cursor_next

# For each slot the number whose digits, as a hash tag, have that slot.
cdef uint32_t[SLOT_COUNT] TAGS


cdef void fill_tags() noexcept:
    cdef char[16] digits
    cdef uint32_t number = 0
    cdef uint32_t left = SLOT_COUNT
    cdef uint16_t slot
    memset(TAGS, 0, sizeof(TAGS))
    while left:
        number += 1
        slot = slot_of(digits, <size_t>snprintf(digits, sizeof(digits), b"%u", number))
        if TAGS[slot] == 0:
            TAGS[slot] = number
            left -= 1


fill_tags()


cdef size_t slot_channel(uint16_t slot, char* p) noexcept nogil:
    """Write the name of the slot's channel, without the user, to p, which has CHANNEL_MAX bytes: its
    length."""
    return <size_t>snprintf(p, CHANNEL_MAX, b"sidecar:{%u}", TAGS[slot])


cdef uint16_t slot_of_value(Value* v) noexcept nogil:
    """The slot of a value's key."""
    cdef Cursor c
    value_cursor(&c, v)
    cursor_next(&c)
    return slot_of(c.arg, c.size)


cdef Value* find_stale(Cache* k, Value* v, const char* key, size_t n) noexcept nogil:
    """This value, unless its slot has left the shard: then it goes, and NULL."""
    if v.reading or k.spaces[v.space].slots[slot_of(key, n)] == SLOT_WATCHED:
        return v
    drop_value(k, v)
    return NULL


cdef void slot_lost(Space* space, uint16_t slot) noexcept nogil:
    """The server has lost this slot."""
    if space.slots[slot] == SLOT_WATCHED:
        space.slots[slot] = SLOT_STALE


cdef void slot_asked(Cache* k, uint16_t space, uint16_t slot) noexcept nogil:
    """The server is asked to tell of this slot. What is here of stale slots goes."""
    cdef Space* of = &k.spaces[space]
    if of.slots[slot] == SLOT_STALE:
        drop_stale(k, space)
    of.slots[slot] = SLOT_ASKED


cdef void drop_stale(Cache* k, uint16_t space) noexcept nogil:
    """Drop the values of all stale slots of a space. Those being read are judged when they come."""
    cdef Space* of = &k.spaces[space]
    cdef uint32_t i
    cdef Value* v
    cdef Value* after
    for i in range(k.slots if of.values else 0):
        v = k.values[i]
        while v != NULL:
            after = v.next
            if v.space == space and not v.reading and of.slots[slot_of_value(v)] == SLOT_STALE:
                drop_value(k, v)
            v = after
    for i in range(SLOT_COUNT):
        if of.slots[i] == SLOT_STALE:
            of.slots[i] = SLOT_UNKNOWN
