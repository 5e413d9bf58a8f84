# cython: language_level=3
"""The fence: what a client was told, the near cache shows.

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

What is served before the proof is not wrong either, if the request for it came before T: who sent
it cannot have been told. So a read needs the proof of the fence as it was when it came
(`Session.fence_seen`), and no stream of news, however dense, starves it.

Therefore a command whose effects are not declared neither drops anything nor bars anything.
Reading that overlap it are stored, and may be older than its effects: they are served to those
only who came before its reply. Its own client is the exception: what it sends behind the command,
before the reply is here, must see the effects. `Session.telling_replies` counts its replies due of that
kind; while there are any, its reads go past the cache. That keeps the order of whatever a client
sends in one go: a pop, and then a read of what was announced by what was popped.

FLUSHALL and FLUSHDB are pushed as "everything", SWAPDB and changes of ACLs are not announced at
all: these still drop everything and bar everything (barrier.pyx).

Requests on tracked links have numbers, in the order in which they are queued, whatever the link:
`Barriers.tracked_requests` is the newest. So a fence is one number, that of the newest request that proves
nothing about the news, and raising it costs an assignment. The half that waits for proofs is
sidecar/core/cache/proof.pyx.
"""
from libc.string cimport memcmp
from sidecar.core.records cimport (ENTRY_IN_MULTI, ENTRY_LAST, Entry, Link, TELLS_ALWAYS,
    TELLS_NOTHING, TELLS_UNLESS_NULL)


cdef bint is_null(const char* p, size_t n) noexcept nogil:
    """Whether a reply is null: the time is up, or the queue is empty. It tells of nothing."""
    return (n == 5 and p[1] == c'-' and (p[0] == c'$' or p[0] == c'*')) or (n == 3 and p[0] == c'_')


cdef void entry_tells(Link* l, Entry* e, bint always) noexcept nogil:
    """The reply to the entry, the newest of its link, will raise a fence; unless it is null, with
    `always` not. In a transaction the reply to its end will."""
    if e.flags & ENTRY_IN_MULTI and not e.flags & ENTRY_LAST:
        l.piece_tells = True
        return
    if not e.tells and e.session != NULL:
        e.session.telling_replies += 1
    if e.tells != TELLS_ALWAYS:
        e.tells = TELLS_ALWAYS if always else TELLS_UNLESS_NULL


cdef void entry_took_back(Entry* e) noexcept nogil:
    """Its reply is not due any more."""
    if e.tells and e.session != NULL:
        e.session.telling_replies -= 1
    e.tells = TELLS_NOTHING
