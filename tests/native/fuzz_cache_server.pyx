# cython: language_level=3, cdivision=True
"""The server of a fuzzed world with a near cache (see fuzz_cache_world.pyx): for tests only.

The native twin of model_server.py. Keys are numbers, without types; of each (database, key) the
server keeps the number of the event that wrote it. A reply tells the number of its own event, so it
shows when, on which connection and for whom it was made. Connections are known by the slot of their
wire, and by a number that no other connection ever has.

Invalidations go into the connection that has read the key, before anything that is answered later.
A logical expiry is announced when somebody comes upon the key, and not before.
"""
from libc.stdint cimport int64_t, uint32_t
from libc.stdio cimport snprintf
from libc.string cimport memcmp, memset, strlen
from sidecar.core.memory cimport (buffer_append, buffer_drop, buffer_head, buffer_release,
    buffer_size)
from sidecar.core.protocol.cursor cimport Cursor, cursor_begin, cursor_next
from sidecar.core.protocol.request cimport (SCAN_DONE, SCAN_MORE, Scanner,
    scan_request, scanner_reset)
from tests.native.chance cimport below
from tests.native.fuzz_decoders cimport put, put_header, put_text

cdef extern from * nogil:
    """
    static const char *const cache_ops[] = {
        "GET", "STRLEN", "SMEMBERS", "ZSCORE", "ZRANK", "GEOPOS", "DUMP", "MGET", "SET", "SET",
        "SET", "DEL", "MSET", "BLPOP", "EVAL", "FLUSHALL", "ACL", "MULTI", "EXEC", "WATCH",
        "UNWATCH", "PTTL", "PING", "SUBSCRIBE", "CLIENT", "WAIT", "TOUCH"};
    static const char *const cache_keys[] = {
        "k0", "k1", "k2", "k3", "k4", "k5", "a-key-of-more-than-thirty-bytes-0123456789",
        "short:7", "never:8", ""};
    """
    const char* cache_ops[27]
    const char* cache_keys[10]


cdef int some_key(Server* sv) noexcept:
    """A key that this world is about."""
    return (sv.first_key + <int>below(&sv.chance, <uint32_t>sv.keys)) % KEYS


cdef void connected(Server* sv, int w, int user, int db, int proto, bint tracking) noexcept:
    """A new connection in this slot."""
    cdef Wire* wire = &sv.wires[w]
    buffer_release(&wire.up)
    buffer_release(&wire.down)
    sv.connections += 1
    wire.number = sv.connections
    wire.user, wire.db, wire.proto = user, db, proto
    wire.own = True
    wire.replica = wire.in_multi = wire.aborts = wire.subscribed = False
    wire.sent = wire.arrived = 0
    wire.queued = 0
    wire.push_head = wire.push_tail = 0


cdef void parted(Server* sv, int w, bint executed, const Limits* limits) except *:
    """The sidecar has left this connection: what it has sent counts as somebody else's, and is
    executed or lost."""
    cdef Wire* wire = &sv.wires[w]
    cdef int key
    wire.own = False
    if executed and wire.number:
        serve(sv, w, limits, ALL)
    wire.subscribed = False
    for key in range(KEYS):
        sv.tracked[key] &= ~(<uint32_t>1 << w)
    buffer_release(&wire.up)
    buffer_release(&wire.down)
    wire.number = 0


cdef int say(Wire* wire, const Text* t) except -1:
    if buffer_append(&wire.down, t.data, t.n) < 0:
        raise MemoryError
    wire.sent += t.n
    return 0


# What requests look like.

cdef void put_argument(Text* t, const char* p) noexcept:
    put_header(t, c'$', <int64_t>strlen(p))
    put_text(t, p)
    put_text(t, b"\r\n")


cdef void put_number(Text* t, int64_t n) noexcept:
    cdef char digits[24]
    snprintf(digits, 24, b"%lld", <long long>n)
    put_argument(t, digits)


