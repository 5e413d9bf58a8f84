# cython: language_level=3
"""The pending queue of a link: requests that wait for their replies.

One link carries the requests of many sessions and gets one stream of replies back. That this
never gives a reply to the wrong client rests on four facts:

1. An entry is queued in the same call that appends its request to `out`, so entries and
   requests have the same order, and the server answers in that order.
2. Only requests that yield exactly one reply are queued here (the routing's business); the
   framer finds where that reply ends. A push on a shared link is dropped: nobody there has
   asked for one.
3. A reply without an entry, or bytes that are no reply, end the link.
4. An entry is taken off only by its reply, or when the link is lost. A client that goes leaves
   its entries; its record stays until the last of them is answered, and what comes is dropped.

Order for one client: all its unanswered requests lie on one link (feed.pyx moves it only
when none is left), and errors made here for lost requests wait in the queue for their turn.

Requests on a shared link are kept in `out` until they are answered, so that after a loss those
that were never sent, and reads, can be sent again. [start, start + sent) has been given to the
socket; head's request begins at start:

    out   |<- sent, unanswered ->|<- not sent yet ->|
          start                  start + sent        end

recovery.pyx decides what becomes of them then; receive.pyx splits the replies.
"""
from libc.stdint cimport uint16_t, UINT32_MAX, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset, strlen
from sidecar.core.link.barrier cimport entry_finished
from sidecar.core.link.receiver cimport answer
from sidecar.core.link.weight cimport is_weighty, session_weigh
from sidecar.core.memory cimport (buffer_append, buffer_drop, buffer_head, buffer_release,
    ring_grown, ring_new)
from sidecar.core.observe.trace_records cimport trace_ready
from sidecar.core.protocol.commands cimport (COMMAND_MAY_BE_HELD, COMMAND_OPAQUE, COMMAND_READ,
    COMMAND_WRITES, ROUTE_MULTI, ROUTE_UNWATCH)
from sidecar.core.protocol.reply cimport framer_reset
from sidecar.core.records cimport (ENTRY_ACK_LATER, ENTRY_IN_MULTI, ENTRY_LAST, ENTRY_LOCAL,
    ENTRY_MAY_BE_HELD, ENTRY_NEEDS_ACK, ENTRY_OPAQUE, ENTRY_READ, ENTRY_STATE, ENTRY_WRITES,
    is_ready, link_took, TELLS_NOTHING)

cdef enum:
    # Below this a run is copied at once: a copy is cheaper than remembering where it lies.
    DIRECT_MIN = 4096

cdef const char* UNCERTAIN = (
    b"-UNCERTAIN the connection to the server was lost before it answered; "
    b"the command may or may not have been executed\r\n")
cdef size_t UNCERTAIN_LEN = strlen(UNCERTAIN)
UNCERTAIN_REPLY = UNCERTAIN     # for the shell


cdef Link* link_new(Core* core, void* owner, bint shared) noexcept nogil:
    """A link without a connection, or NULL when memory is out."""
    cdef Link* l = <Link*>calloc(1, sizeof(Link))
    if l == NULL:
        return NULL
    l.ring = <Entry*>ring_new(&l.mask, sizeof(Entry))
    if l.ring == NULL:
        free(l)
        return NULL
    l.core = core
    l.owner = owner
    l.shared = shared
    framer_reset(&l.framer)
    return l


cdef void link_free(Link* l) noexcept nogil:
    """Free a link. No entry of a live session may be left (link_fail first)."""
    cdef Link** at = &l.core.fed
    while l.fed:
        if at[0] == l:
            at[0] = l.next_fed
            l.fed = False
        else:
            at = &at[0].next_fed
    buffer_release(&l.out)
    buffer_release(&l.error_line)
    buffer_release(&l.withheld)
    buffer_release(&l.local_replies)
    buffer_release(&l.refusals)
    buffer_release(&l.raw_sizes)
    buffer_release(&l.barrier_buckets)
    buffer_release(&l.deferred_buckets)
    free(l.ring)
    free(l)


cdef int grow_ring(Link* l) noexcept nogil:
    cdef void* ring = ring_grown(l.ring, &l.mask, l.head, sizeof(Entry))
    if ring == NULL:
        return -1
    l.ring = <Entry*>ring
    return 0


cdef int link_entry(Link* l, Session* s, Command* c, uint16_t flags) noexcept nogil:
    """Queue an entry whose request bytes follow with link_bytes: 0, or -1 without memory."""
    cdef Entry* e
    if l.tail - l.head > l.mask and grow_ring(l) < 0:
        return -1
    e = l.ring + (l.tail & l.mask)
    l.tail += 1
    e.session = s
    e.size = 0
    describe(l, e, c, flags)
    if s != NULL:
        s.outstanding += 1
    return 0


