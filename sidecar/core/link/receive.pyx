# cython: language_level=3
"""Splits what comes from upstream into replies, and gives each session its part.

The framer finds where a reply ends. The entry at the head of the queue says whose it is (pending.pyx
explains why that is always the right one). Replies to one session that lie side by side are given out
as one run. This file also counts commands, measures latencies, and takes from each reply what it tells
beside its bytes: an open transaction, a fence, a refusal, its size.

A reply may come in any number of parts. Only its first bytes are kept (`Link.reply_start`). On a link
that follows a master, an error line is kept back until it is known whether it means "not executed".
"""
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcmp, memcpy, memset, strlen
from sidecar.core.guard.guard cimport TOO_LARGE_REPLY, guard_part, guard_replied
from sidecar.core.link.barrier cimport entry_finished, is_refusal
from sidecar.core.link.demotion cimport (link_demote, may_be_not_executed, not_executed,
    receive_demoted)
from sidecar.core.link.fence cimport entry_took_back, fence_raise, is_null
from sidecar.core.link.limited cimport limit_raw_reply
from sidecar.core.link.pending cimport link_push, settle_ready
from sidecar.core.link.receiver cimport deliver, session_mark, session_say
from sidecar.core.link.redirected cimport (REDIRECTION_START, is_redirection, keep_redirected,
    may_split, splits_transaction, redirection_error, turn_back)
from sidecar.core.link.refused cimport is_stand_in, may_be_stand_in, say_refusal
from sidecar.core.link.reset_mark cimport is_reset_mark, may_be_reset_mark
from sidecar.core.link.scripts cimport may_miss_script, scripts_find
from sidecar.core.link.transaction_state cimport keep_reply_start, tells_state, transaction_follows
from sidecar.core.link.weight cimport is_weighty, session_weigh
from sidecar.core.memory cimport (Buffer, buffer_append, buffer_drop, buffer_head, buffer_release,
    buffer_size)
from sidecar.core.observe.audit_notes cimport audit_raw_reply, audit_reply
from sidecar.core.observe.trace_records cimport trace_answered
from sidecar.core.protocol.reply cimport (FRAME_ERROR, FRAME_MORE, FRAME_PUSH, FRAME_REPLY,
    frame_reply, framer_reset)
from sidecar.core.records cimport (Entry, ENTRY_AGAIN, ENTRY_IN_MULTI, ENTRY_OPAQUE, ENTRY_REFUSED,
    is_ready, link_fed, link_took, Session, TELLS_NOTHING, TELLS_UNLESS_NULL)
from sidecar.core.stats cimport latency_bucket


cdef inline bint run_ends(Link* l, Session* s) noexcept nogil:
    """Whether the next reply bytes go elsewhere, or nowhere: the run so far is to be given out."""
    cdef Entry* e
    if l.head == l.tail or (s != NULL and s.owner == NULL):
        return True
    e = l.ring + (l.head & l.mask)
    return e.session != s or is_ready(e)


cdef inline Session* receiver(Link* l) noexcept nogil:
    """The session that the bytes at hand are for: the head entry's, or the link's only client."""
    return l.ring[l.head & l.mask].session if l.head != l.tail else l.client


cdef inline bint receiver_may_learn(Link* l) noexcept nogil:
    """Whether a part of the reply at hand may tell of changes."""
    return l.head == l.tail or l.ring[l.head & l.mask].tells != TELLS_NOTHING


cdef inline bint nothing_due(Link* l, size_t answered) noexcept nogil:
    """Whether no request that has been sent still waits for its reply."""
    return l.head == l.tail or (l.shared and answered >= l.sent)


cdef struct Tally:              # of the replies that come at one time
    uint32_t now
    uint32_t read_at            # when the request was read that the next two are about
    int bucket                  # of its latency
    bint slow


cdef inline void count_reply(Link* l, const Entry* e, Tally* t, size_t answered, const char* p,
                             size_t n) noexcept nogil:
    """Count a command, and record it if it is worth a record: p[0:n] is the last part of its reply,
    its request is the last one of the `answered` bytes."""
    l.core.stats.calls[e.command] += 1
    if e.read_at != t.read_at:
        t.read_at = e.read_at
        t.bucket = latency_bucket(t.now - e.read_at)
        t.slow = t.now - e.read_at >= l.core.slow_from
    l.core.stats.latency[e.family].counts[t.bucket] += 1
    l.core.stats.latency[e.family].sum_us += t.now - t.read_at
    if l.framer.first == c'-':
        if l.core.slots != NULL and e.session != NULL and e.session.trunk != NULL \
                and is_redirected(l, e, answered, p, n):
            return
        l.core.stats.errors[e.family] += 1
        if l.core.audit != NULL and not l.partial:
            audit_reply(e, p, n)
        record(l, e, answered, p, n, True)
    elif t.slow or e.record:
        record(l, e, answered, p, n, False)


