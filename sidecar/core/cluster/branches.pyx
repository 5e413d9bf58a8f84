# cython: language_level=3
"""A client of a cluster has a *branch* at each shard it uses, and gets its replies in its own order.

A branch is a session's record that stands for the client on the shared link of one shard. To that
link it is a session like any other: what links promise (pending.pyx, recovery.pyx) holds for each
branch by itself. The client's session, the branches' *trunk*, decides where a request goes, and
remembers in a queue of *turns* from which branches its next replies come:

    requests     GET a   GET b   GET c   GET d          a, b on shard 0; c on 1; d on 0
    turns        2 from shard 0, 1 from shard 1, 1 from shard 0

So a pipeline goes to all shards at once. Replies that come early lie in their branch, which is bounded
as any session's output is (`output_pause`, weight.pyx); those of the first turn are given to the client
as they come. That no reply is given out of turn rests on three facts:

1. A turn is queued in the same call as the request on the branch's link, so the turns of one shard
   are in the order of its branch's requests; a branch gets its replies in that order.
2. Only the first turn takes anything, only from its own branch, and no more whole replies than are
   due in it.
3. A request that was redirected leaves its branch: it has a record of its own from then on, whose
   turn is put in the place where its reply would have been.

The order of a client's commands for one key could still be lost while the key's slot moves: one is
redirected, and one behind it goes to the new shard at once. So after any change of the slots a client
that waits for replies sends nothing more until it has them all (`Branches.seen`). One case is left, as
for every client that has more than one request under way: the slot leaves its shard and is back there
within one round trip, so that the shard redirects the first request and executes the second.
"""
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memchr
from sidecar.core.cluster.slots cimport (NO_SHARD, SLOT_COUNT, Slots, shard_at, slot_of, slots_put)
from sidecar.core.link.pending cimport link_push
from sidecar.core.link.receiver cimport (session_drop, session_mark, session_new,
    session_settle_borrowed)
from sidecar.core.link.redirected cimport (Redirected, first_redirected, forget_redirected,
    is_redirection)
from sidecar.core.memory cimport (buffer_append, buffer_drop, buffer_head, buffer_size, ring_grown,
    ring_new)
from sidecar.core.protocol.commands cimport FORM_NONE
from sidecar.core.protocol.keys cimport KeySpan, find_keys, first_key
from sidecar.core.protocol.reply cimport FRAME_MORE, FRAME_REPLY, frame_reply, framer_reset
from sidecar.core.records cimport (ENTRY_IN_MULTI, ENTRY_LAST, Entry, LARGEST_WINDOW, STALL_LINK,
    STALL_NONE, STALL_PROTOCOL_ERROR, STALL_REPLIES, link_fed)

cdef enum:
    FEW_KEYS = 32           # of one command: more are looked for in memory of their own
    MOST_HOPS = 5           # redirections of one request, as cluster clients allow

cdef const char* ASKING = b"*1\r\n$6\r\nASKING\r\n"
cdef size_t ASKING_LEN = 16


# Branches

cdef int session_join(Session* s, Shards* shards) noexcept nogil:
    """From now on this session is a cluster's client, on the shared links of these shards: 0, or -1
    without memory. Nothing may be due to it."""
    cdef Branches* b = <Branches*>calloc(1, sizeof(Branches))
    if b == NULL:
        return -1
    b.of = <Branch*>calloc(max(shards.count, 1), sizeof(Branch))
    b.ring = <Turn*>ring_new(&b.mask, sizeof(Turn))
    if b.of == NULL or b.ring == NULL:
        free(b.of)
        free(b.ring)
        free(b)
        return -1
    b.shards = shards
    b.count = shards.count
    s.branches = b
    return 0


cdef void abandon(Session* t) noexcept nogil:
    """Nobody takes what a record still gets: it goes with its last reply."""
    t.trunk = NULL
    t.dirty = False
    session_drop(t)


cdef void session_leave(Session* s) noexcept nogil:
    """It is no cluster's client any more: because it has gone, or has other links."""
    cdef Branches* b = <Branches*>s.branches
    cdef uint32_t i
    if b == NULL:
        return
    s.news = NULL
    for i in range(b.count):
        if b.of[i].session != NULL:
            abandon(b.of[i].session)
    i = b.head
    while i != b.tail:
        if b.ring[i & b.mask].apart != NULL:
            abandon(b.ring[i & b.mask].apart)
        i += 1
    free(b.of)
    free(b.ring)
    free(b)
    s.branches = NULL
    s.outstanding = 0


cdef Session* record_for(Session* s, uint16_t shard) noexcept nogil:
    """A record that stands for this client on a link, or NULL. `shard`: if it is a branch."""
    cdef Session* t = session_new(s.core, s.owner)
    if t != NULL:
        t.trunk = s
        t.space = shard
        t.tenant = s.tenant
        t.db = s.db
        t.client_number = s.client_number
        t.window = LARGEST_WINDOW
    return t