cdef inline void describe(Link* l, Entry* e, Command* c, uint16_t flags) noexcept nogil:
    """Fill in what the command and its place in a transaction mean for an entry."""
    e.read_at = l.core.now
    e.command = c.id
    e.family = c.family
    e.route = c.route
    e.barriers = e.loose_epoch = e.record = 0
    e.tells = TELLS_NOTHING
    if c.flags & COMMAND_OPAQUE:
        flags |= ENTRY_OPAQUE
    if c.flags & COMMAND_READ:
        e.flags = flags | (ENTRY_READ | ENTRY_MAY_BE_HELD if c.flags & COMMAND_MAY_BE_HELD
                           else ENTRY_READ)
        return
    flags |= ENTRY_WRITES
    if ROUTE_MULTI <= c.route <= ROUTE_UNWATCH:
        flags |= ENTRY_STATE
        l.undecided += not l.shared
    if l.core.acks and c.flags & COMMAND_WRITES:
        if not flags & ENTRY_IN_MULTI or flags & ENTRY_LAST:
            flags |= ENTRY_NEEDS_ACK
            l.unsealed = True
        elif not flags & ENTRY_STATE:
            flags |= ENTRY_ACK_LATER
    e.flags = flags


cdef int link_push(Link* l, Session* s, Command* c, const char* p, size_t n,
                   uint16_t flags) noexcept nogil:
    """Queue one whole request: 0, or -1 without memory (nothing is queued then)."""
    cdef Entry* e
    if l.tail - l.head > l.mask and grow_ring(l) < 0:
        return -1
    if not l.shared and n >= DIRECT_MIN:
        if link_bytes(l, p, n) < 0:
            return -1
    elif (l.borrowed_len and link_settle_borrowed(l) < 0) or buffer_append(&l.out, p, n) < 0:
        return -1
    e = l.ring + (l.tail & l.mask)
    l.tail += 1
    e.session = s
    e.size = <uint32_t>n
    describe(l, e, c, flags)
    if s != NULL:
        s.outstanding += 1
    return 0


cdef int link_settle_borrowed(Link* l) noexcept nogil:
    """Copy the borrowed bytes. Without memory they stay borrowed: their request is queued already."""
    if l.borrowed_len and buffer_append(&l.out, l.borrowed, l.borrowed_len) < 0:
        return -1
    l.borrowed = NULL
    l.borrowed_len = 0
    return 0


cdef int link_bytes(Link* l, const char* p, size_t n) noexcept nogil:
    """Request bytes without an entry of their own: parts of a large request, or raw bytes.

    They may be remembered where they lie: the shell sends or settles `borrowed` before the receive
    buffer is used again.
    """
    if l.borrowed_len and l.borrowed + l.borrowed_len == p:
        l.borrowed_len += n
        return 0
    if n >= DIRECT_MIN and l.borrowed_len == 0 and l.out.end == l.out.start:
        l.borrowed = p
        l.borrowed_len = n
        return 0
    if l.borrowed_len and link_settle_borrowed(l) < 0:
        return -1
    return buffer_append(&l.out, p, n)


cdef void link_sent(Link* l, size_t n) noexcept nogil:
    """The socket has taken n more bytes of `out`."""
    if l.shared:
        l.sent += n
    else:
        buffer_drop(&l.out, n)


cdef int link_local(Link* l, Session* s, const char* p, size_t n) noexcept nogil:
    """Queue a reply made here behind those that the session still waits for: 0, or -1."""
    cdef Entry* e
    if l.tail - l.head > l.mask and grow_ring(l) < 0:
        return -1
    if n > UINT32_MAX or buffer_append(&l.local_replies, p, n) < 0:
        return -1
    e = l.ring + (l.tail & l.mask)
    l.tail += 1
    memset(e, 0, sizeof(Entry))
    e.session = s
    e.read_at = l.core.now
    e.withheld_size = <uint32_t>n
    e.flags = ENTRY_LOCAL
    s.outstanding += 1
    if is_weighty(s, n):
        session_weigh(s, n)
    return 0


cdef void answer_ready(Link* l, Entry* e) noexcept nogil:
    """Answer an entry that waits for no server. It has left the ring."""
    cdef Session* s = e.session
    if e.record or not e.flags & ENTRY_LOCAL:
        trace_ready(l, e)
    if s != NULL:
        s.outstanding -= 1
        if e.flags & ENTRY_LOCAL:
            answer(s, buffer_head(&l.local_replies), e.withheld_size)
        else:
            answer(s, UNCERTAIN, UNCERTAIN_LEN)
    if e.flags & ENTRY_LOCAL:
        buffer_drop(&l.local_replies, e.withheld_size)


cdef void settle_ready(Link* l) noexcept nogil:
    """Answer the entries at the head that no reply will come for."""
    cdef Entry* e
    while l.head != l.tail:
        e = l.ring + (l.head & l.mask)
        if not is_ready(e):
            return
        link_took(l, e)
        entry_finished(l, e, False)
        answer_ready(l, e)
