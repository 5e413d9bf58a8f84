# cython: language_level=3, cdivision=True
"""A native fuzzer of the near cache: for tests only.

A world is six clients of four identities (two users, two databases, both protocols), a shared link
for each identity, a dedicated or pinned link for each client that needs one, a tracked link for
each user and database, and one server. Chance decides who moves next and by how many bytes, so
that each connection overtakes any other; somebody elsewhere writes; time passes; connections
break; users lose their rights; keys become hot and cool.

The judge (fuzz_cache_judge.pyx) holds every reply against the near cache's contract, and the store
is counted over now and then (`check_store`). A world is a function of its seed.
"""
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from sidecar.core.cache.fill cimport cache_begin
from sidecar.core.cache.store cimport Value, cache_drop_key
from sidecar.core.cache.touch cimport cache_touch_used
from sidecar.core.cache.tracked cimport tracked_receive
from sidecar.core.cache.tracked_requests cimport Tracked, tracked_ask, tracked_beat
from sidecar.core.link.pending cimport link_sent
from sidecar.core.link.receive cimport link_receive
from sidecar.core.link.recovery cimport link_divert, link_lost, link_move
from sidecar.core.link.silence cimport Silence, link_silence
from sidecar.core.link.replica_acks cimport link_receive_acked, link_seal
from sidecar.core.memory cimport buffer_append, buffer_drop, buffer_head, buffer_size
from sidecar.core.protocol.commands cimport CommandTable
from sidecar.core.protocol.reply cimport framer_reset
from sidecar.core.protocol.request cimport SCAN_DONE, Scanner, scan_request, scanner_reset
from sidecar.core.records cimport (Link, MODE_DEDICATED, STALL_LINK, Session, link_demotion_over,
    link_unsent)
from tests.native.fuzz_cache_checks cimport check_barriers, check_store
from tests.native.fuzz_cache_client cimport elsewhere, say
from tests.native.fuzz_cache_judge cimport check_replies
from tests.native.fuzz_cache_server cimport (ALL, Ask, KEYS, NO_KEY, OP_DUMP, OP_SET, OP_SET_PX,
    OP_SUBSCRIBE, PUSHES_MAX, Server, USERS, Wire, change, connected, publish, put_ask, serve, some_key)
from tests.native.chance cimport below
from tests.native.fuzz_decoders cimport Text

from tests.native.fuzz_cache_shell cimport (CacheShell, OWN, PEERS, RETIRED, SPACES, TRACKED, WHOS,
    WIRES, db_of, proto_of, user_of)
from tests.native.fuzz_cache_shell import KEY_NAMES


