# cython: language_level=3, cdivision=True
"""The servers of a fuzzed world (see fuzz_world.pyx): for tests only.

A server answers each request with what it read in it, so that a reply tells whose it is: a number
(`k<number>`), or the first letter of the command where there is none. It executes as a real one
does: what stands between MULTI and EXEC when EXEC comes, or not at all.

At times it is not the master: then it refuses what a real one would, with the same words. The word
behind them tells how the link must take it: "first" is said by a connection that has refused
nothing yet but inside of transactions, "late" after that.

Each numbered request has a fate, which is noted here and nowhere else: executed, and what the
WAIT behind it was answered.
"""
from libc.stdint cimport uint32_t
from libc.stdio cimport snprintf
from sidecar.core.protocol.commands cimport (COMMAND_READ, COMMAND_WRITES, Command, ROUTE_DISCARD,
    ROUTE_EXEC, ROUTE_MULTI, ROUTE_UNWATCH, ROUTE_WAIT, ROUTE_WATCH)
from tests.native.chance cimport below
from tests.native.fuzz_decoders cimport put, put_header, put_text
from sidecar.core.memory cimport buffer_append, buffer_drop, buffer_head, buffer_release, buffer_size
from sidecar.core.protocol.cursor cimport Cursor, cursor_begin, cursor_next
from sidecar.core.protocol.request cimport (SCAN_DONE, SCAN_MORE, Scanner, scan_request,
    scanner_reset)


cdef void wire_connected(Wire* wire) noexcept:
    """A new connection, to a master."""
    wire_closed(wire)
    wire.role = ROLE_MASTER
    wire.refused = wire.in_multi = wire.dirty = wire.queued_write = False
    wire.queued = wire.waiting = 0


cdef void wire_closed(Wire* wire) noexcept:
    """What is on its way is lost."""
    buffer_release(&wire.up)
    buffer_release(&wire.down)


cdef void reply_text(Text* t, int number, char letter) noexcept:
    """The reply to an executed request: a string, a number, or an error, by its number."""
    cdef char digits[16]
    cdef int n
    if number < 0:
        put_text(t, b"+")
        put(t, &letter, 1)
    else:
        n = snprintf(digits, 16, b"%d", number)
        if number % 3 == 0:
            put_header(t, c'$', n + number % 7)
            put(t, digits, n)
            put(t, b"xxxxxxx", number % 7)
        else:
            put_text(t, b":" if number % 3 == 1 else b"-")
            put(t, digits, n)
    put_text(t, b"\r\n")


cdef int number_in(const char* p, size_t n) noexcept:
    """The number in `k<number>`, or -1."""
    cdef size_t i
    cdef int v = 0
    if n < 2 or p[0] != c'k':
        return -1
    for i in range(1, n):
        v = v * 10 + (p[i] - c'0')
    return v


cdef int serve(Truth* truth, Wire* wire, CommandTable table, const Limits* limits) except -1:
    """The server takes what has reached it."""
    cdef Scanner scan
    cdef int r
    while buffer_size(&wire.up):
        scanner_reset(&scan)
        r = scan_request(&scan, buffer_head(&wire.up), buffer_size(&wire.up), limits, True)
        if r == SCAN_MORE:
            return 0
        if r != SCAN_DONE:
            raise AssertionError(f"event {r} in {buffer_head(&wire.up)[:40]!r}")
        if wire.pushes and below(&truth.chance, 16) == 0:
            buffer_append(&wire.down, b">2\r\n+p\r\n$10\r\n-READONLY \r\n", 25)
        if wire.role != ROLE_MASTER and below(&truth.chance, 8) == 0:
            wire.role = ROLE_MASTER     # loaded, or promoted, between two requests
        execute(truth, wire, table, buffer_head(&wire.up), scan.pos)
        buffer_drop(&wire.up, scan.pos)
    return 0


