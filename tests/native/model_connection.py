"""The connections of the model server, and the events that its replies tell of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from tests.harness.refdecoder import requests
from tests.native.model_replies import Args

if TYPE_CHECKING:
    from tests.native.model_server import ModelServer

Place: TypeAlias = tuple[int, bytes]
"""A database and a key."""


@dataclass(frozen=True)
class Event:
    """What the server did at one moment: a read, or a write of some keys or (none named) of all."""

    number: int
    at: int
    connection: Connection = field(repr=False)
    args: Args
    places: tuple[Place, ...]
    read: bool
    version: int = 0
    expires: int | None = None
    own: bool = True


@dataclass(eq=False)
class Connection:
    """One connection: bytes on their way to the server, and back.

    `own`: its other end is the sidecar, which still has it. `marks` says for the bytes on their
    way back, by their place in all that was ever sent, what ends there: a "push" (its key, nothing
    for all keys, and the number of the change) or a "reply" (its request).
    """

    server: ModelServer = field(repr=False)
    user: bytes
    db: int
    proto: int
    tracking: bool = False
    own: bool = True
    up: bytearray = field(default_factory=bytearray)
    down: bytearray = field(default_factory=bytearray)
    sent: int = 0
    arrived: int = 0
    marks: list[tuple[int, str, Args, int]] = field(default_factory=list)
    queue: list[Args] | None = None

    def take(self, size: int = 1 << 30) -> None:
        """The server reads up to so many bytes and executes the whole requests in them."""
        done = 0
        for event in requests(bytes(self.up[:size])):
            assert event[0] != "error", f"the server was sent {bytes(self.up)!r}"
            if event[0] == "args":
                args = tuple(event[1])
                self.say(self.server.execute(self, args))
                self.mark("reply", args, 0)
                done = event[2]
        del self.up[:done]

    def say(self, data: bytes) -> None:
        """Bytes for the other end."""
        self.down += data
        self.sent += len(data)

    def mark(self, kind: str, about: Args, number: int) -> None:
        """What ends with the last byte said."""
        self.marks.append((self.sent, kind, about, number))

    def give(self, size: int = 1 << 30) -> tuple[bytes, list[tuple[str, Args, int]]]:
        """Up to so many bytes arrive at the other end; and what is whole there with them."""
        data = bytes(self.down[:size])
        del self.down[:size]
        self.arrived += len(data)
        whole = [mark[1:] for mark in self.marks if mark[0] <= self.arrived]
        self.marks = [mark for mark in self.marks if mark[0] > self.arrived]
        return data, whole

    def under_way(self) -> list[Args]:
        """The reads that have been sent and whose answers have not all arrived."""
        sent = [tuple(e[1]) for e in requests(bytes(self.up)) if e[0] == "args"]
        answered = [about for _, kind, about, _ in self.marks if kind == "reply"]
        return [args for args in answered + sent if args[0] not in (b"PTTL", b"PING")]
