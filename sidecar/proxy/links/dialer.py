"""Connections to one server: whether one may be made now, and whether it leads to the right one.

A dialer knows where its server is at this moment (`target`; None while that is unknown). It
connects and greets, a few connections at a time; counts failures in the circuit breaker, and asks
the breaker before each attempt; waits between attempts with jittered backoff. For `patience`
seconds commands wait for the server; after that, or when the breaker opens, they get an error.

The target may be another one from one moment to the next (`switch`). Every connection is made to
the target of that moment, and thrown away if it is another one by the time the connection is
ready. Where the server must be a master (`Dialing.as_master`), it has said so on every connection
that is given out greeted.

Lies below the links: knows nothing of clients, sessions, identities, or who waits for a link.
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

# Connections being made at once: after a switch they come back a few at a time.
OPENING = 8

T = TypeVar("T")


@dataclass(frozen=True)
class Dialing:
    """How servers are dialled. `patience` in seconds: how long commands wait for a server."""

    version: bytes
    as_master: bool
    patience: float
    backoff: Backoff
    breaker: BreakerSettings

    @classmethod
    def of(cls, settings: Settings, version: str, *, as_master: bool) -> Dialing:
        """As the settings say."""
        upstream = settings.upstream
        patience = settings.failover.hold if as_master else upstream.wait
        backoff = Backoff(upstream.backoff_min, upstream.backoff_max)
        return cls(version.encode(), as_master, patience, backoff, settings.breaker)


class Dialer:
    """Opens connections to one server. `not_master` is told when the server of now, being dialled,
    says that it is not the master."""

    def __init__(
        self,
        target: Target | None,
        dialing: Dialing,
        not_master: Callable[[Target, NotMaster], None],
    ) -> None:
        settings = dialing.breaker
        self.target = target
        self.unknown = "no master is known yet"  # why there is no target
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
        """Whether commands get an error at once, since the server keeps failing."""
        return self.breaker.state is not State.CLOSED

    # Connections

    async def open(self, login: Login) -> tuple[ServerConnection, Greeted]:
        """A new connection that has been greeted. Raises Refused or Unreachable."""
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
        """A new connection that has not been greeted, as soon as there is one.

        Raises Unreachable when commands may wait no longer. It is no probe for the breaker: what
        becomes of the connection is the caller's business.
        """
        return await self.patiently(self._connect_unless_given_up)

    async def greet(self, connection: ServerConnection, login: Login) -> Greeted:
        """Greet on a connection of `reach`. Raises Refused or Unreachable."""
        return await connection.greet(login, self._version, as_master=self._as_master)

    def must_be_current(self, connection: ServerConnection) -> None:
        """Raises Unreachable, and closes the connection, if the server is another one by now."""
        if connection.target is not self.target:
            connection.close()
            raise Unreachable(f"the master is {self.where} now, not {connection.target}")

    async def patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Repeat what may raise Unreachable, for as long as commands may wait for the server."""
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
        """Seconds to wait after failed attempt number `attempt` of somebody who retries for ever;
        not beyond `deadline`, the moment that something is to be said to those who wait."""
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
        """Connect, in turn. The breaker is asked first and told of a failure; Unreachable."""
        target = self.target
        if target is None:
            raise Unreachable(self.unknown)
        async with self._until_switched(), self._opening:
            # Asked now: many may have waited for their turn, and learnt meanwhile that it is open.
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
        """The server is another one from now on: what is under way to the old one is given up."""
        self.target = target
        self.breaker.reset()
        attempts, self._attempts = self._attempts, set()
        for limit in attempts:
            limit.reschedule(asyncio.get_running_loop().time())

    def renew(self, target: Target) -> None:
        """The same server, to be connected to in another way."""
        self.target = target
        self.breaker.abandoned(time.monotonic())  # what is under way is to the target of before

    @asynccontextmanager
    async def _until_switched(self) -> AsyncIterator[None]:
        """What is waited for in here is given up when the target becomes another: Unreachable.

        The old one may be a host that is gone, and would take its time to not answer.
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
        """A connection that clients depend on was lost."""
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
        """Log that the breaker has opened or closed; a probe that failed is no news."""
        after = self.breaker.state
        if after is State.OPEN and before is State.CLOSED:
            log.warning("circuit breaker open", upstream=self.where)
        elif after is State.CLOSED and before is not State.CLOSED:
            log.info("circuit breaker closed", upstream=self.where)
