# cython: language_level=3
"""Barriers: while a command on a key is under way past the near cache, no value of it is stored.

The near cache reads on a connection of its own, and the server does not order connections. So a value
read there may be older than what a client has already been told by a reply on another connection. Two
rules prevent that:

1. A command that goes past the cache drops the values of its keys when it is dispatched, and
   sets a barrier on each until it is answered (or will not be any more).
2. A value is stored only if, since its reading was asked for, no command on its key has been
   begun, and none was under way then.

So of any two, a command on a key and the reading of a value that is stored, one was answered
before the other was sent. If the command came first, the value is at least as new as its reply;
if the reading came first, the value was dropped when the command was dispatched.

A key without a record needs no barrier: it is enough to know, when a record is made, that no command
on the key is under way. Commands on such keys are *loose*: they are only counted, by epochs. A record
made in an epoch may be filled once no loose command of that epoch or an earlier one is left
(`loose_commands_over`; it begins a new epoch whenever the one before the present is empty, so two
counts suffice). Where only the hottest keys have records, a command looks up one byte, instead of a
line of the table twice. Only commands on shared links may be loose: one that blocks on a dedicated
link would hold an epoch for as long as it blocks.

Keys are told apart only by a hash, in BUCKETS_OF_KEYS buckets. So a barrier on one key also bars the
other keys of its bucket: that may cost a reading, and is never wrong. A command that means all keys
(FLUSHALL, SWAPDB) sets one barrier on all. Commands whose keys cannot be known are left to the fence
(fence.pyx).

FLUSHALL, SWAPDB and changes of ACLs drop everything when the server has executed them. Until they are
answered, nothing is answered from the cache. So a client that may not flush cannot empty it.

A command inside MULTI takes effect when EXEC does: its barriers stay until the reply to EXEC or
DISCARD (`Link.deferred_buckets`). The buckets of entries with several barriers lie in
`Link.barrier_buckets` in the order of the ring.
"""
from libc.string cimport memcpy
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from sidecar.core.link.fence cimport entry_took_back
from sidecar.core.records cimport (BARRIERS_ALL, Barrier, Barriers, ENTRY_IN_MULTI, ENTRY_LAST,
    Entry, Link, entry_writes)
from sidecar.core.memory cimport (buffer_append, buffer_drop, buffer_head, buffer_reserve,
    buffer_size, buffer_truncate)

cdef enum:
    SEVERAL = 254           # in Entry.barriers: Entry.bucket says how many
    SEVERAL_MAX = 0xffff
    ALL = 0x7fff            # in the place of a bucket: all keys are barred,
    ALL_DROP = 0x7ffe       # and all values go if it was not refused
    WRITES = 0x8000         # in `deferred_buckets`: the command may write


cdef inline void begin(Barriers* b, uint16_t bucket, bint writes) noexcept nogil:
    cdef Barrier* barrier = &b.sets[bucket]
    barrier.pending += 1
    barrier.writing += writes
    barrier.begun += 1


cdef inline void end(Barriers* b, uint16_t bucket, bint writes) noexcept nogil:
    if bucket >= ALL_DROP:
        b.pending_all -= 1
        b.drops_pending -= bucket == ALL_DROP
    else:
        b.sets[bucket].pending -= 1
        b.sets[bucket].writing -= writes


cdef int barriers_raise(Link* l, Entry* e, uint64_t hash) noexcept nogil:
    """Set a barrier on one more key for the newest entry; without memory, one on all keys."""
    cdef uint16_t bucket = bucket_of(hash)
    if e.barriers == BARRIERS_ALL:
        return 0
    if e.barriers == 0:
        e.bucket = bucket
        e.barriers = 1
        begin(l.core.barriers, bucket, entry_writes(e))
        return 0
    # Room first, so that the buckets of an entry are all there or none.
    if (e.barriers == SEVERAL and e.bucket == SEVERAL_MAX) \
            or buffer_reserve(&l.barrier_buckets, 2 * sizeof(uint16_t)) < 0:
        barriers_raise_all(l, e, False)
        return 0
    if e.barriers == 1:
        buffer_append(&l.barrier_buckets, <char*>&e.bucket, sizeof(uint16_t))
        e.barriers, e.bucket = SEVERAL, 1
    buffer_append(&l.barrier_buckets, <char*>&bucket, sizeof(uint16_t))
    e.bucket += 1
    begin(l.core.barriers, bucket, entry_writes(e))
    return 0