cdef inline bint ends_mastership(Link* l, const Entry* e, const char* p, size_t n) noexcept nogil:
    """Whether the error p[0:n] says that the server is no master (any more)."""
    return l.core.master_may_change and l.shared \
        and not e.flags & (ENTRY_IN_MULTI | ENTRY_OPAQUE) and not_executed(p, n)


cdef inline bint may_turn_back(const Link* l) noexcept nogil:
    """Whether the head entry is the only request of a cluster's client that has this link to itself, and
    nothing is open on it: then a redirection is not for the client."""
    cdef const Session* s = l.client
    return s != NULL and l.core.slots != NULL and buffer_size(&s.under_way) != 0 \
        and l.transaction == 0 and l.head != l.tail \
        and l.ring[l.head & l.mask].session == s \
        and not l.ring[l.head & l.mask].flags & ENTRY_IN_MULTI


cdef int demote(Link* l, Entry* e, size_t answered, const char* p, size_t n) noexcept nogil:
    """The head entry was not executed. The bytes p[0:n] behind its reply are judged one by one."""
    buffer_drop(&l.out, answered)
    l.sent -= answered
    e.flags |= ENTRY_AGAIN
    l.judged_to = l.head + 1
    return link_demote(l, p, n)


cdef inline void finish_entry(Link* l, Entry* e, const char* p, size_t n) noexcept nogil:
    """The head entry has its reply, which ends with p[0:n]: it leaves the ring, and what it barred or
    tells of is settled."""
    link_took(l, e)
    if e.tells == TELLS_UNLESS_NULL and is_null(p, n) and not l.partial:
        entry_took_back(e)
    entry_finished(l, e, is_refusal(e, l.framer.first))


cdef inline void weigh_reply(Link* l, Session* s, size_t size) noexcept nogil:
    """A reply has come to its end; `size` is that of its last part."""
    if l.partial:
        size += l.partial_size
        l.partial = l.swallowing = False
    if s != NULL:
        s.outstanding -= 1
        if is_weighty(s, size):
            session_weigh(s, size)


cdef inline bint refused_here(const Link* l) noexcept nogil:
    """Whether the head entry stands in for a request that was refused here."""
    return l.head != l.tail and l.ring[l.head & l.mask].flags & ENTRY_REFUSED != 0


cdef int take_part(Link* l, size_t answered, const char* p, size_t n) noexcept nogil:
    """The last reply is there in part, p[0:n]: 1 to give that out, 0 to keep it for now, or -1: nobody
    is due a reply."""
    cdef Session* s
    cdef bint first
    cdef int given
    if l.framer.first != c'>' and nothing_due(l, answered):
        return -1
    if l.framer.first == c'-' and l.core.master_may_change and l.shared and not l.partial \
            and may_be_not_executed(p, n):
        return put_line_by(l, p, n)
    if l.framer.first == c'-' and not l.partial and (n < REDIRECTION_START or is_redirection(p, n)) \
            and (may_turn_back(l) or may_split(l)):
        return put_line_by(l, p, n)
    if l.framer.first == c'-' and not l.partial and l.shared and l.core.scripts != NULL \
            and may_miss_script(p, n):
        return put_line_by(l, p, n)
    if l.framer.first == c'-' and not l.partial and refused_here(l):
        return put_line_by(l, p, n)
    if l.framer.first == c'>' and not l.partial and may_tell_redirect(l.client, p, n):
        return put_line_by(l, p, n)
    if receiver_may_learn(l):
        fence_raise(l.core)
    first = not l.partial
    if first:
        l.partial_size = 0
        l.reply_start_len = 0
    l.partial_size += n
    l.partial = True
    keep_reply_start(l, p, n)
    s = receiver(l)
    if s == NULL or s.guard == NULL or l.framer.first == c'>':
        return 1
    given = guard_part(l, s, first)
    if given > 1:
        session_mark(s)
    return given != 0


cdef const char* REFUSED_HERE = b""     # the error that is kept for the request (refused.pyx)
cdef const char* REDIRECT_BROKEN = b">2\r\n$21\r\ntracking-redir-broken\r\n:"


