# cython: language_level=3
"""What becomes of requests whose link is lost, held up, or given up.

After a loss, a request of which any byte was sent counts as sent: reads are kept, other commands
become ENTRY_UNCERTAIN and are never sent again. What the server itself said it did not execute
(ENTRY_AGAIN) is kept as well. A MULTI ... EXEC piece is judged as one. A reply that was
delivered in part can't be mended: its session is closed.

Order for one client: entries keep their order in all of this, and a session whose entries move
to another link moves with all of them.
"""
from libc.stdint cimport uint32_t
from libc.string cimport strlen
from sidecar.core.link.barrier cimport barriers_abandon, barriers_raise_all, entry_finished
from sidecar.core.link.pending cimport answer_ready, grow_ring, settle_ready
from sidecar.core.link.receiver cimport answer, session_mark_live
from sidecar.core.records cimport (BARRIERS_ALL, ENTRY_ACK, ENTRY_AGAIN, ENTRY_IN_MULTI, ENTRY_LAST,
    ENTRY_LOCAL, ENTRY_NEEDS_ACK, ENTRY_OPAQUE, ENTRY_READ, ENTRY_UNCERTAIN, Entry, Link, Session,
    TELLS_NOTHING, is_ready)
from sidecar.core.link.redirected cimport keep_redirected
from sidecar.core.memory cimport (Buffer, buffer_append, buffer_drop, buffer_head,
    buffer_release)
from sidecar.core.protocol.reply cimport framer_reset
from sidecar.core.observe.trace_records cimport trace_failed, trace_moved


cdef void forget_connection(Link* l) noexcept nogil:
    """What is known of the connection's bytes is about a connection that is no more."""
    l.sent = 0
    l.partial = l.swallowing = False
    l.in_piece = False
    l.transaction = 0
    l.undecided = 0
    l.demoted = False
    l.judged_to = l.head
    l.judged_size = 0
    buffer_release(&l.withheld)
    buffer_release(&l.error_line)
    l.error_line_taken = False
    l.withheld_whole = 0
    framer_reset(&l.framer)


cdef bint may_resend(Link* l, Entry* e, size_t at, bint* piece_kept) noexcept nogil:
    """Whether the request that begins at offset `at` of `out` may be sent (again)."""
    if e.flags & ENTRY_IN_MULTI:
        return piece_kept[0]
    return at >= l.sent or e.flags & (ENTRY_READ | ENTRY_AGAIN) != 0


cdef inline void keep(Link* l, Entry* e) noexcept nogil:
    """An entry is queued (again): whether a WAIT must still follow (see replica_acks.pyx)."""
    e.flags &= ~ENTRY_AGAIN       # it holds for the connection that is lost
    if e.record:
        trace_moved(l, e)
    if e.flags & ENTRY_NEEDS_ACK:
        l.unsealed = True               # the WAIT that stood behind it may be lost
    elif e.flags & ENTRY_ACK and not is_ready(e):
        l.unsealed = False


cdef int link_lost(Link* l, bint resend) noexcept nogil:
    """The connection under a shared link is gone: judge every entry.

    With `resend`, what may be sent again stays queued for the next connection; all else becomes
    ENTRY_UNCERTAIN and is answered in its turn. 0, or -1 when memory is out.
    """
    cdef Buffer kept
    cdef uint32_t i
    cdef Entry* e
    cdef size_t at = 0
    cdef size_t size
    cdef bint in_piece = l.in_piece     # then its beginning was sent, wherever its rest is
    cdef bint piece_kept = False
    cdef int result = 0
    kept.data = NULL
    kept.start = kept.end = kept.cap = 0
    l.unsealed = False
    i = l.head
    while i != l.tail:
        e = l.ring + (i & l.mask)
        if is_ready(e):
            i += 1
            continue
        size = e.size
        if not in_piece and e.flags & ENTRY_IN_MULTI:
            in_piece = True
            piece_kept = at >= l.sent or e.flags & ENTRY_AGAIN != 0
        if i == l.head and l.partial and e.session != NULL:
            e.session.must_close = True
            session_mark_live(e.session)
        if resend and not (i == l.head and l.partial) and may_resend(l, e, at, &piece_kept) \
                and buffer_append(&kept, l.out.data + l.out.start + at, size) == 0:
            keep(l, e)
        else:
            e.flags = (e.flags | ENTRY_UNCERTAIN) & ~ENTRY_NEEDS_ACK
            e.size = 0
            l.core.stats.uncertain += e.session != NULL
        if e.flags & ENTRY_LAST:
            in_piece = False
        at += size
        i += 1
    buffer_release(&l.out)
    l.out = kept
    settle_ready(l)
    forget_connection(l)
    return result


