# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A native fuzzer of sessions and links: for tests only.

A world is four clients, the link they share, a link of its own for each, a shell that does what
sessions want, and a server at the other end of each link that answers every request with what it
read in it. Chance decides who moves next and by how many bytes: a client sends, a link is
flushed, the server serves, replies arrive, a link breaks or is replaced, a client goes away.

Each request carries a number (a key `k<number>`), or none (MULTI); the server's reply repeats it.
Every client must get exactly its own replies in its own order; a write must reach a server at
most once; a lost write must be answered by one -UNCERTAIN in its turn; when all is quiet nothing
may be left.
"""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset
from libc.stdio cimport snprintf
from sidecar.core.commands cimport COMMAND_READ, Command, CommandTable
from sidecar.core.fuzzing cimport Text, below, put, put_header, put_text, seeded
from sidecar.core.link cimport (link_free, link_new, link_receive, link_sent, session_drop,
    session_mark, session_new, session_say)
from sidecar.core.records cimport (Core, Link, MODE_DEDICATED, MODE_SHARED, Session,
    WANT_DEDICATED, WANT_LINK, WANT_LOCAL, WANT_NOTHING, WANT_ONCE, WANT_ROOM, WANT_SHELL,
    WANT_WAIT, link_unsent)
from sidecar.core.loss cimport link_divert, link_fail, link_lost
from sidecar.core.memory cimport (Buffer, buffer_append, buffer_drop, buffer_head, buffer_release,
    buffer_size)
from sidecar.core.reply cimport FRAME_MORE, FRAME_REPLY, Framer, frame_reply, framer_reset
from sidecar.core.request cimport (SCAN_DONE, SCAN_INLINE, Scanner, next_argument, scan_request,
    scanner_reset)
from sidecar.core.session cimport session_feed, session_ready, session_resume
from sidecar.core.stats cimport Stats

cdef enum:
    PEERS = 4
    SHARED = 4              # index of the shared wire; those before it are a peer's own
    RETIRED = 5             # a shared wire that was held up and has been replaced
    WIRES = 6
    DUE_MAX = 256           # replies one client may wait for
    NUMBERS = 65536         # request numbers come round again

cdef struct Due:
    int number              # -1: none, `letter` is the reply
    char letter
    bint read               # never -UNCERTAIN

cdef struct Peer:
    Session* s
    Buffer script           # what it has yet to send
    Buffer got              # replies not yet whole
    Framer framer
    Due due[DUE_MAX]
    uint32_t head
    uint32_t tail

cdef struct Wire:
    Link* link
    Buffer up               # bytes on their way to the server
    Buffer down


cdef int number_in(const char* p, size_t n) noexcept nogil:
    """The number in `k<number>`, or -1."""
    cdef size_t i
    cdef int v = 0
    if n < 2 or p[0] != c'k':
        return -1
    for i in range(1, n):
        v = v * 10 + (p[i] - c'0')
    return v


cdef class World:
    """One run of the fuzzer (see the head of this file)."""
    cdef Core core
    cdef Stats* stats
    cdef CommandTable table
    cdef Peer peers[PEERS]
    cdef Wire wires[WIRES]
    cdef uint8_t executed[NUMBERS]
    cdef uint64_t chance
    cdef int number
    cdef bint losses
    cdef readonly long long fed

    def __cinit__(self, CommandTable table, uint64_t seed, bint losses):
        cdef int i
        self.stats = <Stats*>calloc(1, sizeof(Stats))
        if self.stats == NULL:
            raise MemoryError
        self.table, self.losses, self.chance = table, losses, seeded(seed)
        self.core.stats = self.stats
        self.core.request_buffer = 512
        self.core.link_pause = 1 << 30
        self.core.output_pause = 1 << 30
        self.core.limits.bulk = self.core.limits.count = 1 << 29
        self.core.limits.unauth_bulk = self.core.limits.unauth_count = 1 << 29
        self.new_link(SHARED)
        for i in range(PEERS):
            self.enter(i)

    def __dealloc__(self):
        cdef int i
        for i in range(PEERS):
            if self.peers[i].s != NULL:
                self.leave(i)
        for i in range(WIRES):
            self.hang_up(i)
        self.sweep()
        free(self.stats)

    cdef int new_link(self, int w) except -1:
        self.wires[w].link = link_new(&self.core, NULL, w >= SHARED)
        if self.wires[w].link == NULL:
            raise MemoryError
        self.wires[w].link.up = True
        return 0

    cdef void hang_up(self, int w) noexcept:
        cdef Wire* wire = &self.wires[w]
        if wire.link != NULL:
            if w >= SHARED:
                link_fail(wire.link, b"", 0)
            link_free(wire.link)
        wire.link = NULL
        buffer_release(&wire.up)
        buffer_release(&wire.down)

    cdef int enter(self, int i) except -1:
        """A new client."""
        cdef Peer* p = &self.peers[i]
        memset(p, 0, sizeof(Peer))
        framer_reset(&p.framer)
        p.s = session_new(&self.core, <void*>(i + 1))
        if p.s == NULL:
            raise MemoryError
        p.s.link = self.wires[SHARED].link
        return 0

    cdef void leave(self, int i) noexcept:
        """A client has gone; a link of its own goes with it."""
        cdef Peer* p = &self.peers[i]
        if p.s.mode != MODE_SHARED:
            p.s.outstanding = 0
            self.hang_up(i)
        session_drop(p.s)
        p.s = NULL
        buffer_release(&p.script)
        buffer_release(&p.got)

    cdef void sweep(self) noexcept:
        cdef Session* s
        while self.core.dirty != NULL:
            s = self.core.dirty
            self.core.dirty = s.next_dirty
            s.dirty = False
            if s.owner == NULL and s.outstanding == 0:
                session_drop(s)

    # What clients send.

    cdef int expect(self, int i, char letter, bint read) except -2:
        """Note a reply that is due; letter 0: a fresh number, which is returned."""
        cdef Peer* p = &self.peers[i]
        cdef Due* due = &p.due[p.tail % DUE_MAX]
        p.tail += 1
        due.letter = letter
        due.read = read
        due.number = -1
        if letter == 0:
            self.number = (self.number + 1) % NUMBERS
            self.executed[self.number] = 0
            due.number = self.number
        return due.number

    cdef int write_keyed(self, Text* t, const char* name, int number, int size) except -1:
        """`name k<number>`, and a value of `size` bytes if that is not negative."""
        cdef char key[16]
        cdef int n = snprintf(key, 16, b"k%d", number)
        cdef int i
        if size == -2:
            put_text(t, name)
            put_text(t, b" ")
            put(t, key, n)
            put_text(t, b"\r\n")
            return 0
        put_header(t, c'*', 2 if size < 0 else 3)
        self.write_word(t, name)
        put_header(t, c'$', n)
        put(t, key, n)
        put_text(t, b"\r\n")
        if size >= 0:
            put_header(t, c'$', size)
            for i in range(size):
                put(t, b"*", 1)
            put_text(t, b"\r\n")
        return 0

    cdef int write_word(self, Text* t, const char* name) except -1:
        put_header(t, c'$', <int64_t>len(name))
        put_text(t, name)
        put_text(t, b"\r\n")
        return 0

    cdef int write_bare(self, int i, Text* t, const char* name) except -1:
        self.expect(i, name[0], False)
        put_text(t, b"*1\r\n")
        return self.write_word(t, name)

    cdef int write_plain(self, int i, Text* t, bint in_multi) except -1:
        """GET or SET, of many shapes."""
        cdef uint64_t* r = &self.chance
        cdef bint read = below(r, 2)
        cdef int number = self.expect(i, 0, read and not in_multi)
        cdef int size = -1 if read else <int>below(r, 40)
        if below(r, 8) == 0:
            size = -2
        return self.write_keyed(t, b"GET" if read else b"SET", number, size)

    cdef int write_one(self, int i, Text* t) except -1:
        """One request, or one transaction, of client i."""
        cdef uint64_t* r = &self.chance
        cdef uint32_t kind = below(r, 24)
        cdef int k
        if kind == 0:
            self.write_bare(i, t, b"MULTI")
            for k in range(below(r, 14)):
                self.write_plain(i, t, True)
            if below(r, 8) == 0:
                self.write_keyed(t, b"BLPOP", self.expect(i, 0, False), -1)
            self.write_bare(i, t, b"EXEC" if below(r, 4) else b"DISCARD")
        elif kind == 1:
            self.write_keyed(t, b"WATCH", self.expect(i, 0, False), -1)
            self.write_plain(i, t, True)
            self.write_bare(i, t, b"UNWATCH")
        elif kind == 2:
            self.write_keyed(t, b"BLPOP", self.expect(i, 0, False), 1)
        elif kind == 3:
            self.write_keyed(t, b"NOSUCH", self.expect(i, 0, False), 2)
        elif kind == 4:
            self.write_bare(i, t, b"CLIENT")
        elif kind == 5:
            self.write_keyed(t, b"SET", self.expect(i, 0, False), 600)
        elif kind == 6:
            self.write_keyed(t, b"WAIT", self.expect(i, 0, False), 1)
        elif kind == 7:
            put_text(t, b"\r\n*0\r\n")
        else:
            self.write_plain(i, t, False)
        return 0

    cdef int send(self, int i) except -1:
        """Client i sends a random piece of what it has to say."""
        cdef Peer* p = &self.peers[i]
        cdef Text t
        cdef int k
        cdef size_t n
        if buffer_size(&p.script) == 0:
            if p.tail - p.head > DUE_MAX - 80:
                return 0
            t.n = 0
            for k in range(1 + below(&self.chance, 3)):
                if t.n < 200:
                    self.write_one(i, &t)
            buffer_append(&p.script, t.data, t.n)
        n = buffer_size(&p.script)
        if below(&self.chance, 2):
            n = 1 + below(&self.chance, <uint32_t>n)
        return self.feed(i, n)

    cdef int feed(self, int i, size_t n) except -1:
        cdef Peer* p = &self.peers[i]
        cdef char* block = <char*>malloc(n)
        if block == NULL:
            raise MemoryError
        memcpy(block, buffer_head(&p.script), n)
        buffer_drop(&p.script, n)
        session_feed(p.s, self.table, block, n)
        self.copy_run(p.s.link)
        free(block)
        self.fed += 1
        return self.settle()

    cdef void copy_run(self, Link* l) noexcept:
        if l != NULL and l.run_len:
            buffer_append(&l.out, l.run, l.run_len)
            l.run = NULL
            l.run_len = 0

    # The shell.

    cdef int settle(self) except -1:
        """Let each marked session have its replies and what it wants."""
        cdef Session* s
        while self.core.dirty != NULL:
            s = self.core.dirty
            self.core.dirty = s.next_dirty
            s.dirty = False
            if s.owner == NULL:
                if s.outstanding == 0:
                    session_drop(s)
                continue
            self.attend(<int><size_t>s.owner - 1)
        return 0

    cdef int attend(self, int i) except -1:
        cdef Session* s = self.peers[i].s
        if s.run_len:
            buffer_append(&s.out, s.run, s.run_len)
            s.run = NULL
            s.run_len = 0
        self.check(i)
        if s.must_close:
            self.leave(i)
            return self.enter(i)
        if s.mode == MODE_DEDICATED and not (s.outstanding or s.in_multi or s.watching
                                             or s.streaming or s.want == WANT_SHELL):
            s.mode = MODE_SHARED
            s.link = self.wires[SHARED].link
            self.hang_up(i)
            return self.go_on(i)
        if session_ready(s):
            return self.serve_want(i, s.want)
        return 0

    cdef int serve_want(self, int i, int want) except -1:
        cdef Session* s = self.peers[i].s
        cdef Scanner scan
        if want == WANT_LINK:
            s.link = self.wires[SHARED].link
            return self.go_on(i) if self.wires[SHARED].link.up else 0
        if want == WANT_ROOM:
            return self.go_on(i)
        if want == WANT_LOCAL:
            scanner_reset(&scan)
            scan_request(&scan, buffer_head(&s.in_), buffer_size(&s.in_), &self.core.limits, True)
            buffer_drop(&s.in_, scan.pos)
            session_say(s, b"+C\r\n", 4)
            return self.go_on(i)
        if want == WANT_DEDICATED or want == WANT_ONCE or want == WANT_WAIT:
            self.new_link(i)
            s.link = self.wires[i].link
            s.link.client = s
            s.mode = MODE_DEDICATED
            return self.go_on(i)
        raise AssertionError(f"a session wants {want}")

    cdef int go_on(self, int i) except -1:
        cdef Session* s = self.peers[i].s
        s.want = WANT_NOTHING
        session_resume(s, self.table)
        self.copy_run(s.link)
        session_mark(s)
        return 0

    cdef int check(self, int i) except -1:
        """Compare what client i has got with what is due to it."""
        cdef Peer* p = &self.peers[i]
        cdef Session* s = p.s
        cdef size_t at = 0
        cdef size_t begin = 0
        cdef size_t old = buffer_size(&p.got)
        if buffer_size(&s.out) == 0:
            return 0
        buffer_append(&p.got, buffer_head(&s.out), buffer_size(&s.out))
        buffer_release(&s.out)
        at = old
        while True:
            r = frame_reply(&p.framer, buffer_head(&p.got), buffer_size(&p.got), &at)
            if r == FRAME_MORE:
                break
            if r != FRAME_REPLY:
                raise AssertionError("what a client got is no reply")
            p.framer.first = 0
            self.check_one(i, buffer_head(&p.got) + begin, at - begin)
            begin = at
        if begin:
            buffer_drop(&p.got, begin)
        return 0

    cdef int check_one(self, int i, const char* p, size_t n) except -1:
        cdef Peer* peer = &self.peers[i]
        cdef Due* due = &peer.due[peer.head % DUE_MAX]
        cdef Text t
        if peer.head == peer.tail:
            raise AssertionError(f"a reply nobody asked for: {p[:n]!r}")
        peer.head += 1
        if n > 10 and memcmp(p, b"-UNCERTAIN", 10) == 0:
            if due.read or not self.losses:
                raise AssertionError(f"request {due.number} can't be uncertain")
            return 0
        t.n = 0
        self.reply_text(&t, due.number, due.letter)
        if t.n != n or memcmp(t.data, p, n) != 0:
            raise AssertionError(f"client {i} got {p[:n]!r} for {t.data[:t.n]!r}")
        return 0

    # The server.

    cdef void reply_text(self, Text* t, int number, char letter) noexcept:
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

    cdef int serve(self, int w) except -1:
        """The server takes what has reached it."""
        cdef Wire* wire = &self.wires[w]
        cdef Scanner scan
        cdef int r
        while buffer_size(&wire.up):
            scanner_reset(&scan)
            r = scan_request(&scan, buffer_head(&wire.up), buffer_size(&wire.up),
                             &self.core.limits, True)
            if r == SCAN_DONE:
                self.execute(wire, buffer_head(&wire.up), scan.pos)
            elif r == 0:
                return 0
            else:
                raise AssertionError(f"event {r} in {buffer_head(&wire.up)[:40]!r}")
            buffer_drop(&wire.up, scan.pos)
        return 0

    cdef int execute(self, Wire* wire, const char* p, size_t n) except -1:
        cdef size_t at = 0
        cdef size_t size = 0
        cdef const char* arg = NULL
        cdef Command* c
        cdef char letter
        cdef int number = -1
        cdef Text t
        next_argument(p, n, &at, &arg, &size)
        c = self.table.find(arg, size)
        letter = arg[0]
        if next_argument(p, n, &at, &arg, &size):
            number = number_in(arg, size)
        if number >= 0 and not c.flags & COMMAND_READ:
            self.executed[number] += 1
            if self.executed[number] > 1:
                raise AssertionError(f"request {number} reached the server twice")
        t.n = 0
        self.reply_text(&t, number, letter)
        buffer_append(&wire.down, t.data, t.n)
        return 0

    cdef int flush(self, int w, bint all) except -1:
        """Some of a link's bytes reach the server."""
        cdef Wire* wire = &self.wires[w]
        cdef size_t n = link_unsent(wire.link)
        if n == 0 or not wire.link.up:
            return 0
        if not all:
            n = 1 + below(&self.chance, <uint32_t>n)
        buffer_append(&wire.up, buffer_head(&wire.link.out) + wire.link.sent, n)
        link_sent(wire.link, n)
        return self.serve(w)

    cdef int arrive(self, int w, bint all) except -1:
        """Some of the server's bytes arrive."""
        cdef Wire* wire = &self.wires[w]
        cdef size_t n = buffer_size(&wire.down)
        cdef char* block
        cdef int r
        if n == 0 or not wire.link.up:
            return 0
        if not all:
            n = 1 + below(&self.chance, <uint32_t>n)
        block = <char*>malloc(n)
        if block == NULL:
            raise MemoryError
        memcpy(block, buffer_head(&wire.down), n)
        buffer_drop(&wire.down, n)
        self.core.now += below(&self.chance, 5000)
        r = link_receive(wire.link, block, n)
        if r == 0:
            self.settle()
        free(block)
        if r < 0:
            raise AssertionError("good replies were refused")
        return 0

    cdef int lose(self) except -1:
        """The shared link's connection breaks."""
        cdef Wire* wire = &self.wires[SHARED]
        if not wire.link.up:
            return 0
        buffer_release(&wire.up)
        buffer_release(&wire.down)
        wire.link.up = False
        link_lost(wire.link, True)
        return self.settle()

    cdef int restore(self) except -1:
        """The shared link has a connection again."""
        cdef int i
        cdef Wire* wire = &self.wires[SHARED]
        if wire.link.up:
            return 0
        wire.link.up = True
        framer_reset(&wire.link.framer)
        for i in range(PEERS):
            if self.peers[i].s.want == WANT_LINK:
                self.go_on(i)
        return self.settle()

    cdef int divert(self) except -1:
        """The shared link is held up: another takes its place."""
        if self.wires[RETIRED].link != NULL or not self.wires[SHARED].link.up:
            return 0
        self.wires[RETIRED] = self.wires[SHARED]
        memset(&self.wires[SHARED], 0, sizeof(Wire))
        self.new_link(SHARED)
        return link_divert(self.wires[RETIRED].link, self.wires[SHARED].link)

    cdef int bury(self) except -1:
        """The replaced link has had its last reply: nobody is left on it."""
        cdef int i
        cdef Link* old = self.wires[RETIRED].link
        if old == NULL or old.head != old.tail:
            return 0
        for i in range(PEERS):
            if self.peers[i].s.link == old:
                self.peers[i].s.link = self.wires[SHARED].link
        self.hang_up(RETIRED)
        return 0

    # The run.

    cdef int step(self) except -1:
        cdef uint32_t kind = below(&self.chance, 64)
        cdef int w = <int>below(&self.chance, WIRES)
        cdef int i = <int>below(&self.chance, PEERS)
        if kind < 24:
            return self.send(i)
        if kind == 63 and self.losses and below(&self.chance, 4) == 0:
            self.leave(i)
            return self.enter(i)
        if kind == 62 and self.losses and below(&self.chance, 4) == 0:
            return self.lose()
        if kind == 61:
            return self.restore()
        if kind == 60 and self.losses and below(&self.chance, 4) == 0:
            return self.divert()
        if kind == 59:
            return self.bury()
        if below(&self.chance, 2):
            w = SHARED
        if self.wires[w].link == NULL:
            return 0
        return self.flush(w, kind < 32) if kind < 44 else self.arrive(w, kind < 50)

    cdef int drain(self) except -1:
        """Let everything come to its end, and see that nothing is left."""
        cdef int i, w, turn
        self.restore()
        for turn in range(600):
            for i in range(PEERS):
                if buffer_size(&self.peers[i].script):
                    self.feed(i, buffer_size(&self.peers[i].script))
            for w in range(WIRES):
                if self.wires[w].link != NULL:
                    self.flush(w, True)
                if self.wires[w].link != NULL:
                    self.arrive(w, True)
            self.settle()
        for i in range(PEERS):
            if self.peers[i].head != self.peers[i].tail:
                raise AssertionError(
                    f"client {i} waits for {self.peers[i].tail - self.peers[i].head} replies")
            if self.peers[i].s.outstanding or self.peers[i].s.mode != MODE_SHARED:
                raise AssertionError(f"client {i} is not idle")
        self.bury()
        if self.wires[RETIRED].link != NULL or \
                self.wires[SHARED].link.head != self.wires[SHARED].link.tail:
            raise AssertionError("entries are left on a shared link")
        return 0

    def run(self, int steps):
        """So many steps, then everything to its end."""
        cdef int i
        for i in range(steps):
            self.step()
        self.drain()


def fuzz_world(CommandTable table, uint64_t seed, int steps, bint losses=True):
    """One world; returns how often a client sent something. AssertionError: a broken promise."""
    world = World(table, seed, losses)
    world.run(steps)
    return world.fed
