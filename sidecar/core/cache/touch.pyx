# cython: language_level=3, cdivision=True
"""Keeps keys that are served from the near cache in use at the server.

A server with an eviction policy by use (`allkeys-lru`, `volatile-lfu` ...) evicts the keys that are
not read. Reads that are answered from the near cache do not reach the server, so it would evict the
hottest keys first. So a key that was served is named in a TOUCH on its space's tracked link: one
for many keys. For LRU once is enough. LFU counts accesses, so a key is named as often as it was
served, up to a bound.

The values served since their keys were last named are in a list, by hash, of bounded length: what a
call does depends on what was served, not on how much is here. The shell calls it, and bounds what
one call asks for.
"""
from sidecar.core.cache.store cimport SPACES, slot_of, value_bytes, value_cursor
from sidecar.core.cache.tracked_requests cimport Tracked, tracked_touch
from sidecar.core.memory cimport buffer_append
from sidecar.core.protocol.cursor cimport Cursor, cursor_next


cdef uint32_t name(Cache* k, Value* v, uint32_t repeats) noexcept nogil:
    """Name the value's key in its link's next TOUCH: how often."""
    cdef Tracked* t = <Tracked*>k.spaces[v.space].link
    cdef uint32_t times = v.hits if v.hits < repeats else repeats
    cdef uint32_t i
    cdef Cursor c
    v.hits = 0
    if t == NULL or t.no_touch:
        return 0
    value_cursor(&c, v)
    cursor_next(&c)                     # the key
    for i in range(times):
        if buffer_append(&t.touching, value_bytes(v), <size_t>(c.at - value_bytes(v))) < 0:
            return i
        t.touching_count += 1
    if k.spaces[v.space].slots != NULL:     # keys of a cluster are of several slots
        k.counts.touched += tracked_touch(t)
    return times


cdef uint32_t cache_touch_used(Cache* k, uint32_t most, uint32_t named_most,
                               uint32_t repeats) noexcept nogil:
    """Queue a TOUCH of the values that were served: of at most so many in the list, until
    `named_most` keys are named. Returns how many of the list it dealt with. A value that has gone
    is passed over."""
    cdef uint32_t done = 0
    cdef uint32_t named = 0
    cdef uint32_t hash
    cdef Value* v
    cdef int i
    while k.used_head != k.used_tail and done < most and named < named_most:
        hash = k.used[k.used_head % USED_MOST]
        k.used_head += 1
        done += 1
        v = k.values[slot_of(k, hash)]
        while v != NULL:
            if v.hash == hash and v.hits and not v.reading:
                named += name(k, v, repeats)
            v = v.next
    for i in range(SPACES):
        if k.spaces[i].link != NULL:
            k.counts.touched += tracked_touch(<Tracked*>k.spaces[i].link)
    return done
