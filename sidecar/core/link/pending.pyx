# cython: language_level=3
"""Links: pending queues, splitting of replies, and what a lost link means.

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

What becomes of them then is recovery.pyx's business.

A link that follows a master (`core.follows`) may find that its server has stopped being one: it
answers READONLY, LOADING or MASTERDOWN, which mean "not executed" (but not from a script, whose
errors may say anything). Such a reply is nobody's answer: the link *turns*. Nothing more is sent
on it, the replies to what had been sent are judged one by one (not executed, a read: will be sent
again elsewhere; anything else: answered, or uncertain if an earlier request of the same client
has to wait), and when all are judged the link is treated as lost.
"""
from libc.stdint cimport UINT32_MAX, uint16_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset, strlen
from sidecar.core.memory cimport (Buffer, buffer_append, buffer_drop, buffer_head, buffer_release,
                                  buffer_size, ring_grown, ring_new)
from sidecar.core.link.barrier cimport entry_finished, is_refusal
from sidecar.core.link.fence cimport entry_told, entry_took_back, fence_raise, is_null
from sidecar.core.link.weight cimport is_weighty, session_weigh
from sidecar.core.link.transaction_state cimport keep_beginning, tells_state, transaction_follows
from sidecar.core.protocol.commands cimport (COMMAND_MAY_BE_HELD, COMMAND_OPAQUE, COMMAND_READ, COMMAND_WRITES, Command,
    ROUTE_MULTI, ROUTE_UNWATCH)
from sidecar.core.records cimport (ENTRY_ACK_LATER, ENTRY_AGAIN, ENTRY_IN_MULTI, ENTRY_LAST,
    ENTRY_LOCAL, ENTRY_MAY_BE_HELD, ENTRY_NEEDS_ACK, ENTRY_OPAQUE, ENTRY_READ, ENTRY_STATE,
    ENTRY_UNCERTAIN, ENTRY_WRITES, Core, Entry, Link, Session, TELLS_NOTHING,
    TELLS_UNLESS_NULL, is_ready, link_took, link_unjudged)
from sidecar.core.protocol.reply cimport (FRAME_ERROR, FRAME_MORE, FRAME_PUSH, FRAME_REPLY, frame_reply,
                                 framer_reset)
from sidecar.core.protocol.request cimport scanner_reset
from sidecar.core.stats cimport latency_bucket
from sidecar.core.observe.audit_notes cimport audit_raw_reply, audit_reply
from sidecar.core.observe.trace_records cimport trace_answered, trace_ready

cdef enum:
    # Below this a run is copied at once: a copy is cheaper than remembering where it lies.
    DIRECT_MIN = 4096
    LONGEST_WORD = 12       # "-MASTERDOWN "

cdef const char* UNCERTAIN = (
    b"-UNCERTAIN the connection to the server was lost before it answered; "
    b"the command may or may not have been executed\r\n")
cdef size_t UNCERTAIN_LEN = strlen(UNCERTAIN)


cdef Session* session_new(Core* core, void* owner) noexcept nogil:
    """A record for a new client, or NULL when memory is out."""
    cdef Session* s = <Session*>calloc(1, sizeof(Session))
    if s == NULL:
        return NULL
    s.core = core
    s.owner = owner
    s.authenticated = True
    s.window = core.first_window
    s.heard = core.seconds
    scanner_reset(&s.scan)
    return s


cdef void session_free(Session* s) noexcept nogil:
    buffer_release(&s.in_)
    buffer_release(&s.out)
    free(s)


cdef void session_drop(Session* s) noexcept nogil:
    """The client has gone. The record goes too, now or with its last reply."""
    s.owner = NULL
    s.link = NULL
    s.value = NULL
    buffer_release(&s.in_)
    buffer_release(&s.out)
    s.run = NULL
    s.run_len = 0
    if s.outstanding == 0 and not s.dirty:
        session_free(s)


cdef void session_mark(Session* s) noexcept nogil:
    """Have the shell look at this session before the current event is over."""
    if not s.dirty:
        s.dirty = True
        s.next_dirty = s.core.dirty
        s.core.dirty = s


