# cython: language_level=3
"""The fence: the near cache shows what a client was told.

Barriers (barrier.pyx) are about commands whose keys are known. There is news that names no keys:

* the reply to a script, a function, a module's command, or one that the table does not know: it
  may have changed any key;
* what comes without being asked for, or late: a message to a subscriber, MONITOR's lines, a push
  to an application that tracks for itself, the reply to a command that blocked. A client that gets
  it may know of a change that another sidecar made, whose invalidation is still on its way here;
* what is taken from a queue (LPOP, XREADGROUP, ...), and what tells of the keyspace as a whole
  (KEYS, SCAN, DBSIZE).

At the moment T at which the bytes of such news come from upstream, a fence is raised: from then on
nothing is served from the near cache until its space has *proved* that it has all invalidations
from before T. The proof is the answer to a request that was queued on the space's tracked link
after T. Why that is enough:

1. A server executes one command after the other. What changed a key put the invalidation into the
   tracked connection's output before the reply, or the message, that told of the change was
   written to any socket (servers write when a command is over).
2. So when the news is here, the invalidation is in the tracked connection's stream at the latest.
   A request that is sent on that connection after T is answered behind it.
3. A value that the change makes old was read on the tracked connection before the change, and was
   tracked from then on. So an invalidation of its key stands in that stream behind its reply, and
   before the proof: the value is dropped, or not stored, before anything is served behind the fence.

A read whose request came before T may be served without the proof: its client could not have been
told before it asked. So a read needs the proof of the fence as it was when it came
(`Session.fence_seen`), and no stream of news, however dense, starves it.

Therefore a command whose effects are not declared drops nothing and bars nothing. A value that is
read while it is under way is stored, and may be older than its effects: only reads that came before
its reply get it. Its own client is the exception: reads that it sends behind the command, before the
reply is here, must see the effects. `Session.telling_replies` counts the replies of that kind that
are due to a session; while there are any, its reads go past the cache. When the reply is here, the
fence counts for what the client has sent already, too. So a client may send, in one go, a pop and a
read of the key that the popped item announces.

FLUSHALL and FLUSHDB are pushed as "everything", SWAPDB and changes of ACLs are not announced at
all: these still drop everything and bar everything (barrier.pyx).

Requests on tracked links have numbers, in the order in which they are queued, whatever the link:
`Barriers.tracked_requests` is the newest. So a fence is one number, that of the newest request that
proves nothing about the news, and raising it costs an assignment. The other half, which waits for
proofs, is sidecar/core/cache/proof.pyx.
"""
from sidecar.core.records cimport (ENTRY_IN_MULTI, ENTRY_LAST, Entry, Link, TELLS_ALWAYS,
    TELLS_NOTHING, TELLS_UNLESS_NULL)


cdef bint is_null(const char* p, size_t n) noexcept nogil:
    """Whether a reply is null: the time is up, or the queue is empty. It tells of nothing."""
    return (n == 5 and p[1] == c'-' and (p[0] == c'$' or p[0] == c'*')) or (n == 3 and p[0] == c'_')


cdef void entry_tells(Link* l, Entry* e, bint always) noexcept nogil:
    """The reply to the newest entry of a link will raise a fence: `always`, or unless it is null. In
    a transaction the reply to EXEC will."""
    if e.flags & ENTRY_IN_MULTI and not e.flags & ENTRY_LAST:
        l.piece_tells = True
        return
    if not e.tells and e.session != NULL:
        listener(e).telling_replies += 1
    if e.tells != TELLS_ALWAYS:
        e.tells = TELLS_ALWAYS if always else TELLS_UNLESS_NULL


cdef void entry_took_back(Entry* e) noexcept nogil:
    """Its reply is not due any more."""
    if e.tells and e.session != NULL:
        listener(e).telling_replies -= 1
    e.tells = TELLS_NOTHING
