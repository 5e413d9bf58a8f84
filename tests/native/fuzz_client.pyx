# cython: language_level=3, cdivision=True
"""The clients of a fuzzed world (see fuzz_world.pyx): for tests only.

A client notes for each request what its reply must be, and compares what it gets. Beside the
reply itself it may get

    -UNCERTAIN          for what is no read, where connections break or masters change
    -UNREPLICATED       for a write that was executed and that too few replicas have
    a refusal           (READONLY ...) for what was not executed: in a transaction in which the
                        link would have demoted, and on a link of its own

and each of them, the reply as well, must agree with what has really happened.
"""
from libc.stdio cimport snprintf
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcmp, memset, strlen
from sidecar.core.protocol.commands cimport COMMAND_READ, COMMAND_WRITES, Command
from tests.native.chance cimport below
from tests.native.fuzz_decoders cimport Text, put, put_header, put_text
from tests.native.fuzz_server cimport (FATE_DONE, FATE_NONE, FATE_SAFE, FATE_SHORT, NUMBERS,
    reply_text)
from sidecar.core.memory cimport buffer_append, buffer_drop, buffer_head, buffer_release, buffer_size
from sidecar.core.protocol.reply cimport FRAME_MORE, FRAME_REPLY, frame_reply

cdef enum:
    NO_VALUE = -1           # `size` of a request without a value
    INLINE = -2

cdef const char* CACHED = b"+L\r\n"


cdef int more_to_say(Peer* p, Truth* truth, CommandTable table) except -1:
    """Some new requests for the client's script, unless it waits for much already."""
    cdef Text t
    cdef int k
    if p.tail - p.head > DUE_MAX - 80:
        return 0
    t.n = 0
    for k in range(1 + below(&truth.chance, 3)):
        if t.n < 200:
            say_one(p, truth, table, &t)
    buffer_append(&p.script, t.data, t.n)
    return 0


cdef int say_one(Peer* p, Truth* truth, CommandTable table, Text* t) except -1:
    """One request, or one transaction."""
    cdef uint64_t* r = &truth.chance
    cdef uint32_t kind = below(r, 24)
    if kind == 0:
        say_transaction(p, truth, table, t)
    elif kind == 1:
        say_keyed(p, truth, table, t, b"WATCH", NO_VALUE, False)
        say_plain(p, truth, table, t, False)
        say_bare(p, table, t, b"UNWATCH", -1)
    elif kind == 2:
        say_keyed(p, truth, table, t, b"BLPOP", 1, False)
    elif kind == 3:
        say_keyed(p, truth, table, t, b"NOSUCH", 2, False)
    elif kind == 4:
        say_bare(p, table, t, b"CLIENT", -1)
    elif kind == 5:
        say_keyed(p, truth, table, t, b"SET", 600, False)
    elif kind == 6:
        say_keyed(p, truth, table, t, b"WAIT", 1, False)
    elif kind == 7:
        put_text(t, b"\r\n*0\r\n")
    else:
        say_plain(p, truth, table, t, False)
    return 0


cdef int say_transaction(Peer* p, Truth* truth, CommandTable table, Text* t) except -1:
    cdef uint64_t* r = &truth.chance
    cdef int body = <int>below(r, 14)
    cdef int k
    say_bare(p, table, t, b"MULTI", -1)
    for k in range(body):
        say_plain(p, truth, table, t, True)
    if below(r, 8) == 0:
        say_keyed(p, truth, table, t, b"BLPOP", NO_VALUE, True)
        body += 1
    return say_bare(p, table, t, b"EXEC" if below(r, 4) else b"DISCARD", body)


cdef int say_plain(Peer* p, Truth* truth, CommandTable table, Text* t, bint in_multi) except -1:
    """GET or SET, of many shapes."""
    cdef uint64_t* r = &truth.chance
    cdef bint read = below(r, 2)
    cdef int size = NO_VALUE if read else <int>below(r, 40)
    if below(r, 8) == 0:
        size = INLINE
    return say_keyed(p, truth, table, t, b"GET" if read else b"SET", size, in_multi)


cdef Due* expect(Peer* p, CommandTable table, const char* name) except NULL:
    """Note a reply that is due."""
    cdef Due* due = &p.due[p.tail % DUE_MAX]
    cdef Command* c = table.find(name, strlen(name))
    p.tail += 1
    due.number = -1
    due.letter = name[0]
    due.body = -1
    due.read = c.flags & COMMAND_READ != 0
    due.write = c.flags & COMMAND_WRITES != 0
    due.in_multi = False
    return due


cdef void expect_cached(Peer* p) noexcept:
    """Note that CACHED is due, which cannot be lost."""
    cdef Due* due = &p.due[p.tail % DUE_MAX]
    memset(due, 0, sizeof(Due))
    due.number = due.body = -1
    due.letter = CACHED[1]
    due.read = True
    p.tail += 1


cdef int say_bare(Peer* p, CommandTable table, Text* t, const char* name, int body) except -1:
    cdef Due* due = expect(p, table, name)
    due.body = body
    put_text(t, b"*1\r\n")
    return put_word(t, name)


cdef int put_word(Text* t, const char* name) except -1:
    put_header(t, c'$', <int64_t>strlen(name))
    put_text(t, name)
    put_text(t, b"\r\n")
    return 0


