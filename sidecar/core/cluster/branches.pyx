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
as they come (turns.pyx). That no reply is given out of turn rests on three facts:

1. A turn is queued in the same call as the request on the branch's link, so the turns of one shard
   are in the order of its branch's requests; a branch gets its replies in that order.
2. Only the first turn takes anything, only from its own branch, and no more whole replies than are
   due in it.
3. A request that was redirected leaves its branch: it is *apart*, with a record of its own from then
   on, and its turn is put in the place where its reply would have been (redirection.pyx). So are the
   parts of a request that was split over several slots (gather.pyx).

The order of a client's commands for one key could still be lost while the key's slot moves: one is
redirected, and one behind it goes to the new shard at once. So after any change of the slots, and while
a request of its own that was redirected has no answer (it may be refused once more), a client sends
nothing more until it has all replies that it waits for (`Branches.seen`, `Session.redirected`). One case is left, as
for every client that has more than one request under way: the slot leaves its shard and is back there
within one round trip, so that the shard redirects the first request and executes the second.
"""
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memset
from sidecar.core.protocol.slots cimport NO_SHARD, Slots, slot_of
from sidecar.core.link.pending cimport link_push
from sidecar.core.link.receiver cimport session_drop, session_new
from sidecar.core.link.scripts cimport scripts_bring
from sidecar.core.memory cimport buffer_append, ring_grown, ring_new
from sidecar.core.protocol.commands cimport COMMAND_BY_CHANNEL, COMMAND_OPAQUE, FORM_NONE
from sidecar.core.protocol.cursor cimport Cursor, cursor_next
from sidecar.core.protocol.keys cimport KeySpan, find_keys, first_key
from sidecar.core.protocol.reply cimport framer_reset
from sidecar.core.protocol.request cimport arguments_of
from sidecar.core.records cimport (LARGEST_WINDOW, STALL_LINK, STALL_NONE, STALL_PROTOCOL_ERROR,
    STALL_REPLIES, link_fed)

cdef enum:
    FEW_KEYS = 32           # of one command: more are looked for in memory of their own


# Joining and leaving

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
    b.wanted = NO_SHARD
    s.branches = b
    s.say_in_turn = branch_say
    return 0


cdef void abandon(Session* t) noexcept nogil:
    """Nobody takes what a record still gets: it goes with its last reply."""
    t.trunk = NULL
    t.guard = NULL
    t.dirty = False
    session_drop(t)


cdef void session_leave(Session* s) noexcept nogil:
    """It is no cluster's client any more: because it has gone, or has other links."""
    cdef Branches* b = <Branches*>s.branches
    cdef uint32_t i
    cdef Turn* turn
    if b == NULL:
        return
    s.news = NULL
    s.redirected = s.telling_replies = 0
    if b.here.session != NULL:
        abandon(b.here.session)
    for i in range(b.count):
        if b.of[i].session != NULL:
            abandon(b.of[i].session)
    i = b.head
    while i != b.tail:
        turn = b.ring + (i & b.mask)
        if turn.apart != NULL:
            abandon(turn.apart.session)
            free(turn.apart)
        if turn.gathered != NULL:
            abandon_parts(turn.gathered)
        i += 1
    if b.waiting:
        stop_waiting(s, b)
    free(b.of)
    free(b.ring)
    free(b)
    s.branches = NULL
    s.say_in_turn = NULL
    s.outstanding = 0


cdef void branches_guarded(Session* s) noexcept nogil:
    """The client has another guard."""
    cdef Branches* b = <Branches*>s.branches
    cdef uint32_t i
    if b != NULL:
        for i in range(b.count):
            if b.of[i].session != NULL:
                b.of[i].session.guard = s.guard


cdef void abandon_parts(Gathered* g) noexcept nogil:
    cdef uint32_t i
    for i in range(g.count):
        if g.parts[i].session != NULL:
            abandon(g.parts[i].session)
    free(g.parts)
    free(g.part_of)
    free(g)


cdef void stop_waiting(Session* s, Branches* b) noexcept nogil:
    """It leaves those that the shell looks at when the slots are known better."""
    cdef Slots* slots = <Slots*>s.core.slots
    cdef Session* other = <Session*>slots.waiting
    b.waiting = False
    if other == s:
        slots.waiting = b.next_waiting
        return
    while other != NULL:
        if (<Branches*>other.branches).next_waiting == s:
            (<Branches*>other.branches).next_waiting = b.next_waiting
            return
        other = (<Branches*>other.branches).next_waiting


cdef Session* record_for(Session* s, uint16_t shard) noexcept nogil:
    """A record that stands for this client on a link, or NULL. `shard`: if it is a branch."""
    cdef Session* t = session_new(s.core, s.owner)
    if t != NULL:
        t.trunk = s
        t.space = shard
        t.tenant = s.tenant
        t.db = s.db
        t.client_number = s.client_number
        t.guard = s.guard
        t.window = LARGEST_WINDOW
    return t


cdef int apart_begin(Apart* a, Session* s) noexcept nogil:
    """A request of this client that is apart from its branches: 0, or -1 without memory."""
    memset(a, 0, sizeof(Apart))
    a.session = record_for(s, NO_SHARD)
    return 0 if a.session != NULL else -1


cdef void apart_end(Apart* a, Session* s) noexcept nogil:
    """Its reply has been given, or nobody wants it. The record may lie among those with news."""
    cdef Session** at = &s.news
    cdef Session* t = a.session
    while at[0] != NULL:
        if at[0] == t:
            at[0] = t.next_dirty
            break
        at = &at[0].next_dirty
    a.session = NULL
    s.redirected -= a.counted
    abandon(t)


