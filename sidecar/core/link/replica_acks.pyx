# cython: language_level=3
"""Replies to writes, withheld until replicas have the writes (`failover.min_replicas_ack`).

Behind everything gathered for one flush that contains a write goes one WAIT of the sidecar's
own (`link_seal`), so its cost is shared by all commands of that flush:

    out      SET a  GET b  SET c  WAIT 1 1000 | SET d  WAIT 1 1000
    replies  +OK    $1..   +OK    :1          |
    held     +OK withheld, and all behind it, until :1 has come; then all three are given out

The ring's entries from `head` to `judged_to` have replies that lie in `withheld`, one behind the other,
`reply` bytes each. An entry leaves the ring when its reply is given out, so a link that is lost
before the WAIT was answered judges a withheld write as any other that was sent: uncertain.

The server holds back what stands behind a WAIT on the same connection until it is answered, so
the commands of other clients wait with it, for about one round trip to a replica.
"""
from libc.stdint cimport UINT32_MAX, int64_t, uint32_t
from libc.string cimport strlen
from sidecar.core.guard.guard cimport TOO_LARGE_REPLY, guard_replied
from sidecar.core.link.demotion cimport link_count, link_demote, not_executed
from sidecar.core.link.pending cimport answer_ready, link_push
from sidecar.core.link.receive cimport link_receive
from sidecar.core.link.receiver cimport answer
from sidecar.core.link.refused cimport say_refusal
from sidecar.core.records cimport (ENTRY_ACK, ENTRY_AGAIN, ENTRY_IN_MULTI, ENTRY_NEEDS_ACK,
    ENTRY_OPAQUE, ENTRY_REFUSED, ENTRY_SHORT, Entry, Link, Session, is_ready, link_took)
from sidecar.core.link.barrier cimport entry_finished, is_refusal
from sidecar.core.link.transaction_state cimport tells_state, transaction_follows
from sidecar.core.link.weight cimport is_weighty, session_weigh
from sidecar.core.memory cimport buffer_append, buffer_drop, buffer_head, buffer_size
from sidecar.core.protocol.cursor cimport read_line_number
from sidecar.core.protocol.reply cimport FRAME_ERROR, FRAME_MORE, FRAME_PUSH, frame_reply

cdef const char* SHORT = (
    b"-UNREPLICATED the command was executed, but too few replicas acknowledged it in time; "
    b"its effect may be lost in a failover\r\n")
cdef size_t SHORT_LEN = strlen(SHORT)


cdef int link_seal(Link* l) noexcept nogil:
    """Before a flush: ask for the replicas' acknowledgement of the writes queued. 0, or -1."""
    if not l.unsealed:
        return 0
    if link_push(l, NULL, l.core.ack_command, l.core.ack_request, l.core.ack_request_len,
                 ENTRY_ACK) < 0:
        return -1
    l.unsealed = False
    return 0


cdef bint acknowledged(const char* p, size_t n, int enough) noexcept nogil:
    """Whether the reply to WAIT names enough replicas. An error names none."""
    cdef int64_t count = 0
    return p[0] == c':' and read_line_number(p + 1, n - 1, &count) and count >= enough


cdef void settle_writes(Link* l, bint enough) noexcept nogil:
    """A WAIT is answered: mark the writes before it as acknowledged, or as short of replicas."""
    cdef uint32_t i = l.head
    cdef Entry* e
    while i != l.judged_to:
        e = l.ring + (i & l.mask)
        if e.flags & ENTRY_NEEDS_ACK:
            e.flags &= ~ENTRY_NEEDS_ACK
            if not enough:
                e.flags |= ENTRY_SHORT
        i += 1


