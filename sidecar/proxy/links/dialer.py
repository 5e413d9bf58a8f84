"""Opens connections to one server: when one may be opened, and whether it leads to the right
server.

A dialer knows the current `target` of its node (None while that is unknown). It opens a few
connections at a time. It asks the circuit breaker before each attempt and reports the outcome to
it. Between attempts it waits with jittered backoff. Commands wait for the server for `patience`
seconds in which no connection succeeds; after that, or once the breaker opens, they get an error,
even while an attempt is under way.

The target can change at any await (`switch`). A connection is opened to the target of that moment
and is closed if the target has changed by the time the connection is ready. If the server must be a
master (`as_master`), then it said so on every greeted connection that leaves this file.

Lies below the links: knows no clients, sessions or identities, and not who waits for a link.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar
from weakref import WeakSet

from sidecar.policy.backoff import Backoff
from sidecar.policy.breaker import Breaker
from sidecar.proxy.links.errors import Full, NotMaster, Refused, Unreachable
from sidecar.proxy.links.greeting import Greeted, Login, ServerConnection, with_newest
from sidecar.proxy.links.outcomes import Outcomes
from sidecar.proxy.links.patience import Patience
from sidecar.proxy.links.room import Room
from sidecar.proxy.links.target import Target
from sidecar.settings.schema import Settings
from sidecar.settings.sections.upstream import Breaker as BreakerSettings

# Connections that are opened at the same time, greeting included: after a switch, or when thousands
# log in, many are needed at once.
OPENING = 16

# Connections whose ids are remembered.
REMEMBERED = 4096

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
        """From the settings; `as_master` is how it begins."""
        upstream = settings.upstream
        patience = settings.failover.hold if as_master else upstream.wait
        backoff = Backoff(upstream.backoff_min, upstream.backoff_max)
        return cls(version.encode(), as_master, patience, backoff, settings.breaker)


class Dialer:
    """Opens connections for one node, in the `room` that all nodes share. Calls `not_master` when
    the current target, being greeted, says that it is not the master, and `broken` each time that
    the breaker opens."""

    def __init__(
        self,
        target: Target | None,
        dialing: Dialing,
        room: Room,
        not_master: Callable[[Target, NotMaster], None],
        broken: Callable[[], None],
    ) -> None:
        self.target = target
        self.unknown_because = "no master is known yet"  # for messages, while there is no target
        self.patience = dialing.patience
        self.backoff = dialing.backoff
        self.outcomes = Outcomes(dialing.breaker, dialing.patience, lambda: self.where, broken)
        self._version = dialing.version
        self.as_master = dialing.as_master  # whether its server must say that it is a master
        self._room = room
        self._not_master = not_master
        self._opening = asyncio.Semaphore(OPENING)
        self._attempts: set[asyncio.Timeout] = set()
        self._made: WeakSet[ServerConnection] = WeakSet()
        self._greeted: deque[tuple[Target, int]] = deque(maxlen=REMEMBERED)

    @property
    def where(self) -> str:
        """The server's address, for messages."""
        return str(self.target) if self.target is not None else "unknown"

    @property
    def addresses(self) -> Iterable[tuple[Target, object]]:
        """The addresses, on this side, of connections that are not links, or not yet; and where
        they lead."""
        made = [each for each in self._made if each.sock.fileno() >= 0]
        return [(each.target, each.sock.getsockname()) for each in made]

    @property
    def greeted_ids(self) -> Iterable[tuple[Target, int]]:
        """The ids, on their servers, of its latest connections. A server gives no id twice, and may
        still list a connection that has been closed a moment ago."""
        return tuple(self._greeted)

    @property
    def breaker(self) -> Breaker:
        """The circuit breaker, to read its state."""
        return self.outcomes.breaker

    @property
    def given_up(self) -> bool:
        """Whether the breaker is not closed: commands get an error at once."""
        return self.outcomes.given_up

    # Connections

    @asynccontextmanager
    async def turn(self, *, urgent: bool = False) -> AsyncIterator[None]:
        """Wait for a turn to connect, and for room. The turn lasts until the connection is handed
        over or closed. An `urgent` connection needs no room.

        Raises Full if there is no room, and Unreachable if the target changes meanwhile.
        """
        async with self._until_switched(), self._opening:
            with self._room.one_more(urgent=urgent):
                try:
                    yield
                except Full:
                    self._room.refused()
                    raise

    async def open(self, login: Login, *, urgent: bool = False) -> tuple[ServerConnection, Greeted]:
        """Open a connection and greet on it. Raises Refused or Unreachable."""
        async with self.turn(urgent=urgent):
            return await with_newest(login, lambda: self._open(login))

    async def _open(self, login: Login) -> tuple[ServerConnection, Greeted]:
        connection = await self._connect()
        greeted = await self.greet(connection, login)
        self.must_be_current(connection)
        return connection, greeted

    async def connect(self) -> ServerConnection:
        """Open a connection without a greeting, in the caller's turn. Raises Unreachable.

        Does not probe: raises at once while the breaker is open.
        """
        if self.given_up:
            raise self.outcomes.broken()
        return await self._connect()

    async def reach(self) -> ServerConnection:
        """Open a connection without a greeting; retries for as long as commands may wait.

        Raises Unreachable after that.
        """

        async def attempt() -> ServerConnection:
            async with self.turn():
                return await self.connect()

        return await self.patiently(attempt)

    async def greet(self, connection: ServerConnection, login: Login) -> Greeted:
        """Greet on a connection from `connect` or `reach`. Raises Refused or Unreachable."""
        began = time.monotonic()
        try:
            greeted = await connection.greet(login, self._version, as_master=self.as_master)
        except (Refused, Full):
            self.outcomes.success()
            raise
        except Unreachable as error:
            self._failed(connection.target, error, began)
            if isinstance(error, NotMaster) and connection.target is self.target:
                self._not_master(connection.target, error)
            if self.given_up:
                raise self.outcomes.broken() from error
            raise
        except BaseException:
            self.outcomes.unknown(began)
            raise
        self.outcomes.success()
        self._greeted.append((connection.target, connection.server_id))
        return greeted

    def must_be_current(self, connection: ServerConnection) -> None:
        """If the target has changed meanwhile, close the connection and raise Unreachable."""
        if connection.target is not self.target:
            connection.close()
            raise Unreachable(f"the master is {self.where} now, not {connection.target}")

    async def _connect(self) -> ServerConnection:
        """Ask the breaker, connect. Raises Unreachable."""
        target = self.target
        if target is None:
            raise Unreachable(self.unknown_because)
        # After the turn has come: the breaker may have opened during the wait for it.
        began = time.monotonic()
        if not self.breaker.may_connect(began):
            raise self.outcomes.broken()
        try:
            connection = await ServerConnection.open(target)
        except Full:
            self.outcomes.unknown(time.monotonic())  # the server has no part in it
            raise
        except Unreachable as error:
            self._failed(target, error, began)
            if self.given_up:
                raise self.outcomes.broken() from error
            raise
        except BaseException:
            self.outcomes.unknown(began)
            raise
        self.must_be_current(connection)
        self._made.add(connection)
        return connection

    def _failed(self, target: Target, error: Unreachable, began: float) -> None:
        if target is self.target:
            self.outcomes.failure(error, began)

    # Waiting

    def wait(self, over: Callable[[], None]) -> Patience:
        """Call `over` once commands may wait no longer, unless the result is ended before."""
        return Patience(lambda: self.patience, lambda: self.outcomes.succeeded, over)

    def wait_for(self, seconds: float) -> None:
        """Commands wait for so long from now on, those that wait already included."""
        self.patience = seconds
        self.outcomes.wait_for(seconds)

    async def patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Retry `attempt` after Unreachable, for as long as commands may wait for the server.

        Ends an attempt that is under way when that time is over.
        """
        limit = asyncio.timeout(None)
        began = time.monotonic()
        failed: list[Unreachable] = []
        patience = self.wait(lambda: limit.reschedule(asyncio.get_running_loop().time()))
        try:
            async with limit:
                return await self._repeat(attempt, failed)
        except TimeoutError:
            if not limit.expired():
                raise
            if not failed:
                failed.append(self.outcomes.silent())
                self.outcomes.failure(failed[0], began)
            raise (self.outcomes.broken() if self.given_up else failed[-1]) from None
        finally:
            patience.end()

    async def _repeat(self, attempt: Callable[[], Awaitable[T]], failed: list[Unreachable]) -> T:
        """Retry, and append each error to `failed`. The time to retry begins with the first
        failure, because the attempt may have waited in a queue before."""
        deadline = 0.0
        while True:
            try:
                return await attempt()
            except Unreachable as error:
                failed.append(error)
                deadline = deadline or time.monotonic() + self.patience
                left = deadline - time.monotonic()
                if left <= 0 or self.given_up:
                    raise
            with suppress(Unreachable):
                async with self._until_switched():
                    pause = self.backoff.delay(len(failed) - 1, random.random())
                    await asyncio.sleep(min(pause, left))

    def pause(self, attempt: int, deadline: float) -> float:
        """Seconds to wait after failed attempt number `attempt` in an endless loop of retries.

        Ends at `deadline` at the latest, when the caller has to answer those who wait.
        """
        now = time.monotonic()
        pause = self.backoff.delay(attempt, random.random())
        if self.given_up:
            return max(pause, self.breaker.retry_at - now)
        return min(pause, deadline - now) if deadline > now else pause

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
