"""How late the event loop is. Work that keeps it busy delays every command by as much."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

INTERVAL = 0.1
WINDOW = 30.0


class LoopLag:
    """Wakes up every INTERVAL and notes how late it was.

    `longest` covers the present window and the one before, so a scrape every 30 seconds misses
    nothing. What keeps the loop busy before there are clients delays nobody, and does not count: it
    measures from `begin` on.
    """

    def __init__(self) -> None:
        self.also: list[Callable[[float], None]] = []
        self._begun = math.inf
        self._since = time.monotonic()
        self._now = 0.0
        self._before = 0.0

    def begin(self, now: float) -> None:
        """Clients are served from now on."""
        self._begun = now

    def note(self, due: float, now: float) -> None:
        """Note that it woke up now, and when that was due."""
        late = max(now - max(due, self._begun), 0.0)
        if now - self._since >= WINDOW:
            self._before = self._now if now - self._since < 2 * WINDOW else 0.0
            self._since, self._now = now, 0.0
        self._now = max(self._now, late)

    def longest(self) -> float:
        """The longest delay in seconds, within the last WINDOW to 2 * WINDOW."""
        return max(self._now, self._before)

    async def watch(self) -> None:
        """Measure until cancelled."""
        while True:
            due = time.monotonic() + INTERVAL
            await asyncio.sleep(INTERVAL)
            now = time.monotonic()
            self.note(due, now)
            for call in self.also:
                call(now)
