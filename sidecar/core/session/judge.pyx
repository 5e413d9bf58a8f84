# cython: language_level=3
"""Judging a request of a client that is restricted, before anything else is decided on it.

In this order:

    overload    the loop lags: refused, unless a transaction is open
    policy      of the identity, and of the listener: both hold
    size        of the request, and how many clients may be blocked or have subscribed
    rate        each command is charged for once, however often it is decided on
    in flight   bytes, and requests that the client has under way: it waits until there are fewer

Who has to wait (STALL_LIMIT) is not read on; the shell looks again when it may be time (`guard_ready`),
and so does the session itself when a reply comes. Where MULTI ... EXEC is queued as one piece on a
shared link, its commands are charged for, and nothing in it waits: who comes next does.

A refusal is given in its turn. Between two requests that is when no reply is due; in a transaction and
on a pinned link a stand-in goes to the server in the place of the request (core/link/refused.pyx). Of a
large request that is refused, the rest is discarded as it comes.

What a script does is not seen here: `redis.call('flushall')` is a matter of the server's own ACL.
"""
from libc.stdint cimport uint64_t
from libc.string cimport memcpy, strlen
from sidecar.core.guard.account cimport (BY_BLOCKED, BY_COMMAND, BY_KEY, BY_OVERLOAD, BY_RATE,
    BY_REQUEST, BY_SUBSCRIBED, Use, use_has_time, use_reserve)
from sidecar.core.guard.guard cimport (COMMAND_HERE, Guard, POLICIES, USER_HERE, USES, guard_count,
    TOO_LARGE_REQUEST, guard_counts, guard_has_room, guard_hold, guard_sees)
from sidecar.core.guard.command_rules cimport (ALLOWED, DENIED_KEY, HAS_SUBCOMMANDS, PolicyRules, full_name,
    rules_judge)
from sidecar.core.link.receiver cimport session_say
from sidecar.core.link.refused cimport link_refuse
from sidecar.core.observe.audit_notes cimport audit_refused
from sidecar.core.observe.trace_records cimport trace_refused
from sidecar.core.protocol.commands cimport (ROUTE_AUTH, ROUTE_BLOCKING, ROUTE_HELLO,
    ROUTE_MAYBE_BLOCKING, ROUTE_PIN, ROUTE_WAIT)
from sidecar.core.protocol.cursor cimport Cursor, cursor_begin, cursor_next, is_word
from sidecar.core.protocol.request cimport ERR_MEMORY, arguments_of
from sidecar.core.records cimport (MODE_DEDICATED, MODE_PINNED, MODE_SHARED, STALL_DEDICATED,
    STALL_LIMIT, STALL_NONE, STALL_PROTOCOL_ERROR, STALL_REPLIES,
    STALL_SESSION_COMMAND)

cdef enum:
    NOTED_EACH_SECOND = 10  # refusals of one client that the audit stream tells one by one

cdef const char* OVERLOADED = b"-OVERLOADED the sidecar cannot keep up; try again later\r\n"
cdef const char* TOO_MANY_COMMANDS = b"-LIMITED too many commands a second; try again later\r\n"
cdef const char* TOO_MANY_BLOCKED = b"-LIMITED too many clients are blocked\r\n"
cdef const char* TOO_MANY_SUBSCRIBED = b"-LIMITED too many clients have subscribed\r\n"


# Refusing

cdef void note(Guard* g, Session* s, const Command* c, int reason) noexcept nogil:
    """Count a refusal, and note it for the audit stream, unless that has many of this client's."""
    guard_count(g, reason)
    if reason != BY_COMMAND and reason != BY_KEY:
        return
    if g.second != s.core.seconds:
        g.second = s.core.seconds
        g.noted = 0
    if g.noted < NOTED_EACH_SECOND:
        g.noted += 1
        audit_refused(s, c)