cdef void put_ask(Text* t, const Ask* ask) noexcept:
    """The bytes of a request."""
    cdef int op = ask.op
    cdef int i
    cdef int count = 1 + (ask.key != NO_KEY) + (ask.key2 != NO_KEY)
    if op == OP_SET or op == OP_SET_LARGE or op == OP_ZSCORE or op == OP_GEOPOS or op == OP_BLPOP:
        count += 1
    elif op == OP_SET_PX:
        count += 3
    elif op == OP_ZRANK or op == OP_MSET or op == OP_EVAL or op == OP_ACL:
        count += 2
    elif op == OP_SUBSCRIBE or op == OP_CLIENT:
        count += 1
    put_header(t, c'*', count)
    put_argument(t, cache_ops[op])
    if op == OP_EVAL:
        put_argument(t, cache_keys[ask.arg])
        put_argument(t, b"0")
    elif op == OP_ACL:
        put_argument(t, b"SETUSER")
        put_number(t, ask.arg)
    elif op == OP_SUBSCRIBE or op == OP_CLIENT:
        put_argument(t, b"ID")
    if ask.key != NO_KEY:
        put_argument(t, cache_keys[ask.key])
    if op == OP_ZRANK:
        put_argument(t, b"m")
        put_argument(t, b"WITHSCORE")
    elif op == OP_ZSCORE or op == OP_GEOPOS or op == OP_SET or op == OP_SET_PX or op == OP_MSET:
        put_argument(t, b"m")
    elif op == OP_BLPOP:
        put_argument(t, b"0")
    elif op == OP_SET_LARGE:
        put_header(t, c'$', 700)
        for i in range(70):
            put_text(t, b"0123456789")
        put_text(t, b"\r\n")
    if op == OP_SET_PX:
        put_argument(t, b"PX")
        put_number(t, ask.arg)
    if ask.key2 != NO_KEY:
        put_argument(t, cache_keys[ask.key2])
        if op == OP_MSET:
            put_argument(t, b"m")


cdef int key_of(const char* p, size_t n) noexcept:
    cdef int i
    for i in range(KEYS):
        if strlen(cache_keys[i]) == n and memcmp(cache_keys[i], p, n) == 0:
            return i
    return NO_KEY


cdef int number_of(const char* p, size_t n) noexcept:
    cdef int v = 0
    cdef size_t i
    for i in range(n):
        v = v * 10 + (p[i] - c'0')
    return v


cdef int read_ask(const char* p, size_t n, Ask* ask) except -1:
    """What a request says."""
    cdef Cursor c
    cdef size_t size
    cdef const char* arg
    cdef int i = 0
    cdef int op
    ask.key = ask.key2 = NO_KEY
    ask.op = -1
    cursor_begin(&c, p, n)
    while cursor_next(&c):
        arg, size = c.arg, c.size
        if i == 0:
            for op in range(OPS):
                if strlen(cache_ops[op]) == size and memcmp(cache_ops[op], arg, size) == 0:
                    ask.op = op
                    break
            if ask.op < 0:
                raise AssertionError(f"the server was sent {p[:n]!r}")
        elif i == 1 and ask.op == OP_EVAL:
            ask.arg = key_of(arg, size)
        elif i == 2 and ask.op == OP_ACL:
            ask.arg = number_of(arg, size)
        elif i == 1 and ask.op < OP_FLUSHALL or (i == 1 and (ask.op == OP_WATCH
                                                             or ask.op == OP_PTTL)):
            ask.key = key_of(arg, size)
        elif (i == 2 and ask.op == OP_MGET) or (i == 3 and ask.op == OP_MSET):
            ask.key2 = key_of(arg, size)
        elif i == 2 and ask.op == OP_SET and size > 100:
            ask.op = OP_SET_LARGE
        elif i == 3 and ask.op == OP_SET:
            ask.op = OP_SET_PX
        elif i == 4 and ask.op != OP_TOUCH:
            ask.arg = number_of(arg, size)
        i += 1
    return 0


# What the server does.

