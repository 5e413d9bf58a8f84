# cython: language_level=3, cdivision=True
"""The sidecar of a fuzzed world with a near cache: its links, its clients, and a shell that does
what sessions want (see fuzz_cache_world.pyx): for tests only.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset, strlen
from sidecar.core.cache.fill cimport cache_leave
from sidecar.core.cache.near_cache cimport NearCache
from sidecar.core.cache.tracked cimport (tracked_begin, tracked_end, tracked_free, tracked_new)
from sidecar.core.cache.tracked_requests cimport tracked_ask_due, tracked_beat
from sidecar.core.link.barrier cimport barriers_abandon
from sidecar.core.link.pending cimport link_free, link_new
from sidecar.core.link.receiver cimport session_drop, session_mark, session_new, session_say
from sidecar.core.link.recovery cimport link_fail
from sidecar.core.memory cimport (buffer_append, buffer_drop, buffer_head, buffer_release,
    buffer_size)
from sidecar.core.protocol.commands cimport CommandTable
from sidecar.core.protocol.reply cimport framer_reset
from sidecar.core.protocol.request cimport Scanner, scan_request, scanner_reset
from sidecar.core.records cimport (Barriers, Link, MODE_DEDICATED, MODE_PINNED, MODE_SHARED,
    STALL_DEDICATED, STALL_FILL, STALL_LINK, STALL_NONE, STALL_ONCE, STALL_PIN, STALL_REPLIES, STALL_ROOM,
    STALL_SESSION_COMMAND, Session)
from sidecar.core.session.feed cimport session_feed, session_ready, session_resume
from sidecar.core.session.mode cimport session_may_give_back, session_use
from sidecar.core.stats cimport Stats
from tests.native.fuzz_cache_client cimport elsewhere, more_to_say
from tests.native.fuzz_cache_judge cimport Judge, Peer, check_replies, places_of
from tests.native.fuzz_cache_server cimport (EVENTS_MAX, Event, KEYS, OP_MGET, Wire, connected,
    parted)
from tests.native.chance cimport below, seeded

cdef const char* WAIT = b"*3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n$3\r\n100\r\n"
KEY_NAMES = (b"k0", b"k1", b"k2", b"k3", b"k4", b"k5",
             b"a-key-of-more-than-thirty-bytes-0123456789", b"short:7", b"never:8", b"")


cdef class CacheShell:
    """Everything but chance: the links, the clients, and what they lie in."""

    def __cinit__(self, CommandTable table, uint64_t seed, *, str mode="rules", bint losses=True,
                  bint follows=False, int acks=0):
        cdef uint64_t* r = &self.server.chance
        self.stats = <Stats*>calloc(1, sizeof(Stats))
        self.barriers = <Barriers*>calloc(1, sizeof(Barriers))
        self.server.events = <Event*>malloc(EVENTS_MAX * sizeof(Event))
        if self.stats == NULL or self.barriers == NULL or self.server.events == NULL:
            raise MemoryError
        r[0] = seeded(seed)
        self.table, self.losses = table, losses
        self.calm = 1 + below(r, 8)
        self.quick = below(r, 5)
        self.pace = 2000 << below(r, 9)
        self.scenes = below(r, 3) * below(r, 8)
        self.server.writes, self.server.rare = <int>below(r, 7), below(r, 3) == 0
        self.server.reads = 1 + <int>below(r, OP_MGET + 1)
        self.server.first_key, self.server.keys = <int>below(r, KEYS), 1 + <int>below(r, KEYS)
        self.server.wires, self.server.acks = self.wires, acks
        self.server.count = 1               # 0 is "none"
        memset(self.server.events, 0, sizeof(Event))
        for key in range(KEYS):
            self.server.pad[key] = 0 if below(r, 3) else <int>below(r, 500)
        self.core.stats = self.stats
        self.core.request_buffer = REQUEST_BUFFER
        self.core.new_session_window = 4
        self.core.link_pause = self.core.output_pause = 1 << 30
        self.core.limits.bulk = self.core.limits.count = 1 << 29
        self.core.limits.unauth_bulk = self.core.limits.unauth_count = 1 << 29
        self.core.master_may_change, self.core.acks = follows, acks
        self.core.ack_request, self.core.ack_request_len = WAIT, strlen(WAIT)
        self.core.ack_command = table.find(b"wait", 4)
        self.core.slow_from = <uint32_t>-1
        self.pass_time(1000000)
        self.new_cache(mode, seed)
        self.begin_all()

    cdef int new_cache(self, str mode, uint64_t seed) except -1:
        cdef uint64_t* r = &self.server.chance
        cdef Judge* j = &self.judge
        self.near = NearCache(seed, mode=mode, budget=BUDGET if below(r, 2) else 1 << 20,
                              value_max=VALUE_MAX, staleness=0.4, ttl_max=2.0, ttl_missing=0.2,
                              check=0.3 if below(r, 4) == 0 else 0.0)
        self.near.rule(b"never:", never=True)
        self.near.rule(b"short:", ttl=0.1, staleness=0.1)
        if mode == "rules":
            self.near.rule(b"")
        self.cache = self.near.cache
        self.cache.tells_use = below(r, 2)
        self.near.attach(&self.core, self.barriers, self.table)
        j.server = &self.server
        j.staleness, j.ttl_max, j.ttl_missing = 400000, 2000000, 200000
        j.ttl_short = j.staleness_short = 100000
        j.serves, j.errors = mode != "observe", self.losses or self.core.master_may_change
        return 0

    cdef int begin_all(self) except -1:
        """Everybody is there, and everything is connected."""
        cdef int i
        for i in range(SPACES):
            if self.near.open_space() != i + 1:
                raise AssertionError("spaces")
            self.track(i)
        for i in range(WHOS):
            self.new_link(i, i)
        for i in range(PEERS):
            self.enter(i)
        for key in KEY_NAMES:
            if below(&self.server.chance, 4):
                self.near.want(key, True)
        return 0

    def __dealloc__(self):
        cdef int i
        for i in range(PEERS):
            if self.peers[i].s != NULL:
                self.leave(i)
        for i in range(SPACES):
            self.untrack(i)
        for i in range(WIRES):
            self.hang_up(i)
        self.sweep()
        free(self.stats)
        free(self.barriers)
        free(self.server.events)

    # Links and clients.

    cdef int new_link(self, int w, int who) except -1:
        cdef Wire* wire = &self.wires[w]
        wire.link = link_new(&self.core, NULL, w < WHOS)
        if wire.link == NULL:
            raise MemoryError
        wire.link.up = True
        connected(&self.server, w, user_of(who), db_of(who), proto_of(who), False)
        return 0

    cdef void hang_up(self, int w) noexcept:
        """A link is no more."""
        cdef Wire* wire = &self.wires[w]
        if wire.link != NULL:
            if w < OWN or w >= RETIRED:
                link_fail(wire.link, b"", 0)
            barriers_abandon(wire.link, wire.link.head, wire.link.tail)
            link_free(wire.link)
        wire.link = NULL
        self.part(w)

    cdef void part(self, int w) noexcept:
        try:
            parted(&self.server, w, self.losses and below(&self.server.chance, 2) == 0,
                   &self.core.limits)
        except AssertionError:
            pass

    cdef int track(self, int space) except -1:
        """A space gets a tracked link."""
        cdef Wire* wire = &self.wires[TRACKED + space]
        if wire.tracked != NULL:
            return 0
        wire.tracked = tracked_new(self.cache, <void*>wire, <uint32_t>space + 1)
        if wire.tracked == NULL:
            raise MemoryError
        connected(&self.server, TRACKED + space, space // 2, space % 2, 3, True)
        self.judge.live[space] = wire.number
        memset(self.judge.pushed[space], 0, sizeof(self.judge.pushed[space]))
        tracked_begin(wire.tracked)
        tracked_beat(wire.tracked)
        return 0

    cdef void untrack(self, int space) noexcept:
        """A tracked link is lost."""
        cdef Wire* wire = &self.wires[TRACKED + space]
        if wire.tracked == NULL:
            return
        self.judge.live[space] = 0
        tracked_end(wire.tracked)
        tracked_free(wire.tracked)
        wire.tracked = NULL
        self.part(TRACKED + space)

    cdef int enter(self, int i) except -1:
        """A new client."""
        cdef Peer* p = &self.peers[i]
        cdef int who = <int>below(&self.server.chance, WHOS)
        memset(p, 0, sizeof(Peer))
        framer_reset(&p.framer)
        p.s = session_new(&self.core, <void*>(i + 1))
        if p.s == NULL:
            raise MemoryError
        p.who, p.user, p.db, p.proto = who, user_of(who), db_of(who), proto_of(who)
        p.s.link = self.wires[who].link
        p.s.space, p.s.proto = p.user * 2 + p.db + 1, p.proto
        p.fresh = p.s.fresh = below(&self.server.chance, 12) == 0
        return 0

    cdef void leave(self, int i) noexcept:
        """A client has gone; a link of its own goes with it."""
        cdef Peer* p = &self.peers[i]
        if p.s.mode != MODE_SHARED:
            barriers_abandon(p.s.link, p.s.link.head, p.s.link.tail)
            p.s.outstanding = 0
            self.hang_up(OWN + i)
        cache_leave(p.s)
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

    # Clients send.

    cdef int send(self, int i) except -1:
        """A client sends a random piece of what it has to say."""
        cdef Peer* p = &self.peers[i]
        cdef size_t n
        if buffer_size(&p.script) == 0:
            more_to_say(&self.judge, p)
        n = buffer_size(&p.script)
        if n == 0:
            return 0
        if below(&self.server.chance, 4) == 0:
            n = 1 + below(&self.server.chance, <uint32_t>n)
        return self.feed(i, n)

    cdef int feed(self, int i, size_t n) except -1:
        cdef Peer* p = &self.peers[i]
        cdef char* block = <char*>malloc(n)
        if block == NULL:
            raise MemoryError
        memcpy(block, buffer_head(&p.script), n)
        buffer_drop(&p.script, n)
        self.begin()
        session_feed(p.s, self.table, block, n)
        self.copy_run(p.s.link)
        free(block)
        self.fed += 1
        return self.settle()

    # The shell.

    cdef void pass_time(self, int64_t microseconds) noexcept:
        self.server.now += microseconds
        self.core.clock = <uint64_t>self.server.now
        self.core.now = <uint32_t>self.core.clock

    cdef void begin(self) noexcept:
        """Something is about to happen: who waits for nothing, and who is writing what."""
        cdef Peer* p
        cdef int i
        cdef uint32_t k
        for i in range(PEERS):
            p = &self.peers[i]
            p.idle = p.s.outstanding == 0
            p.writes = 0
            if p.s.mode == MODE_PINNED:
                self.become_pinned(i)
                continue
            for k in range(p.head, p.head + p.s.outstanding):
                p.writes |= places_of(p.db, &p.due[k % 64].ask)

    cdef void become_pinned(self, int i) noexcept:
        """From here on the client counts as somebody elsewhere."""
        self.peers[i].pinned = True
        self.wires[OWN + i].own = False

    cdef void copy_run(self, Link* l) noexcept:
        if l != NULL and l.borrowed_len:
            buffer_append(&l.out, l.borrowed, l.borrowed_len)
            l.borrowed = NULL
            l.borrowed_len = 0

    cdef int settle(self) except -1:
        """Let each marked session have its replies and what it wants; ask for what was put off."""
        cdef Session* s
        while True:
            while self.core.dirty != NULL:
                s = self.core.dirty
                self.core.dirty = s.next_dirty
                s.dirty = False
                if s.owner != NULL:
                    self.attend(<int><size_t>s.owner - 1)
                elif s.outstanding == 0:
                    session_drop(s)
            if not self.cache.due:
                return self.check_memory()
            self.cache.due = False
            tracked_ask_due(self.cache)

    cdef int attend(self, int i) except -1:
        cdef Session* s = self.peers[i].s
        if s.borrowed_len:
            buffer_append(&s.out, s.borrowed, s.borrowed_len)
            s.borrowed = NULL
            s.borrowed_len = 0
        if s.mode == MODE_PINNED:
            self.become_pinned(i)
        check_replies(&self.judge, &self.peers[i], self.peers, PEERS)
        if s.must_close:
            self.leave(i)
            return self.enter(i)
        if session_may_give_back(s):
            session_use(s, self.wires[self.peers[i].who].link, MODE_SHARED)
            self.hang_up(OWN + i)
            return self.go_on(i)
        if session_ready(s):
            return self.serve_stall(i, s.stall)
        return 0

    cdef int serve_stall(self, int i, int stall) except -1:
        cdef Session* s = self.peers[i].s
        cdef int who = self.peers[i].who
        cdef Scanner scan
        if stall == STALL_LINK:
            s.link = self.wires[who].link
            return self.go_on(i) if s.link.up else 0
        if stall == STALL_ROOM or stall == STALL_FILL or stall == STALL_REPLIES:
            return self.go_on(i)
        if stall == STALL_SESSION_COMMAND:
            scanner_reset(&scan)
            scan_request(&scan, buffer_head(&s.unread), buffer_size(&s.unread), &self.core.limits, True)
            buffer_drop(&s.unread, scan.pos)
            session_say(s, b"+C\r\n", 4)
            return self.go_on(i)
        if stall == STALL_DEDICATED or stall == STALL_ONCE or stall == STALL_PIN:
            self.new_link(OWN + i, who)
            session_use(s, self.wires[OWN + i].link,
                        MODE_PINNED if stall == STALL_PIN else MODE_DEDICATED)
            if stall == STALL_PIN:
                self.become_pinned(i)
            return self.go_on(i)
        raise AssertionError(f"a session wants {stall}")

    cdef int go_on(self, int i) except -1:
        cdef Session* s = self.peers[i].s
        s.stall = STALL_NONE
        session_resume(s, self.table)
        self.copy_run(s.link)
        session_mark(s)
        return 0

    cdef int check_memory(self) except -1:
        if self.cache.bytes > self.cache.budget + WANTED:
            raise AssertionError(f"{self.cache.bytes} bytes of {self.cache.budget}")
        return 0