cdef bint may_tell_redirect(const Session* s, const char* p, size_t n) noexcept nogil:
    """Whether p[0:n] may be the beginning of a push that says that the client to which the session's
    tracking is redirected has gone. It names the link of that client."""
    cdef size_t size = strlen(REDIRECT_BROKEN)
    return s != NULL and s.redirect_link and n < size + 20 \
        and memcmp(p, REDIRECT_BROKEN, min(n, size)) == 0


cdef bint tells_redirect(const Session* s, const char* p, size_t n) noexcept nogil:
    """Whether p[0:n] is this push, and about the client that was named by the sidecar's number."""
    cdef size_t at = strlen(REDIRECT_BROKEN)
    cdef uint64_t number = 0
    if n < at + 3 or not may_tell_redirect(s, p, n):
        return False
    while c'0' <= p[at] <= c'9':
        number = 10 * number + <uint64_t>(p[at] - c'0')
        at += 1
    return number == s.redirect_link


cdef void say_redirect(Session* s) noexcept nogil:
    """Give out the push with the number that the client was named by."""
    cdef char[96] text
    cdef int n = snprintf(text, sizeof(text), b"%s%llu\r\n", REDIRECT_BROKEN,
                          <unsigned long long>s.redirect_client)
    session_say(s, text, <size_t>n)


cdef int link_receive(Link* l, const char* p, size_t n) noexcept nogil:
    """Take bytes from upstream and give each session its part.

    Returns 0, or -1 when the bytes are not replies to what was asked: the link must be closed.
    """
    l.received_bytes += n
    if l.demoted and not l.raw:
        return receive_demoted(l, p, n)
    if l.error_line.end != l.error_line.start:
        if take_up_line(l, p, n) < 0:
            return -1
        if l.error_line_taken:
            p = buffer_head(&l.error_line)
            n = buffer_size(&l.error_line)
    return receive_raw(l, p, n) if l.raw else receive_replies(l, p, n)


cdef int receive_replies(Link* l, const char* p, size_t n) noexcept nogil:
    """Split p[0:n] into replies and pushes.

        p[begin:frame_at]   replies of one session, not given out yet
        p[frame_at:i]       the reply or push that has just been framed
    """
    cdef size_t i = 0
    cdef size_t begin = 0
    cdef size_t frame_at = 0
    cdef size_t answered = 0        # bytes of the requests answered here
    cdef Tally tally
    cdef size_t size
    cdef int result = 0
    cdef int r
    cdef Entry* e
    cdef Session* s
    cdef const char* error
    tally.now, tally.read_at = l.core.now, l.core.now - 1
    tally.bucket, tally.slow = 0, False
    while i < n:
        r = frame_reply(&l.framer, p, n, &i)
        if r == FRAME_MORE:
            break
        if r == FRAME_ERROR or (r == FRAME_REPLY and l.head == l.tail):
            result = -1
            break
        if r == FRAME_PUSH:
            l.framer.first = 0
            # On a shared link nobody has asked for it; a link's only client may have.
            if not l.shared:
                fence_raise(l.core)
            if l.shared or tells_redirect(l.client, p + frame_at, i - frame_at):
                deliver(receiver(l), p + begin, frame_at - begin)
                if not l.shared:
                    say_redirect(l.client)
            else:
                deliver(receiver(l), p + begin, i - begin)
            l.partial = False
            begin = frame_at = i
            continue
        e = l.ring + (l.head & l.mask)
        if l.shared and answered + e.size > l.sent:
            result = -1             # an answer to what has not been asked yet
            break
        error = NULL
        if l.framer.first == c'-':
            if e.flags & ENTRY_REFUSED:
                error = REFUSED_HERE
            if ends_mastership(l, e, p + frame_at, i - frame_at):
                if begin < frame_at:
                    deliver(e.session, p + begin, frame_at - begin)
                return demote(l, e, answered, p + i, n - i)
            if may_turn_back(l) and is_redirection(p + frame_at, i - frame_at):
                s = e.session
                withhold(l, p, begin, frame_at, i)
                if turn_back(s, p + frame_at, i - frame_at) < 0:
                    s.must_close = True
                session_mark(s)
                begin = frame_at = i
                continue
            if lacks_script(l, e, p + frame_at, i - frame_at):
                size = e.size
                if make_up_for_script(l, answered, p, begin, frame_at, i):
                    answered += size
                    begin = frame_at = i
                    if l.head != l.tail and is_ready(l.ring + (l.head & l.mask)):
                        settle_ready(l)
                    continue
                e = l.ring + (l.head & l.mask)      # the ring may have grown
            if splits_transaction(l, p + frame_at, i - frame_at):
                error = redirection_error(l, p + frame_at, i - frame_at)
        if tells_state(l, e) and not follows(l, e, p + frame_at, i - frame_at):
            result = -1             # once this reply is given out
        finish_entry(l, e, p + frame_at, i - frame_at)
        s = e.session
        answered += e.size
        count_reply(l, e, &tally, answered, p + frame_at, i - frame_at)
        l.framer.first = 0
        if s != NULL and s.guard != NULL and guard_replied(l, s, e.size, i - frame_at):
            error = TOO_LARGE_REPLY
        weigh_reply(l, s, i - frame_at)
        if error != NULL:
            deliver(s, p + begin, frame_at - begin)
            if error == REFUSED_HERE:
                say_refusal(l, s, p + frame_at, i - frame_at)
            else:
                session_say(s, error, strlen(error))
            begin = i
        frame_at = i
        if run_ends(l, s):
            deliver(s, p + begin, i - begin)
            begin = i
        if result < 0:
            break
        if l.head != l.tail and is_ready(l.ring + (l.head & l.mask)):
            settle_ready(l)
    if result == 0 and frame_at < n and not (l.shared and l.framer.first == c'>'):
        result = take_part(l, answered, p + frame_at, n - frame_at)
        if result > 0:
            frame_at = n
    if begin < frame_at:
        deliver(receiver(l), p + begin, frame_at - begin)
    if l.shared and answered:
        buffer_drop(&l.out, answered)
        l.sent -= answered
    return -1 if result < 0 else 0


