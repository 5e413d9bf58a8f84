"""Watchers: what the Sentinels publish, and which role each node says it has.

A thread for each Sentinel and node, in the drill's own process. They connect again whenever a
connection ends, so they live through restarts; nodes are asked at their real port, so a partition
does not blind them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

from bench.drills.cluster import Cluster, Member
from bench.drills.switches import Role, Said
from bench.drills.wire import Refused, Wire

ROLE_EVERY = 0.005
"""Seconds between two questions to a node: the resolution of the time of a promotion."""

SILENT_AFTER = 0.25
"""Seconds without an answer after which a node counts as silent."""

RECONNECT = 0.005
"""Seconds before a watcher connects again: a promotion ends the connections of the node."""


class Watch:
    """All watchers; `said` and `roles` grow while it is open."""

    def __init__(self, cluster: Cluster) -> None:
        self.said: list[Said] = []
        self.roles: list[Role] = []
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        for number, sentinel in enumerate(cluster.sentinels):
            self._spawn(self._listen, number, sentinel)
        for node in cluster.nodes:
            self._spawn(self._ask, 0, node)

    def _spawn(self, work: Callable[[int, Member], None], number: int, member: Member) -> None:
        thread = threading.Thread(target=work, args=(number, member), daemon=True)
        self._threads.append(thread)
        thread.start()

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(2)

    def heard(self, channel: str, since: float) -> Said | None:
        """The first message on a channel after `since`."""
        found = (s for s in list(self.said) if s.channel == channel and s.time >= since)
        return min(found, default=None)

    def _listen(self, number: int, sentinel: Member) -> None:
        while not self._stop.is_set():
            try:
                with Wire(sentinel.port) as wire:
                    wire.send("PSUBSCRIBE", "*")
                    self._receive(wire, number)
            except OSError:
                self._stop.wait(RECONNECT)

    def _receive(self, wire: Wire, number: int) -> None:
        while not self._stop.is_set():
            try:
                message = wire.read()
            except TimeoutError:
                continue
            now = time.monotonic()
            if message[0] == "pmessage":
                self.said.append(Said(now, number, message[2], message[3]))

    def _ask(self, _number: int, node: Member) -> None:
        last = ""
        while not self._stop.is_set():
            try:
                with Wire(node.real, SILENT_AFTER) as wire:
                    while not self._stop.is_set():
                        last = self._note(node, last, str(wire.call("ROLE")[0]))
                        self._stop.wait(ROLE_EVERY)
            except (OSError, Refused):
                last = self._note(node, last, "silent")
                self._stop.wait(RECONNECT)

    def _note(self, node: Member, last: str, role: str) -> str:
        if role != last:
            self.roles.append(Role(time.monotonic(), node.port, role))
        return role
