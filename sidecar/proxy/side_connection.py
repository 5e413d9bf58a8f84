"""A connection for the sidecar's own questions to the server, past the dialer and its breaker.

It is opened for the first question and kept while there are more. It has no effect on clients: it
is no probe for the circuit breaker, and a server that does not answer delays only the asker.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from contextlib import suppress

from sidecar.proxy.links.dialer import Dialer
from sidecar.proxy.links.errors import Unreachable
from sidecar.proxy.links.greeting import Login, ServerConnection
from sidecar.proxy.links.target import Target

UNUSED = 30.0


class SideConnection:
    """Asks the server that `dialer` leads to, greeted with `login`; another one counts from
    the next connection on. One question at a time."""

    def __init__(self, dialer: Dialer, login: Login, version: bytes) -> None:
        self._dialer = dialer
        self.login = login
        self._version = version
        self._connection: ServerConnection | None = None
        self._asked = 0.0
        self.took = 0.0  # seconds that the latest answer took

    @property
    def stale(self) -> bool:
        """Whether it leads to a former server."""
        return self._connection is not None and self._connection.target is not self._dialer.target

    async def ask(self, *requests: bytes, within: float) -> list[bytes]:
        """The raw replies, within so many seconds. Raises Refused (the greeting), Unreachable."""
        self._asked = time.monotonic()
        if self.stale:
            self.close()
        try:
            async with asyncio.timeout(within):
                connection = self._connection or await self._open()
                began = time.monotonic()
                replies = await connection.ask(*requests, within=within)
                self.took = time.monotonic() - began
        except TimeoutError:
            self.close()
            raise Unreachable(f"no answer within {within:g} s") from None
        except BaseException:
            self.close()
            raise
        return replies

    async def _open(self) -> ServerConnection:
        target = self._dialer.target
        if target is None:
            raise Unreachable(self._dialer.unknown_because)
        self._connection = await ServerConnection.greeted_at(target, self.login, self._version)
        return self._connection

    def server_ids(self) -> Iterable[tuple[Target, int]]:
        """The connection's id on its server, or none."""
        if self._connection is None:
            return ()
        return ((self._connection.target, self._connection.server_id),)

    def tick(self, now: float) -> None:
        """Close the connection when nobody has asked for UNUSED seconds."""
        if self._connection is not None and now - self._asked > UNUSED:
            self.close()

    def close(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(OSError):
                connection.close()
