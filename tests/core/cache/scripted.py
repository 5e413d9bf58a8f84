"""A sidecar with a near cache whose connections move as a test says: for transcripts.

Values are here after `reads`: what follows in a test is about who may still be served them. Every
reply is held against the contract as well (tests/native/oracle.py).
"""

from __future__ import annotations

from sidecar.core.cache.near_cache import NearCache
from tests.native.cached_clients import Client, Identity
from tests.native.cached_shell import CachedShell
from tests.native.model_replies import Args
from tests.native.oracle import Terms
from tests.native.shell import request

MS = 1000
STALENESS = 400 * MS
SHORT = 100 * MS
VALUE_MAX = 600
PROVED = len(b"+OK\r\n")
"""Bytes of the model server's answer to a heartbeat."""


class Scripted(CachedShell):
    """One server and a client of the identity that most tests use."""

    def __init__(self, mode: str = "rules", *, budget: int = 100_000) -> None:
        cache = NearCache(
            1, mode=mode, budget=budget, value_max=VALUE_MAX, staleness=STALENESS / 1e6,
            ttl_max=10.0, ttl_missing=10.0,
        )  # fmt: skip
        cache.rule(b"never:", never=True)
        cache.rule(b"short:", staleness=SHORT / 1e6)
        if mode == "rules":
            cache.rule(b"")
        terms = Terms(
            STALENESS,
            never=lambda key: key.startswith(b"never:"),
            staleness_of=lambda key: SHORT if key.startswith(b"short:") else None,
        )
        who = [(b"ann", 0, 2), (b"ann", 0, 3), (b"ann", 1, 2), (b"bob", 0, 2)]
        super().__init__(cache, terms, [Identity(*one) for one in who])
        self.tick(1000 * MS)
        self.near, self.before = cache, 0
        self.client = self.enter()
        self.link = self.identities[0].link
        self.values = next(iter(self.tracked))
        for tracked in self.tracked:
            self.core.beat(tracked)
        self.settle()
        self.run()

    def enter(
        self, user: bytes = b"ann", db: int = 0, proto: int = 2, *, fresh: bool = False
    ) -> Client:
        """A client of this identity."""
        client = self.connect(
            next(w for w in self.identities if (w.user, w.db, w.proto) == (user, db, proto))
        )
        client.fresh = fresh
        self.core.set_fresh(client.session, fresh)
        return client

    def ask(self, *args: bytes, by: Client | None = None) -> None:
        """A client sends one request."""
        self.say(by or self.client, args)

    def read(self, *args: bytes, by: Client | None = None) -> bool:
        """A client sends a read, and everything moves: whether it was served from here at once."""
        before = self.served
        self.ask(*args, by=by)
        at_once = self.served > before
        self.run()
        return at_once

    def elsewhere(self, *args: bytes) -> None:
        """Somebody else has a command executed."""
        self.server.outside.up += request(*args)
        self.server.outside.take()
        self.server.outside.give()

    def reads(self, *keys: bytes) -> None:
        """Values of these keys are here, and have been served; `served` counts from then on."""
        for key in keys:
            self.elsewhere(b"SET", key, b"v")
            self.read(b"GET", key)
            assert self.read(b"GET", key)
        self.before = self.near.snapshot()["hits"]

    def execute(self, link: int, *requests: Args) -> None:
        """The server executes these, which are the next on a connection, and no more."""
        self.flush(link)
        self.serve(link, sum(len(request(*args)) for args in requests))

    def beat(self) -> None:
        """A heartbeat is sent on the tracked link."""
        self.core.beat(self.values)
        self.settle()

    @property
    def served(self) -> int:
        """Reads that were answered from here, those that waited for their value as well."""
        return self.near.snapshot()["hits"] - self.before

    @property
    def stored(self) -> int:
        """Values that were kept."""
        return self.near.snapshot()["stored"]