cdef int say_keyed(Peer* p, Truth* truth, CommandTable table, Text* t, const char* name,
                   int size, bint in_multi) except -1:
    """`name k<number>` with a fresh number, and a value of `size` bytes."""
    cdef Due* due = expect(p, table, name)
    cdef char key[16]
    cdef int n
    cdef int i
    truth.number = due.number = (truth.number + 1) % NUMBERS
    truth.fate[due.number] = FATE_NONE
    due.in_multi = in_multi
    n = snprintf(key, 16, b"k%d", due.number)
    if size == INLINE:
        put_text(t, name)
        put_text(t, b" ")
        put(t, key, n)
        put_text(t, b"\r\n")
        return 0
    put_header(t, c'*', 2 if size == NO_VALUE else 3)
    put_word(t, name)
    put_header(t, c'$', n)
    put(t, key, n)
    put_text(t, b"\r\n")
    if size != NO_VALUE:
        put_header(t, c'$', size)
        for i in range(size):
            put(t, b"*", 1)
        put_text(t, b"\r\n")
    return 0


# What it gets.

cdef int check_replies(Peer* p, Truth* truth, bint shared) except -1:
    """Compare what has come for the client with what is due to it."""
    cdef size_t begin = 0
    cdef size_t at = buffer_size(&p.got)
    cdef int r
    if buffer_size(&p.s.out) == 0:
        return 0
    buffer_append(&p.got, buffer_head(&p.s.out), buffer_size(&p.s.out))
    buffer_release(&p.s.out)
    while True:
        r = frame_reply(&p.framer, buffer_head(&p.got), buffer_size(&p.got), &at)
        if r == FRAME_MORE:
            break
        if r != FRAME_REPLY:
            raise AssertionError("what a client got is no reply")
        p.framer.first = 0
        if p.head == p.tail:
            raise AssertionError(f"nobody asked for {buffer_head(&p.got)[begin:at]!r}")
        check_one(p, truth, shared, buffer_head(&p.got) + begin, at - begin)
        p.head += 1
        begin = at
    if begin:
        buffer_drop(&p.got, begin)
    return 0


cdef inline bint begins(const char* p, size_t n, const char* word) noexcept:
    cdef size_t size = strlen(word)
    return n >= size and memcmp(p, word, size) == 0


cdef int check_one(Peer* peer, Truth* truth, bint shared, const char* p, size_t n) except -1:
    cdef Due* due = &peer.due[peer.head % DUE_MAX]
    cdef Text t
    if begins(p, n, b"-UNCERTAIN "):
        if due.read and not due.in_multi and shared:
            raise AssertionError(f"a read can't be uncertain: {due.number}")
        if not truth.losses and not truth.follows:
            raise AssertionError(f"nothing was lost, and {due.number} is uncertain")
        return 0
    if begins(p, n, b"-UNREPLICATED "):
        if not due.write or due.in_multi or due.letter == c'M':
            raise AssertionError(f"nobody has waited for replicas to get {due.number}")
        if due.number >= 0 and due.number % 3 == 2:
            raise AssertionError(f"{due.number} got an error that says that it was executed")
        return check_fates(peer, due, truth, FATE_SHORT, FATE_SHORT)
    if begins(p, n, b"-READONLY ") or begins(p, n, b"-MASTERDOWN ") or begins(p, n, b"-LOADING ") \
            or begins(p, n, b"-EXECABORT "):
        return check_refusal(peer, due, truth, shared, p, n)
    t.n = 0
    reply_text(&t, due.number, due.letter)
    if t.n != n or memcmp(t.data, p, n) != 0:
        raise AssertionError(f"a client got {p[:n]!r} for {t.data[:t.n]!r}")
    if due.number < 0 and due.letter == c'D':
        return check_fates(peer, due, truth, FATE_NONE, FATE_NONE)
    if due.in_multi or due.read:
        return 0                # what a transaction has done is known at its end
    if truth.acks and due.write:
        # An error may stand for a write that has not reached the replicas.
        return check_fates(peer, due, truth, FATE_SAFE, FATE_SHORT if p[0] == c'-' else FATE_SAFE)
    return check_fates(peer, due, truth, FATE_DONE, FATE_SHORT)


cdef int check_refusal(Peer* peer, const Due* due, Truth* truth, bint shared, const char* p,
                       size_t n) except -1:
    """A refusal reaches a client where nothing else can be said, and then nothing was done."""
    cdef bint late = b" late" in p[:n]
    if not truth.follows or (shared and (late or not (due.in_multi or due.body >= 0))):
        raise AssertionError(f"a client got {p[:n]!r}")
    return check_fates(peer, due, truth, FATE_NONE, FATE_NONE)


cdef int check_fates(Peer* peer, const Due* due, Truth* truth, int least, int most) except -1:
    """Compare what a reply says with what has become of its request, or of those it ends."""
    cdef const Due* one
    cdef int i
    cdef int fate
    if due.number >= 0:
        fate = truth.fate[due.number]
        if fate < least or fate > most:
            raise AssertionError(f"the reply to {due.number} is not true: its fate is {fate}")
    for i in range(1, due.body + 1):
        one = &peer.due[(peer.head - <uint32_t>i) % DUE_MAX]
        fate = truth.fate[one.number]
        if not one.read and (fate < least or fate > most):
            raise AssertionError(f"{one.number} in a transaction: its fate is {fate}")
    return 0
