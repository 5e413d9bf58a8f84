"""A sidecar whose near cache takes every key, and who answered: the cache, or the server.

What the server has seen is asked of the server itself (INFO commandstats), which can't be fooled.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from .closing import Closing
from .process import wait_until
from .server_stats import calls, links
from .servers import Server, Sidecar
from .wire import Wire

RULES: dict[str, str | int | float] = {"cache.mode": "rules", "cache.rules": '["*"]'}
MAX_STALENESS = 0.5
"""The default (s)."""


class Cached(Closing):
    """A sidecar in front of a server, two of its clients, and one of the server itself."""

    def __init__(
        self,
        server: Server,
        settings: Mapping[str, str | int | float] | None = None,
        *,
        upstream: str = "",
        admin: str = "",
    ) -> None:
        self.server = server
        self.sidecar = Sidecar(
            upstream or server.url, settings={**RULES, **(settings or {})}, admin=admin
        )
        self.wires: list[Wire] = []
        self.direct = self.connect(server.port)
        self.near, self.other = self.open(), self.open()

    def connect(self, port: int) -> Wire:
        """A connection that is closed at the end."""
        self.wires.append(Wire(port))
        return self.wires[-1]

    def open(self, protocol: int = 2) -> Wire:
        """One more client of the sidecar."""
        wire = self.connect(self.sidecar.port)
        if protocol == 3:
            wire.cmd("HELLO", 3)
        return wire

    def part(self) -> None:
        """End the connections made since the start."""
        while len(self.wires) > 3:
            self.wires.pop().close()

    def calls(self, command: str) -> int:
        """How often the server has executed this command."""
        return calls(self.direct, command)

    def seen(self, wire: Wire, *command: str | int) -> tuple[bytes, int]:
        """The reply to a command, and how often the server has executed it for that."""
        before = self.calls(str(command[0]))
        reply = wire.cmd(*command)
        return reply, self.calls(str(command[0])) - before

    def warm(self, *command: str | int, wire: Wire | None = None, deadline: float = 5.0) -> bytes:
        """Ask until the cache answers: that answer."""

        def answered() -> bytes:
            reply, executed = self.seen(wire or self.near, *command)
            return b"" if executed else reply

        return wait_until(answered, f"{command} answered by the cache", deadline)

    def until(
        self, reply: bytes, *command: str | int, wire: Wire | None = None, deadline: float
    ) -> float:
        """Ask until this is the reply. The last read that got another must have begun before the
        deadline (s): when it did."""
        begin = time.monotonic()
        last = 0.0
        while True:
            now = time.monotonic() - begin
            got = (wire or self.near).cmd(*command)
            if got == reply:
                break
            last = now
            assert last < deadline + 5, f"{command} still {got!r}"
        assert last <= deadline, f"{command} was not {reply!r} after {last:.3f} s"
        return last

    def tracked(self) -> list[dict[str, str]]:
        """The near cache's connections, as the server lists them."""
        return links(self.direct, tracked=True)

    def close(self) -> None:
        """End all of it but the server."""
        for wire in self.wires:
            wire.close()
        self.sidecar.close()
