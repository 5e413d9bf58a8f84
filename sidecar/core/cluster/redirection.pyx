# cython: language_level=3
"""What becomes of a request that a cluster's server has not executed.

    -MOVED slot address     another shard has the slot: sent there; the slot table learns it
    -ASK slot address       the key is on its way there: sent there behind ASKING, in one piece
    -TRYAGAIN, -CLUSTERDOWN, -LOADING       none can serve it now: it waits

A request that names a server to which no link leads waits as well: the shell asks the cluster for its
topology, since `Slots.unknown` has gone up. What waits is sent again, to the shard that has its slot by
then, as soon as the shell has learnt more, and otherwise at growing intervals. That ends when the shell
says so (`failover.hold`): then the client gets the server's latest answer.

A request is sent on at most MOST_HOPS times in a row, as cluster clients allow. Then it waits: servers
that redirect in a circle cost little.

A script may return any error that it likes, after it has been executed. So EVAL and its like would be
executed twice if a script wrote such a line. No server does that by itself: the errors of commands in a
script say that they are a script's.
"""
from libc.stdint cimport uint16_t
from libc.string cimport memset
from sidecar.core.cache.past cimport cache_pass
from sidecar.core.cluster.branches cimport Turn, link_to, slot_for
from sidecar.core.protocol.slots cimport (NO_SHARD, ServerAddress, Slots, redirection_target,
    slots_put)
from sidecar.core.link.pending cimport link_push
from sidecar.core.link.receiver cimport session_mark
from sidecar.core.link.redirected cimport Redirected, first_redirected, forget_redirected
from sidecar.core.memory cimport Buffer, buffer_append, buffer_release
from sidecar.core.protocol.commands cimport Command
from sidecar.core.protocol.request cimport Scanner, scan_request, scanner_reset
from sidecar.core.records cimport ENTRY_IN_MULTI, ENTRY_LAST, Link, link_fed

cdef enum:
    MOST_HOPS = 5
    FIRST_WAIT = 10000      # microseconds until a request that waits is sent again,
    LONGEST_WAIT = 320000   #   doubled each time, and at most

cdef const char* ASKING = b"*1\r\n$6\r\nASKING\r\n"
cdef size_t ASKING_LEN = 16


cdef int follow(Session* s, Apart* a, const char* p, size_t n) noexcept nogil:
    """The request that `a` keeps was answered by the redirection p[0:n]: send it on, or have it wait. 0,
    or -1 without memory."""
    cdef Slots* slots = <Slots*>s.core.slots
    cdef const ServerAddress* to
    cdef Link* l
    cdef int slot = -1
    cdef bint ask = p[1] == c'A'
    if not a.counted:
        a.counted = True
        s.redirected += 1
    if not ask and p[1] != c'M':
        slots.refused += 1
        return wait(s, a, p, n)
    to = redirection_target(slots, p, n, &slot)
    slots.moved += not ask
    slots.asked += ask
    if to == NULL or not to.in_use:
        slots.unknown += 1
        return wait(s, a, p, n)
    if not ask:
        slots_put(slots, <uint16_t>slot, to.shard)
    l = link_to(<Branches*>s.branches, to.shard)
    if l == NULL or not l.up or a.hops >= MOST_HOPS:
        return wait(s, a, p, n)
    return send(s, a, l, ask)


cdef int send(Session* s, Apart* a, Link* l, bint ask) noexcept nogil:
    """Queue the request that `a` keeps on this link: 0, or -1 without memory."""
    cdef const char* request
    cdef Session* t = a.session
    cdef Redirected kept = first_redirected(t, &request)
    cdef Command* c = s.core.commands + kept.command
    t.link = l
    if ask and link_push(l, NULL, c, ASKING, ASKING_LEN, ENTRY_IN_MULTI) < 0:
        return -1
    if link_push(l, t, c, request, kept.size, ENTRY_IN_MULTI | ENTRY_LAST if ask else 0) < 0:
        return -1
    link_fed(l)
    pass_request(l, c, request, kept.size)
    forget_redirected(t)
    a.hops += 1
    a.waits = False
    buffer_release(&t.out)
    return 0


cdef void pass_request(Link* l, Command* c, const char* p, size_t n) noexcept nogil:
    """The whole request p[0:n] has just been queued on `l`: the near cache is told."""
    cdef Scanner scan
    if l.core.cache != NULL:
        scanner_reset(&scan)
        scan_request(&scan, p, n, &l.core.limits, True)
        cache_pass(l, c, p, n, &scan)


