"""The near cache as a machine of random moves, held against a model server and its contract.

Clients of several users, databases and protocols read and write through shared, dedicated and
pinned links while tracked links read for the cache; others write at the server; every connection
moves by as many bytes as chance wants, so each overtakes any other; connections break, keys expire,
users lose their rights. The oracle (tests/native/oracle.py) knows when and where each reply was
made.
"""

from __future__ import annotations

import os
import random
from itertools import chain

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sidecar.core.cache.near_cache import NearCache
from tests.native.cached_clients import Client, Identity
from tests.native.cached_shell import CachedShell
from tests.native.model_replies import Args
from tests.native.oracle import Terms
from tests.native.shell import request

STALENESS = 400_000
SHORT = 100_000
BUDGET = 4000
VALUE_MAX = 600
# What the records of wanted keys take, whatever the budget is.
WANTED = 5 * 120

KEYS = (b"a", b"b", b"short:c", b"never:d", b"k" * 40)
READS: tuple[Args, ...] = (
    (b"GET",), (b"GET",), (b"STRLEN",), (b"EXISTS",), (b"HGETALL",), (b"SMEMBERS",),
    (b"ZSCORE", b"m"), (b"ZRANK", b"m"), (b"ZRANK", b"m", b"WITHSCORE"), (b"GEOPOS", b"m"),
    (b"LRANGE", b"0", b"-1"), (b"TYPE",), (b"HGET", b"f"), (b"DUMP",),
)  # fmt: skip


def reads() -> st.SearchStrategy[list[Args]]:
    """A read of one key, or of several."""
    one = st.builds(lambda k, r: [(r[0], k, *r[1:])], st.sampled_from(KEYS), st.sampled_from(READS))
    many = st.lists(st.sampled_from(KEYS), min_size=1, max_size=4)
    return st.one_of(one, one, one, many.map(lambda keys: [(b"MGET", *keys)]))


def writes() -> st.SearchStrategy[list[Args]]:
    """A command that changes something."""
    key = st.sampled_from(KEYS)
    life = st.sampled_from((b"1", b"50", b"300", b"9000"))
    return st.one_of(
        key.map(lambda k: [(b"SET", k, b"v")]),
        key.map(lambda k: [(b"SET", k, b"v")]),
        key.map(lambda k: [(b"SET", k, b"v" * 1500)]),
        key.map(lambda k: [(b"DEL", k)]),
        st.builds(lambda k, ms: [(b"SET", k, b"v", b"PX", ms)], key, life),
        st.builds(lambda k, ms: [(b"PEXPIRE", k, ms)], key, life),
        st.builds(lambda k, j: [(b"MSET", k, b"v", j, b"v")], key, key),
        st.builds(lambda k, j: [(b"RENAME", k, j)], key, key),
        st.builds(lambda k: [(b"EVAL", k, b"0")], key),
        st.builds(lambda k: [(b"EVAL", b"", b"1", k)], key),
        st.builds(lambda k: [(b"BLPOP", k, b"0")], key),
    )


RARE: tuple[Args, ...] = (
    (b"FLUSHALL",), (b"FLUSHDB",), (b"SWAPDB", b"0", b"1"), (b"ACL", b"SETUSER", b"ann"),
    (b"ACL", b"SETUSER", b"ann"), (b"SELECT", b"0"),
)  # fmt: skip


def commands() -> st.SearchStrategy[list[Args]]:
    """What a client says in one breath."""
    one = st.one_of(reads(), reads(), reads(), writes())
    body = st.lists(one, min_size=1, max_size=3).map(lambda parts: [*chain(*parts)])
    return st.one_of(
        one,
        one,
        body,
        body.filter(lambda b: all(c[0] != b"BLPOP" for c in b)).map(
            lambda b: [(b"MULTI",), *b, (b"EXEC",)]
        ),
        st.sampled_from(KEYS).map(lambda k: [(b"WATCH", k), (b"GET", k), (b"UNWATCH",)]),
        st.sampled_from(RARE).map(lambda c: [c]),
    )


