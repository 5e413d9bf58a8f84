# cython: language_level=3, cdivision=True
"""What the near cache promises, as a judge of replies (see fuzz_cache_world.pyx): for tests only.

The native twin of oracle.py, which has the contract in words. Every reply must be one that some
event of the server explains. What was read on a tracked connection is a *hit*: it must come from
the connection that its space has now, from after every change that was announced or made through
the sidecar, and from within its deadline and its lease.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcmp
from sidecar.core.memory cimport (buffer_append, buffer_drop, buffer_head, buffer_release,
    buffer_size)
from sidecar.core.protocol.reply cimport (FRAME_MORE, FRAME_PUSH, FRAME_REPLY, frame_reply,
    framer_reset)
from tests.native.fuzz_cache_server cimport (EVER, Event, FIRST, NEVER, NO_KEY, OP_ACL, OP_EXEC,
    OP_EVAL, OP_GET, OP_MGET, OP_MULTI, OP_SET, OP_SET_LARGE, SHORT, render)
from tests.native.fuzz_decoders cimport Text

cdef enum:
    ALL_PLACES = 0xfffff


cdef uint32_t places_of(int db, const Ask* ask) noexcept:
    """What a command may write, by bit."""
    cdef uint32_t found
    if not OP_SET <= ask.op <= OP_ACL:
        return 0
    if ask.op == OP_EVAL or ask.op == OP_SET_LARGE:
        return 0                # what it does is to be seen once its reply has come
    if ask.op > OP_EVAL:
        return ALL_PLACES
    found = <uint32_t>1 << (db * KEYS + ask.key)
    if ask.key2 != NO_KEY:
        found |= <uint32_t>1 << (db * KEYS + ask.key2)
    return found


cdef int expect(Judge* j, Peer* p, const Ask* ask, bint in_multi, int body) except -1:
    """A request is sent now: what has been told so far counts for its reply."""
    cdef Due* due = &p.due[p.tail % DUE_MAX]
    if p.tail - p.head == DUE_MAX:
        raise AssertionError("too many requests")
    p.tail += 1
    due.ask, due.at, due.in_multi, due.body = ask[0], j.server.now, in_multi, body
    due.floor = j.told[p.db * KEYS + ask.key] if ask.key != NO_KEY else 0
    due.floor2 = j.told[p.db * KEYS + ask.key2] if ask.key2 != NO_KEY else 0
    return 0


cdef int check_replies(Judge* j, Peer* p, Peer* peers, int count) except -1:
    """Hold what has come for a client against what is due to it."""
    cdef size_t begin = 0
    cdef size_t at = buffer_size(&p.got)
    cdef uint32_t others = 0
    cdef int r, i
    if buffer_size(&p.s.out) == 0:
        return 0
    for i in range(count):
        if &peers[i] != p:
            others |= peers[i].writes
    buffer_append(&p.got, buffer_head(&p.s.out), buffer_size(&p.s.out))
    buffer_release(&p.s.out)
    while True:
        r = frame_reply(&p.framer, buffer_head(&p.got), buffer_size(&p.got), &at)
        if r == FRAME_MORE:
            break
        if r != FRAME_REPLY and r != FRAME_PUSH:
            raise AssertionError("what a client got is no reply")
        p.framer.first = 0
        if is_message(buffer_head(&p.got) + begin, at - begin):
            hear(j, p, buffer_head(&p.got) + begin, at - begin)
            begin = at
            continue
        if p.head == p.tail:
            raise AssertionError(f"nobody asked for {buffer_head(&p.got)[begin:at]!r}")
        answer(j, p, buffer_head(&p.got) + begin, at - begin, others)
        p.head += 1
        begin = at
    if begin:
        buffer_drop(&p.got, begin)
    return 0


cdef bint is_message(const char* p, size_t n) noexcept:
    return n > 15 and memcmp(p, b"*3\r\n$7\r\nmessage", 15) == 0


cdef int hear(Judge* j, Peer* p, const char* reply, size_t n) except -1:
    """A message has come: the client knows of the event that it names."""
    cdef uint32_t number = number_in(reply, n)
    if number == 0 or number >= j.server.count:
        raise AssertionError("a message of nothing")
    tell(j, p, &j.server.events[number])
    return 0


cdef int answer(Judge* j, Peer* p, const char* reply, size_t n, uint32_t others) except -1:
    """The oldest request has its reply."""
    cdef Due* due = &p.due[p.head % DUE_MAX]
    cdef size_t at = 0
    cdef uint32_t i
    cdef Ask one
    if reply[0] == c'-':
        if not j.errors and n > 10 and memcmp(reply, b"-UNCERTAIN", 10) == 0:
            raise AssertionError("nothing was lost, and a command is uncertain")
        return 0
    if due.ask.op >= OP_MULTI and due.ask.op != OP_EXEC or due.in_multi:
        return 0                # OK, QUEUED and the like
    if due.ask.op == OP_EXEC or due.ask.op == OP_MGET:
        while reply[at] != 10:
            at += 1
        at += 1
    if due.ask.op == OP_EXEC:
        for i in range(p.head - <uint32_t>due.body, p.head):
            at += explain_all(j, p, due, &p.due[i % DUE_MAX].ask, reply + at, n - at, True, others)
    else:
        at += explain_all(j, p, due, &due.ask, reply + at, n - at, False, others)
    if at != n:
        raise AssertionError(f"more than was asked for: {reply[:n]!r}")
    return 0


cdef Py_ssize_t explain_all(Judge* j, Peer* p, const Due* due, const Ask* ask, const char* reply,
                            size_t n, bint in_multi, uint32_t others) except -1:
    """The reply to one command at the beginning of reply[0:n]: its size."""
    cdef Ask one = ask[0]
    cdef size_t at = 0
    if ask.op == OP_MGET or reply[0] == c'-':
        one.op = OP_GET
        if in_multi:
            while reply[at] != 10:
                at += 1
            at += 1
        if reply[0] == c'-':
            return at               # refused inside of a transaction
        at += explain(j, p, due, &one, due.floor, reply + at, n - at, in_multi, others)
        one.key = ask.key2
        return at + explain(j, p, due, &one, due.floor2, reply + at, n - at, in_multi, others)
    return explain(j, p, due, ask, 0 if in_multi else due.floor, reply, n, in_multi, others)


cdef Py_ssize_t explain(Judge* j, Peer* p, const Due* due, const Ask* ask, uint32_t floor,
                        const char* reply, size_t n, bint in_multi, uint32_t others) except -1:
    """Find the event that explains the beginning of reply[0:n]: how many bytes it explains."""
    cdef Server* sv = j.server
    cdef uint32_t number = number_in(reply, n)
    cdef uint32_t i = 0
    cdef Py_ssize_t size
    cdef int place = p.db * KEYS + ask.key
    cdef const char* trouble = b"no such event"
    if number:
        if number >= sv.count:
            raise AssertionError(f"no event is number {number}")
        size = is_told(sv, p, ask, &sv.events[number], reply, n)
        if size:
            trouble = fault(j, p, due, &sv.events[number], floor, in_multi, others)
            if trouble == NULL:
                tell(j, p, &sv.events[number])
                return size
    # What is missing tells no number. Of the events that explain it the first asks for the least.
    while i + 1 < sv.count and not number:
        i += 1
        if sv.events[i].write or sv.events[i].place != place or sv.events[i].version:
            continue
        size = is_told(sv, p, ask, &sv.events[i], reply, n)
        if size:
            trouble = fault(j, p, due, &sv.events[i], floor, in_multi, others)
            if trouble == NULL:
                tell(j, p, &sv.events[i])
                return size
    raise AssertionError(
        f"client of {p.user}/{p.db} RESP{p.proto}, op {ask.op} key {ask.key}: "
        f"{reply[:min(n, 60)]!r} {trouble.decode()}; event {number} of {sv.count}, "
        f"at {sv.now}, due {due.at}, floor {floor}")


cdef uint32_t number_in(const char* p, size_t n) noexcept:
    """The number of an event in the first reply of p[0:n], less FIRST; 0: none."""
    cdef Framer framer
    cdef size_t i = 0
    cdef size_t end = 0
    cdef int digits = 0
    cdef uint64_t v = 0
    framer_reset(&framer)
    if frame_reply(&framer, p, n, &end) != FRAME_REPLY:
        return 0
    for i in range(end):
        if c'0' <= p[i] <= c'9':
            digits += 1
            v = v * 10 + <uint64_t>(p[i] - c'0')
            if digits == 10 and v >= FIRST:
                return <uint32_t>(v - FIRST)
        else:
            digits = 0
            v = 0
    return 0


cdef size_t is_told(Server* sv, const Peer* p, const Ask* ask, const Event* e, const char* reply,
                    size_t n) except? 0:
    """How many bytes at the beginning of reply[0:n] tell of this event, as the reply to `ask`."""
    cdef Text t
    cdef char line[32]
    t.n = 0
    if e.write:
        if ask.op == OP_GET or e.op != ask.op or reply[0] != c':':
            return 0
        return 13               # colon, ten digits, line end
    if e.op != ask.op or (e.place != p.db * KEYS + ask.key):
        return 0
    render(sv, e, ask.op, p.proto, &t)
    if t.n > n or memcmp(t.data, reply, t.n) != 0:
        return 0
    return t.n


cdef void tell(Judge* j, Peer* p, const Event* e) noexcept:
    """This client knows of the event now. What a script did is the event after its own."""
    cdef uint32_t number = <uint32_t>(e - j.server.events)
    cdef int first = e.place if e.place >= 0 else 0
    cdef int last = e.place + 1 if e.place >= 0 else PLACES
    cdef int place
    number += e.op == OP_EVAL
    for place in range(first, last):
        if p.told[place] < number:
            p.told[place] = number
        if j.told[place] < number:
            j.told[place] = number


cdef const char* fault(Judge* j, const Peer* p, const Due* due, const Event* e, uint32_t floor,
                       bint in_multi, uint32_t others) noexcept:
    """What is wrong with this event as the answer, or NULL."""
    cdef Server* sv = j.server
    cdef uint32_t number = <uint32_t>(e - sv.events)
    cdef const Event* end = NULL
    cdef const Event* w
    cdef uint32_t i
    cdef int key
    cdef int64_t at = sv.now if p.idle else due.at
    if e.user != p.user or e.db != p.db:
        return b"is another user's, or another database's"
    if e.write:
        return NULL
    key = e.place % KEYS
    if e.tracked:
        if not j.serves or key == NEVER or in_multi or p.fresh or p.pinned:
            return b"is a hit where none may be"
        if p.idle and e.connection != j.live[p.user * 2 + p.db]:
            return b"was read on a connection that is no more"
        if p.idle and (j.pushed[p.user * 2 + p.db][key] > number
                       or j.pushed[p.user * 2 + p.db][KEYS] > number):
            return b"had its invalidation received"
        if p.idle and others >> e.place & 1:
            return b"is a hit though a command of our own was under way"
        if at >= e.at + life(j, e):
            return b"is past its deadline"
    for i in range(number + 1, sv.count):
        w = &sv.events[i]
        if not w.write or (w.place >= 0 and w.place != e.place):
            continue
        if e.tracked and w.own and (p.idle or w.at < due.at):
            return b"is older than a command of our own"
        if end == NULL and w.place >= 0:
            end = w
    if end != NULL and end - sv.events <= max(floor, p.told[e.place]):
        return b"is older than what was told"
    if e.tracked and end != NULL and at - end.at >= bound(j, key):
        return b"is too old"
    return NULL


cdef int64_t bound(const Judge* j, int key) noexcept:
    return min(j.staleness, j.staleness_short) if key == SHORT else j.staleness


cdef int64_t life(const Judge* j, const Event* e) noexcept:
    """How long what was read may be served."""
    cdef int64_t found = j.ttl_max
    if e.place % KEYS == SHORT:
        found = min(found, j.ttl_short)
    if e.version == 0:
        return min(found, j.ttl_missing)
    return found if e.expires == EVER else min(found, e.expires - e.at)