cdef void give_out(Link* l) noexcept nogil:
    """Give out the replies at the head that wait for nothing."""
    cdef Entry* e
    cdef Session* s
    cdef size_t answered = 0
    while l.head != l.judged_to:
        e = l.ring + (l.head & l.mask)
        if e.flags & ENTRY_NEEDS_ACK and not is_ready(e):
            break
        link_took(l, e)
        entry_finished(l, e, not is_ready(e) and e.withheld_size != 0
                       and is_refusal(e, buffer_head(&l.withheld)[0]))
        answered += e.size
        if is_ready(e):
            answer_ready(l, e)
            continue
        s = e.session
        if s != NULL:
            s.outstanding -= 1
            if is_weighty(s, e.withheld_size):
                session_weigh(s, e.withheld_size)
            if e.flags & ENTRY_REFUSED:
                say_refusal(l, s, buffer_head(&l.withheld), e.withheld_size)
            elif s.guard != NULL and guard_replied(l, s, e.size, e.withheld_size):
                answer(s, TOO_LARGE_REPLY, strlen(TOO_LARGE_REPLY))
            elif e.flags & ENTRY_SHORT and buffer_head(&l.withheld)[0] != c'-':
                answer(s, SHORT, SHORT_LEN)     # an error has promised nothing
            else:
                answer(s, buffer_head(&l.withheld), e.withheld_size)
        buffer_drop(&l.withheld, e.withheld_size)
        l.withheld_whole -= e.withheld_size
    if l.shared and answered:
        buffer_drop(&l.out, answered)
        l.sent -= answered
        l.judged_size -= answered


cdef void skip_ready(Link* l) noexcept nogil:
    """Entries that wait for their turn only: no reply will come for them."""
    while l.judged_to != l.tail and is_ready(l.ring + (l.judged_to & l.mask)):
        l.judged_to += 1


cdef int link_receive_acked(Link* l, const char* p, size_t n) noexcept nogil:
    """`link_receive` for a link whose writes are to be acknowledged: 0, or -1 to close it."""
    cdef size_t i = 0
    cdef size_t at = 0
    cdef size_t size
    cdef int r
    cdef Entry* e
    if l.raw or l.demoted:
        return link_receive(l, p, n)
    l.received_bytes += n
    skip_ready(l)
    while i < n:
        r = frame_reply(&l.framer, p, n, &i)
        if r == FRAME_ERROR:
            return -1
        if r == FRAME_MORE:
            break
        if r == FRAME_PUSH:
            # Nobody on a link with entries has asked for one; what came of it before is dropped.
            l.withheld.end = l.withheld.start + l.withheld_whole
            l.framer.first = 0
            at = i
            continue
        if l.judged_to == l.tail:
            return -1
        e = l.ring + (l.judged_to & l.mask)
        if l.shared and l.judged_size + e.size > l.sent:
            return -1
        if buffer_append(&l.withheld, p + at, i - at) < 0:
            return -1
        at = i
        size = buffer_size(&l.withheld) - l.withheld_whole
        if size > UINT32_MAX:
            return -1
        l.judged_to += 1
        if l.shared:
            l.judged_size += e.size
        e.withheld_size = <uint32_t>size
        if l.core.master_may_change and l.shared and not e.flags & (ENTRY_ACK | ENTRY_IN_MULTI | ENTRY_OPAQUE) \
                and not_executed(buffer_head(&l.withheld) + l.withheld_whole, size):
            e.flags |= ENTRY_AGAIN
            return link_demote(l, p + i, n - i)
        if tells_state(l, e) and not e.flags & ENTRY_ACK \
                and not transaction_follows(l, e, buffer_head(&l.withheld) + l.withheld_whole, size):
            return -1
        if not e.flags & ENTRY_ACK:
            link_count(l, e, buffer_head(&l.withheld) + l.withheld_whole, size, size)
        l.framer.first = 0
        l.withheld_whole += size
        if e.flags & ENTRY_ACK:
            settle_writes(l, acknowledged(
                buffer_head(&l.withheld) + l.withheld_whole - size, size, l.core.acks))
        skip_ready(l)
        give_out(l)
    if at < n and buffer_append(&l.withheld, p + at, n - at) < 0:
        return -1
    return 0
