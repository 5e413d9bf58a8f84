# cython: language_level=3
"""What is open on a connection: WATCH and MULTI, as the server's replies tell.

A request proves nothing. ACL may refuse it, it may have a wrong number of arguments, and EXEC
without MULTI ends no WATCH. What the replies say is so:

    reply to     no error                      an error
    WATCH        watching, unless in MULTI     nothing changes
    UNWATCH      not watching; in MULTI it     nothing changes
                 is queued, nothing changes
    MULTI        in MULTI                      nothing changes
    EXEC         neither watching nor in       EXECABORT, and a redirection: neither of both
                 MULTI                         EXEC without MULTI: nothing changes
                                               anything else: not known
    DISCARD      neither of both               nothing changes

It is used in two ways.

A DEDICATED link goes back to the pool only when nothing is open on it. Requests are queued before
the replies to those before them have come, so `Session.in_multi` and `Session.watching` say what
is to be expected, and are put right by the reply to the last request that may change it. In the
same way an entry is queued as part of a transaction, or not, and its reply puts that right: barriers,
fences and acknowledgements follow what the server has done.

A SHARED link has transactions only as one piece, MULTI to EXEC, and the reply to EXEC proves that
the piece is over: servers answer even an EXEC that ACL refuses with EXECABORT, and the transaction
is gone. (DISCARD that is refused leaves it open; so DISCARD in a transaction needs a dedicated
link.) Where the reply proves nothing the link is given up: whatever was sent behind may have been
queued into somebody else's transaction, so no reply that follows is given to anybody. Reads are
sent again, and writes are uncertain.
"""
from libc.stdint cimport uint16_t
from libc.string cimport memcmp, memcpy
from sidecar.core.link.fence cimport fence_raise
from sidecar.core.protocol.commands cimport ROUTE_DISCARD, ROUTE_EXEC, ROUTE_MULTI, ROUTE_UNWATCH
from sidecar.core.records cimport (ENTRY_ACK_LATER, ENTRY_IN_MULTI, ENTRY_LAST, ENTRY_NEEDS_ACK,
    ENTRY_STATE, STATE_IN_MULTI, STATE_WATCHING)


cdef inline bint begins(const char* p, size_t n, const char* word, size_t size) noexcept nogil:
    return n >= size and memcmp(p, word, size) == 0


cdef bint exec_ends(const char* p, size_t n) noexcept nogil:
    """Whether this error reply to EXEC says that the transaction is over. A server of a cluster
    drops it before it names another."""
    return begins(p, n, b"-EXECABORT", 10) or begins(p, n, b"-MOVED ", 7) \
        or begins(p, n, b"-ASK ", 5) or begins(p, n, b"-CROSSSLOT ", 11) \
        or begins(p, n, b"-TRYAGAIN ", 10) or begins(p, n, b"-CLUSTERDOWN ", 13)


cdef bint note_reply(Link* l, int route, const char* p, size_t n) noexcept nogil:
    """What a reply changes (see the head). False: it does not tell."""
    cdef bint failed = l.framer.first == c'-' or l.framer.first == c'!'
    if route == ROUTE_EXEC:
        if failed and not exec_ends(p, n):
            return begins(p, n, b"-ERR EXEC with", 14)      # out MULTI
        l.transaction = 0
    elif failed:
        pass
    elif route == ROUTE_MULTI:
        l.transaction |= STATE_IN_MULTI
    elif route == ROUTE_DISCARD:
        l.transaction = 0
    elif l.transaction & STATE_IN_MULTI:
        pass                            # UNWATCH was queued
    elif route == ROUTE_UNWATCH:
        l.transaction = 0
    else:
        l.transaction |= STATE_WATCHING
    return True


cdef bint transaction_follows(Link* l, Entry* e, const char* p, size_t n) noexcept nogil:
    """The reply to `e`, the oldest entry without one, is here; p[0:n] is its beginning. Called where
    `tells_state`. False: give the shared link up."""
    cdef bint before = l.transaction & STATE_IN_MULTI != 0
    cdef bint known = True
    cdef uint16_t place = 0
    cdef bint now
    if e.flags & ENTRY_STATE:
        known = note_reply(l, e.route, p, n)
    now = l.transaction & STATE_IN_MULTI != 0
    if before or now:
        place = ENTRY_IN_MULTI if now else ENTRY_IN_MULTI | ENTRY_LAST
    if (e.flags ^ place) & (ENTRY_IN_MULTI | ENTRY_LAST):
        fence_raise(l.core)             # it may have had effects when none were expected
    if e.flags & ENTRY_ACK_LATER and not place:
        e.flags |= ENTRY_NEEDS_ACK      # MULTI was refused, so this was executed at once
        l.unsealed = l.unsealed or not l.shared     # there a WAIT is behind already
    if l.shared:
        return not e.flags & ENTRY_LAST or (known and not now)
    if before and now:
        l.queued += begins(p, n, b"+QUEUED", 7)
    else:
        l.queued = 0
        if l.client != NULL:
            l.client.rewrites_exec = False
    l.tainted = l.tainted or not known
    e.flags = (e.flags & ~(ENTRY_IN_MULTI | ENTRY_LAST)) | place
    if e.flags & ENTRY_STATE:
        l.undecided -= 1
        if l.undecided == 0 and l.client != NULL:
            l.client.in_multi = now
            l.client.watching = l.transaction & STATE_WATCHING != 0
            l.client.discard_due = False
    return True


cdef void keep_reply_start(Link* l, const char* p, size_t n) noexcept nogil:
    """Keep the first bytes of a reply that comes in parts; p[0:n] is its next part."""
    cdef size_t room = sizeof(l.reply_start) - <size_t>l.reply_start_len
    if n > room:
        n = room
    memcpy(l.reply_start + l.reply_start_len, p, n)
    l.reply_start_len += <int>n