cdef int execute(Truth* truth, Wire* wire, CommandTable table, const char* p,
                 size_t n) except -1:
    """One request: its effect and its reply."""
    cdef Cursor a
    cdef Command* c
    cdef char letter
    cdef int number = -1
    cdef Text t
    t.n = 0
    if cursor_begin(&a, p, n) < 1 or not cursor_next(&a):
        raise AssertionError("no request")
    c = table.find(a.arg, a.size)
    letter = a.arg[0]
    if cursor_next(&a):
        number = number_in(a.arg, a.size)
    if c.route == ROUTE_MULTI:
        if wire.in_multi:
            raise AssertionError("MULTI in a transaction")
        wire.in_multi = True
        wire.dirty = wire.queued_write = False
        wire.queued = 0
    if c.route == ROUTE_WAIT and number < 0:
        answer_wait(truth, wire, &t)
    elif refuses(wire, c):
        put_refusal(wire, &t, number)
    elif wire.in_multi and c.route == ROUTE_EXEC and aborts(wire):
        put_text(&t, b"-EXECABORT late\r\n" if wire.refused else b"-EXECABORT first\r\n")
    else:
        carry_out(truth, wire, c, number)
        reply_text(&t, number, letter)
    if c.route == ROUTE_EXEC or c.route == ROUTE_DISCARD:
        if not wire.in_multi:
            raise AssertionError("the end of a transaction without its beginning")
        wire.in_multi = False
    buffer_append(&wire.down, t.data, t.n)
    return 0


cdef bint refuses(const Wire* wire, const Command* c) noexcept:
    """Whether the server's role forbids this command."""
    if wire.role == ROLE_MASTER or c.route == ROUTE_MULTI or c.route == ROUTE_EXEC \
            or c.route == ROUTE_DISCARD or c.route == ROUTE_WATCH or c.route == ROUTE_UNWATCH:
        return False
    return wire.role != ROLE_REPLICA or c.flags & COMMAND_WRITES != 0


cdef void put_refusal(Wire* wire, Text* t, int number) noexcept:
    cdef char line[64]
    cdef const char* word = b"READONLY"
    if wire.role == ROLE_STALE:
        word = b"MASTERDOWN"
    elif wire.role == ROLE_LOADING:
        word = b"LOADING"
    put(t, line, snprintf(line, 64, b"-%s %s k%d\r\n", word,
                          <const char*>(b"late" if wire.refused else b"first"), number))
    if wire.in_multi:
        wire.dirty = True
    else:
        wire.refused = True


cdef bint aborts(const Wire* wire) noexcept:
    """Whether EXEC finds that not all of it may be executed."""
    return wire.dirty or (wire.role == ROLE_REPLICA and wire.queued_write) \
        or (wire.role > ROLE_REPLICA and wire.queued > 0)


cdef int carry_out(Truth* truth, Wire* wire, const Command* c, int number) except -1:
    """Execute a command, or note it for EXEC."""
    cdef int i
    if wire.in_multi and c.route == ROUTE_EXEC:
        for i in range(wire.queued):
            if wire.queue[i] >= 0:
                effect(truth, wire, wire.queue[i])
    elif wire.in_multi and number >= 0:
        if wire.queued == QUEUE_MAX:
            raise AssertionError("a transaction is too long")
        wire.queue[wire.queued] = -1 if c.flags & COMMAND_READ else number
        wire.queued += 1
        if c.flags & COMMAND_WRITES:
            wire.queued_write = True
    elif number >= 0 and not c.flags & COMMAND_READ:
        effect(truth, wire, number)
    return 0


cdef int effect(Truth* truth, Wire* wire, int number) except -1:
    """A request that may not be executed twice is executed."""
    if truth.fate[number] != FATE_NONE:
        raise AssertionError(f"request {number} was executed twice")
    truth.fate[number] = FATE_DONE
    if truth.acks == 0:
        return 0
    if wire.waiting == WAITING_MAX:
        raise AssertionError("no WAIT has come for very long")
    wire.unacked[wire.waiting] = number
    wire.waiting += 1
    return 0


cdef int answer_wait(Truth* truth, Wire* wire, Text* t) except -1:
    """The sidecar's own WAIT: how many replicas have what was executed before it."""
    cdef int i
    cdef uint32_t count = below(&truth.chance, 3)
    cdef char digit = <char>(c'0' + count)
    if truth.acks == 0:
        raise AssertionError("a WAIT that nobody has asked for")
    if wire.in_multi:
        raise AssertionError("a WAIT in somebody's transaction")
    if wire.role != ROLE_MASTER or below(&truth.chance, 32) == 0:
        put_text(t, b"-ERR WAIT cannot be used with replica instances.\r\n")
        count = 0
    else:
        put_text(t, b":")
        put(t, &digit, 1)
        put_text(t, b"\r\n")
    for i in range(wire.waiting):
        truth.fate[wire.unacked[i]] = FATE_SAFE if <int>count >= truth.acks else FATE_SHORT
    wire.waiting = 0
    return 0
