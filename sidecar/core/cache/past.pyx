# cython: language_level=3
"""What goes past the near cache: commands that it does not answer.

When a command is queued it drops the values of its keys, and bars the keys until it is answered
(barrier.pyx). So no read behind it, or beside it, is served what it may have changed, or what is
older than its reply. Where its keys cannot be known, or its reply tells of others, the fence does
that (fence.pyx). FLUSHALL, SWAPDB and changes of ACLs mean all keys: while one is under way nothing
is served, and if the server has not refused it everything goes.

However many keys it names, each is dropped and barred by itself. What the server is sure to refuse
(the wrong number of arguments, an unknown subcommand) touches nothing.
"""
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc
from sidecar.core.link.barrier cimport barriers_count_loose, barriers_raise, barriers_raise_all
from sidecar.core.link.fence cimport entry_tells
from sidecar.core.protocol.commands cimport (COMMAND_OPAQUE, COMMAND_TELLS, Command, FORM_ANY,
    FORM_MASK, FORM_NONE, FORM_ONE)
from sidecar.core.protocol.keys cimport (KEYS_ANY, KEYS_TOO_MANY, KeySpan, find_keys,
    first_key)
from sidecar.core.protocol.cursor cimport Cursor, cursor_begin, cursor_next, is_word
from sidecar.core.protocol.request cimport Scanner
from sidecar.core.records cimport Core, ENTRY_IN_MULTI, ENTRY_LAST, Entry, Link, entry_writes
from sidecar.core.cache.store cimport (CACHE_RULES, Cache, KeyRecord,
    cache_drop_all, cache_drop_key, drop_values, find_key, knows, sidecar_hash, wanted)

cdef enum:
    KEYS_FEW = 64           # keys that are found without asking for memory


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
            k.counts.dropped_here += drop_values(k, r, e != NULL and not entry_writes(e))
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
    """Nothing is served until it is over; then everything goes, unless it was refused."""
    if e != NULL:
        barriers_raise_all(l, e, True)
    else:
        cache_drop_all(k)


cdef bint may_change_access(const char* p, size_t n) noexcept nogil:
    """Whether an ACL command, whole or its beginning, may change who may read what."""
    cdef Cursor c
    if cursor_begin(&c, p, n) < 1 or not cursor_next(&c) or not cursor_next(&c):
        return True
    return not (is_word(&c, b"whoami", 6) or is_word(&c, b"list", 4) or is_word(&c, b"users", 5)
                or is_word(&c, b"getuser", 7) or is_word(&c, b"cat", 3) or is_word(&c, b"log", 3)
                or is_word(&c, b"genpass", 7) or is_word(&c, b"dryrun", 6)
                or is_word(&c, b"save", 4) or is_word(&c, b"help", 4))


cdef int pass_keys(Cache* k, Link* l, Entry* e, Command* c, const char* p, size_t n, KeySpan* spans,
                   int most) noexcept nogil:
    """Find the keys of a command, and drop and bar each: their number, or a negative KEYS_ code."""
    cdef int count = find_keys(c, p, n, spans, most)
    cdef int i
    for i in range(count):
        pass_key(k, l, e, sidecar_hash(k.seed, spans[i].p, spans[i].n), spans[i].p, spans[i].n)
    return count


cdef int pass_many(Cache* k, Link* l, Entry* e, Command* c, const char* p, size_t n,
                   size_t most) noexcept nogil:
    """The same for more keys than have room in a small array. Without memory they are unknown."""
    cdef KeySpan* spans = <KeySpan*>malloc(most * sizeof(KeySpan))
    cdef int count = KEYS_TOO_MANY
    if spans != NULL:
        count = pass_keys(k, l, e, c, p, n, spans, <int>most)
        free(spans)
    return count


cdef void cache_touch(Core* core, Link* l, Entry* e, Command* c, const char* p, size_t n,
                      const Scanner* scan) noexcept nogil:
    """A command goes past the cache: drop its keys' values, and barrier them for entry `e` of `l`.

    With `e` NULL there is none: a pinned link, whose replies are not matched. `scan` has just
    found the request whole.
    """
    cdef Cache* k = <Cache*>core.cache
    cdef KeySpan spans[KEYS_FEW]
    cdef int count
    if scan.argc < -c.arity or (c.arity > 0 and scan.argc != c.arity):
        if e != NULL:
            entry_tells(l, e, True)     # if it is not refused after all
        return
    if e != NULL:
        note_news(l, e, c)
    if first_key(c, p, n, scan, spans):
        if not core.key_hashed:
            core.key_hash = sidecar_hash(k.seed, spans[0].p, spans[0].n)
        pass_key(k, l, e, core.key_hash, spans[0].p, spans[0].n)
        return
    count = pass_keys(k, l, e, c, p, n, spans, KEYS_FEW)
    if count == KEYS_TOO_MANY:
        count = pass_many(k, l, e, c, p, n, <size_t>scan.argc)
    if count == KEYS_ANY or (c.id == k.acl_id and may_change_access(p, n)):
        drop_and_bar_all(k, l, e)
    elif count < 0 and e != NULL:
        entry_tells(l, e, True)


cdef void cache_touch_part(Core* core, Link* l, Entry* e, Command* c, const char* p,
                           size_t n) noexcept nogil:
    """The same for the beginning p[0:n] of a large command, its name included."""
    cdef Cache* k = <Cache*>core.cache
    cdef Cursor a
    if e != NULL:
        note_news(l, e, c)
    if c.keys & FORM_MASK == FORM_ONE and cursor_begin(&a, p, n) > 1 and cursor_next(&a) \
            and cursor_next(&a):
        cache_drop_key(k, a.arg, a.size, False)
        if e != NULL:
            barriers_raise(l, e, sidecar_hash(k.seed, a.arg, a.size))
        return
    if c.keys & FORM_MASK == FORM_ANY or (c.id == k.acl_id and may_change_access(p, n)):
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
