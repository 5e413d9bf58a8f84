"""Opens connections to one server: when one may be opened, and whether it leads to the right
server.

A dialer knows the current `target` of its node (None while that is unknown). It opens a few
connections at a time. It asks the circuit breaker before each attempt and reports the outcome to
it. Between attempts it waits with jittered backoff. Commands wait for the server for `patience`
seconds; after that, or once the breaker opens, they get an error.

The target can change at any await (`switch`). A connection is opened to the target of that moment
and is closed if the target has changed by the time the connection is ready. If the server must be a
master (`Dialing.as_master`), then it said so on every greeted connection that leaves this file.

Lies below the links: knows no clients, sessions or identities, and not who waits for a link.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

import structlog

from sidecar.policy.backoff import Backoff
from sidecar.policy.breaker import Breaker, State
from sidecar.proxy.links.errors import NotMaster, Refused, Unreachable
from sidecar.proxy.links.greeting import Greeted, Login, ServerConnection
from sidecar.proxy.links.target import Target
from sidecar.settings.schema import Settings
from sidecar.settings.sections.upstream import Breaker as BreakerSettings

log = structlog.get_logger()

# Connections that are opened at the same time: after a switch, many are needed at once.
OPENING = 8

T = TypeVar("T")


@dataclass(frozen=True)
class Dialing:
    """How to dial, for the dialers of all nodes. `patience` in seconds: how long commands wait."""

    version: bytes
    as_master: bool
    patience: float
    backoff: Backoff
    breaker: BreakerSettings

    @classmethod
    def of(cls, settings: Settings, version: str, *, as_master: bool) -> Dialing:
        """From the settings."""
        upstream = settings.upstream
        patience = settings.failover.hold if as_master else upstream.wait
        backoff = Backoff(upstream.backoff_min, upstream.backoff_max)
        return cls(version.encode(), as_master, patience, backoff, settings.breaker)


class Dialer:
    """Opens connections for one node. Calls `not_master` when the current target, being greeted,
    says that it is not the master."""

    def __init__(
        self,
        target: Target | None,
        dialing: Dialing,
        not_master: Callable[[Target, NotMaster], None],
    ) -> None:
        settings = dialing.breaker
        self.target = target
        self.unknown_because = "no master is known yet"  # for messages, while there is no target
        self.patience = dialing.patience
        self.backoff = dialing.backoff
        self.breaker = Breaker(
            settings.failures,
            settings.window,
            dialing.patience,
            settings.open_for,
            settings.open_max,
        )
        self._version = dialing.version
        self._as_master = dialing.as_master
        self._not_master = not_master
        self._last_failure = ""
        self._opening = asyncio.Semaphore(OPENING)
        self._attempts: set[asyncio.Timeout] = set()

    @property
    def where(self) -> str:
        """The server's address, for messages."""
        return str(self.target) if self.target is not None else "unknown"

    @property
    def given_up(self) -> bool:
        """Whether the breaker is not closed: commands get an error at once."""
        return self.breaker.state is not State.CLOSED

    # Connections

    async def open(self, login: Login) -> tuple[ServerConnection, Greeted]:
        """Open a connection and greet on it. Raises Refused or Unreachable."""
        connection = await self._connect()
        try:
            async with self._until_switched():
                greeted = await self.greet(connection, login)
        except Refused:
            self._count_success()
            raise
        except Unreachable as error:
            self._count_failure(connection.target, error)
            if isinstance(error, NotMaster) and connection.target is self.target:
                self._not_master(connection.target, error)
            if self.given_up:
                raise self._broken() from error
            raise
        except BaseException:
            self.breaker.abandoned(time.monotonic())
            raise
        self.must_be_current(connection)
        self._count_success()
        return connection, greeted

    async def reach(self) -> ServerConnection:
        """Open a connection without a greeting; retries for as long as commands may wait.

        Raises Unreachable after that. Does not close the breaker: the caller talks to the server,
        and nobody reports the outcome.
        """
        return await self.patiently(self._connect_unless_given_up)

    async def greet(self, connection: ServerConnection, login: Login) -> Greeted:
        """Greet on a connection from `reach`. Raises Refused or Unreachable."""
        return await connection.greet(login, self._version, as_master=self._as_master)

    def must_be_current(self, connection: ServerConnection) -> None:
        """If the target has changed meanwhile, close the connection and raise Unreachable."""
        if connection.target is not self.target:
            connection.close()
            raise Unreachable(f"the master is {self.where} now, not {connection.target}")

    async def patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Retry `attempt` after Unreachable, for as long as commands may wait for the server."""
        deadline = time.monotonic() + self.patience
        tries = 0
        while True:
            try:
                return await attempt()
            except Unreachable:
                left = deadline - time.monotonic()
                if left <= 0 or self.given_up:
                    raise
            with suppress(Unreachable):
                async with self._until_switched():
                    pause = self.backoff.delay(tries, random.random())
                    await asyncio.sleep(min(pause, left))
            tries += 1

    def pause(self, attempt: int, deadline: float) -> float:
        """Seconds to wait after failed attempt number `attempt` in an endless loop of retries.

        Ends at `deadline` at the latest, when the caller has to answer those who wait.
        """
        now = time.monotonic()
        pause = self.backoff.delay(attempt, random.random())
        if self.given_up:
            return max(pause, self.breaker.retry_at - now)
        return min(pause, deadline - now) if deadline > now else pause

    async def _connect_unless_given_up(self) -> ServerConnection:
        if self.given_up:
            raise self._broken()
        return await self._connect()

    async def _connect(self) -> ServerConnection:
        """Wait for a turn, ask the breaker, connect. Raises Unreachable."""
        target = self.target
        if target is None:
            raise Unreachable(self.unknown_because)
        async with self._until_switched(), self._opening:
            # After the turn has come: the breaker may have opened during the wait for it.
            if not self.breaker.may_connect(time.monotonic()):
                raise self._broken()
            try:
                connection = await ServerConnection.open(target)
            except Unreachable as error:
                self._count_failure(target, error)
                if self.given_up:
                    raise self._broken() from error
                raise
            except BaseException:
                self.breaker.abandoned(time.monotonic())
                raise
        self.must_be_current(connection)
        return connection

    def _broken(self) -> Unreachable:
        return Unreachable(f"{self._last_failure} (circuit breaker open)")

    # The target

    def switch(self, target: Target) -> None:
        """Change the target; attempts that are under way to the old one end with Unreachable."""
        self.target = target
        self.breaker.reset()
        attempts, self._attempts = self._attempts, set()
        for limit in attempts:
            limit.reschedule(asyncio.get_running_loop().time())

    def renew(self, target: Target) -> None:
        """Replace the target by one of the same server, with other certificates."""
        self.target = target
        self.breaker.abandoned(time.monotonic())  # a probe under way goes to the old target

    @asynccontextmanager
    async def _until_switched(self) -> AsyncIterator[None]:
        """End the body with Unreachable when the target changes.

        The old server may be a host that is gone: waiting for it would take a whole timeout.
        """
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._attempts.add(limit)
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            raise Unreachable(f"the master is {self.where} now") from None
        finally:
            self._attempts.discard(limit)

    # The circuit breaker

    def lost(self, reason: str) -> None:
        """Report to the breaker that the sidecar's own link was lost."""
        self._last_failure = f"upstream {self.where}: {reason}"
        before = self.breaker.state
        self.breaker.lost(time.monotonic())
        self._log_change(before)

    def _count_failure(self, target: Target, error: Unreachable) -> None:
        if target is not self.target:
            return
        self._last_failure = str(error)
        before = self.breaker.state
        self.breaker.failed(time.monotonic())
        self._log_change(before)

    def _count_success(self) -> None:
        before = self.breaker.state
        self.breaker.connected(time.monotonic())
        self._log_change(before)

    def _log_change(self, before: State) -> None:
        """Log that the breaker has opened or closed; not that a probe failed."""
        after = self.breaker.state
        if after is State.OPEN and before is State.CLOSED:
            log.warning("circuit breaker open", upstream=self.where)
        elif after is State.CLOSED and before is not State.CLOSED:
            log.info("circuit breaker closed", upstream=self.where)