cdef int serve(Server* sv, int w, const Limits* limits, int most) except -1:
    """The server executes the whole requests that have come on a connection, so many at most."""
    cdef Wire* wire = &sv.wires[w]
    cdef Scanner scan
    cdef Ask ask
    cdef Text t
    cdef int r
    while buffer_size(&wire.up) and most > 0:
        most -= 1
        scanner_reset(&scan)
        r = scan_request(&scan, buffer_head(&wire.up), buffer_size(&wire.up), limits, True)
        if r == SCAN_MORE:
            return 0
        if r != SCAN_DONE:
            raise AssertionError(f"event {r} in {buffer_head(&wire.up)[:40]!r}")
        read_ask(buffer_head(&wire.up), scan.pos, &ask)
        buffer_drop(&wire.up, scan.pos)
        t.n = 0
        execute(sv, w, &ask, &t)
        say(wire, &t)
    return 0


cdef int execute(Server* sv, int w, const Ask* ask, Text* t) except -1:
    """One request, in a transaction or not."""
    cdef Wire* wire = &sv.wires[w]
    cdef int i
    if ask.op == OP_MULTI:
        wire.in_multi = True
        wire.aborts = False
        wire.queued = 0
        put_text(t, b"+OK\r\n")
    elif ask.op == OP_EXEC:
        if not wire.in_multi:
            raise AssertionError("EXEC without MULTI")
        wire.in_multi = False
        if wire.aborts:
            put_text(t, b"-EXECABORT\r\n")
            return 0
        put_header(t, c'*', wire.queued)
        for i in range(wire.queued):
            answer(sv, w, &wire.queue[i], t)
    elif wire.in_multi and refuses(wire, ask):
        wire.aborts = True
        put_text(t, b"-READONLY no\r\n")
    elif wire.in_multi:
        if wire.queued == QUEUE_MAX:
            raise AssertionError("a transaction is too long")
        wire.queue[wire.queued] = ask[0]
        wire.queued += 1
        put_text(t, b"+QUEUED\r\n")
    else:
        answer(sv, w, ask, t)
    return 0


cdef bint refuses(const Wire* wire, const Ask* ask) noexcept:
    """Whether the server is not the master any more, and so does not do this."""
    return wire.replica and OP_SET <= ask.op <= OP_FLUSHALL


cdef int answer(Server* sv, int w, const Ask* ask, Text* t) except -1:
    """Execute a command that is not queued."""
    cdef Wire* wire = &sv.wires[w]
    cdef Ask one
    if refuses(wire, ask):
        put_text(t, b"-READONLY no\r\n")
    elif (ask.op <= OP_MGET or ask.op == OP_PTTL) and sv.denied[wire.user] \
            or (ask.op == OP_PTTL and sv.no_ttl[wire.user]):
        put_text(t, b"-NOPERM no\r\n")
    elif ask.op == OP_MGET:
        put_header(t, c'*', 2)
        one = ask[0]
        one.op = OP_GET
        read(sv, w, &one, t)
        one.key = ask.key2
        read(sv, w, &one, t)
    elif ask.op < OP_MGET:
        read(sv, w, ask, t)
    elif ask.op == OP_PTTL:
        answer_ttl(sv, w, ask.key, t)
    elif ask.op == OP_SUBSCRIBE:
        wire.subscribed = True
        put_text(t, b"*3\r\n$9\r\nsubscribe\r\n$2\r\nID\r\n:1\r\n")
    elif ask.op == OP_TOUCH:
        put_text(t, b"-NOPERM no\r\n" if sv.denied[wire.user] else b":1\r\n")
    elif ask.op == OP_WAIT:
        put_text(t, b":1\r\n" if below(&sv.chance, 6) else b":0\r\n")
    elif ask.op >= OP_MULTI:
        put_text(t, b"+OK\r\n")
    else:
        change(sv, wire, ask, t)
    return 0