cdef void barriers_raise_all(Link* l, Entry* e, bint drops) noexcept nogil:
    """Set a barrier on all keys for the newest entry, in place of those it has. `drops`: when it is
    over, and was not refused, every value goes."""
    cdef Barriers* b = l.core.barriers
    if e.barriers == BARRIERS_ALL:
        return
    lower_newest(l, e)
    e.barriers = BARRIERS_ALL
    e.bucket = ALL_DROP if drops else ALL
    b.pending_all += 1
    b.drops_pending += drops
    b.begun_all += 1


cdef void lower_newest(Link* l, Entry* e) noexcept nogil:
    """Take back the barriers of an entry that is the newest of its link."""
    cdef Barriers* b = l.core.barriers
    cdef uint16_t bucket
    cdef size_t size
    cdef int i
    if e.loose_epoch:
        b.loose[e.loose_epoch - 1] -= 1
        e.loose_epoch = 0
    if e.barriers == BARRIERS_ALL or e.barriers == 1:
        end(b, e.bucket, entry_writes(e))
    elif e.barriers:
        size = buffer_size(&l.barrier_buckets) - e.bucket * sizeof(uint16_t)
        for i in range(e.bucket):
            memcpy(&bucket, buffer_head(&l.barrier_buckets) + size + i * sizeof(uint16_t), sizeof(uint16_t))
            end(b, bucket, entry_writes(e))
        buffer_truncate(&l.barrier_buckets, size)
    e.barriers = 0


cdef void barriers_lower(Link* l, Entry* e, bint refused) noexcept nogil:
    """End the barriers of the oldest entry of a link: it is answered, or never will be.
    `entry_finished` has ended its loose command."""
    cdef bint later = e.flags & ENTRY_IN_MULTI and not e.flags & ENTRY_LAST
    cdef uint16_t bucket = ALL
    cdef int i
    if e.barriers == 1 or e.barriers == BARRIERS_ALL:
        settle(l, e.bucket, entry_writes(e), later, refused)
    elif e.barriers:
        for i in range(e.bucket):
            memcpy(&bucket, buffer_head(&l.barrier_buckets), sizeof(uint16_t))
            buffer_drop(&l.barrier_buckets, sizeof(uint16_t))
            settle(l, bucket, entry_writes(e), later, refused)
    e.barriers = 0
    if e.flags & ENTRY_LAST:
        end_deferred(l, refused)


cdef void settle(Link* l, uint16_t bucket, bint writes, bint later, bint refused) noexcept nogil:
    """End one barrier, now or with the transaction. If memory is out, the barrier stays: keys of that
    bucket are not cached any more, which is slow but right."""
    cdef uint16_t mark = bucket | (WRITES if writes else 0)
    if later:
        buffer_append(&l.deferred_buckets, <char*>&mark, sizeof(uint16_t))
    else:
        lower(l.core.barriers, bucket, writes, refused)


cdef inline void lower(Barriers* b, uint16_t bucket, bint writes, bint refused) noexcept nogil:
    """End a barrier whose command the server has seen, or may have."""
    end(b, bucket, writes)
    if bucket == ALL_DROP and not refused:
        b.drop_all = True


cdef void end_deferred(Link* l, bint refused) noexcept nogil:
    cdef uint16_t mark
    while buffer_size(&l.deferred_buckets):
        memcpy(&mark, buffer_head(&l.deferred_buckets), sizeof(uint16_t))
        buffer_drop(&l.deferred_buckets, sizeof(uint16_t))
        lower(l.core.barriers, mark & ALL, mark & WRITES != 0, refused)


cdef void barriers_abandon(Link* l, uint32_t head, uint32_t tail) noexcept nogil:
    """The entries [head, tail), the oldest of the link, are dropped without an answer.

    With none left, its transactions are over as well.
    """
    cdef uint32_t i = head
    if l.core.barriers == NULL:
        return
    while i != tail:
        entry_finished(l, l.ring + (i & l.mask), False)
        i += 1
    if tail == l.tail:
        end_deferred(l, False)


cdef void barriers_undo(Link* l, uint32_t from_) noexcept nogil:
    """The newest entries, [from_, tail), are taken back: nothing of them has been sent."""
    cdef uint32_t i = l.tail
    if l.core.barriers == NULL:
        return
    while i != from_:
        i -= 1
        entry_took_back(l.ring + (i & l.mask))
        lower_newest(l, l.ring + (i & l.mask))