# Waiting

cdef int wait(Session* s, Apart* a, const char* p, size_t n) noexcept nogil:
    """Have the request wait; p[0:n] is what the client gets if that is in vain. 0, or -1."""
    cdef Branches* b = <Branches*>s.branches
    cdef Slots* slots = <Slots*>s.core.slots
    cdef Session* t = a.session
    cdef Buffer error
    memset(&error, 0, sizeof(error))
    if buffer_append(&error, p, n) < 0:
        return -1
    buffer_release(&t.out)              # p may lie in it
    t.out = error
    if a.waits_so_far == 0:
        a.since = s.core.now
    a.retry_at = s.core.now + min(FIRST_WAIT << a.waits_so_far, LONGEST_WAIT)
    a.waits_so_far += a.waits_so_far < 5
    a.hops = 0
    a.waits = True
    t.link = NULL
    if not b.waiting:
        b.waiting = True
        b.next_waiting = <Session*>slots.waiting
        slots.waiting = s
    return 0


cdef int try_again(Session* s, Apart* a, bint all, uint32_t most) noexcept nogil:
    """One that waits: send it again if it is time, or give up. 0, or -1 without memory."""
    cdef Slots* slots = <Slots*>s.core.slots
    cdef const char* request
    cdef Redirected kept
    cdef Link* l
    cdef int slot
    if s.core.now - a.since >= most:
        forget_redirected(a.session)    # the error that lies in `out` is its reply
        a.waits = False
        session_mark(s)
        return 0
    if not all and <int>(s.core.now - a.retry_at) < 0:
        return 0
    kept = first_redirected(a.session, &request)
    slot = slot_of_request(s.core, s.core.commands + kept.command, request, kept.size)
    l = link_to(<Branches*>s.branches, slots.shard[slot] if slot >= 0 else NO_SHARD)
    if l == NULL or not l.up:
        a.retry_at = s.core.now + FIRST_WAIT
        return 0
    return send(s, a, l, False)


cdef int slot_of_request(Core* core, const Command* c, const char* p, size_t n) noexcept nogil:
    cdef Scanner scan
    scanner_reset(&scan)
    scan_request(&scan, p, n, &core.limits, True)
    return slot_for(c, p, n, &scan)


cdef void retry_waiting(Core* core, bint all, uint32_t most) noexcept nogil:
    """Send again what has waited long enough, or all of it; what has waited for `most` microseconds
    is given up. Called at each tick, and when the slots are known better."""
    cdef Slots* slots = <Slots*>core.slots
    cdef Session* s = <Session*>slots.waiting
    cdef Session* after
    slots.waiting = NULL
    while s != NULL:
        after = (<Branches*>s.branches).next_waiting
        (<Branches*>s.branches).waiting = False
        if retry_of(s, all, most):
            (<Branches*>s.branches).waiting = True
            (<Branches*>s.branches).next_waiting = <Session*>slots.waiting
            slots.waiting = s
        s = after


cdef bint retry_of(Session* s, bint all, uint32_t most) noexcept nogil:
    """Look at all requests of one client that wait: whether some still do."""
    cdef Branches* b = <Branches*>s.branches
    cdef uint32_t i = b.head
    cdef uint32_t k
    cdef Turn* turn
    cdef bint left = False
    while i != b.tail:
        turn = b.ring + (i & b.mask)
        if turn.apart != NULL:
            left = retry_one(s, turn.apart, all, most) or left
        elif turn.gathered != NULL:
            for k in range(turn.gathered.count):
                left = retry_one(s, turn.gathered.parts + k, all, most) or left
        i += 1
    return left


cdef inline bint retry_one(Session* s, Apart* a, bint all, uint32_t most) noexcept nogil:
    if a.waits and try_again(s, a, all, most) < 0:
        s.must_close = True
        session_mark(s)
    return a.waits


cdef uint32_t waiting_requests(const Core* core) noexcept nogil:
    """How many clients have redirected requests that wait."""
    cdef Session* s = <Session*>(<Slots*>core.slots).waiting
    cdef uint32_t count = 0
    while s != NULL:
        count += 1
        s = (<Branches*>s.branches).next_waiting
    return count