class CacheMachine(RuleBasedStateMachine):
    """Clients, their links, and the near cache between them and the server."""

    shell: CachedShell

    @initialize(
        mode=st.sampled_from(("rules", "rules", "hot", "hot", "observe")),
        stable=st.booleans(),
        budget=st.sampled_from((BUDGET, 100_000)),
        seed=st.integers(0, 2**32),
    )
    def begin(self, mode: str, stable: bool, budget: int, seed: int) -> None:
        """A sidecar, a server, and somebody of each identity."""
        cache = NearCache(
            seed,
            mode=mode,
            budget=budget,
            value_max=VALUE_MAX,
            staleness=STALENESS / 1e6,
            ttl_max=2.0,
            ttl_missing=0.2,
            check=0.5 if stable else 0.0,
        )
        cache.rule(b"never:", never=True)
        cache.rule(b"short:", ttl=0.1, staleness=SHORT / 1e6)
        if mode == "rules":
            cache.rule(b"")
        terms = Terms(
            STALENESS,
            ttl_max=2_000_000,
            ttl_missing=200_000,
            serves=mode != "observe",
            never=lambda key: key.startswith(b"never:"),
            staleness_of=lambda key: SHORT if key.startswith(b"short:") else None,
            ttl_of=lambda key: 100_000 if key.startswith(b"short:") else None,
        )
        identities = [
            Identity(b"ann", 0, 2),
            Identity(b"ann", 0, 3),
            Identity(b"ann", 1, 2),
            Identity(b"bob", 0, 3),
        ]
        self.budget, self.stable = budget, stable
        self.cache = cache
        self.shell = CachedShell(cache, terms, identities, stable=stable)
        self.random = random.Random(seed)
        for key in KEYS:
            self.shell.server.pads[key] = self.random.choice((0, 0, 20, 900))
        for who in identities:
            self.shell.connect(who)
        for key in KEYS:
            if mode != "rules" and key != b"b":
                cache.want(key, True)
        self.scripts: dict[Client, bytearray] = {}
        self.shell.tick(1_000_000)
        self.shell.run()

    def somebody(self, data: st.DataObject) -> Client:
        """One of the clients."""
        return data.draw(st.sampled_from(list(self.shell.clients.values())))

    @precondition(lambda self: len(self.shell.clients) < 7)
    @rule(data=st.data(), fresh=st.booleans())
    def connect(self, data: st.DataObject, fresh: bool) -> None:
        """A client comes."""
        client = self.shell.connect(data.draw(st.sampled_from(self.shell.identities)))
        client.fresh = fresh
        self.shell.core.set_fresh(client.session, fresh)

    @precondition(lambda self: self.shell.clients)
    @rule(data=st.data(), said=commands(), cut=st.integers(0, 60))
    def send(self, data: st.DataObject, said: list[Args], cut: int) -> None:
        """A client has something to say; some of it is sent, mostly all."""
        client = self.somebody(data)
        if client.pinned:
            said = [args for args in said if args[0] not in (b"MULTI", b"EXEC", b"SELECT")]
        script = self.scripts.setdefault(client, bytearray())
        script += self.shell.expect(client, *said)
        size = len(script) - cut if cut < len(script) and cut > 40 else len(script)
        part = bytes(script[:size])
        del script[:size]
        self.shell.send(client, part)

    @precondition(lambda self: self.shell.clients)
    @rule(data=st.data(), said=st.one_of(reads(), writes()))
    def ask(self, data: st.DataObject, said: list[Args]) -> None:
        """A client says something, and all of its connections are quick."""
        client = self.somebody(data)
        script = self.scripts.setdefault(client, bytearray())
        script += self.shell.expect(client, *said)
        part = bytes(script)
        script.clear()
        self.shell.send(client, part)
        self.shell.run()

    @precondition(lambda self: len(self.shell.clients) > 2)
    @rule(data=st.data())
    def pin(self, data: st.DataObject) -> None:
        """A client gets a link of its own for good."""
        client = self.somebody(data)
        if not self.scripts.get(client):
            self.shell.say(client, (b"SUBSCRIBE", b"c"))

    @precondition(lambda self: len(self.shell.clients) > 2)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """A client goes, perhaps in the middle of a request."""
        self.shell.leave(self.somebody(data))

    @rule(
        data=st.data(),
        moves=st.lists(st.sampled_from(("flush", "serve", "arrive")), min_size=1, max_size=3),
        size=st.one_of(st.integers(1, 60), st.just(1 << 20)),
    )
    def move(self, data: st.DataObject, moves: list[str], size: int) -> None:
        """Some bytes of one connection move."""
        link = data.draw(st.sampled_from(list(self.shell.connections)))
        for move in moves:
            if link in self.shell.connections:
                getattr(self.shell, move)(link, size)

    @rule(which=st.sampled_from(("all", "shared", "tracked")))
    def run(self, which: str) -> None:
        """All bytes move: of all connections, or of all of one kind."""
        links = {
            "all": None,
            "tracked": list(self.shell.tracked),
            "shared": [who.link for who in self.shell.identities],
        }[which]
        self.shell.run(links)

    @rule(data=st.data(), said=st.one_of(writes(), st.just([(b"FLUSHALL",)])))
    def elsewhere(self, data: st.DataObject, said: list[Args]) -> None:
        """Somebody else writes, and may tell of it."""
        outside = self.shell.server.outside
        outside.db = data.draw(st.integers(0, 1))
        for args in said:
            outside.up += request(*args)
        outside.take()
        outside.give()
        if data.draw(st.booleans()):
            self.shell.server.publish()

    @rule(milliseconds=st.sampled_from((0.5, 3, 60, 150, 450)))
    def tick(self, milliseconds: float) -> None:
        """Time passes."""
        self.shell.tick(int(milliseconds * 1000))

    @rule(data=st.data())
    def beat(self, data: st.DataObject) -> None:
        """A heartbeat is sent."""
        if self.shell.tracked:
            self.shell.core.beat(data.draw(st.sampled_from(list(self.shell.tracked))))
            self.shell.begin()
            self.shell.settle()

    @rule(data=st.data())
    def lose_tracked(self, data: st.DataObject) -> None:
        """A tracked connection breaks, or there is another."""
        who = data.draw(st.sampled_from(self.shell.identities))
        tracked = self.shell.tracked_of(who.space)
        if tracked is not None:
            self.shell.untrack(tracked)
        else:
            self.shell.track(who.space, who.user, who.db)

    @rule(data=st.data(), executed=st.booleans())
    def lose(self, data: st.DataObject, executed: bool) -> None:
        """A shared connection breaks, or there is another."""
        who = data.draw(st.sampled_from(self.shell.identities))
        if who.up:
            self.shell.lose(who, executed=executed)
        else:
            self.shell.restore(who)

    @rule(key=st.sampled_from(KEYS), yes=st.booleans())
    def want(self, key: bytes, yes: bool) -> None:
        """A key becomes hot, or cools."""
        self.cache.want(key, yes)

    @rule(key=st.sampled_from(KEYS))
    def drop(self, key: bytes) -> None:
        """The operator drops a key."""
        self.cache.drop(key)

    @rule(data=st.data(), read=reads())
    def load(self, data: st.DataObject, read: list[Args]) -> None:
        """A warm start reads a value."""
        if self.shell.tracked:
            self.shell.begin()
            tracked = data.draw(st.sampled_from(list(self.shell.tracked)))
            self.shell.core.load(tracked, request(*read[0]))
            self.shell.settle()

    @rule(key=st.sampled_from(KEYS))
    def forget(self, key: bytes) -> None:
        """The server's table of tracked keys is full: one goes, and it says so."""
        self.shell.server.invalidate(key, next(self.shell.server.numbers))

    @rule(key=st.sampled_from(KEYS))
    def resize(self, key: bytes) -> None:
        """Values of this key become larger, or smaller: with the next write, as all do."""
        if not self.shell.server.versions:
            self.shell.server.pads[key] = self.random.choice((0, 20, 900))

    @rule(user=st.sampled_from((b"ann", b"bob")))
    def no_ttl(self, user: bytes) -> None:
        """A user may use PTTL, or no longer."""
        self.shell.server.no_ttl ^= {user}

    @invariant()
    def memory_is_bounded(self) -> None:
        """Never more than the budget, what is being read included."""
        if hasattr(self, "shell"):
            assert self.cache.snapshot()["bytes"] <= self.budget + WANTED

    @invariant()
    def single_flight(self) -> None:
        """No value is being read twice on one connection."""
        if not hasattr(self, "shell") or self.stable:
            return
        for tracked in self.shell.tracked:
            under_way = self.shell.connections[tracked].under_way()
            assert len(set(under_way)) == len(under_way), under_way

    @invariant()
    def nothing_differs(self) -> None:
        """What was compared with the server's was the same."""
        if hasattr(self, "shell"):
            assert self.cache.mismatches == 0

    def teardown(self) -> None:
        """In the end everyone who stayed has every reply, and nothing is left."""
        if not hasattr(self, "shell"):
            return
        self.shell.server.no_ttl.clear()
        for client, script in self.scripts.items():
            self.shell.send(client, bytes(script))
        self.shell.drain()
        self.nothing_differs()


TestCache = CacheMachine.TestCase
TestCache.settings = settings(
    max_examples=int(os.environ.get("TESTED_EXAMPLES", "80")),
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
