# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Bars: while a command on a key is under way past the near cache, no value of it is stored.

The near cache reads on a connection of its own, and the server does not order connections. So a
value read there may be older than what a client has already been told by a reply on another
connection. What rules that out:

1. A command that goes past the cache drops the values of its keys when it is dispatched, and
   bars the keys until it is answered (or will not be any more).
2. A value is stored only if, since its reading was asked for, no command on its key has been
   begun, and none was under way then.

So of any two, a command on a key and the reading of a value that is stored, one was answered
before the other was sent. If the command came first, the value is at least as new as its reply;
if the reading came first, the value was dropped when the command was dispatched.

Keys of which the cache has no record need no bar, only proof that no command on them is under way
when one is made: their commands are *loose*, and counted by epochs. A record made in an epoch may
be filled once no loose command of that epoch or before is left (`bars_settled`, which begins a new
epoch whenever the one before the present is empty: so two counts suffice). Where only the hottest
keys have records, a command costs one byte looked up instead of a line of the table, twice.
Only commands on shared links may be loose: one that blocks on a dedicated link would hold an epoch
for as long as it blocks.

Keys are told apart by a hash only, in BUCKETS_OF_KEYS buckets: two keys in one bucket bar each
other, which costs a reading and is never wrong. A command whose keys are not known, or that may
touch any, bars all.

A command inside MULTI takes effect when EXEC does: what it barred stays barred until the reply
to EXEC or DISCARD (`Link.deferred`). The buckets of entries with several bars lie in
`Link.barred` in the order of the ring.
"""
from libc.string cimport memcpy
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from sidecar.core.records cimport BARS_ALL, Bar, Bars, ENTRY_IN_MULTI, ENTRY_LAST, Entry, Link
from sidecar.core.memory cimport (buffer_append, buffer_drop, buffer_head, buffer_reserve,
    buffer_size, buffer_truncate)

cdef enum:
    SEVERAL_MAX = 254
    ALL = 0x7fff            # in the place of a bucket
    WRITES = 0x8000         # in `deferred`: the command may write


cdef inline void begin(Bars* b, uint16_t bucket, bint writes) noexcept nogil:
    cdef Bar* bar = &b.sets[bucket]
    bar.pending += 1
    bar.writing += writes
    bar.begun += 1


cdef inline void end(Bars* b, uint16_t bucket, bint writes) noexcept nogil:
    if bucket == ALL:
        b.pending_all -= 1
    else:
        b.sets[bucket].pending -= 1
        b.sets[bucket].writing -= writes


cdef int bars_take(Link* l, Entry* e, uint64_t hash) noexcept nogil:
    """Bar one more key for the newest entry. Without memory for that, all are barred."""
    cdef uint16_t bucket = bucket_of(hash)
    if e.bars == BARS_ALL:
        return 0
    if e.bars == 0:
        e.bucket = bucket
        e.bars = 1
        begin(l.core.bars, bucket, e.writes)
        return 0
    # Room first, so that the buckets of an entry are all there or none.
    if e.bars == SEVERAL_MAX or buffer_reserve(&l.barred, 2 * sizeof(uint16_t)) < 0:
        bars_take_all(l, e)
        return 0
    if e.bars == 1:
        buffer_append(&l.barred, <char*>&e.bucket, sizeof(uint16_t))
    buffer_append(&l.barred, <char*>&bucket, sizeof(uint16_t))
    e.bars += 1
    begin(l.core.bars, bucket, e.writes)
    return 0


cdef void bars_take_all(Link* l, Entry* e) noexcept nogil:
    """Bar all keys for the newest entry, in the place of those it has barred."""
    cdef Bars* b = l.core.bars
    if e.bars == BARS_ALL:
        return
    drop_newest(l, e)
    e.bars = BARS_ALL
    b.pending_all += 1
    b.begun_all += 1


cdef void drop_newest(Link* l, Entry* e) noexcept nogil:
    """Take back the bars of an entry that is the newest of its link."""
    cdef Bars* b = l.core.bars
    cdef uint16_t bucket
    cdef size_t size
    cdef int i
    if e.loose:
        b.loose[e.loose - 1] -= 1
        e.loose = 0
    if e.bars == BARS_ALL:
        b.pending_all -= 1
    elif e.bars == 1:
        end(b, e.bucket, e.writes)
    elif e.bars:
        size = buffer_size(&l.barred) - e.bars * sizeof(uint16_t)
        for i in range(e.bars):
            memcpy(&bucket, buffer_head(&l.barred) + size + i * sizeof(uint16_t), sizeof(uint16_t))
            end(b, bucket, e.writes)
        buffer_truncate(&l.barred, size)
    e.bars = 0


cdef void bars_release(Link* l, Entry* e) noexcept nogil:
    """The entry, the oldest of its link, is answered, or will not be. What was loose is known to be
    over before (`entry_over`)."""
    cdef Bars* b = l.core.bars
    cdef bint later = e.flags & ENTRY_IN_MULTI and not e.flags & ENTRY_LAST
    cdef uint16_t bucket = ALL
    cdef int i
    if e.bars == 1:
        settle(l, e.bucket, e.writes, later)
    elif e.bars == BARS_ALL:
        settle(l, ALL, e.writes, later)
    else:
        for i in range(e.bars):
            memcpy(&bucket, buffer_head(&l.barred), sizeof(uint16_t))
            buffer_drop(&l.barred, sizeof(uint16_t))
            settle(l, bucket, e.writes, later)
    e.bars = 0
    if e.flags & ENTRY_LAST:
        end_deferred(l)


cdef void settle(Link* l, uint16_t bucket, bint writes, bint later) noexcept nogil:
    """End one bar, now or with the transaction. Without memory to remember it, it stays: keys of
    that bucket are not cached any more, which is slow and right."""
    cdef uint16_t mark = bucket | (WRITES if writes else 0)
    if later:
        buffer_append(&l.deferred, <char*>&mark, sizeof(uint16_t))
    else:
        end(l.core.bars, bucket, writes)


cdef void end_deferred(Link* l) noexcept nogil:
    cdef uint16_t mark
    while buffer_size(&l.deferred):
        memcpy(&mark, buffer_head(&l.deferred), sizeof(uint16_t))
        buffer_drop(&l.deferred, sizeof(uint16_t))
        end(l.core.bars, mark & ALL, mark & WRITES != 0)


cdef void bars_give_up(Link* l, uint32_t head, uint32_t tail) noexcept nogil:
    """The entries [head, tail), the oldest of the link, are dropped without an answer.

    With none left, its transactions are over as well.
    """
    cdef uint32_t i = head
    if l.core.bars == NULL:
        return
    while i != tail:
        entry_over(l, l.ring + (i & l.mask))
        i += 1
    if tail == l.tail:
        end_deferred(l)


cdef void bars_take_back(Link* l, uint32_t from_) noexcept nogil:
    """The newest entries, [from_, tail), are taken back: nothing of them has been sent."""
    cdef uint32_t i = l.tail
    if l.core.bars == NULL:
        return
    while i != from_:
        i -= 1
        drop_newest(l, l.ring + (i & l.mask))
