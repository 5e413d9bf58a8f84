"""What restricts one client (see guard.pyx)."""
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from sidecar.core.guard.account cimport Use
from sidecar.core.guard.command_rules cimport PolicyRules
from sidecar.core.protocol.commands cimport Command
from sidecar.core.records cimport Link, Session

cdef enum:
    USER_HERE = 1           # in Texts.command: bytes that no text has otherwise
    COMMAND_HERE = 2
    USES = 2                # of the identity, of the address
    POLICIES = 4            # of the identity, of the listener, of other users after a login

cdef struct Texts:          # the server's own, and what all guards of a plane share
    char command[256]       # USER_HERE and COMMAND_HERE stand for these
    char key[256]
    bint subcommands        # the server says `config|set`, not `config`
    bint sheds              # the loop lags: commands are refused
    bint sees_logins        # a login on a link of the client's own is told to the shell first

cdef struct Guard:
    const PolicyRules* policies[POLICIES]
    Use* uses[USES]
    Texts* texts
    const char* user        # as the server's refusals name it
    size_t user_len
    uint64_t command        # Session.command_count of the request that was charged for
    bint charged
    bint counted            # its bytes are in flight
    bint login_seen         # the shell knows of the login at the head
    bint head_refused       # the request at the head is refused, in a transaction that begins later
    uint64_t ready_at       # nanoseconds: when it may be executed
    uint64_t before[USES]   # Use.due before the commands of a transaction that may be taken back
    size_t streamed         # bytes of a large request that have gone on
    size_t waiting          # bytes of a request that waits for others to be answered
    size_t in_flight        # bytes of requests that are not answered
    bint blocked            # it is counted among those
    bint subscribed
    uint32_t second         # in this second so many of its refusals have been noted for the audit stream
    uint32_t noted

cdef class GuardTexts:
    cdef Texts texts

cdef class ClientGuard:
    cdef Guard guard
    cdef readonly object user
    cdef readonly tuple policies
    cdef readonly tuple accounts
    cdef readonly GuardTexts texts
    cdef void leave(self) noexcept

cdef void guard_count(Guard* g, int reason) noexcept nogil
cdef bint guard_has_room(const Guard* g, const Session* s, size_t n) noexcept nogil
cdef uint32_t raw_outstanding(const Link* l) noexcept nogil
cdef void guard_let_go(Guard* g, size_t n) noexcept nogil
cdef void guard_hold(Guard* g, size_t n) noexcept nogil
cdef void guard_take_back(Session* s) noexcept nogil
cdef bint guard_ready(const Session* s) noexcept nogil
cdef void guard_settle(Session* s) noexcept nogil
cdef bint guard_replied(Link* l, Session* s, size_t request, size_t reply) noexcept nogil
cdef int guard_part(Link* l, Session* s, bint first) noexcept nogil
cdef bint guard_exceeds(const Session* s, size_t size) noexcept nogil
cdef void guard_sees(Session* s, const Command* c, const char* p, size_t n, bint whole) noexcept nogil
cdef bint guard_counts(const Session* s, const Command* c) noexcept nogil
cdef void guard_passed(Session* s, const Command* c, size_t n) noexcept nogil
cdef bint guard_nothing_due(const Session* s) noexcept nogil
cdef const char* TOO_LARGE_REPLY
cdef const char* TOO_LARGE_REQUEST