cdef Event* note(Server* sv, int op, int place, const Wire* wire) except NULL:
    """A new event; `wire` NULL: somebody elsewhere."""
    cdef Event* e
    if sv.count == EVENTS_MAX:
        raise AssertionError("too many events")
    e = &sv.events[sv.count]
    memset(e, 0, sizeof(Event))
    sv.count += 1
    e.at, e.op, e.place, e.expires = sv.now, op, place, EVER
    if wire != NULL:
        e.connection, e.user, e.db = wire.number, <uint8_t>wire.user, <uint8_t>wire.db
        e.own, e.tracked = wire.own, wire.tracked != NULL
    return e


cdef uint32_t write_one(Server* sv, int op, int place, int64_t expires,
                        const Wire* wire) except 0:
    """One key is written, or gone (DEL): the event's number."""
    cdef Event* e = note(sv, op, place, wire)
    cdef uint32_t number = <uint32_t>(e - sv.events)
    e.write = True
    e.version = sv.version[place] = 0 if op == OP_DEL or op == OP_FLUSHALL else number
    e.expires = sv.expires[place] = expires
    if op != OP_FLUSHALL:
        invalidate(sv, place % KEYS, number)
    return number


cdef int expire(Server* sv, int place) except -1:
    """A key whose time is over is deleted when somebody comes upon it."""
    if sv.version[place] and sv.expires[place] <= sv.now:
        write_one(sv, OP_DEL, place, EVER, NULL)
    return 0


cdef int read(Server* sv, int w, const Ask* ask, Text* t) except -1:
    cdef Wire* wire = &sv.wires[w]
    cdef int place = wire.db * KEYS + ask.key
    cdef Event* e
    expire(sv, place)
    track(sv, w, ask.key)
    e = note(sv, ask.op, place, wire)
    e.version, e.expires = sv.version[place], sv.expires[place]
    render(sv, e, ask.op, wire.proto, t)
    return 0


cdef void track(Server* sv, int w, int key) noexcept:
    if sv.wires[w].tracked != NULL and sv.wires[w].own:
        sv.tracked[key] |= <uint32_t>1 << w


cdef int answer_ttl(Server* sv, int w, int key, Text* t) except -1:
    cdef char line[32]
    cdef int place = sv.wires[w].db * KEYS + key
    cdef int64_t ttl = -2
    expire(sv, place)
    track(sv, w, key)
    if sv.version[place]:
        ttl = -1 if sv.expires[place] == EVER else (sv.expires[place] - sv.now) // 1000
    put(t, line, snprintf(line, 32, b":%lld\r\n", <long long>ttl))
    return 0


cdef int change(Server* sv, const Wire* wire, const Ask* ask, Text* t) except -1:
    """A command that writes, on a connection or (NULL) elsewhere, where only one key is meant."""
    cdef char line[32]
    cdef uint32_t number
    cdef int db = wire.db if wire != NULL else ask.key2
    cdef int place
    cdef Event* e
    if ask.op >= OP_EVAL:
        e = note(sv, ask.op, -1, wire)
        e.write = True
        number = <uint32_t>(e - sv.events)
    if ask.op == OP_EVAL:
        sv.events[number].own = False       # nobody has declared what it does
        sv.events[write_one(sv, OP_SET, db * KEYS + ask.arg, EVER, wire)].own = False
    elif ask.op == OP_ACL:
        sv.denied[ask.arg] = not sv.denied[ask.arg]
    elif ask.op == OP_FLUSHALL:
        for place in range(PLACES):
            if sv.version[place]:
                write_one(sv, OP_FLUSHALL, place, EVER, wire)
        push_all(sv, number)
    else:
        number = write_one(sv, ask.op, db * KEYS + ask.key,
                           sv.now + ask.arg * 1000 if ask.op == OP_SET_PX else EVER, wire)
        if ask.op == OP_SET_LARGE:
            sv.events[number].own = False   # its key may not have been seen when it was passed on
        if wire != NULL and ask.op == OP_MSET and ask.key2 != ask.key:
            write_one(sv, ask.op, db * KEYS + ask.key2, EVER, wire)
    put(t, line, snprintf(line, 32, b":%u\r\n", FIRST + number))
    return 0