cdef int refuse(Guard* g, Session* s, const Command* c, const char* p, size_t n, bint whole,
                const char* error, size_t size, int reason) noexcept nogil:
    """Give a request this error in its turn: what the session waits for, or STALL_NONE: it is done."""
    g.head_refused = s.multi_unsent
    if s.multi_unsent or (s.mode == MODE_SHARED and s.in_multi):
        return STALL_DEDICATED          # the server has to know: then we are here again
    if s.mode == MODE_PINNED or (s.mode == MODE_DEDICATED and s.in_multi):
        if link_refuse(s.link, s, c.id, error, size) < 0:
            s.scan.error = ERR_MEMORY
            return STALL_PROTOCOL_ERROR
    elif s.outstanding:
        return STALL_REPLIES
    else:
        session_say(s, error, size)
    s.discarding = s.streaming = not whole
    s.core.stats.errors_local += reason == BY_OVERLOAD      # the others are no failure of ours
    trace_refused(s.core, s, c, p if whole else NULL, n, error, size)
    note(g, s, c, reason)
    return STALL_NONE


cdef int refuse_by_policy(Guard* g, const PolicyRules* rules, Session* s, const Command* c,
                          const char* p, size_t n, bint whole, int verdict) noexcept nogil:
    """With the server's own text."""
    cdef char name[128]
    cdef char text[1024]
    cdef size_t size = 0
    cdef size_t length
    cdef const char* at = g.texts.command
    if verdict == DENIED_KEY:
        return refuse(g, s, c, p, n, whole, g.texts.key, strlen(g.texts.key), BY_KEY)
    length = full_name(s, g.texts.subcommands and rules.commands[c.id] & HAS_SUBCOMMANDS != 0, p, n,
                       name, sizeof(name))
    while at[0] != 0 and size < sizeof(text) - 2:
        if at[0] == USER_HERE:
            size += put(text + size, sizeof(text) - 2 - size, g.user, g.user_len)
        elif at[0] == COMMAND_HERE:
            size += put(text + size, sizeof(text) - 2 - size, name, length)
        else:
            text[size] = at[0]
            size += 1
        at += 1
    memcpy(text + size, b"\r\n", 2)
    return refuse(g, s, c, p, n, whole, text, size + 2, BY_COMMAND)


cdef size_t put(char* to, size_t room, const char* p, size_t n) noexcept nogil:
    if n > room:
        n = room
    memcpy(to, p, n)
    return n


cdef inline int limited(Guard* g, Session* s, const Command* c, const char* p, size_t n, bint whole,
                        const char* error, int reason) noexcept nogil:
    return refuse(g, s, c, p, n, whole, error, strlen(error), reason)


# Judging

cdef bint has_block(const char* p, size_t n) noexcept nogil:
    """Whether a whole XREAD or XREADGROUP has a BLOCK option before its STREAMS."""
    cdef Cursor c
    cdef int values = 1                 # arguments that are no options: the command's name first
    cursor_begin(&c, p, n)
    while cursor_next(&c):
        if values:
            values -= 1
        elif is_word(&c, b"block", 5):
            return True
        elif is_word(&c, b"streams", 7):
            return False
        elif is_word(&c, b"group", 5):
            values = 2
        elif is_word(&c, b"count", 5):
            values = 1
    return False


cdef bint may_block(Session* s, const Command* c, const char* p, size_t n, bint whole) noexcept nogil:
    """Whether the server may keep the client waiting for this request."""
    if c.route == ROUTE_BLOCKING or c.route == ROUTE_WAIT:
        return True
    return c.route == ROUTE_MAYBE_BLOCKING and (not whole or has_block(p, n))


cdef bint subscribes(const Command* c, const char* p, Session* s) noexcept nogil:
    """SUBSCRIBE, PSUBSCRIBE, SSUBSCRIBE; MONITOR gets what others do as well."""
    cdef char first = c.name[0]
    return c.route == ROUTE_PIN and c.name_len >= 7 and (
        (first == c's' and c.name[1] != c'y' and c.name[2] != c'n') or first == c'm'
        or (first == c'p' and c.name[1] == c's' and c.name[2] == c'u'))