cdef int session_settle_run(Session* s) noexcept nogil:
    if s.run_len:
        if buffer_append(&s.out, s.run, s.run_len) < 0:
            s.must_close = True
            return -1
        s.run = NULL
        s.run_len = 0
    return 0


cdef int session_say(Session* s, const char* p, size_t n) noexcept nogil:
    """Append reply bytes for a client. Out of memory closes it."""
    if s.owner == NULL or s.must_close:
        return 0
    session_mark(s)
    if session_settle_run(s) < 0 or buffer_append(&s.out, p, n) < 0:
        s.must_close = True
        return -1
    return 0


cdef void deliver(Session* s, const char* p, size_t n) noexcept nogil:
    """Reply bytes from the receive buffer: remembered where they lie if they can be."""
    if s == NULL or n == 0:
        return
    if s.owner == NULL:
        if s.outstanding == 0 and not s.dirty:
            session_free(s)
        return
    if s.must_close:
        return
    session_mark(s)
    if s.run_len == 0 and s.out.end == s.out.start:
        s.run = p
        s.run_len = n
    elif s.run_len and s.run + s.run_len == p:
        s.run_len += n
    else:
        session_say(s, p, n)


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
    buffer_release(&l.out)
    buffer_release(&l.line)
    buffer_release(&l.held)
    buffer_release(&l.local)
    buffer_release(&l.barrier_buckets)
    buffer_release(&l.deferred)
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
    e.at = l.core.now
    e.command = c.id
    e.family = c.family
    e.route = c.route
    e.barriers = e.loose = e.trace = 0
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
    elif (l.run_len and link_settle_run(l) < 0) or buffer_append(&l.out, p, n) < 0:
        return -1
    e = l.ring + (l.tail & l.mask)
    l.tail += 1
    e.session = s
    e.size = <uint32_t>n
    describe(l, e, c, flags)
    if s != NULL:
        s.outstanding += 1
    return 0


cdef int link_settle_run(Link* l) noexcept nogil:
    """Copy the run. Without memory it stays where it lies: it is of a request that is queued."""
    if l.run_len and buffer_append(&l.out, l.run, l.run_len) < 0:
        return -1
    l.run = NULL
    l.run_len = 0
    return 0


cdef int link_bytes(Link* l, const char* p, size_t n) noexcept nogil:
    """Request bytes without an entry of their own: parts of a large request, or raw bytes.

    They may be remembered where they lie: the shell sends or settles `run` before the receive
    buffer is used again.
    """
    if l.run_len and l.run + l.run_len == p:
        l.run_len += n
        return 0
    if n >= DIRECT_MIN and l.run_len == 0 and l.out.end == l.out.start:
        l.run = p
        l.run_len = n
        return 0
    if l.run_len and link_settle_run(l) < 0:
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
    if n > UINT32_MAX or buffer_append(&l.local, p, n) < 0:
        return -1
    e = l.ring + (l.tail & l.mask)
    l.tail += 1
    memset(e, 0, sizeof(Entry))
    e.session = s
    e.at = l.core.now
    e.reply = <uint32_t>n
    e.flags = ENTRY_LOCAL
    s.outstanding += 1
    if is_weighty(s, n):
        session_weigh(s, n)
    return 0


cdef void answer_ready(Link* l, Entry* e) noexcept nogil:
    """Answer an entry that waits for no server. It has left the ring."""
    cdef Session* s = e.session
    if e.trace or not e.flags & ENTRY_LOCAL:
        trace_ready(l, e)
    if s != NULL:
        s.outstanding -= 1
        if e.flags & ENTRY_LOCAL:
            answer(s, buffer_head(&l.local), e.reply)
        else:
            answer(s, UNCERTAIN, UNCERTAIN_LEN)
    if e.flags & ENTRY_LOCAL:
        buffer_drop(&l.local, e.reply)


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


cdef void answer(Session* s, const char* p, size_t n) noexcept nogil:
    """One reply made here; frees the record of a client that went and waits for no more."""
    if s.owner != NULL:
        session_say(s, p, n)
    elif s.outstanding == 0 and not s.dirty:
        session_free(s)


