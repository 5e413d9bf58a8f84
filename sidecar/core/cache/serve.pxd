"""The near cache's contract, case by case, for its callers. How it is kept: serve.pyx.

Through one sidecar every client sees its own writes, and nobody sees a key go back to an older state
than any client has been told of. Against writers elsewhere a value is at most `staleness` old. In doubt
a read goes to the server: `NOT_SERVED` is always right.

**Hit.** SERVED: the reply is queued for the session, in its turn. At some moment within the last
`staleness`, the server would have given this user, in this database, the same reply. Only commands of
the list in policy/routing.py are answered, in a form that the server accepts; not inside MULTI, not
for a client named "fresh", not for one with a dedicated link. MGET: all keys from here, or none.

**Miss.** The key is not wanted (mode, rules), or something below stands in the way: NOT_SERVED, and the
caller passes the request to the server and says so (`cache_pass`). Otherwise ASK: the session waits for
a value that the caller has asked for (`tracked_ask`), and looks again when it is woken. In the middle of
a pipeline nobody waits: PUT_OFF, the request passes, and the value is read soon.

**Fill in flight.** FILLING: whoever asks for the same waits for the same reading. A read waits twice for
each of its keys at most, and has values asked for twice at most; then it passes. What is being read
counts in the budget. When the reading ends without a value, those who waited pass.

**Invalidation.** The key's values go, in all spaces, when the push has come; nothing else is needed. One
that comes while a value of the key is being read: that reading is not kept, and is repeated while somebody
waits for it. A null push: everything goes.

**Own command** (any that passes, of any client). The values of its keys go when it is queued, however
many keys it names, and nothing that is read before it is answered is kept. One that means all keys
(FLUSHALL, SWAPDB, a change of ACLs): nothing is served until it is answered; then everything goes,
unless it was refused. One whose keys are not known (a script): from its reply on, nothing is served that
is not proved newer; its own client passes until then. One that the server is sure to refuse: nothing.

**News** (a message, a popped item, SCAN). As for a script: what a client was told, a read shows. A read
behind it waits for the proof, or passes if its client has more under way.

**Expiry.** A value is kept for the TTL that the server told when it was read, counted from when it was
asked for, and never longer than the rule's or `ttl_max`; what does not exist for `ttl_missing`. It is
not served after that, whether or not the server says that the key has expired.

**Lease.** A space's values are served for `staleness` (or the rule's) from the sending of the newest
request that its tracked link has answered. After that they are kept, and not served, until a new proof.

**Too large.** A reply above `value_max` is not kept. Instead the store remembers, like a value, that
it is too large, and reads of it pass. While it comes nobody waits for it, or for what lies behind it
on the tracked link.

**Refused reading.** An error reply is never kept: those who waited pass, and get the server's own.

**Eviction.** Values go, at any time, to keep `bytes` within `budget`. Only hits become fewer.

**Lost link.** When a tracked link ends (`tracked_end`) all values of its space go, and all who wait pass.
Without one nothing is served in that space. What is read on another connection is another generation.

**Another user or database.** Has a space of its own: no session is served from another's, whatever its
number (`Session.space`; 0: none). An invalidation, and an own command, means the key in all of them.

**A client that goes** leaves what it waits for (`cache_leave`); the reading goes on.

**Memory that is out.** Nothing is kept, and the read passes. Where a barrier cannot be remembered,
more is barred than must be, never less.
"""
from libc.stddef cimport size_t
from sidecar.core.protocol.commands cimport Command
from sidecar.core.protocol.request cimport Scanner
from sidecar.core.records cimport Session
from sidecar.core.cache.store cimport Value

cdef enum Served:
    SERVED = 0              # answered, now or in its turn
    FILLING = 1             # it waits for a value that is being read
    ASK = 2                 # likewise, and the value must be asked for first
    PUT_OFF = 3             # it goes past, and the value is to be asked for soon
    NOT_SERVED = 4          # not from here
    UNPROVED = 5            # it is here, and what has been told since is not known to be

cdef int cache_serve(Session* s, Command* c, const char* p, size_t n, const Scanner* scan,
                     Value** ask) noexcept nogil
