"""What became of attempts to connect to one server: told to the circuit breaker, and to the log.

Remembers when a connection last came about, and what the latest failure was, since that is what
commands are told that can't be served. Connects nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from sidecar.policy.breaker import Breaker, State
from sidecar.proxy.links.errors import Unreachable
from sidecar.proxy.links.patience import AT_LEAST
from sidecar.settings.sections.upstream import Breaker as Settings

BROKEN = " (circuit breaker open)"

log = structlog.get_logger()


class Outcomes:
    """Outcomes with one server. `patience` in seconds: how long commands wait for a connection;
    `where` gives the server's address, for messages; `opened` is called each time that the breaker
    opens."""

    def __init__(
        self,
        settings: Settings,
        patience: float,
        where: Callable[[], str],
        opened: Callable[[], None],
    ) -> None:
        self.breaker = Breaker(
            settings.failures, settings.window, patience, settings.open_for, settings.open_max
        )
        self.succeeded = 0.0  # when a connection last came about
        self._patience = patience
        self._where = where
        self._opened = opened
        self._last_failure = ""

    def use(self, settings: Settings) -> None:
        """Open the breaker by these settings from now on."""
        breaker = self.breaker
        breaker.failures, breaker.window = settings.failures, settings.window
        breaker.open_for, breaker.open_max = settings.open_for, settings.open_max

    def wait_for(self, seconds: float) -> None:
        """Commands wait for so long from now on."""
        self._patience = self.breaker.grace = seconds

    @property
    def given_up(self) -> bool:
        """Whether commands get an error at once, since the server keeps failing."""
        return self.breaker.state is not State.CLOSED

    def broken(self) -> Unreachable:
        """What commands are told while the breaker is open."""
        return Unreachable(f"{self._last_failure}{BROKEN}")

    def silent(self) -> Unreachable:
        """What commands are told that have waited in vain while no attempt had failed yet."""
        return Unreachable(f"upstream {self._where()} did not answer within {self._patience:g} s")

    def success(self) -> None:
        """A connection has come about: the server has answered, if only to refuse."""
        before = self.breaker.state
        self.succeeded = time.monotonic()
        self.breaker.connected(self.succeeded)
        self._log_change(before)

    def failure(self, error: Unreachable, began: float) -> None:
        """An attempt that began then has failed."""
        self._last_failure = str(error)
        before = self.breaker.state
        self.breaker.failed(time.monotonic(), began)
        self._log_change(before)
        if self.breaker.state is State.OPEN and before is not State.OPEN:
            self._opened()

    def unknown(self, began: float) -> None:
        """Nobody has waited for an outcome: a failure, if that took as long as commands wait."""
        if time.monotonic() - began >= max(self._patience, AT_LEAST):
            self.failure(self.silent(), began)
        else:
            self.breaker.abandoned(time.monotonic())

    def lost(self, reason: str) -> None:
        """A connection that clients depend on was lost."""
        self._last_failure = f"upstream {self._where()}: {reason}"
        self.breaker.lost(time.monotonic())

    def _log_change(self, before: State) -> None:
        """Log that the breaker has opened or closed; a probe that failed is no news."""
        after = self.breaker.state
        if after is State.OPEN and before is State.CLOSED:
            log.warning("circuit breaker opened", upstream=self._where())
        elif after is State.CLOSED and before is not State.CLOSED:
            log.info("circuit breaker closed", upstream=self._where())
