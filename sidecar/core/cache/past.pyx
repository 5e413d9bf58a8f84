# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What goes past the near cache: commands that it does not answer.

Each drops the values of its keys when it is queued, and bars the keys until it is answered
(barrier.pyx): whoever reads behind it, or beside it, is not served what it may have changed, and
never something older than what it was answered with. Where its keys cannot be known, or its reply
tells of others, the fence does that (fence.pyx). FLUSHALL, SWAPDB and the like mean all keys.
"""
from libc.stdint cimport uint64_t
from sidecar.core.link.barrier cimport barriers_count_loose, barriers_raise, barriers_raise_all
from sidecar.core.link.fence cimport entry_tells
from sidecar.core.protocol.commands cimport (COMMAND_OPAQUE, COMMAND_TELLS, Command, FORM_ANY,
    FORM_MASK, FORM_NONE, FORM_ONE)
from sidecar.core.protocol.keys cimport KEYS_ANY, KeySpan, find_keys, first_key
from sidecar.core.protocol.request cimport Scanner
from sidecar.core.records cimport Core, ENTRY_IN_MULTI, ENTRY_LAST, Entry, Link
from sidecar.core.cache.store cimport (CACHE_RULES, Cache, KeyRecord, argument, arguments,
    cache_drop_all, cache_drop_key, drop_values, find_key, knows, sidecar_hash, wanted)

cdef enum:
    KEYS_MOST = 64


cdef void pass_key(Cache* k, Link* l, Entry* e, uint64_t hash, const char* key,
                   size_t n) noexcept nogil:
    cdef KeyRecord* r
    if not knows(k, hash):
        if e == NULL:
            return
        if l.shared and not e.flags & ENTRY_IN_MULTI \
                and (k.mode != CACHE_RULES or not wanted(k, hash, key, n)):
            barriers_count_loose(k.core.barriers, e)
        else:
            barriers_raise(l, e, hash)
        return
    r = find_key(k, hash, key, n)
    if r != NULL:
        if r.ghost == 2:
            r.ghost = 1
        else:
            k.counts.dropped_here += drop_values(k, r)
    if e != NULL:
        barriers_raise(l, e, hash)


cdef inline void note_news(Link* l, Entry* e, const Command* c) noexcept nogil:
    """See whether the reply to the newest entry tells of changes to keys it does not name."""
    if c.flags & COMMAND_TELLS:
        entry_tells(l, e, c.flags & COMMAND_OPAQUE != 0)
    elif e.flags & ENTRY_LAST:
        if l.piece_tells or not l.shared:       # there WATCH may be, and null says "it has changed"
            l.piece_tells = False
            entry_tells(l, e, True)


cdef void drop_and_bar_all(Cache* k, Link* l, Entry* e) noexcept nogil:
    cache_drop_all(k)
    if e != NULL:
        barriers_raise_all(l, e)


cdef void cache_touch(Core* core, Link* l, Entry* e, Command* c, const char* p, size_t n,
                      const Scanner* scan) noexcept nogil:
    """A command goes past the cache: drop its keys' values, and barrier them for entry `e` of `l`.

    With `e` NULL there is none: a pinned link, whose replies are not matched. `scan` has just
    found the request whole.
    """
    cdef Cache* k = <Cache*>core.cache
    cdef KeySpan spans[KEYS_MOST]
    cdef int count, i
    if e != NULL:
        note_news(l, e, c)
    if first_key(c, p, scan.name_at, scan.name_len, scan.argc, spans):
        if not core.hashed:
            core.hash = sidecar_hash(k.seed, spans[0].p, spans[0].n)
        pass_key(k, l, e, core.hash, spans[0].p, spans[0].n)
        return
    count = find_keys(c, p, n, spans, KEYS_MOST)
    if count == KEYS_ANY or c.id == k.acl_id:   # who may read what may be about to change
        drop_and_bar_all(k, l, e)
        return
    if count < 0 and e != NULL:
        entry_tells(l, e, True)
    for i in range(count):
        pass_key(k, l, e, sidecar_hash(k.seed, spans[i].p, spans[i].n), spans[i].p, spans[i].n)


cdef void cache_touch_part(Core* core, Link* l, Entry* e, Command* c, const char* p,
                           size_t n) noexcept nogil:
    """The same for the beginning p[0:n] of a large command, its name included."""
    cdef Cache* k = <Cache*>core.cache
    cdef size_t at = 0
    cdef size_t size = 0
    cdef size_t head
    if e != NULL:
        note_news(l, e, c)
    if c.keys & FORM_MASK == FORM_ONE and arguments(p, n, &at) and at + 24 < n:
        head = argument(p + at, &size)
        if at + head + size <= n:
            cache_drop_key(k, p + at + head, size, False)
            if e != NULL:
                barriers_raise(l, e, sidecar_hash(k.seed, p + at + head, size))
            return
    if c.keys & FORM_MASK == FORM_ANY or c.id == k.acl_id:
        drop_and_bar_all(k, l, e)
    elif c.keys & FORM_MASK != FORM_NONE and e != NULL:
        entry_tells(l, e, True)


cdef void cache_pass_part(Link* l, Command* c, const char* p, size_t n) noexcept nogil:
    """The beginning of a large command has just been queued on `l`."""
    cache_touch_part(l.core, l, l.ring + ((l.tail - 1) & l.mask), c, p, n)


cdef void cache_pass(Link* l, Command* c, const char* p, size_t n,
                     const Scanner* scan) noexcept nogil:
    """The command has just been queued on `l`."""
    cache_touch(l.core, l, l.ring + ((l.tail - 1) & l.mask), c, p, n, scan)
