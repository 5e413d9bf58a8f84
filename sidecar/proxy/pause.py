"""Keeps all commands back for a while: a pause that an operator asked for, or a planned switch.

New commands wait, whatever they are; transactions that are open go on to their end, and what is
under way is awaited (`quiet`). Whoever wants the upstream to be left alone is one of the `reasons`;
commands go on when the last of them is gone.

Commands wait within the bounds of a failover: `failover.hold_bytes` for all, and `failover.hold`.
A pause that lasts longer stays one: nothing reaches the server, and what waits, and whatever comes,
gets an error.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable

import structlog

from sidecar.proxy.changeover import Changeover
from sidecar.proxy.io.plane import Plane
from sidecar.telemetry.facts import UnderWay

log = structlog.get_logger()

# Seconds between two looks at what is under way: at least so many, and so many times as long as a
# look takes.
LOOK = 0.002
IDLE_SHARE = 10
# Seconds for what takes as long as its client likes: transactions, large requests half sent, and
# what a pinned client has asked.
OPEN_WITHIN = 1.0


def under_way(plane: Plane) -> UnderWay:
    """What the server still has to do for clients, by links."""
    found = Counter(up.under_way for up in plane.upstreams)
    return UnderWay(
        replies=found["replies"],
        transactions=found["transaction"],
        streamed=found["streaming"],
        pinned=found["raw"],
        blocked=found["blocked"],
    )


class Pause:
    """For one data plane. `limit` gives `failover.hold` in seconds."""

    def __init__(self, plane: Plane, changeover: Changeover, limit: Callable[[], float]) -> None:
        self._plane = plane
        self._changeover = changeover
        self._limit = limit
        self._since: dict[str, float] = {}
        self._most = 0
        self.expired = False

    @property
    def reasons(self) -> tuple[str, ...]:
        """Who wants commands kept back, in the order in which they came."""
        return tuple(self._since)

    def begin(self, reason: str) -> None:
        """Keep commands back for this reason, which is none yet."""
        if not self._since:
            self._most = 0
            self._changeover.begin_pause()
            self._plane.hold_all()
        self._since[reason] = time.monotonic()
        log.info("commands held", reason=reason)

    def end(self, reason: str) -> float:
        """That reason is gone. Returns for how many seconds it has lasted."""
        self._count()
        seconds = time.monotonic() - self._since.pop(reason)
        if not self._since:
            self.expired = False
            self._plane.release_all()
            self._changeover.end_pause()
        log.info("commands released", reason=reason, seconds=round(seconds, 3), held=self._most)
        return seconds

    def tick(self, now: float) -> None:
        """Give errors once commands have waited for too long."""
        if not self._since:
            return
        self._count()
        if not self.expired and now - min(self._since.values()) >= self._limit():
            self.refuse()

    def refuse(self) -> None:
        """What waits gets an error, and so does what comes until the end."""
        if self._since and not self.expired:
            self.expired = True
            log.warning("held commands refused", reason=self.reasons[0], held=self._most)
            self._plane.judge_held()

    def _count(self) -> None:
        self._most = max(self._most, self._plane.held_count)

    async def quiet(self, within: float, open_within: float = OPEN_WITHIN) -> UnderWay:
        """Wait until nothing is under way but blocked commands, for so many seconds at most; for
        what only clients can bring to an end, `open_within`. Returns what is still under way."""
        began = time.monotonic()
        while True:
            looked = time.monotonic()
            found, waited = under_way(self._plane), looked - began
            opened = found.transactions + found.streamed + found.pinned
            if waited >= within or not (found.replies or (opened and waited < open_within)):
                return found
            await asyncio.sleep(max(LOOK, IDLE_SHARE * (time.monotonic() - looked)))