# Where a request goes

cdef int slot_for(Session* s, const Command* c, const char* p, size_t n) noexcept nogil:
    """The slot of the request's first key; -1 if it names none, or it cannot be known."""
    cdef KeySpan few[FEW_KEYS]
    cdef KeySpan* keys = few
    cdef int found
    cdef int slot = -1
    cdef int most = FEW_KEYS
    if first_key(c, p, n, &s.scan, keys):
        return slot_of(keys[0].p, keys[0].n)
    if c.keys == FORM_NONE:
        return -1
    if s.scan.argc > FEW_KEYS:
        most = <int>s.scan.argc
        keys = <KeySpan*>malloc(most * sizeof(KeySpan))
        if keys == NULL:
            return -1
    found = find_keys(c, p, n, keys, most)
    if found > 0:
        slot = slot_of(keys[0].p, keys[0].n)
    if keys != few:
        free(keys)
    return slot


cdef inline uint16_t shard_for(Session* s, const Branches* b, const Command* c, const char* p,
                               size_t n) noexcept nogil:
    """The shard of the request's slot. What names no key goes where the last request went, or to the
    shard that is chosen for it: the server judges what is wrong with it."""
    cdef int slot = slot_for(s, c, p, n)
    if slot >= 0:
        return (<Slots*>s.core.slots).shard[slot]
    if b.head != b.tail and b.ring[(b.tail - 1) & b.mask].apart == NULL:
        return b.ring[(b.tail - 1) & b.mask].shard
    return b.shards.any


cdef int branch_for(Session* s, const Command* c, const char* p, size_t n,
                    uint16_t* shard) noexcept nogil:
    """Choose the shard of a whole request, and make its link the session's: STALL_NONE, or what the
    session waits for first."""
    cdef Branches* b = <Branches*>s.branches
    cdef Slots* slots = <Slots*>s.core.slots
    cdef Session* t
    if s.outstanding == 0:
        b.seen = slots.changes
    elif b.seen != slots.changes:
        return STALL_REPLIES
    shard[0] = shard_for(s, b, c, p, n)
    if shard[0] >= b.count or b.shards.links[shard[0]] == NULL:
        s.link = NULL
        return STALL_LINK
    t = b.of[shard[0]].session
    if t == NULL:
        t = b.of[shard[0]].session = record_for(s, shard[0])
        if t == NULL:
            return STALL_PROTOCOL_ERROR
        framer_reset(&b.of[shard[0]].framer)
    if t.outstanding == 0:
        t.link = b.shards.links[shard[0]]
    s.link = t.link
    return STALL_NONE


cdef bint branch_waits(const Session* s, uint16_t shard) noexcept nogil:
    """Whether the link of `branch_for` takes no request now."""
    cdef const Session* t = (<Branches*>s.branches).of[shard].session
    return not t.link.up or (t.link.retired and t.outstanding == 0)


cdef int branch_push(Session* s, uint16_t shard, Command* c, const char* p, size_t n) noexcept nogil:
    """Queue the request at this shard, and its turn: 0, or -1 without memory."""
    cdef Branches* b = <Branches*>s.branches
    cdef Branch* branch = b.of + shard
    if reserve_turn(b) < 0 or link_push(branch.session.link, branch.session, c, p, n, 0) < 0:
        return -1
    link_fed(branch.session.link)
    add_turn(b, shard)
    branch.queued += 1
    s.outstanding += 1
    return 0


cdef int reserve_turn(Branches* b) noexcept nogil:
    """Make room for one more turn: 0, or -1 without memory."""
    cdef void* ring
    if b.tail - b.head <= b.mask:
        return 0
    ring = ring_grown(b.ring, &b.mask, b.head, sizeof(Turn))
    if ring == NULL:
        return -1
    b.ring = <Turn*>ring
    return 0


cdef inline void add_turn(Branches* b, uint16_t shard) noexcept nogil:
    cdef Turn* last
    if b.head != b.tail:
        last = b.ring + ((b.tail - 1) & b.mask)
        if last.shard == shard and last.apart == NULL:
            last.due += 1
            return
    last = b.ring + (b.tail & b.mask)
    b.tail += 1
    last.due = 1
    last.shard = shard
    last.apart = NULL


# Replies in the client's order

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


cdef inline void count_early(Branches* b, Branch* branch) noexcept nogil:
    """The bytes that a branch keeps have changed."""
    cdef size_t size = buffer_size(&branch.session.out)
    b.early += size - branch.early
    branch.early = size