cdef inline bint run_ends(Link* l, Session* s) noexcept nogil:
    """Whether the next reply bytes are not simply more for the same living session."""
    cdef Entry* e
    if l.head == l.tail or (s != NULL and s.owner == NULL):
        return True
    e = l.ring + (l.head & l.mask)
    return e.session != s or is_ready(e)


cdef inline Session* receiver(Link* l) noexcept nogil:
    """Whose the bytes at hand are: the head entry's session, or the link's only client."""
    return l.ring[l.head & l.mask].session if l.head != l.tail else l.client


cdef inline bint receiver_may_learn(Link* l) noexcept nogil:
    """Whether a part of the reply at hand may tell of changes."""
    return l.head == l.tail or l.ring[l.head & l.mask].tells != TELLS_NOTHING


cdef inline bint nothing_due(Link* l, size_t answered) noexcept nogil:
    """Whether no request that has been sent still waits for its reply."""
    return l.head == l.tail or (l.shared and answered >= l.sent)


cdef int link_receive(Link* l, const char* p, size_t n) noexcept nogil:
    """Take bytes from upstream and give each session its part.

    Returns 0, or -1 when the bytes are not replies to what was asked: the link must be closed.
    """
    cdef size_t i = 0
    cdef size_t begin = 0
    cdef size_t frame_at = 0
    cdef size_t answered = 0
    cdef uint32_t now = l.core.now
    cdef uint32_t last_at = now - 1
    cdef size_t came
    cdef int bucket = 0
    cdef bint slow = False
    cdef int result = 0
    cdef int r
    cdef Entry* e
    cdef Session* s
    l.received += n
    if l.raw:
        return receive_raw(l, p, n)
    if l.demoted:
        return receive_demoted(l, p, n)
    if l.core.follows and l.line.end != l.line.start:
        if take_up_line(l, p, n) < 0:
            return -1
        if l.line_used:
            p = buffer_head(&l.line)
            n = buffer_size(&l.line)
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
            deliver(receiver(l), p + begin, (frame_at if l.shared else i) - begin)
            begin = frame_at = i
            continue
        e = l.ring + (l.head & l.mask)
        if l.shared and answered + e.size > l.sent:
            result = -1             # an answer to what has not been asked yet
            break
        if l.framer.first == c'-' and l.core.follows and l.shared \
                and not e.flags & (ENTRY_IN_MULTI | ENTRY_OPAQUE) \
                and not_executed(p + frame_at, i - frame_at):
            if begin < frame_at:
                deliver(e.session, p + begin, frame_at - begin)
            buffer_drop(&l.out, answered)
            l.sent -= answered
            e.flags |= ENTRY_AGAIN
            l.seen = l.head + 1
            return link_demote(l, p + i, n - i)
        if tells_state(l, e) and not follows(l, e, p + frame_at, i - frame_at):
            result = -1             # once this reply is given out
        link_took(l, e)
        if e.tells == TELLS_UNLESS_NULL and is_null(p + frame_at, i - frame_at) and not l.partial:
            entry_took_back(e)
        entry_finished(l, e, is_refusal(e, l.framer.first))
        s = e.session
        answered += e.size
        l.core.stats.calls[e.command] += 1
        if e.at != last_at:
            last_at = e.at
            bucket = latency_bucket(now - e.at)
            slow = now - e.at >= l.core.slow
        l.core.stats.latency[e.family].counts[bucket] += 1
        l.core.stats.latency[e.family].sum_us += now - last_at
        if l.framer.first == c'-':
            l.core.stats.errors[e.family] += 1
            if l.core.audit != NULL and not l.partial:
                audit_reply(e, p + frame_at, i - frame_at)
            record(l, e, s, answered, p + frame_at, i - frame_at, True)
        elif slow or e.trace:
            record(l, e, s, answered, p + frame_at, i - frame_at, False)
        l.framer.first = 0
        came = l.came if l.partial else 0
        l.partial = False
        if s != NULL:
            s.outstanding -= 1
            if is_weighty(s, i - frame_at + came):
                session_weigh(s, i - frame_at + came)
        frame_at = i
        if run_ends(l, s):
            deliver(s, p + begin, i - begin)
            begin = i
        if result < 0:
            break
        if l.head != l.tail and is_ready(l.ring + (l.head & l.mask)):
            settle_ready(l)
    # The last reply may be there in part, and nothing has to be wrong with that.
    if result == 0 and frame_at < n and not (l.shared and l.framer.first == c'>'):
        if l.framer.first != c'>' and nothing_due(l, answered):
            result = -1
        elif l.framer.first == c'-' and l.core.follows and l.shared and not l.partial \
                and may_be_not_executed(p + frame_at, n - frame_at):
            result = put_line_by(l, p + frame_at, n - frame_at)
        else:
            if receiver_may_learn(l):
                fence_raise(l.core)
            if not l.partial:
                l.came = 0
                l.begun = 0
            l.came += n - frame_at
            l.partial = True
            keep_beginning(l, p + frame_at, n - frame_at)
            frame_at = n
    if begin < frame_at:
        deliver(receiver(l), p + begin, frame_at - begin)
    if l.shared and answered:
        buffer_drop(&l.out, answered)
        l.sent -= answered
    return result