cdef int link_divert(Link* old, Link* l) noexcept nogil:
    """Move the sessions that wait on `old` for reads only to another link.

    The server holds back the oldest request of `old`, so that one is never sent on another link,
    nor is any other that it may hold back. Reads may be sent twice: those of sessions that wait for
    reads only are sent again on `l`, and `old`'s replies to them will be dropped. Sessions with
    anything else under way stay until it is answered. 0, or -1 without memory.
    """
    cdef uint32_t i = old.head
    cdef size_t at = old.out.start
    cdef Entry* e
    cdef Session* s
    old.retired = True
    l.cautious = l.core.acks == 0       # a WAIT of the sidecar's own holds up links all the time
    while i != old.tail:
        e = old.ring + (i & old.mask)
        if e.session != NULL:
            e.session.cannot_leave = False
        i += 1
    i = old.head
    while i != old.tail:
        e = old.ring + (i & old.mask)
        if e.session != NULL and (e.flags & ~ENTRY_OPAQUE != ENTRY_READ or i == old.head):
            e.session.cannot_leave = True
        i += 1
    i = old.head
    while i != old.tail:
        e = old.ring + (i & old.mask)
        s = e.session
        if s != NULL and not s.cannot_leave and s.owner != NULL:
            if link_requeue(l, old, e, old.out.data + at) < 0:
                return -1
            e.session = NULL
            e.record = 0
            s.link = l
        at += e.size
        i += 1
    return 0


cdef int link_requeue(Link* l, Link* old, Entry* e, const char* p) noexcept nogil:
    """Queue a request of `old` again as it is; the session's count of replies due stays."""
    cdef uint32_t size = e.size
    cdef Entry* copy
    if l.tail - l.head > l.mask and grow_ring(l) < 0:
        return -1
    if buffer_append(&l.out, p, size) < 0:
        return -1
    if e.flags & ENTRY_LOCAL:
        if buffer_append(&l.local_replies, buffer_head(&old.local_replies), e.withheld_size) < 0:
            return -1
        buffer_drop(&old.local_replies, e.withheld_size)
    copy = l.ring + (l.tail & l.mask)
    copy[0] = e[0]
    copy.barriers = copy.loose_epoch = 0
    e.tells = TELLS_NOTHING             # the copy does
    l.tail += 1
    keep(l, copy)
    if e.barriers or e.loose_epoch:
        # Which keys is known to the old entry only, until it is over.
        barriers_raise_all(l, copy, e.barriers == BARRIERS_ALL)
    return 0


cdef const char* ELSEWHERE = b"-TRYAGAIN the shard has gone\r\n"


cdef void link_send_elsewhere(Link* l) noexcept nogil:
    """The shard has gone to which this shared link of a cluster led, and the link has been through
    link_lost: what may be sent again will be, by its slot (core/cluster/redirection.pyx)."""
    cdef Entry* e
    cdef Session* s
    cdef size_t at = l.out.start
    while l.head != l.tail:
        e = l.ring + (l.head & l.mask)
        l.head += 1
        entry_finished(l, e, False)
        if is_ready(e):
            answer_ready(l, e)
            continue
        s = e.session
        if s != NULL:
            keep_redirected(s, e.command, l.out.data + at, e.size)
            s.outstanding -= 1
            answer(s, ELSEWHERE, strlen(ELSEWHERE))
        at += e.size
    end_queue(l)


cdef void end_queue(Link* l) noexcept nogil:
    """No entry is left: nothing of this link will be sent any more."""
    barriers_abandon(l, l.tail, l.tail)
    buffer_release(&l.out)
    l.borrowed = NULL
    l.borrowed_len = 0
    l.unsealed = False
    forget_connection(l)


cdef void link_fail(Link* l, const char* error, size_t n) noexcept nogil:
    """Answer every entry left with an error: nothing of this link will be sent any more.

    Entries already uncertain keep their own error. A session whose reply was delivered in part
    is closed instead.
    """
    cdef Entry* e
    cdef Session* s
    cdef bint partial
    while l.head != l.tail:
        e = l.ring + (l.head & l.mask)
        l.head += 1
        entry_finished(l, e, False)
        if is_ready(e):
            answer_ready(l, e)
            continue
        s = e.session
        partial = l.partial
        l.partial = l.swallowing = False
        if s == NULL:
            continue
        s.outstanding -= 1
        trace_failed(l, e, error, n)
        l.core.stats.errors_local += n != 0
        if partial:
            s.must_close = True
            session_mark_live(s)
        answer(s, error, n)
    end_queue(l)


cdef int link_move(Link* old, Link* l) noexcept nogil:
    """Let all that is left on `old`, which was lost, wait on `l` instead. 0, or -1 without memory.

    `old` has been through link_lost, so what is left may be sent, or is uncertain.
    """
    cdef uint32_t i = old.head
    cdef size_t at = old.out.start
    cdef Entry* e
    while i != old.tail:
        e = old.ring + (i & old.mask)
        if link_requeue(l, old, e, old.out.data + at) < 0:
            return -1
        at += e.size
        if e.session != NULL and e.session.owner != NULL:
            e.session.link = l
        i += 1
    barriers_abandon(old, old.head, old.tail)
    old.head = old.tail
    old.unsealed = False
    buffer_release(&old.out)
    forget_connection(old)
    return 0