cdef class CacheWorld(CacheShell):
    """One run of the fuzzer (see the head of this file)."""

    # Bytes move.

    cdef int flush(self, int w, bint all) except -1:
        """Some of a link's bytes reach the server's door."""
        cdef Wire* wire = &self.wires[w]
        cdef Link* l = wire.link
        cdef size_t n
        if wire.tracked != NULL:
            n = buffer_size(&wire.tracked.out)
            if n:
                n = n if all else 1 + below(&self.server.chance, <uint32_t>n)
                buffer_append(&wire.up, buffer_head(&wire.tracked.out), n)
                buffer_drop(&wire.tracked.out, n)
            return 0
        if l == NULL or not l.up or l.demoted:
            return 0
        if l.unsealed and not l.raw and not (l.client != NULL and (
                l.client.in_multi or l.client.streaming)) and link_seal(l) < 0:
            raise MemoryError
        n = link_unsent(l)
        if n == 0:
            return 0
        n = n if all else 1 + below(&self.server.chance, <uint32_t>n)
        buffer_append(&wire.up, buffer_head(&l.out) + l.sent, n)
        link_sent(l, n)
        return 0

    cdef int execute(self, int w, bint all) except -1:
        """The server executes what has come on a connection."""
        if self.wires[w].number:
            serve(&self.server, w, &self.core.limits,
                  ALL if all else 1 + <int>below(&self.server.chance, 3))
        return 0

    cdef int arrive(self, int w, bint all) except -1:
        """Some of the server's bytes arrive."""
        cdef size_t n = buffer_size(&self.wires[w].down)
        if n and not all:
            n = 1 + below(&self.server.chance, <uint32_t>n)
        return self.arrive_bytes(w, n)

    cdef int arrive_bytes(self, int w, size_t most) except -1:
        """So many of them, if there are."""
        cdef Wire* wire = &self.wires[w]
        cdef size_t n = min(most, buffer_size(&wire.down))
        cdef char* block
        cdef int r
        if n == 0 or (wire.link != NULL and not wire.link.up) or self.held >> w & 1:
            return 0
        block = <char*>malloc(n)
        if block == NULL:
            raise MemoryError
        memcpy(block, buffer_head(&wire.down), n)
        buffer_drop(&wire.down, n)
        wire.arrived += n
        self.begin()
        if wire.tracked != NULL:
            self.note_pushes(w)
            r = tracked_receive(wire.tracked, block, n)
            if r == -1:
                raise AssertionError("good answers were refused")
            if r < 0:
                self.untrack(w - TRACKED)
        else:
            if self.core.acks:
                r = link_receive_acked(wire.link, block, n)
            else:
                r = link_receive(wire.link, block, n)
            if r < 0:
                raise AssertionError("good replies were refused")
        self.settle()
        free(block)
        if wire.link != NULL and link_demotion_over(wire.link):
            self.lose(w)
        return 0

    cdef void note_pushes(self, int w) noexcept:
        """Invalidations that have come in whole count from now on."""
        cdef Wire* wire = &self.wires[w]
        cdef uint32_t at
        cdef int key
        while wire.push_head != wire.push_tail \
                and wire.pushes[wire.push_head % PUSHES_MAX].end <= wire.arrived:
            at = wire.push_head % PUSHES_MAX
            key = wire.pushes[at].key
            self.judge.pushed[w - TRACKED][KEYS if key == NO_KEY else key] = wire.pushes[at].number
            wire.push_head += 1

    # Upsets.

    cdef int lose(self, int w) except -1:
        """A shared connection breaks, or one that has been replaced."""
        cdef Wire* wire = &self.wires[w]
        if wire.link == NULL or not wire.link.up:
            return 0
        self.begin()
        wire.link.up = False
        link_lost(wire.link, True)
        self.part(w)
        if w >= RETIRED:
            link_move(wire.link, self.wires[w - RETIRED].link)
            self.bury(w - RETIRED)
        return self.settle()

    cdef int lose_own(self, int i) except -1:
        """The connection of a link of its own breaks: the client is closed."""
        cdef Session* s = self.peers[i].s
        if s.mode != MODE_DEDICATED:
            return 0
        self.begin()
        link_lost(self.wires[OWN + i].link, False)
        check_replies(&self.judge, &self.peers[i], self.peers, PEERS)
        self.leave(i)
        self.enter(i)
        return self.settle()

    cdef int restore(self, int who) except -1:
        """A shared link has a connection again."""
        cdef int i
        cdef Link* l = self.wires[who].link
        if l.up:
            return 0
        self.begin()
        l.up = True
        connected(&self.server, who, user_of(who), db_of(who), proto_of(who), False)
        framer_reset(&l.framer)
        for i in range(PEERS):
            if self.peers[i].who == who and self.peers[i].s.stall == STALL_LINK:
                self.go_on(i)
        return self.settle()

    cdef int divert(self, int who) except -1:
        """A shared link is held up: another takes its place."""
        cdef Link* l = self.wires[who].link
        if self.wires[RETIRED + who].link != NULL or not l.up or l.demoted:
            return 0
        self.wires[RETIRED + who] = self.wires[who]
        memset(&self.wires[who], 0, sizeof(Wire))
        self.new_link(who, who)
        return link_divert(l, self.wires[who].link)

    cdef int bury(self, int who) except -1:
        """The replaced link has had its last reply: nobody is left on it."""
        cdef int i
        cdef Link* old = self.wires[RETIRED + who].link
        if old == NULL or old.head != old.tail:
            return 0
        for i in range(PEERS):
            if self.peers[i].s.link == old:
                self.peers[i].s.link = self.wires[who].link
        self.hang_up(RETIRED + who)
        return 0

    cdef int control(self) except -1:
        """The detector, the warm start or the operator do something."""
        cdef uint64_t* r = &self.server.chance
        cdef bytes key = KEY_NAMES[below(r, KEYS)]
        cdef int kind = <int>below(r, 6)
        cdef int space = <int>below(r, SPACES)
        if kind < 2:
            self.near.want(key, below(r, 3) != 0)
        elif kind == 2:
            cache_drop_key(self.cache, key, len(key), False)
        elif kind == 3 and self.wires[TRACKED + space].tracked != NULL:
            self.load(space)
        elif kind == 4 and below(r, 8) == 0:
            self.near.drop_all()
        elif kind == 5 and below(r, 16) == 0:
            self.server.no_ttl[below(r, USERS)] ^= True
        elif kind == 5:
            cache_touch_used(self.cache, 1 + below(r, 8), 1 + below(r, 4), 1 + below(r, 3))
        self.begin()
        return self.settle()

    cdef int load(self, int space) except -1:
        """A warm start has a value read."""
        cdef Ask ask
        cdef Text t
        cdef Scanner scan
        cdef Value* v
        cdef Tracked* tracked = self.wires[TRACKED + space].tracked
        ask.op, ask.key, ask.key2 = <int>below(&self.server.chance, OP_DUMP), 0, NO_KEY
        ask.key = <int>below(&self.server.chance, KEYS)
        t.n = 0
        put_ask(&t, &ask)
        scanner_reset(&scan)
        if scan_request(&scan, t.data, t.n, &self.core.limits, True) != SCAN_DONE:
            raise AssertionError("load")
        v = cache_begin(self.cache, <uint32_t>space + 1,
                        self.table.find(t.data + scan.name_at, scan.name_len), t.data, t.n, &scan)
        if v != NULL:
            tracked_ask(v, self.cache)
        return 0

    cdef int upset(self, int kind) except -1:
        """What is not the daily business of clients and links."""
        cdef uint64_t* r = &self.server.chance
        cdef int who = <int>below(r, WHOS)
        cdef int i = <int>below(r, PEERS)
        if kind == 0:
            return self.bury(who)
        if kind == 1:
            self.track(<int>below(r, SPACES))
            return self.restore(who)
        if kind == 2:
            if self.core.master_may_change and below(r, self.calm) == 0:
                self.wires[who].replica = not self.wires[who].replica
            return 0
        if kind == 6 and below(r, 2):
            self.leave(i)
            return self.enter(i)
        if not self.losses or below(r, self.calm):
            return 0
        if kind == 3:
            return self.divert(who)
        if kind == 4:
            return self.lose(who if below(r, 2) else RETIRED + who)
        if kind == 5:
            self.begin()
            self.untrack(<int>below(r, SPACES))
            return self.settle()
        return self.lose_own(i)

    # Scenes: what takes several steps in the right order, which chance alone seldom finds.

    cdef int written(self, int db) except -1:
        """Somebody elsewhere writes the first of the keys."""
        cdef Ask ask
        cdef Text t
        t.n = 0
        ask.op, ask.key, ask.key2 = OP_SET, self.server.first_key, db
        return change(&self.server, NULL, &ask, &t)

    cdef int read_first(self, int i) except -1:
        """What this client asks for is here afterwards, as far as it may be. Others would drop it: a
        read that passes does."""
        cdef int k
        if self.peers[i].pinned or self.peers[i].fresh:
            self.leave(i)
            self.enter(i)
        self.written(self.peers[i].db)
        self.rush(False)
        for k in range(3):
            self.send(i)
            self.rush(False)
        return 0

    cdef int hold_tracked(self) except -1:
        """Nothing arrives on tracked connections from now on, but for what has come so far."""
        self.held = ((1 << SPACES) - 1) << TRACKED
        return 0

    cdef int trickle(self, int space) except -1:
        """Some bytes of a tracked connection's answers come through: about one heartbeat's."""
        cdef uint32_t held = self.held
        self.held = 0
        self.arrive_bytes(TRACKED + space, 1 + below(&self.server.chance, 12))
        self.held = held
        return 0

    cdef int silence(self) except -1:
        """Nothing arrives on tracked connections for a while, and somebody elsewhere writes."""
        cdef uint64_t* r = &self.server.chance
        cdef int k
        cdef int i = <int>below(r, PEERS)
        self.read_first(i)
        self.hold_tracked()
        self.written(self.peers[i].db)
        for k in range(1 + <int>below(r, 8)):
            if below(r, 2):
                elsewhere(&self.server)
            self.pass_time(below(r, 250000))
            self.send(i if below(r, 8) else <int>below(r, PEERS))
            self.rush(False)
        self.held = 0
        return 0

    cdef int calm_time(self) except -1:
        """Time passes, and heartbeats are answered."""
        cdef uint64_t* r = &self.server.chance
        cdef int k
        cdef uint32_t pace = 1000 << below(r, 8)
        for k in range(1 + <int>below(r, 12)):
            self.pass_time(below(r, pace))
            self.beat(-1)
            self.rush(True)
            if below(r, 3) == 0:
                self.send(<int>below(r, PEERS))
                self.rush(False)
        return 0

    cdef int late_answer(self) except -1:
        """A tracked connection's answers arrive late, and one by one; what has changed meanwhile lies
        behind them."""
        cdef uint64_t* r = &self.server.chance
        cdef int i = <int>below(r, PEERS)
        cdef int space = self.peers[i].user * 2 + self.peers[i].db
        cdef int w = TRACKED + space
        cdef int k
        self.read_first(i)
        self.beat(space)
        self.flush(w, True)
        self.execute(w, True)
        self.written(self.peers[i].db)
        self.hold_tracked()
        self.pass_time(below(r, 400000))
        for k in range(1 + <int>below(r, 4)):
            self.trickle(space)
            self.pass_time(below(r, 300000))
            self.send(i)
            self.rush(False)
        self.held = 0
        return 0

    cdef int torn_reading(self) except -1:
        """A key changes between the two halves of a reading."""
        cdef uint64_t* r = &self.server.chance
        cdef Ask ask
        cdef Text t
        cdef int i = <int>below(r, PEERS)
        cdef int w = TRACKED + self.peers[i].user * 2 + self.peers[i].db
        self.rush(True)
        self.send(i)
        self.flush(w, True)
        if self.wires[w].number:
            serve(&self.server, w, &self.core.limits, 1)
        t.n = 0
        ask.op, ask.key, ask.key2 = OP_SET_PX, some_key(&self.server), self.peers[i].db
        ask.arg = 1 + <int>below(r, 60)
        change(&self.server, NULL, &ask, &t)
        self.rush(False)
        return self.calm_time()

    cdef int news(self) except -1:
        """A message tells of a change before its invalidation arrives; then somebody reads, while
        answers from before the message come in."""
        cdef uint64_t* r = &self.server.chance
        cdef int i = <int>below(r, PEERS)
        cdef int k = <int>below(r, PEERS)
        cdef int space
        if not self.peers[k].pinned and self.peers[k].tail - self.peers[k].head < 30:
            say(&self.judge, &self.peers[k], OP_SUBSCRIBE)
            self.send(k)
        self.read_first(i)
        self.hold_tracked()
        if below(r, 2):
            self.beat(-1)           # its answer will be older than the news
            self.rush(True)
        elsewhere(&self.server)
        publish(&self.server)
        for k in range(2):
            self.rush(False)
            for space in range(SPACES):
                self.trickle(space)
            self.send(i)
        self.rush(False)
        self.held = 0
        self.leave(k)               # who listens is served nothing from here
        return self.enter(k)

    cdef int scene(self, uint32_t kind) except -1:
        """A scene, mostly about one key, which is mostly read."""
        cdef Server* sv = &self.server
        cdef int first = sv.first_key
        cdef int keys = sv.keys
        cdef int writes = sv.writes
        cdef int reads = sv.reads
        if below(&sv.chance, 4):
            sv.first_key, sv.keys = some_key(sv), 1
        if below(&sv.chance, 4):
            sv.writes, sv.plain = 0, True
            sv.reads = 1            # what is not here would be waited for
        self.play(kind)
        sv.first_key, sv.keys, sv.writes, sv.reads = first, keys, writes, reads
        sv.plain = False
        return 0

    cdef int play(self, uint32_t kind) except -1:
        if kind == 0:
            return self.silence()
        if kind == 1:
            return self.calm_time()
        if kind == 2:
            return self.late_answer()
        return self.torn_reading() if kind == 3 else self.news()

    # The run.

    cdef int step(self) except -1:
        cdef uint64_t* r = &self.server.chance
        cdef uint32_t kind = below(r, 96 + self.scenes)
        if kind >= 96:
            return self.scene(below(r, 5))
        cdef int w = <int>below(r, WIRES)
        if kind < 24:
            self.send(<int>below(r, PEERS))
            return self.rush(False) if below(r, 4) < self.quick else 0
        if kind < 36:
            return self.flush(w, kind < 32)
        if kind < 48:
            return self.execute(w, kind < 42)
        if kind < 60:
            return self.arrive(w, kind < 56)
        if kind < 72:
            return self.rush(<int>below(r, 2))
        if kind < 78:
            return elsewhere(&self.server)
        if kind < 82:
            self.pass_time(below(r, 2000 if kind < 80 else self.pace))
            return self.beat(-1) if below(r, 4) else 0
        if kind == 82:
            w = w if below(r, 2) else TRACKED + <int>below(r, SPACES)
            self.held = <uint32_t>1 << w if below(r, 2) else 0
            return 0
        if kind < 86:
            return self.beat(<int>below(r, SPACES))
        return self.control() if kind < 89 else self.upset(<int>kind - 89)

    cdef int beat(self, int space) except -1:
        """A heartbeat is sent for a space, or (-1) for each."""
        cdef int i
        for i in range(SPACES):
            if (space < 0 or i == space) and self.wires[TRACKED + i].tracked != NULL \
                    and tracked_beat(self.wires[TRACKED + i].tracked) < 0:
                raise MemoryError
        return 0

    cdef int rush(self, bint tracked_only) except -1:
        """Connections are quick for a moment: those that read for the cache, or all of them."""
        cdef int turn, w
        for turn in range(2):
            for w in range(TRACKED if tracked_only else 0, TRACKED + SPACES):
                self.flush(w, True)
                self.execute(w, True)
                self.arrive(w, True)
        return 0

    cdef int look_for_silence(self) except -1:
        """How long links have owed replies is never more than there has been time."""
        cdef Silence found
        cdef int w
        memset(&found, 0, sizeof(found))
        for w in range(WIRES):
            if self.wires[w].link != NULL:
                link_silence(self.wires[w].link, True, &found)
        if max(found.silent, found.may_block) >= self.core.clock:
            raise AssertionError(f"a link is silent for {found.silent} of {self.core.clock}")
        return 0

    def run(self, int steps):
        """So many steps, then everything to its end."""
        cdef int i
        for i in range(steps):
            self.step()
            if i % 64 == 0:
                check_store(self.cache, self.barriers)
                self.look_for_silence()
        self.drain()
        check_store(self.cache, self.barriers)

    cdef int drain(self) except -1:
        """Let everything come to its end, and see that nothing is left."""
        cdef int i, w, turn
        self.held = 0
        for turn in range(400):
            for w in range(WHOS):
                self.wires[w].replica = False
                self.restore(w)
            for i in range(PEERS):
                if buffer_size(&self.peers[i].script):
                    self.feed(i, buffer_size(&self.peers[i].script))
            for w in range(WIRES):
                self.flush(w, True)
                self.execute(w, True)
                self.arrive(w, True)
            for w in range(WHOS):
                self.bury(w)
        for i in range(PEERS):
            if self.peers[i].head != self.peers[i].tail:
                raise AssertionError(
                    f"client {i} waits for {self.peers[i].tail - self.peers[i].head} replies")
            if self.peers[i].s.outstanding and not self.peers[i].pinned:
                raise AssertionError(f"client {i} is not idle")
        return check_barriers(self.barriers)

    @property
    def counts(self):
        """What the near cache counted."""
        return self.near.snapshot()

    @property
    def hits(self):
        """Replies that the near cache gave."""
        return self.cache.counts.hits


def fuzz_cache_world(CommandTable table, uint64_t seed, int steps, *, str mode="rules",
                     bint losses=True, bint follows=False, int acks=0):
    """One world; returns how often a client sent something, and how many replies were hits.
    AssertionError: a broken promise.

    `mode`: the cache's. `losses`: connections break, links are replaced, clients go. `follows`:
    servers lose their role. `acks`: writes are answered once so many replicas have them.
    """
    world = CacheWorld(table, seed, mode=mode, losses=losses, follows=follows, acks=acks)
    world.run(steps)
    return world.fed, world.hits