cdef bint follows(Link* l, Entry* e, const char* p, size_t n) noexcept nogil:
    """What this reply, whose last bytes are p[0:n], tells of transactions (see there)."""
    if not l.partial:
        return transaction_follows(l, e, p, n)
    keep_beginning(l, p, n)
    return transaction_follows(l, e, l.beginning, l.begun)


cdef void record(Link* l, const Entry* e, Session* s, size_t answered, const char* p, size_t n,
                 bint error) noexcept nogil:
    """A command worth a record was answered; its request ends at `answered`, its reply at p[n]."""
    if l.partial:
        keep_beginning(l, p, n)
        trace_answered(l, e, s, answered - e.size, l.beginning, l.begun, n + l.came, error)
    else:
        trace_answered(l, e, s, answered - e.size, p, n, n, error)


cdef int put_line_by(Link* l, const char* p, size_t n) noexcept nogil:
    """Keep the part of an error line that has come: whether it means "not executed" is not known.

    It may lie in `line` itself, behind the one that was taken up. That one may be some session's
    run until the caller has settled: it stays where it is.
    """
    framer_reset(&l.framer)
    if l.line_used:
        l.line.start = l.line.end - n
        l.line_used = False
        return 0
    return buffer_append(&l.line, p, n)


cdef int take_up_line(Link* l, const char* p, size_t n) noexcept nogil:
    """More bytes: they belong behind the line kept, unless that was taken up before."""
    if l.line_used:
        buffer_release(&l.line)
        l.line_used = False
        return 0
    l.line_used = True
    return buffer_append(&l.line, p, n)


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
    """The entry before `seen` was not executed: judge those after it by the bytes at hand."""
    cdef uint32_t i = l.head
    l.demoted = True
    l.judged = 0
    l.begun = 0
    l.in_pieces = False
    framer_reset(&l.framer)
    while i != l.seen:
        l.judged += l.ring[i & l.mask].size
        i += 1
    return receive_demoted(l, p, n)


cdef int receive_demoted(Link* l, const char* p, size_t n) noexcept nogil:
    """Replies on a link that has demoted: find out what was not executed. Nothing is delivered
    but what has no earlier request of its client to wait for."""
    cdef size_t i = 0
    cdef size_t at
    cdef int r
    cdef Entry* e
    while i < n:
        at = i
        r = frame_reply(&l.framer, p, n, &i)
        keep_beginning(l, p + at, i - at)
        if r == FRAME_MORE:
            l.in_pieces = True
            return 0
        if r == FRAME_ERROR:
            return -1
        if r == FRAME_PUSH:
            l.framer.first = 0
            l.begun = 0
            continue
        e = link_unjudged(l)
        if e == NULL:
            return -1
        l.seen += 1
        l.judged += e.size
        judge(l, e, p + at, i - at)
        l.framer.first = 0
        l.begun = 0
        l.in_pieces = False
    return 0


