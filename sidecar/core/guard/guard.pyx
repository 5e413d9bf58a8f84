# cython: language_level=3
"""What restricts one client: its policies, what it uses of its accounts, and when it may go on.

A session without a guard pays one branch. Requests are judged in core/session/judge.pyx; what becomes
of them afterwards is told here: their replies, and that nothing is due any more.

    judged    charged for once; its bytes are in flight        Guard.in_flight, Use.in_flight
    answered  its bytes are in flight no more; the reply may be too large for its client
    settled   nothing is due: nothing is in flight, and the client is not blocked

The account of a transaction that is taken back, or of a request that is lost with its link, is put right
when nothing is due to the session.
"""
from libc.stdint cimport uint32_t
from libc.string cimport memcmp, memcpy
from sidecar.core.guard.account cimport Account, BY_REPLY
from sidecar.core.guard.command_rules cimport Policy
from sidecar.core.memory cimport buffer_append, buffer_size
from sidecar.core.protocol.commands cimport ROUTE_PIN
from sidecar.core.protocol.cursor cimport Cursor, cursor_next, is_word
from sidecar.core.protocol.request cimport arguments_of
from sidecar.core.records cimport MODE_PINNED, MODE_SHARED

MOST_POLICIES = POLICIES
cdef const char* TOO_LARGE_REQUEST = b"-LIMITED the request is larger than its client may send\r\n"
cdef const char* TOO_LARGE_REPLY = b"-LIMITED the reply is larger than its client may get\r\n"


cdef void guard_count(Guard* g, int reason) noexcept nogil:
    """Count a refusal."""
    if g.uses[0] != NULL:
        g.uses[0].refused[reason] += 1
    elif g.uses[1] != NULL:
        g.uses[1].refused[reason] += 1


# What is in flight

cdef bint guard_has_room(const Guard* g, const Session* s, size_t n) noexcept nogil:
    """Whether a request of n bytes may be under way, too. One always may."""
    cdef const Use* u
    cdef uint32_t outstanding = s.outstanding
    cdef int i
    if s.in_multi and s.mode == MODE_SHARED:
        return True
    if s.mode == MODE_PINNED:
        if s.replies_off or s.link.unframed:
            return True
        outstanding = raw_outstanding(s.link)
    for i in range(USES):
        u = g.uses[i]
        if u == NULL:
            continue
        if u.limits.pipeline and outstanding >= u.limits.pipeline:
            return False
        if u.limits.in_flight and u.in_flight and u.in_flight + n > u.limits.in_flight:
            return False
    return True


