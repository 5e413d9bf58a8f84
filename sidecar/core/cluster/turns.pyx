# cython: language_level=3
"""Gives a cluster's client the replies of its branches, in its own order.

branches.pyx says what turns are, and why no reply is given out of turn. Here the first turn takes what
has come for it; what has come for later ones is kept where it is. Bytes that can be sent from the
receive buffer are not copied.
"""
from libc.stddef cimport size_t
from libc.stdint cimport uint16_t, uint32_t
from libc.stdlib cimport free, malloc
from sidecar.core.cluster.branches cimport (Apart, Branch, Branches, SHARD_HERE, Turn, apart_begin,
    apart_end, count_early, reserve_turn)
from sidecar.core.cluster.gather cimport gathered_end, gathered_give, gathered_ready
from sidecar.core.cluster.redirection cimport follow
from sidecar.core.protocol.slots cimport NO_SHARD
from sidecar.core.link.receiver cimport session_mark, session_settle_borrowed
from sidecar.core.link.redirected cimport (Redirected, first_redirected, forget_redirected,
    is_redirection, keep_redirected)
from sidecar.core.memory cimport buffer_append, buffer_drop, buffer_head, buffer_size
from sidecar.core.protocol.reply cimport FRAME_MORE, FRAME_REPLY, frame_reply, framer_reset
from sidecar.core.records cimport Entry, LARGEST_WINDOW


cdef void branches_collect(Session* s) noexcept nogil:
    """Give the client what its first turns have got. What came early is kept in its branch."""
    cdef Branches* b = <Branches*>s.branches
    cdef Session* t
    if b == NULL:
        return
    while b.head != b.tail and not s.must_close and take_turn(s, b):
        b.head += 1
    # Early bytes lie where they were read until here.
    while s.news != NULL:
        t = s.news
        s.news = t.next_dirty
        t.dirty = False
        session_settle_borrowed(t)
        if t.space != NO_SHARD:
            count_early(b, b.of + t.space)
        if t.must_close:
            s.must_close = True
        if t.heavy:
            s.heavy = t.heavy
            t.heavy = 0
        if t.window < s.window:
            s.window = t.window
        t.window = LARGEST_WINDOW
    if s.must_close:
        session_mark(s)


cdef bint take_turn(Session* s, Branches* b) noexcept nogil:
    """Take what the first turn has: whether the turn is over."""
    cdef Turn* turn = b.ring + (b.head & b.mask)
    cdef bint over
    cdef uint16_t shard = turn.shard
    cdef Branch* branch
    if turn.apart != NULL:
        return take_apart(s, turn)
    if turn.gathered != NULL:
        return take_gathered(s, turn)
    branch = &b.here if shard == SHARD_HERE else b.of + shard
    over = take_branch(s, b, turn, branch)
    count_early(b, branch)
    return over


cdef inline const char* bytes_of(Session* t, size_t* n) noexcept nogil:
    """What a record has got: all of it lies in one place."""
    if t.borrowed_len and buffer_size(&t.out) == 0:
        n[0] = t.borrowed_len
        return t.borrowed
    session_settle_borrowed(t)
    n[0] = buffer_size(&t.out)
    return buffer_head(&t.out)


cdef inline void taken(Session* t, size_t n) noexcept nogil:
    """So many bytes of what a record has got are dealt with."""
    if t.borrowed_len:
        t.borrowed += n
        t.borrowed_len -= n
        if t.borrowed_len == 0:
            t.borrowed = NULL
    elif n:
        buffer_drop(&t.out, n)


cdef inline void give(Session* s, Session* t, const char* p, size_t n) noexcept nogil:
    """Give the client bytes that its record has got. Those that lie where they were read stay there,
    if they can."""
    if n == 0 or s.must_close:
        return
    if t.borrowed_len and s.borrowed_len == 0 and s.out.end == s.out.start:
        s.borrowed = p
        s.borrowed_len = n
    elif t.borrowed_len and s.borrowed_len and s.borrowed + s.borrowed_len == p:
        s.borrowed_len += n
    elif session_settle_borrowed(s) < 0 or buffer_append(&s.out, p, n) < 0:
        s.must_close = True


cdef inline bint is_split(const Session* t) noexcept nogil:
    """Whether the last reply that a record has got is not whole yet."""
    cdef const Entry* e
    if t.outstanding == 0 or not t.link.partial or t.link.head == t.link.tail:
        return False
    e = t.link.ring + (t.link.head & t.link.mask)
    return e.session == t


