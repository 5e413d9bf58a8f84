"""A cluster around the core: model servers that own slots, and redirect what is not theirs.

Each shard's server repeats a request's arguments in its reply, as those of tests/native/shell.py
do, so that a reply tells which request it belongs to. `owner` says which shard really has each
slot; what the core believes may be older.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

from redis.crc import key_slot

from tests.harness.refdecoder import requests
from tests.harness.refreplies import reply_end
from tests.native.cluster_loopback import ClusterLoopback
from tests.native.shell import named, table

SLOTS = 16384
KEYLESS = (b"PING", b"ECHO", b"ASKING")


@dataclass
class Shard:
    """One shard's server, and the bytes on their way to it and from it."""

    cluster: Cluster
    number: int
    link: int
    executed: list[bytes] = field(default_factory=list)
    unread: bytearray = field(default_factory=bytearray)
    down: bytearray = field(default_factory=bytearray)
    asking: bool = False
    refuses: bool = False
    """It says that the cluster is down."""
    answers: dict[bytes, Callable[[list[bytes]], bytes]] = field(default_factory=dict)
    """Commands that it answers otherwise than by their arguments, keys or not."""

    def take(self, data: bytes) -> None:
        """Bytes from the sidecar: whole requests are executed, or redirected."""
        self.unread += data
        done = 0
        for event in requests(bytes(self.unread)):
            assert event[0] != "error", f"the server was sent {bytes(self.unread)!r}"
            if event[0] == "args":
                self.down += self._answer(event[1])
                done = event[2]
        del self.unread[:done]

    def _answer(self, args: list[bytes]) -> bytes:
        if args == [b"ASKING"]:
            self.asking = True
            return b"+OK\r\n"
        asking, self.asking = self.asking, False
        if self.refuses:
            return b"-CLUSTERDOWN The cluster is down\r\n"
        if args[0] in self.answers:
            return self.answers[args[0]](args)
        if args[0] not in KEYLESS:
            slot = key_slot(args[1])
            owner, target = self.cluster.owner[slot], self.cluster.asks.get(slot)
            if owner != self.number and not (asking and target == self.number):
                return b"-MOVED %d %s\r\n" % (slot, self.cluster.address(owner))
            if owner == self.number and target is not None and args[1] in self.cluster.gone:
                return b"-ASK %d %s\r\n" % (slot, self.cluster.address(target))
        self.executed.append(b" ".join(args))
        return self.cluster.replies_to.get(args[0], lambda args: named(*args))(args)


@cache
def _owners(shards: int) -> tuple[int, ...]:
    """The shard of each slot at first."""
    return tuple(slot * shards // SLOTS for slot in range(SLOTS))


class Cluster:
    """A core, the shards that it knows, and one client."""

    def __init__(self, shards: int = 3, **sizes: int) -> None:
        self.core = ClusterLoopback(table(), **sizes)
        links = [self.core.add_link() for _ in range(shards)]
        self.core.use_shards(links, [self.address(number) for number in range(shards)])
        self.shards = [Shard(self, number, link) for number, link in enumerate(links)]
        self.owner = list(_owners(shards))
        self.asks: dict[int, int] = {}
        """Slots that migrate, and where to;"""
        self.gone: set[bytes] = set()
        """and the keys of them that are there already."""
        for number in range(shards):
            first = self.owner.index(number)
            self.core.put_slots(first, first + self.owner.count(number) - 1, number)
        self.session = self.core.add_session()
        self.core.join(self.session)
        self.got = bytearray()
        self.replies_to: dict[bytes, Callable[[list[bytes]], bytes]] = {}
        """Commands that are answered otherwise than by their arguments."""

    @staticmethod
    def address(number: int) -> bytes:
        """Where a shard is."""
        return b"10.0.0.%d:6379" % number

    def send(self, data: bytes) -> None:
        """The client sends these bytes."""
        self.core.feed(self.session, data)
        self.attend()

    def attend(self) -> None:
        """Do what the plane does for a session that was marked."""
        while self.core.take_marked():
            self.got += self.core.take(self.session)
            waits = self.core.stall(self.session) in ("link", "room")
            if self.core.ready(self.session) and not waits:
                self.core.resume(self.session)

    def flush(self, number: int, size: int = 1 << 30) -> None:
        """Up to so many bytes reach a shard."""
        shard = self.shards[number]
        shard.take(self.core.link_output(shard.link, size))

    def arrive(self, number: int, size: int = 1 << 30) -> None:
        """Up to so many bytes of a shard's replies arrive."""
        shard = self.shards[number]
        data = bytes(shard.down[:size])
        del shard.down[:size]
        if data:
            self.core.link_receive(shard.link, data)
            self.attend()

    def retry(self, all: bool, most: int) -> None:
        """Look at requests that wait; those that have waited for `most` microseconds are given
        up."""
        self.core.retry(all, most)
        self.attend()

    def lose(self, number: int) -> None:
        """A shard's connection breaks, and there is another one at once."""
        shard = self.shards[number]
        shard.unread.clear()
        shard.down.clear()
        shard.asking = False
        self.core.link_lost(shard.link)
        self.core.link_up(shard.link)
        self.attend()

    def drain(self) -> None:
        """Let all that is under way come to its end."""
        for _ in range(1000):
            for number in range(len(self.shards)):
                self.flush(number)
                self.arrive(number)
            if self.core.stall(self.session) == "room" and self.core.ready(self.session):
                self.core.resume(self.session)
            if not self.core.outstanding(self.session) and not self.core.unread(self.session):
                return
        raise AssertionError("it does not come to its end")

    def replies(self) -> list[bytes]:
        """The whole replies that the client has got since the last call."""
        found, at = [], 0
        while at < len(self.got) and (end := reply_end(self.got, at)) is not None:
            found.append(bytes(self.got[at:end]))
            at = end
        del self.got[:at]
        return found