cdef int publish(Server* sv) except -1:
    """Tell all subscribers of the newest event, if there is one."""
    cdef char line[32]
    cdef Text t
    cdef int w
    if sv.count == 1:
        return 0
    t.n = 0
    put_text(&t, b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n")
    put(&t, line, snprintf(line, 32, b":%u\r\n", FIRST + sv.count - 1))
    for w in range(CONNECTIONS_MAX):
        if sv.wires[w].subscribed:
            say(&sv.wires[w], &t)
    return 0


cdef int push(Server* sv, int w, int key, uint32_t number) except -1:
    cdef Wire* wire = &sv.wires[w]
    cdef Push* one = &wire.pushes[wire.push_tail % PUSHES_MAX]
    cdef Text t
    if wire.push_tail - wire.push_head == PUSHES_MAX:
        raise AssertionError("too many pushes")
    t.n = 0
    put_text(&t, b">2\r\n$10\r\ninvalidate\r\n")
    if key == NO_KEY:
        put_text(&t, b"_\r\n")
    else:
        put_text(&t, b"*1\r\n")
        put_argument(&t, cache_keys[key])
    say(wire, &t)
    one.end, one.key, one.number = wire.sent, key, number
    wire.push_tail += 1
    return 0


cdef int invalidate(Server* sv, int key, uint32_t number) except -1:
    """Tell the connections that have read the key that it has changed: once."""
    cdef uint32_t wires = sv.tracked[key]
    cdef int w
    sv.tracked[key] = 0
    for w in range(CONNECTIONS_MAX):
        if wires >> w & 1:
            push(sv, w, key, number)
    return 0


cdef int push_all(Server* sv, uint32_t number) except -1:
    cdef int w
    memset(sv.tracked, 0, sizeof(sv.tracked))
    for w in range(CONNECTIONS_MAX):
        if sv.wires[w].tracked != NULL and sv.wires[w].number:
            push(sv, w, NO_KEY, number)
    return 0


cdef void put_double(Text* t, uint32_t n, int proto) noexcept:
    cdef char digits[16]
    cdef int size = snprintf(digits, 16, b"%u", n)
    if proto == 3:
        put_text(t, b",")
    else:
        put_header(t, c'$', size)
    put(t, digits, size)
    put_text(t, b"\r\n")


cdef void put_null(Text* t, int proto, bint array) noexcept:
    put_text(t, b"_\r\n" if proto == 3 else (b"*-1\r\n" if array else b"$-1\r\n"))


cdef void render(const Server* sv, const Event* e, int op, int proto, Text* t) noexcept:
    """The reply that tells of this event, in a command's form; what is missing has no number but
    where a number is all there is."""
    cdef char digits[16]
    cdef uint32_t n = FIRST + <uint32_t>(e - sv.events)
    cdef int pad = sv.pad[e.place % KEYS]
    cdef int i
    cdef int size = snprintf(digits, 16, b"%u", n)
    if op == OP_STRLEN:
        put_text(t, b":")
        put(t, digits, size)
        put_text(t, b"\r\n")
    elif op == OP_SMEMBERS:
        put_text(t, b"~" if proto == 3 else b"*")
        put_text(t, b"1\r\n" if e.version else b"0\r\n")
        if e.version:
            put_argument(t, digits)
    elif op == OP_GEOPOS:
        put_text(t, b"*1\r\n*2\r\n" if e.version else b"*1\r\n")
        if e.version:
            put_double(t, n, proto)
            put_double(t, 1, proto)
        else:
            put_null(t, proto, True)
    elif e.version == 0:
        put_null(t, proto, op == OP_ZRANK)
    elif op == OP_ZRANK:
        put_text(t, b"*2\r\n:")
        put(t, digits, size)
        put_text(t, b"\r\n")
        put_double(t, 7, proto)
    elif op == OP_ZSCORE:
        put_double(t, n, proto)
    else:
        put_header(t, c'$', size + pad)
        put(t, digits, size)
        for i in range(pad):
            put_text(t, b"x")
        put_text(t, b"\r\n")
