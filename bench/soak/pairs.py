"""Clients of the soak that need each other: who pushes and who pops, who publishes and who listens.

A number passes once and in order, or not at all: that a value was popped by a connection that was
lost then, or published while the subscriber was away, is the way of these commands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from bench.soak.client import Client, Door, Ledger
from bench.soak.values import Wrong, make, may_be_done, number_of
from tests.harness.connection import Connection

SHOWN = 1.0
"""Seconds a subscriber listens between two looks at its connection."""
MOST = 20
"""Values that wait in a queue, at most."""


class Queue:
    """A list that one client fills and another one empties."""

    def __init__(self, number: int) -> None:
        self.name = f"queue:{number}"
        self.tried = self.acknowledged = self.popped = self.last = 0
        self.unsure = 0
        """Pops whose reply was lost: each may have taken one with it."""


class Pushing(Client):
    """Fills a queue."""

    def __init__(self, door: Door, ledger: Ledger, seed: int, think: float, queue: Queue) -> None:
        super().__init__(door, ledger, seed, think)
        self.queue = queue

    async def turn(self) -> None:
        """One more, unless many wait."""
        queue = self.queue
        if queue.acknowledged - queue.popped - queue.unsure >= MOST:
            return
        queue.tried += 1
        (reply,) = await self.exchange(("RPUSH", queue.name, make(queue.name, queue.tried, 40)))
        queue.acknowledged += not self.failed(reply)

    async def look_back(self) -> None:
        """What was pushed has been popped, or is there, or went with a pop that was lost."""
        queue = self.queue
        (left,) = await self.exchange(("LLEN", queue.name))
        missing = queue.acknowledged - queue.popped - int(left)
        if missing > queue.unsure:
            raise Wrong(f"{queue.name}: {missing} are missing, {queue.unsure} pops were lost")


class Popping(Pushing):
    """Empties it, waiting on the server."""

    async def turn(self) -> None:
        """One, or none within a moment."""
        queue = self.queue
        # Which of the two it is depends on what moves: both must work for either.
        words = ("BLPOP", queue.name, "0.2")
        if self.chance.random() < 0.1:
            words = ("BLMPOP", "0.2", "1", queue.name, "LEFT")  # type: ignore[assignment]
        (reply,) = await self.exchange(words)
        if self.failed(reply):
            queue.unsure += may_be_done(reply) or str(reply).startswith("UNBLOCKED")
        elif reply is not None:
            name, found = reply
            value = found[0] if isinstance(found, list) else found
            number = number_of(queue.name, value)
            if name != queue.name.encode() or not queue.last < number <= queue.tried:
                raise Wrong(f"{queue.name}: {number} of {name!r} after {queue.last}")
            queue.last = number
            queue.popped += 1

    async def look_back(self) -> None:
        """Whoever pushes does."""


class Ear(Connection):
    """A connection on which messages come, which nobody asked for."""

    heard: Callable[[Any], None]

    def data_received(self, data: bytes) -> None:
        """Messages, and replies of what subscribes."""
        self._reader.feed(data)
        while (message := self._reader.gets()) is not False:
            self.heard(message)


class Channel:
    """What is published and heard."""

    def __init__(self, number: int) -> None:
        self.name = f"channel:{number}"
        self.tried = 0


class Publishing(Client):
    """Publishes numbers."""

    def __init__(
        self, door: Door, ledger: Ledger, seed: int, think: float, channel: Channel
    ) -> None:
        super().__init__(door, ledger, seed, think)
        self.channel = channel

    async def turn(self) -> None:
        """The next one."""
        self.channel.tried += 1
        value = make(self.channel.name, self.channel.tried, 40)
        await self.exchange(("PUBLISH", self.channel.name, value))


class Listening(Publishing):
    """Hears them: each once, and in order."""

    connection = Ear

    async def arrive(self) -> None:
        """Subscribe; in RESP3 after HELLO, in the same piece."""
        self._last = 0
        self._problem: Wrong | None = None
        ear = cast(Ear, self.conn)
        ear.heard = self._heard
        assert ear.transport is not None
        hello = b"HELLO 3\r\n" if self.door.protocol == 3 else b""
        ear.transport.write(hello + b"SUBSCRIBE %b\r\n" % self.channel.name.encode())

    def _heard(self, message: Any) -> None:
        if isinstance(message, Exception):
            self.ledger.note_error(self.name, ("SUBSCRIBE",), str(message))
        if not isinstance(message, list) or message[0] != b"message":
            return
        try:
            number = number_of(self.channel.name, message[2])
            if message[1] != self.channel.name.encode() or not (
                self._last < number <= self.channel.tried
            ):
                raise Wrong(f"{message[1]!r}: {number} after {self._last}")
            self._last = number
        except Wrong as error:
            self._problem = error

    async def turn(self) -> None:
        """Listen for a while."""
        await asyncio.sleep(SHOWN * self.chance.random())
        if self._problem:
            raise self._problem

    async def settle(self) -> None:
        """There is nothing to look for."""