cdef bint take_branch(Session* s, Branches* b, Turn* turn, Branch* branch) noexcept nogil:
    cdef Session* t = branch.session
    cdef size_t n
    cdef const char* p = bytes_of(t, &n)
    cdef uint32_t whole = branch.queued - t.outstanding
    cdef bint told = buffer_size(&t.unread) != 0        # of redirections
    if n == 0:
        return False
    if turn.due >= branch.queued and branch.framer.first == 0 and not told and not is_split(t):
        # All that is there is this turn's, and ends with a whole reply.
        give(s, t, p, n)
        taken(t, n)
        return replies_given(s, turn, branch, whole)
    return take_framed(s, b, turn, branch, p, n)


cdef inline bint replies_given(Session* s, Turn* turn, Branch* branch, uint32_t count) noexcept nogil:
    turn.due -= count
    branch.queued -= count
    s.outstanding -= count
    return turn.due == 0


cdef bint take_framed(Session* s, Branches* b, Turn* turn, Branch* branch, const char* p,
                      size_t n) noexcept nogil:
    """Take as many whole replies as are due, and the beginning of one more if it is due as well. The
    beginning of an error stays: it may become a redirection.

        p[begin:at]     replies for the client, not given yet
        p[at:i]         the reply that has just been framed
    """
    cdef Session* t = branch.session
    cdef size_t i = 0
    cdef size_t at = 0
    cdef size_t begin = 0
    cdef uint32_t count = 0
    cdef int r
    while i < n and count < turn.due:
        at = i
        r = frame_reply(&branch.framer, p, n, &i)
        if r == FRAME_MORE:
            if branch.framer.first == c'-':
                framer_reset(&branch.framer)
                i = at
            break
        if r != FRAME_REPLY:
            s.must_close = True         # the link has let through what is no reply
            break
        if branch.framer.first == c'-' and buffer_size(&t.unread) and is_redirection(p + at, i - at):
            framer_reset(&branch.framer)
            give(s, t, p + begin, at - begin)
            replies_given(s, turn, branch, count)
            count = 0
            if set_apart(s, b, t, p + at, i - at) < 0:
                s.must_close = True
            else:
                taken(t, i)
                branch.queued -= 1
            return False                # it is the first turn's now
        branch.framer.first = 0
        count += 1
    give(s, t, p + begin, i - begin)
    taken(t, i)
    return replies_given(s, turn, branch, count)


cdef int set_apart(Session* s, Branches* b, Session* t, const char* p, size_t n) noexcept nogil:
    """The first reply of the first turn is the redirection p[0:n], to the first request that `t` keeps:
    it gets a turn of its own, before what is left of that turn. 0, or -1 without memory."""
    cdef const char* request
    cdef Redirected kept = first_redirected(t, &request)
    cdef Apart* a = <Apart*>malloc(sizeof(Apart))
    cdef Turn* turn
    if a == NULL:
        return -1
    if reserve_turn(b) < 0 or apart_begin(a, s) < 0:
        free(a)
        return -1
    keep_redirected(a.session, kept.command, request, kept.size)
    turn = b.ring + (b.head & b.mask)
    turn.due -= 1
    if turn.due:
        b.head -= 1
        turn = b.ring + (b.head & b.mask)
    turn.due = 1
    turn.shard = NO_SHARD
    turn.apart = a
    turn.gathered = NULL
    forget_redirected(t)
    return -1 if a.session.must_close else follow(s, a, p, n)


cdef bint take_apart(Session* s, Turn* turn) noexcept nogil:
    """The reply to a request that was redirected, as soon as it is whole: whether it has been given."""
    cdef Apart* a = turn.apart
    cdef Session* t = a.session
    cdef size_t n
    cdef const char* p
    if a.waits or t.outstanding:
        return False
    p = bytes_of(t, &n)
    if t.must_close:
        s.must_close = True
    elif buffer_size(&t.unread):
        if follow(s, a, p, n) == 0:
            t.borrowed = NULL
            t.borrowed_len = 0
            return False
        s.must_close = True
    else:
        give(s, t, p, n)
        s.outstanding -= 1
    apart_end(a, s)
    free(a)
    turn.apart = NULL
    return True


cdef bint take_gathered(Session* s, Turn* turn) noexcept nogil:
    """The reply to a request that was split, once all its parts are answered."""
    if not gathered_ready(s, turn.gathered):
        return False
    if not s.must_close:
        gathered_give(s, turn.gathered)
        s.outstanding -= 1
    gathered_end(s, turn.gathered)
    turn.gathered = NULL
    return True