cdef uint32_t raw_outstanding(const Link* l) noexcept nogil:
    """How many requests on a link for good have one reply each, which has not come."""
    return <uint32_t>(buffer_size(&l.raw_sizes) // sizeof(uint32_t))


cdef bint guard_nothing_due(const Session* s) noexcept nogil:
    """Whether nothing is due to a session, as far as is known. After CLIENT REPLY that is not known."""
    if s.mode != MODE_PINNED:
        return s.outstanding == 0
    return raw_outstanding(s.link) == 0 and not s.replies_off


cdef void guard_sees(Session* s, const Command* c, const char* p, size_t n, bint whole) noexcept nogil:
    """A request is about to go on: note what may leave those behind it without a reply."""
    cdef Cursor a
    if c.name_len == 6 and memcmp(c.name, b"client", 6) == 0:
        if s.scan.argc < 2:
            return
        arguments_of(&a, p, n, &s.scan)
        s.replies_off |= not whole or (cursor_next(&a) and is_word(&a, b"reply", 5))
    elif c.route == ROUTE_PIN and c.name_len <= 5:
        s.replies_off |= (c.name_len == 4 and memcmp(c.name, b"sync", 4) == 0) \
            or (c.name_len == 5 and memcmp(c.name, b"psync", 5) == 0)


cdef bint guard_counts(const Session* s, const Command* c) noexcept nogil:
    """Whether this command surely gets one reply on the session's link for good."""
    return c.route != ROUTE_PIN and not s.replies_off and not s.link.unframed


cdef void guard_passed(Session* s, const Command* c, size_t n) noexcept nogil:
    """A request of n bytes has gone on, on a link for good; `c` is its command, or NULL: one that has
    a reply. Without memory it is not counted."""
    cdef uint32_t size = <uint32_t>min(n, <size_t>0xffffffff)
    if not s.replies_off and not s.link.unframed and (c == NULL or c.route != ROUTE_PIN):
        buffer_append(&s.link.raw_sizes, <const char*>&size, sizeof(size))


cdef void guard_hold(Guard* g, size_t n) noexcept nogil:
    """So many bytes of requests are in flight."""
    cdef int i
    g.in_flight += n
    for i in range(USES):
        if g.uses[i] != NULL:
            g.uses[i].in_flight += n


cdef void guard_let_go(Guard* g, size_t n) noexcept nogil:
    """So many bytes are not in flight any more."""
    cdef int i
    if n > g.in_flight:
        n = g.in_flight
    g.in_flight -= n
    for i in range(USES):
        if g.uses[i] != NULL:
            g.uses[i].in_flight -= n


cdef void guard_take_back(Session* s) noexcept nogil:
    """A transaction was taken back, and will be judged again: it has not been charged for."""
    cdef Guard* g = <Guard*>s.guard
    cdef int i
    for i in range(USES):
        if g.uses[i] != NULL and g.uses[i].limits.interval:
            g.uses[i].due = g.before[i]
    g.charged = False
    if s.outstanding == 0:
        guard_let_go(g, g.in_flight)


# Waiting

cdef bint guard_ready(const Session* s) noexcept nogil:
    """Whether a session that waits for its limits may look again."""
    cdef Guard* g = <Guard*>s.guard
    if g == NULL:
        return True
    if guard_nothing_due(s):
        guard_let_go(g, g.in_flight)    # what was not counted exactly is over as well
    return (not g.charged or g.ready_at <= s.core.clock * 1000) \
        and guard_has_room(g, s, g.waiting)


cdef void guard_settle(Session* s) noexcept nogil:
    """Nothing is due to the session: it has nothing in flight, and is not blocked."""
    cdef Guard* g = <Guard*>s.guard
    cdef int i
    guard_let_go(g, g.in_flight)
    for i in range(USES):
        if g.uses[i] != NULL:
            g.uses[i].blocked -= g.blocked
            g.uses[i].subscribed -= g.subscribed and s.mode == MODE_SHARED
    g.blocked = False
    g.subscribed = g.subscribed and s.mode != MODE_SHARED


# Replies

cdef bint exceeds(const Guard* g, size_t size) noexcept nogil:
    cdef int i
    for i in range(USES):
        if g.uses[i] != NULL and g.uses[i].limits.reply and size > g.uses[i].limits.reply:
            return True
    return False


cdef bint guard_exceeds(const Session* s, size_t size) noexcept nogil:
    """Whether a reply of this size is more than the session's client may get."""
    return s.guard != NULL and exceeds(<const Guard*>s.guard, size)


cdef inline Guard* guard_of(Session* s) noexcept nogil:
    """The guard of the client that a session is, or is a branch of. A branch's own pointer only tells
    that there may be one."""
    return <Guard*>(s.guard if s.trunk == NULL else s.trunk.guard)


cdef bint guard_replied(Link* l, Session* s, size_t request, size_t reply) noexcept nogil:
    """The whole reply to a request has come, so many bytes each. True: the client is not to get it, but
    TOO_LARGE_REPLY. Called before the reply is weighed."""
    cdef Guard* g = guard_of(s)
    if g != NULL:
        guard_let_go(g, request)
    if l.partial or g == NULL or not exceeds(g, reply):
        return l.partial and l.swallowing
    guard_count(g, BY_REPLY)
    return True


cdef int guard_part(Link* l, Session* s, bint first) noexcept nogil:
    """Part of a reply to this session has come, `Link.partial_size` bytes by now. 1: give it out; 0: the
    reply says of itself that it is too large, and is dropped. 2: it has turned out to be so, and the
    client, which has part of it, is closed."""
    cdef Guard* g = guard_of(s)
    if g == NULL:
        return not l.swallowing
    if first and l.framer.first == c'$' and exceeds(g, <size_t>l.framer.number):
        l.swallowing = True
        guard_count(g, BY_REPLY)
    if l.swallowing:
        return 0
    if not exceeds(g, l.partial_size) or s.must_close:
        return 1
    guard_count(g, BY_REPLY)
    s.must_close = True
    return 2


# As the shell sees it

cdef class GuardTexts:
    """The server's own words for what it refuses, and what all guards of a plane share."""

    def __cinit__(self):
        self.use(b"-NOPERM User {user} has no permissions to run the '{command}' command",
                 b"-NOPERM No permissions to access a key", True)

    def use(self, bytes command, bytes key, bint subcommands):
        """Refuse with these lines, without their ends: a `command`, with {user} and {command} in it; a
        `key`. `subcommands`: a command is called `config|set`, not `config`."""
        cdef bytes text = command.replace(b"{user}", b"\x01").replace(b"{command}", b"\x02")
        if len(text) >= sizeof(self.texts.command) or len(key) + 2 >= sizeof(self.texts.key):
            raise ValueError("too long")
        memcpy(self.texts.command, <const char*>text, len(text) + 1)
        text = key + b"\r\n"
        memcpy(self.texts.key, <const char*>text, len(text) + 1)
        self.texts.subcommands = subcommands

    def shed(self, bint yes):
        """Whether commands are refused, since the loop lags."""
        self.texts.sheds = yes

    def see_logins(self, bint yes):
        """Whether a login on a link of the client's own is a session command, until the guard has
        `let_login_pass`."""
        self.texts.sees_logins = yes

    @property
    def sheds(self):
        """Whether commands are refused, since the loop lags."""
        return self.texts.sheds


cdef class ClientGuard:
    """What restricts one client: at most MOST_POLICIES and two accounts, of which any may be None. The
    first account counts what is refused. `user` is what the server's refusals call it."""

    def __cinit__(self, GuardTexts texts, bytes user, policies, accounts):
        cdef int i
        user = user.replace(b"\r", b"?").replace(b"\n", b"?")
        self.texts, self.user = texts, user
        self.policies, self.accounts = tuple(policies), tuple(accounts)
        if len(self.policies) > POLICIES or len(self.accounts) > USES:
            raise ValueError("too many")
        self.guard.texts = &texts.texts
        self.guard.user = <const char*>user
        self.guard.user_len = len(user)
        for i, policy in enumerate(self.policies):
            if policy is not None:
                self.guard.policies[i] = &(<Policy?>policy).rules
        for i, account in enumerate(self.accounts):
            if account is not None:
                self.guard.uses[i] = &(<Account?>account).use

    def let_login_pass(self):
        """The login at the head has been seen to: it may go to the server."""
        self.guard.login_seen = True

    cdef void leave(self) noexcept:
        """Its client has gone, or has another guard: it uses nothing any more."""
        cdef Guard* g = &self.guard
        cdef int i
        guard_let_go(g, g.in_flight)
        for i in range(USES):
            if g.uses[i] != NULL:
                g.uses[i].blocked -= g.blocked
                g.uses[i].subscribed -= g.subscribed
        g.blocked = g.subscribed = False
