"""How long commands wait for a connection: so many seconds in which none comes about.

A queue is no outage. When thousands log in at once, each waits for its turn, and as long as
connections come about one after the other nobody is told that the server is away. So time runs
from the beginning of the wait, or from the latest connection that has come about, whichever is
later.

Knows time and nothing of connections.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

# Who is not to wait at all still waits for the first attempt for so long: half a round trip is
# not an outage.
AT_LEAST = 0.25


class Patience:
    """Calls `over` once, when nothing has come about for so many `seconds`, unless it is ended
    before. `latest` gives the monotonic time of the latest connection. Both are asked anew each
    time that the wait may be over."""

    def __init__(
        self, seconds: Callable[[], float], latest: Callable[[], float], over: Callable[[], None]
    ) -> None:
        self._seconds = seconds
        self._latest = latest
        self._over = over
        self._began = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(max(seconds(), AT_LEAST), self._look)

    def _look(self) -> None:
        left = max(self._began, self._latest()) + max(self._seconds(), AT_LEAST)
        left -= time.monotonic()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self._over()

    def end(self) -> None:
        """Nobody waits any more."""
        self._timer.cancel()