cdef inline bint lacks_script(Link* l, const Entry* e, const char* p, size_t n) noexcept nogil:
    """Whether a branch is told, as a whole and for the first time, that its server has no such script."""
    return l.core.scripts != NULL and may_miss_script(p, n) and n > 10 and not l.partial \
        and not e.flags & ENTRY_IN_MULTI and e.session != NULL and e.session.trunk != NULL \
        and e.session.owner != NULL


cdef void withhold(Link* l, const char* p, size_t begin, size_t at, size_t end) noexcept nogil:
    """The head entry is over, but its reply p[at:end] is not for its client, who gets p[begin:at]."""
    cdef Entry* e = l.ring + (l.head & l.mask)
    cdef Session* s = e.session
    finish_entry(l, e, p + at, end - at)
    l.framer.first = 0
    weigh_reply(l, s, end - at)
    deliver(s, p + begin, at - begin)


cdef bint make_up_for_script(Link* l, size_t answered, const char* p, size_t begin, size_t at,
                             size_t end) noexcept nogil:
    """The reply p[at:end] tells a branch that its server lacks a script. If that is known, load it there
    and have the request, which lies behind the `answered` bytes, sent again. False: that is not done, as
    the script is not known, or more of the client's is under way at this shard."""
    cdef Entry* e = l.ring + (l.head & l.mask)
    cdef Session* s = e.session
    cdef uint16_t command = e.command
    cdef const char* request = buffer_head(&l.out) + answered
    cdef uint32_t size = e.size
    cdef Buffer load
    cdef Buffer again
    cdef bint found
    memset(&load, 0, sizeof(load))
    memset(&again, 0, sizeof(again))
    found = scripts_find(l.core.scripts, l.shard, request, size, &load, &again) \
        and link_push(l, NULL, l.core.commands + command, buffer_head(&load), buffer_size(&load),
                      0) == 0
    if found:
        link_fed(l)
        found = s.outstanding == 1
    if found:
        keep_redirected(s, command, buffer_head(&l.out) + answered, size)
        withhold(l, p, begin, at, end)
        session_say(s, buffer_head(&again), buffer_size(&again))
    buffer_release(&load)
    buffer_release(&again)
    return found


cdef bint is_redirected(Link* l, const Entry* e, size_t answered, const char* p,
                        size_t n) noexcept nogil:
    """A branch has got an error, whose last part is p[0:n]: whether it is a redirection. Then the
    request, the last one of the `answered` bytes, is kept."""
    cdef char[16] start
    cdef size_t kept = <size_t>l.reply_start_len if l.partial else 0
    cdef size_t more = min(n, sizeof(start) - kept)
    memcpy(start, l.reply_start, kept)
    memcpy(start + kept, p, more)
    if not is_redirection(start, kept + more):
        return False
    keep_redirected(e.session, e.command, buffer_head(&l.out) + answered - e.size, e.size)
    return True


