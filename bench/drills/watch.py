"""Watchers: what the Sentinels publish, and which role each node says it has.

A thread for each Sentinel and node, in the drill's own process. They connect again whenever a
connection ends, so they live through restarts; nodes are asked at their real port, so a partition
does not blind them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from bench.drills.switches import Address, Role, Said
from bench.drills.world import World
from tests.harness.closing import Closing
from tests.harness.errors import GONE, ClosedError, DeadlineError
from tests.harness.resp import Refused
from tests.harness.sentinels import SentinelProcess
from tests.harness.servers import Server
from tests.harness.wire import Wire

ROLE_EVERY = 0.005
"""Seconds between two questions to a node: the resolution of the time of a promotion."""

SILENT_AFTER = 0.25
"""Seconds without an answer after which a node counts as silent."""

RECONNECT = 0.005
"""Seconds before a watcher connects again: a promotion ends the connections of the node."""


class Watch(Closing):
    """All watchers; `said` and `roles` grow while it is open."""

    def __init__(self, world: World) -> None:
        self.said: list[Said] = []
        self.roles: list[Role] = []
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        for number, sentinel in enumerate(world.sentinels):
            self._spawn(self._listen, number, sentinel)
        for node in world.nodes:
            self._spawn(self._ask, node)

    def _spawn(self, work: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def close(self) -> None:
        """Ask and listen no more."""
        self._stop.set()
        for thread in self._threads:
            thread.join(2)

    def heard(self, channel: str, since: float) -> Said | None:
        """The first message on a channel after `since`."""
        found = (s for s in list(self.said) if s.channel == channel and s.time >= since)
        return min(found, default=None)

    def led(self, by: Address, since: float) -> Role | None:
        """When the node at this address has become the master, if it has since."""
        found = (r for r in list(self.roles) if (r.address, r.role) == (by, "master"))
        return min((role for role in found if role.time >= since), default=None)

    def _listen(self, number: int, sentinel: SentinelProcess) -> None:
        while not self._stop.is_set():
            try:
                with Wire(sentinel.port, deadline=1.0) as wire:
                    wire.send_command("PSUBSCRIBE", "*")
                    self._receive(wire, number)
            except (OSError, ClosedError):
                self._stop.wait(RECONNECT)

    def _receive(self, wire: Wire, number: int) -> None:
        while not self._stop.is_set():
            try:
                message = wire.read_value()
            except DeadlineError:
                continue
            now = time.monotonic()
            if message[0] == "pmessage":
                self.said.append(Said(now, number, message[2], message[3]))

    def _ask(self, node: Server) -> None:
        last = ""
        while not self._stop.is_set():
            try:
                with Wire(node.address, deadline=SILENT_AFTER) as wire:
                    while not self._stop.is_set():
                        last = self._note(node, last, str(wire.call("ROLE")[0]))
                        self._stop.wait(ROLE_EVERY)
            except (*GONE, Refused):
                last = self._note(node, last, "silent")
                self._stop.wait(RECONNECT)

    def _note(self, node: Server, last: str, role: str) -> str:
        if role != last:
            self.roles.append(Role(time.monotonic(), node.announced, role))
        return role