# Where a request goes

cdef int slot_for(const Command* c, const char* p, size_t n, const Scanner* scan) noexcept nogil:
    """The slot of the first key of the whole request p[0:n]; -1 if it names none, or it cannot be
    known."""
    cdef KeySpan few[FEW_KEYS]
    cdef KeySpan* keys = few
    cdef int found
    cdef int slot = -1
    cdef int most = FEW_KEYS
    cdef Cursor a
    if first_key(c, p, n, scan, keys):
        return slot_of(keys[0].p, keys[0].n)
    if c.flags & COMMAND_BY_CHANNEL:
        arguments_of(&a, p, n, scan)
        return slot_of(a.arg, a.size) if cursor_next(&a) else -1
    if c.keys == FORM_NONE:
        return -1
    if scan.argc > FEW_KEYS:
        most = <int>scan.argc
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
    cdef int slot = slot_for(c, p, n, &s.scan)
    cdef const Turn* last
    if slot >= 0:
        return (<Slots*>s.core.slots).shard[slot]
    if b.head != b.tail:
        last = b.ring + ((b.tail - 1) & b.mask)
        if last.apart == NULL and last.gathered == NULL and last.shard != SHARD_HERE:
            return last.shard
    return b.shards.any


cdef int branch_for(Session* s, const Command* c, const char* p, size_t n,
                    uint16_t* shard) noexcept nogil:
    """Choose the shard of a whole request, and make its link the session's: STALL_NONE, or what the
    session waits for first."""
    cdef Branches* b = <Branches*>s.branches
    cdef Slots* slots = <Slots*>s.core.slots
    if s.outstanding == 0:
        b.seen = slots.changes
    elif b.seen != slots.changes or s.redirected:
        return STALL_REPLIES
    shard[0] = shard_for(s, b, c, p, n)
    return branch_at(s, shard[0])


cdef int branch_at(Session* s, uint16_t shard) noexcept nogil:
    """Make the link to this shard the session's: STALL_NONE, or what the session waits for first."""
    cdef Branches* b = <Branches*>s.branches
    cdef Link* l = link_to(b, shard)
    cdef Session* t
    b.wanted = shard
    if l == NULL:
        s.link = NULL
        return STALL_LINK
    if shard >= b.count and grow(b) < 0:
        return STALL_PROTOCOL_ERROR
    t = b.of[shard].session
    if t == NULL:
        t = b.of[shard].session = record_for(s, shard)
        if t == NULL:
            return STALL_PROTOCOL_ERROR
        framer_reset(&b.of[shard].framer)
    if t.outstanding == 0 and t.link != l:
        if t.link != NULL and s.outstanding:
            return STALL_REPLIES        # parts of a request may be under way on the link before
        t.link = l
    s.link = t.link
    return STALL_NONE


cdef int grow(Branches* b) noexcept nogil:
    """There are more shards than when the session joined: 0, or -1 without memory."""
    cdef Branch* of = <Branch*>realloc(b.of, b.shards.count * sizeof(Branch))
    if of == NULL:
        return -1
    memset(of + b.count, 0, (b.shards.count - b.count) * sizeof(Branch))
    b.of = of
    b.count = b.shards.count
    return 0


cdef bint branch_waits(const Session* s, uint16_t shard) noexcept nogil:
    """Whether the link of `branch_at` takes no request now."""
    cdef const Session* t = (<Branches*>s.branches).of[shard].session
    return not t.link.up or (t.link.retired and t.outstanding == 0)


cdef int branch_push(Session* s, uint16_t shard, Command* c, const char* p, size_t n) noexcept nogil:
    """Queue the request at this shard, and its turn: 0, or -1 without memory."""
    cdef Branches* b = <Branches*>s.branches
    cdef Branch* branch = b.of + shard
    if c.flags & COMMAND_OPAQUE and s.core.scripts != NULL \
            and scripts_bring(s.core.scripts, branch.session.link, c, p, n) < 0:
        return -1
    if reserve_turn(b) < 0 or link_push(branch.session.link, branch.session, c, p, n, 0) < 0:
        return -1
    link_fed(branch.session.link)
    add_reply(s, b, branch, shard)
    return 0


cdef int branch_say(Session* s, const char* p, size_t n) noexcept nogil:
    """Give the client a reply of our own in its turn: 0, or -1 without memory."""
    cdef Branches* b = <Branches*>s.branches
    if b.here.session == NULL:
        b.here.session = record_for(s, NO_SHARD)
        if b.here.session == NULL:
            return -1
        framer_reset(&b.here.framer)
    if reserve_turn(b) < 0 or buffer_append(&b.here.session.out, p, n) < 0:
        return -1
    count_early(b, &b.here)
    add_reply(s, b, &b.here, SHARD_HERE)
    return 0


cdef void add_reply(Session* s, Branches* b, Branch* branch, uint16_t shard) noexcept nogil:
    """One more reply comes from this branch. There is room for a turn."""
    cdef Turn* turn
    branch.queued += 1
    s.outstanding += 1
    if b.head != b.tail:
        turn = b.ring + ((b.tail - 1) & b.mask)
        if turn.shard == shard and turn.apart == NULL and turn.gathered == NULL:
            turn.due += 1
            return
    add_turn(b).shard = shard


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


cdef Turn* add_turn(Branches* b) noexcept nogil:
    """A new last turn, of one reply. There is room for it."""
    cdef Turn* turn = b.ring + (b.tail & b.mask)
    b.tail += 1
    turn.due = 1
    turn.shard = NO_SHARD
    turn.apart = NULL
    turn.gathered = NULL
    return turn
