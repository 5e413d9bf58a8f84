# cython: language_level=3
"""A native fuzzer of sessions and links: for tests only.

A world is four clients, the link they share, a link of its own for each, a shell that does what
sessions want, and a server at the other end of each link that answers every request with what it
read in it. Chance decides who moves next and by how many bytes: a client sends, a link is
flushed, the server serves, replies arrive, a link breaks or is replaced, a client goes away, a
server loses its role or gets it back, writes or all commands are held back and let go.

Each request carries a number (a key `k<number>`), or none (MULTI); the server's reply repeats it.
Now and then a reply is made here, as the near cache does, and waits for its turn.
Every client must get exactly its own replies in its own order; a write must be executed at most
once, and what its reply says of it must be true (fuzz_client.pyx has the cases); a lost write must
be answered by one -UNCERTAIN in its turn; while writes are held back none may be queued; when all
is quiet nothing may be left.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset, strlen
from sidecar.core.link.replica_acks cimport link_receive_acked, link_seal
from sidecar.core.protocol.commands cimport COMMAND_WRITES, CommandTable
from tests.native.fuzz_client cimport (CACHED, DUE_MAX, Peer, check_replies, expect_cached,
    more_to_say)
from tests.native.chance cimport below, seeded
from tests.native.fuzz_server cimport (ROLES, Truth, Wire, serve, wire_closed, wire_connected)
from sidecar.core.link.pending cimport link_free, link_local, link_new, link_sent
from sidecar.core.link.receive cimport link_receive
from sidecar.core.link.receiver cimport session_drop, session_mark, session_new, session_say
from sidecar.core.link.recovery cimport link_divert, link_fail, link_lost, link_move
from sidecar.core.memory cimport (buffer_append, buffer_drop, buffer_head, buffer_release,
    buffer_size)
from sidecar.core.records cimport (HOLD_ALL, HOLD_WRITES, Core, Link, MODE_DEDICATED, MODE_SHARED, Session,
    STALL_DEDICATED, STALL_HELD, STALL_LINK, STALL_SESSION_COMMAND, STALL_NONE, STALL_ONCE, STALL_REPLIES, STALL_ROOM,
    STALL_SHELL, STALL_WAIT_COMMAND, link_outstanding, link_demotion_over, link_unsent)
from sidecar.core.protocol.reply cimport framer_reset
from sidecar.core.protocol.request cimport Scanner, scan_request, scanner_reset
from sidecar.core.session.feed cimport session_feed, session_ready, session_resume
from sidecar.core.session.mode cimport session_may_give_back, session_use
from sidecar.core.stats cimport Stats
from sidecar.core.observe.trace_records cimport Traces, trace_draw, trace_sent

cdef enum:
    PEERS = 4
    SHARED = 4              # index of the shared wire; those before it are a peer's own
    RETIRED = 5             # a shared wire that was held up and has been replaced
    WIRES = 6

cdef const char* WAIT = b"*3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n$3\r\n100\r\n"


cdef class World:
    """One run of the fuzzer (see the head of this file)."""
    cdef Core core
    cdef Stats* stats
    cdef CommandTable table
    cdef Peer peers[PEERS]
    cdef Wire wires[WIRES]
    cdef Truth truth
    cdef bint holds
    cdef uint32_t calm      # how rare upsets are
    cdef readonly long long fed
    cdef Traces traces

    def __cinit__(self, CommandTable table, uint64_t seed, *, bint losses=True,
                  bint follows=False, int acks=0, bint holds=False):
        cdef int i
        self.stats = <Stats*>calloc(1, sizeof(Stats))
        if self.stats == NULL:
            raise MemoryError
        self.table, self.holds = table, holds
        self.truth.chance = seeded(seed)
        self.calm = 1 + below(&self.truth.chance, 6)
        self.truth.losses, self.truth.follows, self.truth.acks = losses, follows, acks
        self.core.stats = self.stats
        self.core.request_buffer = 512
        self.core.new_session_window = 4
        self.core.link_pause = 1 << 30
        self.core.output_pause = 1 << 30
        self.core.limits.bulk = self.core.limits.count = 1 << 29
        self.core.limits.unauth_bulk = self.core.limits.unauth_count = 1 << 29
        self.core.master_may_change, self.core.acks = follows, acks
        self.core.ack_request = WAIT
        self.core.ack_request_len = len(WAIT)
        self.core.ack_command = table.find(b"wait", 4)
        self.traces = Traces(table, seed, share=0.3, keys=True)
        self.core.tracer = <void*>self.traces.tracer
        self.core.slow_from = 3000
        self.core.now = self.core.clock = 1
        trace_draw(&self.core)
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
        self.wires[w].pushes = w >= SHARED
        wire_connected(&self.wires[w])
        return 0

    cdef void hang_up(self, int w) noexcept:
        cdef Wire* wire = &self.wires[w]
        if wire.link != NULL:
            if w >= SHARED:
                link_fail(wire.link, b"", 0)
            link_free(wire.link)
        wire.link = NULL
        wire_closed(wire)

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

    # Clients.

    cdef int send(self, int i) except -1:
        """Client i sends a random piece of what it has to say."""
        cdef Peer* p = &self.peers[i]
        cdef size_t n
        if buffer_size(&p.script) == 0:
            if below(&self.truth.chance, 8) == 0:
                self.answer_here(i)
            more_to_say(p, &self.truth, self.table)
        n = buffer_size(&p.script)
        if n == 0:
            return 0
        if below(&self.truth.chance, 2):
            n = 1 + below(&self.truth.chance, <uint32_t>n)
        return self.feed(i, n)

    cdef int answer_here(self, int i) except -1:
        """A command of client i that is answered without the server, behind its other replies."""
        cdef Peer* p = &self.peers[i]
        cdef Session* s = p.s
        if s.mode != MODE_SHARED or s.stall != STALL_NONE or buffer_size(&s.unread) \
                or s.outstanding == 0 or p.tail - p.head > DUE_MAX - 80:
            return 0
        expect_cached(p)
        if link_local(s.link, s, CACHED, strlen(CACHED)) < 0:
            raise MemoryError
        return 0

    cdef int feed(self, int i, size_t n) except -1:
        cdef Peer* p = &self.peers[i]
        cdef Link* l = p.s.link
        cdef uint32_t queued = link_outstanding(l) if l != NULL else 0
        cdef char* block = <char*>malloc(n)
        if block == NULL:
            raise MemoryError
        memcpy(block, buffer_head(&p.script), n)
        buffer_drop(&p.script, n)
        session_feed(p.s, self.table, block, n)
        self.copy_run(l)
        free(block)
        self.fed += 1
        self.check_held(l, queued)
        return self.settle()

    cdef void copy_run(self, Link* l) noexcept:
        if l != NULL and l.borrowed_len:
            buffer_append(&l.out, l.borrowed, l.borrowed_len)
            l.borrowed = NULL
            l.borrowed_len = 0

    cdef int check_held(self, Link* l, uint32_t queued) except -1:
        """What has been queued behind so many entries is no write, if those are held back; and nothing
        on a shared link, if all is."""
        cdef uint32_t i
        if self.core.holds & HOLD_ALL and l != NULL and l.shared and l.tail - l.head > queued:
            raise AssertionError("a command was not held back")
        if self.core.holds & HOLD_WRITES and l != NULL:
            for i in range(l.head + queued, l.tail):
                if self.table.commands[l.ring[i & l.mask].command].flags & COMMAND_WRITES:
                    raise AssertionError("a write was not held back")
        return 0

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
        if s.borrowed_len:
            buffer_append(&s.out, s.borrowed, s.borrowed_len)
            s.borrowed = NULL
            s.borrowed_len = 0
        check_replies(&self.peers[i], &self.truth, s.mode == MODE_SHARED)
        if s.must_close:
            self.leave(i)
            return self.enter(i)
        if session_may_give_back(s):
            session_use(s, self.wires[SHARED].link, MODE_SHARED)
            self.hang_up(i)
            return self.go_on(i)
        if session_ready(s):
            return self.serve_stall(i, s.stall)
        return 0

    cdef int serve_stall(self, int i, int stall) except -1:
        cdef Session* s = self.peers[i].s
        cdef Scanner scan
        if stall == STALL_LINK:
            s.link = self.wires[SHARED].link
            return self.go_on(i) if self.wires[SHARED].link.up else 0
        if stall == STALL_ROOM or stall == STALL_REPLIES:
            return self.go_on(i)
        if stall == STALL_HELD:
            return self.go_on(i) if s.held_in_round != self.core.hold_round else 0
        if stall == STALL_SESSION_COMMAND:
            scanner_reset(&scan)
            scan_request(&scan, buffer_head(&s.unread), buffer_size(&s.unread), &self.core.limits, True)
            buffer_drop(&s.unread, scan.pos)
            session_say(s, b"+C\r\n", 4)
            return self.go_on(i)
        if stall == STALL_DEDICATED or stall == STALL_ONCE or stall == STALL_WAIT_COMMAND:
            self.new_link(i)
            session_use(s, self.wires[i].link, MODE_DEDICATED)
            return self.go_on(i)
        raise AssertionError(f"a session wants {stall}")

    cdef int go_on(self, int i) except -1:
        cdef Session* s = self.peers[i].s
        cdef Link* l = s.link
        cdef uint32_t queued = link_outstanding(l) if l != NULL else 0
        s.stall = STALL_NONE
        session_resume(s, self.table)
        self.copy_run(l)
        self.check_held(l, queued)
        session_mark(s)
        return 0

    cdef int hold(self, uint8_t what) except -1:
        """Hold this back (Hold), and let the rest go on."""
        cdef int i
        self.core.hold_round += self.core.holds & (0xff ^ what) != 0
        self.core.holds = what
        for i in range(PEERS):
            if self.peers[i].s.stall == STALL_HELD:
                session_mark(self.peers[i].s)
        return self.settle()

    # The links.

    cdef int flush(self, int w, bint all) except -1:
        """Some of a link's bytes reach the server."""
        cdef Wire* wire = &self.wires[w]
        cdef Link* l = wire.link
        cdef Session* s = l.client
        cdef size_t n
        if not l.up or l.demoted:
            return 0
        if l.unsealed and not (s != NULL and (s.in_multi or s.streaming)) and link_seal(l) < 0:
            raise MemoryError
        n = link_unsent(l)
        if n == 0:
            return 0
        if not all:
            n = self.cut(l, n)
        buffer_append(&wire.up, buffer_head(&l.out) + l.sent, n)
        link_sent(l, n)
        if l.records_unsent and link_unsent(l) == 0:
            trace_sent(l)
        return serve(&self.truth, wire, self.table, &self.core.limits)

    cdef size_t cut(self, const Link* l, size_t n) noexcept:
        """How many of n bytes are sent: any number, and often just up to the end of a request."""
        cdef uint32_t count = 1 + below(&self.truth.chance, 4)
        cdef size_t size = 0
        cdef uint32_t i
        if l.shared and below(&self.truth.chance, 2):
            for i in range(l.head, l.tail):
                size += l.ring[i & l.mask].size
                if size > l.sent:
                    count -= 1
                    if count == 0:
                        return size - l.sent
        return 1 + below(&self.truth.chance, <uint32_t>n)

    cdef int arrive(self, int w, bint all) except -1:
        """Some of the server's bytes arrive."""
        cdef Wire* wire = &self.wires[w]
        cdef size_t n = buffer_size(&wire.down)
        cdef char* block
        cdef int r
        if n == 0 or not wire.link.up:
            return 0
        if not all:
            n = 1 + below(&self.truth.chance, <uint32_t>n)
        block = <char*>malloc(n)
        if block == NULL:
            raise MemoryError
        memcpy(block, buffer_head(&wire.down), n)
        buffer_drop(&wire.down, n)
        self.core.clock += below(&self.truth.chance, 5000)
        self.core.now = <uint32_t>self.core.clock
        if self.core.acks:
            r = link_receive_acked(wire.link, block, n)
        else:
            r = link_receive(wire.link, block, n)
        if r < 0:
            free(block)
            raise AssertionError("good replies were refused")
        self.settle()
        free(block)
        if wire.link != NULL and link_demotion_over(wire.link):
            self.lose(w)
        return 0

    cdef int lose(self, int w) except -1:
        """A connection breaks, of the shared link or of the one it has replaced."""
        cdef Wire* wire = &self.wires[w]
        if wire.link == NULL or not wire.link.up:
            return 0
        wire_closed(wire)
        wire.link.up = False
        link_lost(wire.link, True)
        if w == RETIRED:
            link_move(wire.link, self.wires[SHARED].link)
            self.bury()
        return self.settle()

    cdef int lose_own(self, int i) except -1:
        """The connection of a link of its own breaks: what was under way is answered, and the
        client is closed."""
        cdef Session* s = self.peers[i].s
        if s.mode != MODE_DEDICATED:
            return 0
        link_lost(self.wires[i].link, False)
        check_replies(&self.peers[i], &self.truth, False)
        if s.outstanding and not s.must_close:
            raise AssertionError(f"client {i} still waits for {s.outstanding} replies")
        self.leave(i)
        self.enter(i)
        return self.settle()

    cdef int restore(self) except -1:
        """The shared link has a connection again."""
        cdef int i
        cdef Wire* wire = &self.wires[SHARED]
        if wire.link.up:
            return 0
        wire.link.up = True
        wire_connected(wire)
        framer_reset(&wire.link.framer)
        for i in range(PEERS):
            if self.peers[i].s.stall == STALL_LINK:
                self.go_on(i)
        return self.settle()

    cdef int divert(self) except -1:
        """The shared link is held up: another takes its place."""
        cdef Link* l = self.wires[SHARED].link
        if self.wires[RETIRED].link != NULL or not l.up or l.demoted:
            return 0
        self.wires[RETIRED] = self.wires[SHARED]
        memset(&self.wires[SHARED], 0, sizeof(Wire))
        self.new_link(SHARED)
        return link_divert(l, self.wires[SHARED].link)

    cdef int bury(self) except -1:
        """The replaced link has had its last reply: nobody is left on it."""
        cdef int i
        cdef Link* old = self.wires[RETIRED].link
        if old == NULL or old.head != old.tail:
            return 0
        for i in range(PEERS):
            if self.peers[i].s.link == old:
                if self.peers[i].s.outstanding:
                    raise AssertionError(f"client {i} waits on a link that is empty")
                self.peers[i].s.link = self.wires[SHARED].link
        self.hang_up(RETIRED)
        return 0

    # The run.

    cdef int step(self) except -1:
        cdef uint64_t* r = &self.truth.chance
        cdef uint32_t kind = below(r, 64)
        cdef int w = <int>below(r, WIRES)
        cdef int i = <int>below(r, PEERS)
        if kind < 24:
            return self.send(i)
        if kind > 56:
            return self.upset(kind, w, i)
        if below(r, 2):
            w = SHARED
        if self.wires[w].link == NULL:
            return 0
        return self.flush(w, kind < 32) if kind < 42 else self.arrive(w, kind < 49)

    cdef int upset(self, uint32_t kind, int w, int i) except -1:
        """What is not the daily business of clients and links."""
        cdef uint64_t* r = &self.truth.chance
        cdef bint now = below(r, self.calm) == 0
        if kind == 57:
            return self.hold(below(r, 4) if below(r, 3) == 0 else 0) if self.holds else 0
        if kind == 58:
            if self.truth.follows and now:
                self.wires[SHARED if below(r, 2) else w].role = <int>below(r, ROLES)
            return 0
        if kind == 59:
            return self.bury()
        if kind == 61:
            return self.restore()
        if not self.truth.losses or not now:
            return 0
        if kind == 60:
            return self.divert()
        if kind == 62:
            return self.lose(SHARED if below(r, 2) else RETIRED)
        if below(r, 4) == 0:
            return self.lose_own(i)
        self.leave(i)
        return self.enter(i)

    cdef int drain(self) except -1:
        """Let everything come to its end, and see that nothing is left."""
        cdef int i, w, turn
        self.hold(0)
        for turn in range(600):
            self.restore()
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
        if self.wires[RETIRED].link != NULL:
            raise AssertionError("entries are left on the replaced link")
        return self.check_idle(self.wires[SHARED].link)

    cdef int check_idle(self, const Link* l) except -1:
        """Nothing is queued or kept on a link."""
        if l.head != l.tail:
            raise AssertionError(f"{l.tail - l.head} entries are left on the shared link")
        if buffer_size(&l.out) or l.sent or l.unsealed:
            raise AssertionError("requests are left on the shared link")
        if buffer_size(&l.withheld) or l.withheld_whole or buffer_size(&l.local_replies) \
                or (l.core.acks and l.judged_size):
            raise AssertionError("replies are left on the shared link")
        return 0

    def run(self, int steps):
        """So many steps, then everything to its end."""
        cdef int i
        for i in range(steps):
            self.traces.allow(100, 20)
            self.step()
        self.drain()
        for _, _, _, _, _, _, start, queued, sent, end, *_ in self.traces.take():
            if not start <= (queued or end) <= (sent or end) <= end:
                raise AssertionError("a record is of no command there was")


def fuzz_world(CommandTable table, uint64_t seed, int steps, *, bint losses=True,
               bint follows=False, int acks=0, bint holds=False):
    """One world; returns how often a client sent something. AssertionError: a broken promise.

    `losses`: connections break, links are replaced, clients go. `follows`: servers lose their
    role. `acks`: writes are answered once so many replicas have them. `holds`: writes are held
    back at times.
    """
    world = World(table, seed, losses=losses, follows=follows, acks=acks, holds=holds)
    world.run(steps)
    return world.fed