cdef int judge_size(Guard* g, Session* s, const Command* c, const char* p, size_t n,
                    bint whole) noexcept nogil:
    """What there may not be too much of, whenever it comes."""
    cdef size_t size = n
    cdef bint blocks = not s.in_multi and may_block(s, c, p, n, whole)
    cdef bint subscribing = subscribes(c, p, s)
    cdef Use* u
    cdef int i
    if not whole and s.scan.bulk > 0:
        size += <size_t>s.scan.bulk
    for i in range(USES):
        u = g.uses[i]
        if u == NULL:
            continue
        if u.limits.request and size > u.limits.request:
            return limited(g, s, c, p, n, whole, TOO_LARGE_REQUEST, BY_REQUEST)
        if blocks and not g.blocked and u.limits.blocked and u.blocked >= u.limits.blocked:
            return limited(g, s, c, p, n, whole, TOO_MANY_BLOCKED, BY_BLOCKED)
        if subscribing and not g.subscribed and u.limits.subscribed \
                and u.subscribed >= u.limits.subscribed:
            return limited(g, s, c, p, n, whole, TOO_MANY_SUBSCRIBED, BY_SUBSCRIBED)
    for i in range(USES):
        u = g.uses[i]
        if u != NULL:
            u.blocked += blocks and not g.blocked
            u.subscribed += subscribing and not g.subscribed
    g.blocked |= blocks
    g.subscribed |= subscribing
    return PASSES


cdef int charge(Guard* g, Session* s, const Command* c, const char* p, size_t n,
                bint whole) noexcept nogil:
    """Take the time of one command; who may not wait for it is refused."""
    cdef uint64_t now = s.core.clock * 1000
    cdef uint64_t ready
    cdef bint in_piece = s.mode == MODE_SHARED and s.in_multi
    cdef Use* u
    cdef int i
    g.ready_at = 0
    for i in range(USES):
        u = g.uses[i]
        if u != NULL and u.limits.interval and not u.limits.delays and not in_piece \
                and not use_has_time(u, now):
            return limited(g, s, c, p, n, whole, TOO_MANY_COMMANDS, BY_RATE)
    for i in range(USES):
        u = g.uses[i]
        if u == NULL or u.limits.interval == 0:
            continue
        if not in_piece:
            g.before[i] = u.due
        ready = use_reserve(u, now)
        if not in_piece and u.limits.delays and ready:
            u.delayed += 1
            if ready > g.ready_at:
                g.ready_at = ready
    return PASSES


cdef inline bint is_login(const Session* s, const Command* c) noexcept nogil:
    """Whether it may make the client another user on a link of its own, where the sidecar does not see
    what becomes of that."""
    return (c.route == ROUTE_AUTH or (c.route == ROUTE_HELLO and s.scan.argc > 2)) \
        and (s.mode == MODE_PINNED or (s.mode == MODE_DEDICATED and s.in_multi))


cdef int guard_judge(Session* s, Command* c, const char* p, size_t n, bint whole) noexcept nogil:
    """Judge the request p[0:n] of a session that has a guard, of which the name is there, and all of it
    if it is `whole`. PASSES: it is to be decided on; otherwise what it waits for, or STALL_NONE: it was
    refused, and that is all."""
    cdef Guard* g = <Guard*>s.guard
    cdef int i, r, verdict
    g.head_refused = False
    if g.texts.sees_logins and is_login(s, c) and not g.login_seen:
        return STALL_SESSION_COMMAND
    g.login_seen = False
    if g.texts.sheds and not s.in_multi and not s.watching:
        return limited(g, s, c, p, n, whole, OVERLOADED, BY_OVERLOAD)
    for i in range(POLICIES):
        if g.policies[i] != NULL:
            verdict = rules_judge(g.policies[i], s, c, p, n, whole)
            if verdict != ALLOWED:
                return refuse_by_policy(g, g.policies[i], s, c, p, n, whole, verdict)
    if g.uses[0] == NULL and g.uses[1] == NULL:
        guard_sees(s, c, p, n, whole)
        return PASSES
    if not g.charged or g.command != s.command_count:
        r = judge_size(g, s, c, p, n, whole)
        if r == PASSES:
            r = charge(g, s, c, p, n, whole)
        if r != PASSES:
            return r
        g.charged, g.counted = True, False
        g.command = s.command_count
    if g.ready_at > s.core.clock * 1000:
        g.waiting = 0
        return STALL_LIMIT
    if not g.counted:
        if not guard_has_room(g, s, n):
            g.waiting = n
            return STALL_LIMIT
        if s.mode != MODE_PINNED or guard_counts(s, c):
            guard_hold(g, n)
        g.counted = True
    guard_sees(s, c, p, n, whole)
    g.streamed = n
    return PASSES