cdef void judge(Link* l, Entry* e, const char* p, size_t n) noexcept nogil:
    """One reply on a link that has demoted. `beginning` has its first bytes, p[0:n] its last."""
    cdef Session* s = e.session
    cdef uint32_t i
    if is_refused(l, e):
        e.flags |= ENTRY_AGAIN
        if e.flags & ENTRY_LAST:
            # Nothing of the piece was executed.
            i = l.seen - 1
            while i != l.head and l.ring[(i - 1) & l.mask].flags & ENTRY_IN_MULTI \
                    and not l.ring[(i - 1) & l.mask].flags & ENTRY_LAST:
                i -= 1
                l.ring[i & l.mask].flags |= ENTRY_AGAIN
        return
    if s == NULL or s.owner == NULL or l.in_pieces \
            or e.flags & (ENTRY_READ | ENTRY_IN_MULTI | ENTRY_NEEDS_ACK):
        return                  # sent again, or uncertain: its reply is not all here, or not final
    i = l.head
    while i != l.seen - 1:
        if l.ring[i & l.mask].session == s:
            return
        i += 1
    link_count(l, e, l.beginning, l.begun, n)
    if e.tells:
        entry_told(l, e, False)
    s.outstanding -= 1
    e.session = NULL
    session_say(s, p, n)


cdef void link_count(Link* l, const Entry* e, const char* p, size_t n,
                     size_t size) noexcept nogil:
    """Count a command that has been answered, where this is not done for many at once.

    p[0:n] is the beginning of its reply, of `size` bytes. `judged` counts its request already.
    """
    cdef uint32_t took = l.core.now - e.at
    cdef bint error = n > 0 and p[0] == c'-'
    l.core.stats.calls[e.command] += 1
    l.core.stats.latency[e.family].counts[latency_bucket(took)] += 1
    l.core.stats.latency[e.family].sum_us += took
    if error:
        l.core.stats.errors[e.family] += 1
        if l.core.audit != NULL:
            audit_reply(e, p, n)
    if error or e.trace or took >= l.core.slow:
        trace_answered(l, e, e.session, l.judged - e.size if l.shared else 0, p, n, size, error)


cdef bint is_refused(const Link* l, const Entry* e) noexcept nogil:
    """Whether the reply at hand says "not executed". Of a piece only the end can say so."""
    if e.flags & ENTRY_LAST and l.begun > 10 and memcmp(l.beginning, b"-EXECABORT", 10) == 0:
        return True
    return not e.flags & ENTRY_OPAQUE and (e.flags & ENTRY_LAST or not e.flags & ENTRY_IN_MULTI) \
        and not_executed(l.beginning, l.begun)


cdef int receive_raw(Link* l, const char* p, size_t n) noexcept nogil:
    """Pass bytes on as they are; look for the reply to RESET when one is under way."""
    cdef size_t i = 0
    cdef size_t at = 0
    cdef size_t begin = 0
    cdef size_t k
    cdef int r
    cdef Session* s = l.client
    while not l.blind and i < n:
        at = i
        r = frame_reply(&l.framer, p, n, &i)
        if l.head != l.tail:
            # Replies to the sidecar's own requests, made before the client got the link.
            begin = i
            if r == FRAME_REPLY:
                l.head += 1
                l.framer.first = 0
            continue
        if l.begun < 8:
            k = i - at
            if k > <size_t>(8 - l.begun):
                k = 8 - l.begun
            memcpy(l.beginning + l.begun, p + at, k)
            l.begun += <int>k
        if r == FRAME_ERROR:
            l.blind = True
        elif r != FRAME_MORE:
            l.framer.first = 0
            if r == FRAME_REPLY:
                l.owed -= l.owed != 0
                if l.beginning[0] == c'-':
                    audit_raw_reply(s, l.beginning, l.begun)
            if s != NULL and s.reset_due and l.begun == 8 \
                    and memcmp(l.beginning, b"+RESET\r\n", 8) == 0:
                l.saw_reset = True
            l.begun = 0
    if begin < n:
        fence_raise(l.core)
    deliver(s, p + begin, n - begin)
    return 0


cdef void session_mark_live(Session* s) noexcept nogil:
    if s.owner != NULL:
        session_mark(s)
