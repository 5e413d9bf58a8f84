# cython: language_level=3
"""Demotion: the server at the other end has stopped being the master.

The server of a link that follows a master (`core.master_may_change`) may stop being the master: it
answers READONLY, LOADING or MASTERDOWN, which mean "not executed" (except in a script's error, which
may say anything). Such a reply is given to nobody, and the link is *demoted*: nothing more is sent on
it. The replies to what had been sent are judged one by one. What was not executed, and reads, will be
sent again elsewhere. Anything else is answered, or uncertain if an earlier request of the same client
has to wait. When all are judged, the link is treated as lost.
"""
from libc.stdint cimport uint32_t
from libc.string cimport memcmp
from sidecar.core.link.fence cimport entry_told
from sidecar.core.link.receiver cimport session_say
from sidecar.core.link.transaction_state cimport keep_reply_start
from sidecar.core.observe.audit_notes cimport audit_reply
from sidecar.core.observe.trace_records cimport trace_answered
from sidecar.core.protocol.reply cimport (FRAME_ERROR, FRAME_MORE, FRAME_PUSH, frame_reply,
    framer_reset)
from sidecar.core.records cimport (ENTRY_AGAIN, ENTRY_IN_MULTI, ENTRY_LAST, ENTRY_NEEDS_ACK,
    ENTRY_OPAQUE, ENTRY_READ, link_unjudged, Session)
from sidecar.core.stats cimport latency_bucket

cdef enum:
    LONGEST_WORD = 12       # "-MASTERDOWN "


cdef bint not_executed(const char* p, size_t n) noexcept nogil:
    """Whether an error line says that this server is not (yet) one that executes commands."""
    return ((n > 10 and memcmp(p, b"-READONLY ", 10) == 0)
            or (n > 9 and memcmp(p, b"-LOADING ", 9) == 0)
            or (n > 12 and memcmp(p, b"-MASTERDOWN ", 12) == 0))


cdef bint may_be_not_executed(const char* p, size_t n) noexcept nogil:
    """Whether the beginning of an error line leaves open what `not_executed` will say of the whole.

    A script's error may be as long as it likes, and only its first word counts.
    """
    return n <= LONGEST_WORD or not_executed(p, n)


cdef int link_demote(Link* l, const char* p, size_t n) noexcept nogil:
    """The entry before `judged_to` was not executed: judge those after it by the bytes at hand."""
    cdef uint32_t i = l.head
    l.demoted = True
    l.judged_size = 0
    l.reply_start_len = 0
    l.reply_split = False
    framer_reset(&l.framer)
    while i != l.judged_to:
        l.judged_size += l.ring[i & l.mask].size
        i += 1
    return receive_demoted(l, p, n)


cdef int receive_demoted(Link* l, const char* p, size_t n) noexcept nogil:
    """Replies on a demoted link: find out what was not executed. A reply is given out only if no
    earlier request of its client still waits."""
    cdef size_t i = 0
    cdef size_t at
    cdef int r
    cdef Entry* e
    while i < n:
        at = i
        r = frame_reply(&l.framer, p, n, &i)
        keep_reply_start(l, p + at, i - at)
        if r == FRAME_MORE:
            l.reply_split = True
            return 0
        if r == FRAME_ERROR:
            return -1
        if r == FRAME_PUSH:
            l.framer.first = 0
            l.reply_start_len = 0
            continue
        e = link_unjudged(l)
        if e == NULL:
            return -1
        l.judged_to += 1
        l.judged_size += e.size
        judge(l, e, p + at, i - at)
        l.framer.first = 0
        l.reply_start_len = 0
        l.reply_split = False
    return 0


cdef void judge(Link* l, Entry* e, const char* p, size_t n) noexcept nogil:
    """One reply on a demoted link. `beginning` has its first bytes, p[0:n] its last."""
    cdef Session* s = e.session
    cdef uint32_t i
    if is_refused(l, e):
        e.flags |= ENTRY_AGAIN
        if e.flags & ENTRY_LAST:
            # Nothing of the piece was executed.
            i = l.judged_to - 1
            while i != l.head and l.ring[(i - 1) & l.mask].flags & ENTRY_IN_MULTI \
                    and not l.ring[(i - 1) & l.mask].flags & ENTRY_LAST:
                i -= 1
                l.ring[i & l.mask].flags |= ENTRY_AGAIN
        return
    if s == NULL or s.owner == NULL or l.reply_split \
            or e.flags & (ENTRY_READ | ENTRY_IN_MULTI | ENTRY_NEEDS_ACK):
        return                  # sent again, or uncertain: its reply is not all here, or not final
    i = l.head
    while i != l.judged_to - 1:
        if l.ring[i & l.mask].session == s:
            return
        i += 1
    link_count(l, e, l.reply_start, l.reply_start_len, n)
    if e.tells:
        entry_told(l, e, False)
    s.outstanding -= 1
    e.session = NULL
    session_say(s, p, n)


cdef void link_count(Link* l, const Entry* e, const char* p, size_t n,
                     size_t size) noexcept nogil:
    """Count one command that has been answered (receive.pyx counts many at once).

    p[0:n] is the beginning of its reply, of `size` bytes. `judged_size` counts its request already.
    """
    cdef uint32_t took = l.core.now - e.read_at
    cdef bint error = n > 0 and p[0] == c'-'
    l.core.stats.calls[e.command] += 1
    l.core.stats.latency[e.family].counts[latency_bucket(took)] += 1
    l.core.stats.latency[e.family].sum_us += took
    if error:
        l.core.stats.errors[e.family] += 1
        if l.core.audit != NULL:
            audit_reply(e, p, n)
    if error or e.record or took >= l.core.slow_from:
        trace_answered(l, e, e.session, l.judged_size - e.size if l.shared else 0, p, n, size, error)


cdef bint is_refused(const Link* l, const Entry* e) noexcept nogil:
    """Whether the reply at hand says "not executed". Of a MULTI ... EXEC piece only the last reply
    can say so."""
    if e.flags & ENTRY_LAST and l.reply_start_len > 10 and memcmp(l.reply_start, b"-EXECABORT", 10) == 0:
        return True
    return not e.flags & ENTRY_OPAQUE and (e.flags & ENTRY_LAST or not e.flags & ENTRY_IN_MULTI) \
        and not_executed(l.reply_start, l.reply_start_len)
