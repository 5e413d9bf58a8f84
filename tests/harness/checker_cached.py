"""A sidecar whose near cache takes every key, and who answered: the cache, or the server.

What the server has seen is asked of the server itself (INFO commandstats), which can't be fooled.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from .closing import Closing
from .process import wait_until
from .servers import Server, Sidecar
from .wire import Wire

RULES: dict[str, str | int | float] = {"cache.mode": "rules", "cache.rules": '["*"]'}
PARTS = ("sidecar_cache", "sidecar_hot_key")
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
        text = self.direct.cmd("INFO", "commandstats").decode()
        found = re.search(rf"cmdstat_{command.lower()}:calls=(\d+)", text)
        return int(found[1]) if found else 0

    def seen(self, wire: Wire, *command: str | int) -> tuple[bytes, int]:
        """The reply to a command, and how often the server has executed it for that."""
        before = self.calls(str(command[0]))
        reply = wire.cmd(*command)
        return reply, self.calls(str(command[0])) - before

    def warm(self, *command: str | int, wire: Wire | None = None, deadline: float = 5.0) -> bytes:
        """Ask until the cache answers: that answer."""

        def answered() -> bytes:
            reply, calls = self.seen(wire or self.near, *command)
            return b"" if calls else reply

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
        lines = self.direct.cmd("CLIENT", "LIST").decode().splitlines()
        rows = [dict(w.split("=", 1) for w in line.split() if "=" in w) for line in lines]
        return [r for r in rows if r.get("name") == "redis-sidecar" and "t" in r["flags"]]

    def close(self) -> None:
        """End all of it but the server."""
        for wire in self.wires:
            wire.close()
        self.sidecar.close()


def metrics(port: int) -> dict[str, float]:
    """What `/metrics` says of the cache and the hot keys: samples with their labels."""
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
        text: Any = reply.read().decode()
    rows = [line.rpartition(" ") for line in text.splitlines() if line.startswith(PARTS)]
    return {name: float(value) for name, _, value in rows}
