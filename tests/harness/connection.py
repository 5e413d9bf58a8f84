"""The client on an event loop: many connections at once, replies read by hiredis.

A *step* is some requests that are judged together (one command, or a whole transaction) and who
wants to know of their replies. Steps sent together are a pipeline.
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Self, cast

import hiredis

from .resp import Arg, Refused, pack

Told = Callable[["Any", int, int], None]
"""Called with the replies (None: the connection was lost), and when it was sent and answered."""

Step = tuple[bytes, int, Told]
"""Bytes, how many replies they get, who is told."""

_numbers = itertools.count(1)


class Lost(Exception):
    """The connection is gone, or could not be made."""


class Connection(asyncio.Protocol):
    """One connection of one client. `number` is never used again: another one is another client."""

    def __init__(self) -> None:
        self.number = next(_numbers)
        self.transport: asyncio.Transport | None = None
        self.lost = False
        self._reader = hiredis.Reader(replyError=Refused)
        self._due: deque[tuple[int, Told]] = deque()
        self._got: list[Any] = []
        self._begin = 0
        self._waiter: asyncio.Future[None] | None = None

    @classmethod
    async def open(cls, where: int | str, tls: ssl.SSLContext | None = None) -> Self:
        """Connect to a port of this host, or to a path; Lost."""
        loop = asyncio.get_running_loop()
        try:
            if isinstance(where, str):
                _, conn = await loop.create_unix_connection(cls, where)
            else:
                name = "localhost" if tls else None
                _, conn = await loop.create_connection(
                    cls, "127.0.0.1", where, ssl=tls, server_hostname=name
                )
        except OSError as error:
            raise Lost(str(error)) from None
        return conn

    async def send(self, steps: Sequence[Step]) -> None:
        """Send steps in one piece and wait until all are answered. Raises Lost, and has told so
        everybody who was not answered."""
        self._waiter = asyncio.get_running_loop().create_future()
        for _, replies, told in steps:
            self._due.append((replies, told))
        data = b"".join([data for data, _, _ in steps])
        self._begin = time.monotonic_ns()
        if self.lost or self.transport is None:
            self._fail()
        else:
            self.transport.write(data)
        await self._waiter

    async def ask(self, *words: Arg) -> Any:
        """One command: its reply. Raises Lost."""
        found: list[Any] = []
        told: Told = lambda replies, begin, end: found.append(replies)  # noqa: E731
        await self.send([(pack(*words), 1, told)])
        return found[0][0]

    def close(self) -> None:
        """End it."""
        if self.transport is not None:
            self.transport.abort()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Replies."""
        end = time.monotonic_ns()
        reader, due, got = self._reader, self._due, self._got
        reader.feed(data)
        while (reply := reader.gets()) is not False:
            if isinstance(reply, hiredis.PushNotification):
                continue
            got.append(reply)
            replies, told = due[0]
            if len(got) == replies:
                due.popleft()
                told(got, self._begin, end)
                got = self._got = []
        if not due and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        """It is gone."""
        self._fail()

    def _fail(self) -> None:
        self.lost = True
        due, self._due = self._due, deque()
        end = time.monotonic_ns()
        for _, told in due:
            told(None, self._begin, end)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(Lost("connection lost"))
