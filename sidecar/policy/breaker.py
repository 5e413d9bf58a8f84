"""A circuit breaker: when to stop trying an upstream that keeps failing. Pure; time is handed in.

    CLOSED      connections are tried as usual
    OPEN        nothing is tried, requests get an error at once, until `retry_at`
    HALF_OPEN   one connection is tried as a probe; its outcome closes or opens

Only attempts to connect that fail count. It opens when a window holds too many of them and no
connection has come about for `grace` seconds. Requests wait that long for an upstream anyway, so a
failover in time never meets an open breaker. A connection that is lost says nothing by itself: a
server that closes idle connections, or an operator who kills them, accepts the next one at once,
and whoever is turned away meanwhile is turned away for nothing. The grace begins with the loss,
since nobody is served from then on.

Outcomes bear no name. What fails while it is open was begun before, and changes nothing: a crowd
of attempts that end one after the other would put off the probe again and again. A failure in the
half-open state counts as the probe's. A probe whose outcome nobody tells is forgotten after
PROBE_FOR, since nothing else could end that state.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from enum import Enum

# Longer than a connection takes to be made, greeted or given up: connect_timeout is 5 s as it
# ships, and both steps may take that long.
PROBE_FOR = 30.0


class State(Enum):
    """See the module's head."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass
class Breaker:
    """The state of one upstream. Times in seconds of one monotonic clock.

    `failures` within `window` open it (0: never); `grace` is how long requests wait anyway;
    `open_for` is the first pause, doubled with each failed probe up to `open_max`.
    """

    failures: int
    window: float
    grace: float
    open_for: float
    open_max: float
    state: State = State.CLOSED
    opened: int = 0
    retry_at: float = 0.0
    _pause: float = 0.0
    _probed_at: float = 0.0
    _down_since: float | None = None
    _up_at: float = -math.inf
    _failed: deque[float] = field(default_factory=deque)

    def may_connect(self, now: float) -> bool:
        """Whether a connection may be tried now; an open breaker lets one through as a probe.

        Who gets True tells the outcome: `connected`, `failed` or `abandoned`.
        """
        if self.state is State.CLOSED:
            return True
        due = self.retry_at if self.state is State.OPEN else self._probed_at + PROBE_FOR
        if now < due:
            return False
        self.state = State.HALF_OPEN
        self._probed_at = now
        return True

    def connected(self, now: float) -> None:
        """A connection has come about."""
        self._up_at = now
        self._down_since = None
        self._failed.clear()
        self.state = State.CLOSED
        self._pause = 0.0

    def failed(self, now: float, began: float | None = None) -> None:
        """An attempt to connect, that `began` then, has failed: nobody has been served since."""
        if self._down_since is None:
            self._down_since = max(now if began is None else began, self._up_at)
        if self.state is State.HALF_OPEN:
            self._open(now)
        if self.state is not State.CLOSED:
            return
        self._failed.append(now)
        while self._failed[0] <= now - self.window:
            self._failed.popleft()
        if len(self._failed) >= self.failures and now - self._down_since >= self.grace:
            self._open(now)

    def lost(self, now: float) -> None:
        """A connection that was there is lost: nobody is served until there is one again."""
        if self._down_since is None:
            self._down_since = now

    def abandoned(self, now: float) -> None:
        """An attempt was given up before its outcome was known: a probe is due again."""
        if self.state is State.HALF_OPEN:
            self.state = State.OPEN
            self.retry_at = now

    def reset(self) -> None:
        """Another upstream: what was known is about the old one."""
        self.state = State.CLOSED
        self._pause = 0.0
        self._down_since = None
        self._up_at = -math.inf
        self._failed.clear()

    def _open(self, now: float) -> None:
        if not self.failures:
            return
        self.opened += 1
        self._pause = min(self.open_max, 2 * self._pause if self._pause else self.open_for)
        self.state = State.OPEN
        self.retry_at = now + self._pause