cdef bint take_turn(Session* s, Branches* b) noexcept nogil:
    """Take what the first turn has: whether the turn is over."""
    cdef Turn* turn = b.ring + (b.head & b.mask)
    cdef bint over
    cdef uint16_t shard = turn.shard
    if turn.apart != NULL:
        return take_apart(s, b, turn)
    over = take_branch(s, b, turn, b.of + shard)
    count_early(b, b.of + shard)
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
            r = redirect(s, b, t, p + at, i - at, 0)
            if r > 0:
                # It has a turn of its own now, before what is left of this one.
                taken(t, i)
                turn = b.ring + ((b.head + 1) & b.mask)
                turn.due -= 1
                branch.queued -= 1
                if turn.due == 0:
                    turn[0] = b.ring[b.head & b.mask]
                    b.head += 1
                return False
            if r < 0:
                s.must_close = True
                return False
            begin = at                  # the client gets the error
        branch.framer.first = 0
        count += 1
    give(s, t, p + begin, i - begin)
    taken(t, i)
    return replies_given(s, turn, branch, count)


# Redirections

cdef int redirect(Session* s, Branches* b, Session* t, const char* p, size_t n,
                  uint32_t hops) noexcept nogil:
    """The first request that `t` keeps was answered by the redirection p[0:n]: 1 when it has been sent
    to where that points, and has a turn of its own, before all others. 0: the client is to get the
    error. -1: without memory."""
    cdef Slots* slots = <Slots*>s.core.slots
    cdef Redirected kept
    cdef Command* c
    cdef uint16_t shard
    cdef int slot = -1
    cdef bint ask = p[1] == c'A'
    cdef Session* apart
    cdef Turn* turn
    cdef const char* request
    kept = first_redirected(t, &request)
    c = s.core.commands + kept.command
    shard = target_of(slots, p, n, &slot)
    if not ask and slot >= 0 and shard != NO_SHARD:
        slots.moved += 1
        slots_put(slots, <uint16_t>slot, shard)
    elif shard == NO_SHARD:
        slots.unknown += 1
    if shard >= b.count or b.shards.links[shard] == NULL or hops >= MOST_HOPS:
        forget_redirected(t)
        return 0
    apart = record_for(s, NO_SHARD)
    if apart == NULL or reserve_turn(b) < 0:
        if apart != NULL:
            abandon(apart)
        return -1
    apart.link = b.shards.links[shard]
    apart.fill_waits = hops + 1
    if ask and link_push(apart.link, NULL, c, ASKING, ASKING_LEN, ENTRY_IN_MULTI) < 0:
        abandon(apart)
        return -1
    if link_push(apart.link, apart, c, request, kept.size,
                 ENTRY_IN_MULTI | ENTRY_LAST if ask else 0) < 0:
        abandon(apart)
        return -1
    link_fed(apart.link)
    forget_redirected(t)
    b.head -= 1
    turn = b.ring + (b.head & b.mask)
    turn.due = 1
    turn.shard = shard
    turn.apart = apart
    return 1


cdef uint16_t target_of(const Slots* slots, const char* p, size_t n, int* slot) noexcept nogil:
    """The shard that "-MOVED slot address" or "-ASK slot address" points to, and the slot."""
    cdef const char* word = <const char*>memchr(p, c' ', n)
    cdef const char* end = p + n - 2
    cdef int number = 0
    if word == NULL:
        return NO_SHARD
    word += 1
    while word < end and c'0' <= word[0] <= c'9' and number < SLOT_COUNT:
        number = number * 10 + word[0] - c'0'
        word += 1
    if word >= end or word[0] != c' ' or number >= SLOT_COUNT:
        return NO_SHARD
    slot[0] = number
    return shard_at(slots, word + 1, <size_t>(end - word - 1))


cdef bint take_apart(Session* s, Branches* b, Turn* turn) noexcept nogil:
    """The reply to a request that was redirected, as soon as it is whole."""
    cdef Session* t = turn.apart
    cdef size_t n
    cdef const char* p
    cdef int r = 0
    if t.outstanding:
        return False
    p = bytes_of(t, &n)
    turn.apart = NULL
    turn.due = 0
    if buffer_size(&t.unread) and is_redirection(p, n):
        b.head += 1                     # its place is the next one's
        r = redirect(s, b, t, p, n, t.fill_waits)
        if r <= 0:
            b.head -= 1
    if r < 0 or t.must_close:
        s.must_close = True
    elif r == 0:
        give(s, t, p, n)
        s.outstanding -= 1
    forget(s, t)
    return r == 0


cdef void forget(Session* s, Session* t) noexcept nogil:
    """A record has given what it got: it goes. It may lie among those with news."""
    cdef Session** at = &s.news
    while at[0] != NULL:
        if at[0] == t:
            at[0] = t.next_dirty
            break
        at = &at[0].next_dirty
    abandon(t)