cdef bint follows(Link* l, Entry* e, const char* p, size_t n) noexcept nogil:
    """Note what this reply, which ends with p[0:n], tells of transactions; as
    `transaction_follows`."""
    if not l.partial:
        return transaction_follows(l, e, p, n)
    keep_reply_start(l, p, n)
    return transaction_follows(l, e, l.reply_start, l.reply_start_len)


cdef void record(Link* l, const Entry* e, size_t answered, const char* p, size_t n,
                 bint error) noexcept nogil:
    """A command worth a record was answered; its request ends at `answered`, its reply at p[n]."""
    if l.partial:
        keep_reply_start(l, p, n)
        trace_answered(l, e, e.session, answered - e.size, l.reply_start, l.reply_start_len,
                       n + l.partial_size, error)
    else:
        trace_answered(l, e, e.session, answered - e.size, p, n, n, error)


cdef int put_line_by(Link* l, const char* p, size_t n) noexcept nogil:
    """Keep the part of an error line that has come: whether it means "not executed" is not known.

    It may lie in `error_line` itself, behind the one that was taken up. That one may be some session's
    run until the caller has settled: it stays where it is.
    """
    framer_reset(&l.framer)
    if l.error_line_taken:
        l.error_line.start = l.error_line.end - n
        l.error_line_taken = False
        return 0
    return buffer_append(&l.error_line, p, n)


cdef int take_up_line(Link* l, const char* p, size_t n) noexcept nogil:
    """More bytes: they belong behind the line kept, unless that was taken up before."""
    if l.error_line_taken:
        buffer_release(&l.error_line)
        l.error_line_taken = False
        return 0
    l.error_line_taken = True
    return buffer_append(&l.error_line, p, n)


cdef int receive_raw(Link* l, const char* p, size_t n) noexcept nogil:
    """Pass bytes on as they are; look for the reply to RESET when one is under way."""
    cdef size_t i = 0
    cdef size_t at = 0
    cdef size_t begin = 0
    cdef int r
    cdef bint begins                    # the reply begins at p[at]
    cdef Session* s = l.client
    while not l.unframed and i < n:
        at = i
        r = frame_reply(&l.framer, p, n, &i)
        if l.head != l.tail:
            # Replies to the sidecar's own requests, made before the client got the link.
            begin = i
            if r == FRAME_REPLY:
                l.head += 1
                l.framer.first = 0
            continue
        if r == FRAME_MORE and l.reply_start_len == 0 and (
                may_tell_redirect(s, p + at, n - at) or may_be_reset_mark(l, p + at, n - at) or (
                    l.refusals_made != l.refusals_said and may_be_stand_in(p + at, n - at))):
            if begin < at:
                fence_raise(l.core)
            deliver(s, p + begin, at - begin)
            return -1 if put_line_by(l, p + at, n - at) < 0 else 0
        begins = l.reply_start_len == 0
        keep_reply_start(l, p + at, i - at)
        if r == FRAME_ERROR:
            l.unframed = True
        elif r == FRAME_PUSH and tells_redirect(s, p + at, i - at):
            deliver(s, p + begin, at - begin)
            say_redirect(s)
            begin = i
            l.framer.first = 0
            l.reply_start_len = 0
        elif r == FRAME_REPLY and begins and is_reset_mark(l, p + at, i - at):
            deliver(s, p + begin, at - begin)
            begin = i
            l.reset_passed = True
            if s != NULL:
                session_mark(s)         # nothing may be there to be delivered
            l.framer.first = 0
            l.reply_start_len = 0
        elif r == FRAME_REPLY and begins and is_stand_in(l, p + at, i - at):
            deliver(s, p + begin, at - begin)
            say_refusal(l, s, p + at, i - at)
            begin = i
            l.framer.first = 0
            l.reply_start_len = 0
            l.raw_requests_due -= l.raw_requests_due != 0
        else:
            if s != NULL and (s.guard != NULL or l.swallowing):
                begin = limit_raw_reply(l, p, begin, at, i, r, begins)
            if r == FRAME_MORE:
                break
            l.framer.first = 0
            if r == FRAME_REPLY:
                l.raw_requests_due -= l.raw_requests_due != 0
                if l.reply_start[0] == c'-':
                    audit_raw_reply(s, l.reply_start, l.reply_start_len)
            if s != NULL and s.reset_due and not l.reset_marked and l.reply_start_len == 8 \
                    and memcmp(l.reply_start, b"+RESET\r\n", 8) == 0:
                l.reset_passed = True
            l.reply_start_len = 0
    if begin < n:
        fence_raise(l.core)
    deliver(s, p + begin, n - begin)
    return 0
