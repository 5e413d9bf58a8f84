"""Links for sessions: which exist, who waits for one, and what happens when one is lost.

This is the handler of the plane: it is called when a session wants something, when a client or
a link has gone. Everything here runs on the loop, one callback or task step at a time; between
two awaits nothing changes behind its back, and after each await it looks again whether the
client is still there, and whether the upstream is still the same.

A shared link that is lost is connected again by one task per identity, with jittered backoff.
For `patience` seconds commands wait for it; after that they get an error at once, until it is
back. An open circuit breaker is the end of patience, too.

The upstream may be another one from one moment to the next (`switch`). Every connection is made
to the upstream of that moment, and thrown away if it is another one by the time it is ready.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, TypeVar

import structlog

from sidecar.policy.backoff import Backoff
from sidecar.policy.breaker import Breaker, State
from sidecar.proxy.io import client as stalls
from sidecar.proxy.io.client import PINNED_MODE, Client
from sidecar.proxy.io.plane import Plane
from sidecar.proxy.io.upstream import NOT_MASTER, Upstream
from sidecar.proxy.links.dedicated import DedicatedLinks
from sidecar.proxy.links.errors import NotMaster, Refused, Unreachable, unavailable
from sidecar.proxy.links.greeting import Greeted, Login, ServerConnection, Target
from sidecar.proxy.links.identity import Identity, Key
from sidecar.proxy.links.maintenance import LinkMaintenance
from sidecar.proxy.nearcache.hot_keys import HotKeyDetector
from sidecar.proxy.nearcache.keeper import NearCacheKeeper
from sidecar.proxy.session.audit_trail import AuditTrail
from sidecar.proxy.session.commands import SessionCommands
from sidecar.proxy.span_recorder import SpanRecorder
from sidecar.settings.schema import Settings

log = structlog.get_logger()

# How long a link must have been silent for its last reply to have come, and the longest wait.
QUIET = 0.25
QUIET_AT_LATEST = 5.0
# Connections being made at once: after a switch they come back a few at a time.
OPENING = 8

T = TypeVar("T")

TOO_MUCH_HELD = unavailable(
    "there is no master, and too much is waiting for one already (failover.hold_bytes)"
)


async def _nothing() -> None:
    """Nobody wants to know."""


class Pool:
    """All upstream links of one sidecar."""

    def __init__(
        self, settings: Settings, target: Target | None, login: Login, version: str
    ) -> None:
        self.settings = settings
        self.target = target
        self.follows = target is None
        self.login = login
        self.version = version.encode()
        self.identities: dict[Key, Identity] = {}
        self.backoff = Backoff(settings.upstream.backoff_min, settings.upstream.backoff_max)
        self.patience = settings.failover.hold if self.follows else settings.upstream.wait
        self.breaker = Breaker(
            settings.breaker.failures,
            settings.breaker.window,
            self.patience,
            settings.breaker.open_for,
            settings.breaker.open_max,
        )
        self.reconnects = 0
        self.held_bytes = 0
        self._holding: set[Client] = set()
        self.own_ids: set[int] = set()  # the server's, of connections that are no links
        self.closing = False
        self.no_master = "no master is known yet"
        self._last_failure = ""
        self.plane: Plane
        self.commands: SessionCommands
        self.default: Identity
        self.dedicated = DedicatedLinks(self)
        self.maintenance = LinkMaintenance(self)
        self.near: NearCacheKeeper | None = None
        self.hot: HotKeyDetector | None = None
        self.audit: AuditTrail | None = None
        if settings.hotkeys.enabled:
            self.hot = HotKeyDetector(self, settings.hotkeys)
        if settings.cache.mode != "off" and settings.upstream.pooling == "shared":
            self.near = NearCacheKeeper(self, settings.cache, random.getrandbits(64))
        self.tracing = SpanRecorder.of(self, settings.tracing)
        self._opening = asyncio.Semaphore(OPENING)
        self._attempts: set[asyncio.Timeout] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.on_default_up: Callable[[], Coroutine[Any, Any, None]] = _nothing
        self.on_client_closed: Callable[[Client], None] = lambda client: None
        self.on_master_up: Callable[[], None] = lambda: None
        self.on_master_down: Callable[[], None] = lambda: None
        self.on_not_master: Callable[[Target, NotMaster], None] = lambda target, error: None

    def begin(self, plane: Plane, setinfo_known: Callable[[], bool]) -> None:
        """The plane exists now; the default identity's link begins to connect."""
        self.plane = plane
        self.commands = SessionCommands(self, setinfo_known)
        if self.hot is not None:
            self.hot.begin()
        if self.near is not None:
            self.near.begin()
        if self.tracing is not None:
            self.tracing.begin()
        self.default = self.identity(self.login, own_login=False)
        self.spawn(self.maintenance.run())

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something beside; its errors are logged, and it ends when the pool closes."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("internal error", error=repr(error), exc_info=error)

    # Identities

    def identity(self, login: Login, *, own_login: bool) -> Identity:
        """The identity of a login, made if it is new; a proven password replaces the old one."""
        key = (login.proto, login.user, login.db)
        found = self.identities.get(key)
        if found is None:
            found = Identity(login, own_login)
            found.link = Upstream(self.plane, found, True)
            found.unused_since = time.monotonic()
            found.spare = self.settings.upstream.pool_spare
            self.identities[key] = found
        elif own_login:
            found.learn(login.password)
        return found

    def join(self, client: Client, identity: Identity) -> None:
        """Make a client one of this identity's. It must have nothing outstanding."""
        old: Identity | None = client.identity
        if old is not None:
            self._leave(client, old)
        client.identity = identity
        identity.clients.add(client)
        identity.unused_since = None
        client.use_shared(identity.link)
        if self.tracing is not None:
            self.tracing.join(client, identity.login.db)
        if self.hot is not None:
            self.hot.join(client, identity)
        if self.near is not None:
            self.near.join(client, identity)
        self.dedicated.refill(identity)
        greeted = identity.greeted
        client.set_authenticated(greeted is None or not greeted.unauthenticated)

    def _leave(self, client: Client, identity: Identity) -> None:
        identity.clients.discard(client)
        identity.waiting.discard(client)
        if not identity.clients:
            identity.unused_since = time.monotonic()

    def connect(self, identity: Identity) -> None:
        """See that the identity's shared link is up, or being connected."""
        if not identity.connecting and not identity.link.up and not self.closing:
            identity.connecting = True
            self.spawn(self._connect(identity))

    async def _connect(self, identity: Identity) -> None:
        deadline = time.monotonic() + self.patience
        attempt = 0
        try:
            while not self.closing and self.identities.get(identity.key) is identity:
                identity.retry.clear()
                try:
                    connection = await self.open(identity)
                except (Refused, Unreachable) as error:
                    self._failed(identity, error, deadline)
                else:
                    self.attach(identity.link, connection, identity)
                    self._wake(identity)
                    return
                if not identity.clients and identity is not self.default:
                    self.forget(identity)
                    return
                await self._pause(identity, attempt, deadline)
                attempt += 1
        finally:
            identity.connecting = False

    async def _pause(self, identity: Identity, attempt: int, deadline: float) -> None:
        """Wait before the next attempt, but not beyond the moment that something is to be said."""
        now = time.monotonic()
        pause = self.backoff.delay(attempt, random.random())
        if self.breaker.state is not State.CLOSED:
            pause = max(pause, self.breaker.retry_at - now)
        elif deadline > now:
            pause = min(pause, deadline - now)
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await identity.retry.wait()

    def _failed(self, identity: Identity, error: Exception, deadline: float) -> None:
        """An attempt failed: say so to those who wait, if waiting is over."""
        if isinstance(error, Refused):
            if identity.link.refuse(error.reply) and identity.clients:
                log.warning("upstream refused", upstream=self.where, error=str(error))
            if identity.own_login:
                for client in list(identity.clients):
                    client.finish()
        elif time.monotonic() >= deadline or self.given_up:
            if identity.link.refuse(unavailable(str(error))):
                log.error("upstream is down", error=str(error))
        else:
            return
        self._wake(identity)

    @property
    def where(self) -> str:
        """The upstream's address, for messages."""
        return str(self.target) if self.target is not None else "unknown"

    @property
    def given_up(self) -> bool:
        """Whether commands get an error at once, since the upstream keeps failing."""
        return self.breaker.state is not State.CLOSED

    def is_current(self, up: Upstream) -> bool:
        """Whether a link leads to the upstream of now."""
        return up.target is self.target

    @asynccontextmanager
    async def _until_switched(self) -> AsyncIterator[None]:
        """What is waited for in here is given up when the upstream becomes another: Unreachable.

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

    async def patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Repeat what may raise Unreachable, for as long as commands may wait for an upstream."""
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

    async def reach(self) -> ServerConnection:
        """A new connection to the upstream, not yet greeted, as soon as there is one.

        Raises Unreachable when commands may wait no longer. It is no probe for the breaker: what
        becomes of the connection is the caller's business.
        """
        return await self.patiently(self._reach_unless_given_up)

    async def _reach_unless_given_up(self) -> ServerConnection:
        if self.given_up:
            raise self._broken()
        return await self._reach()

    def _broken(self) -> Unreachable:
        return Unreachable(f"{self._last_failure} (circuit breaker open)")

    async def _reach(self) -> ServerConnection:
        """Connect, in its turn. The breaker is asked first and told of a failure; Unreachable."""
        target = self.target
        if target is None:
            raise Unreachable(self.no_master)
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
        self._must_be_current(connection)
        return connection

    def _must_be_current(self, connection: ServerConnection) -> None:
        if connection.target is not self.target:
            connection.close()
            raise Unreachable(f"the master is {self.where} now, not {connection.target}")

    def _count_failure(self, target: Target, error: Unreachable) -> None:
        if target is not self.target:
            return
        self._last_failure = str(error)
        before = self.breaker.state
        self.breaker.failed(time.monotonic())
        self._note_breaker(before)

    def _note_breaker(self, before: State) -> None:
        """Log that it has opened or closed; a probe that failed is no news."""
        after = self.breaker.state
        if after is State.OPEN and before is State.CLOSED:
            log.warning("circuit breaker open", upstream=self.where)
        elif after is State.CLOSED and before is not State.CLOSED:
            log.info("circuit breaker closed", upstream=self.where)

    async def open(self, identity: Identity) -> ServerConnection:
        """A new connection, greeted as this identity. Raises Refused or Unreachable.

        Where the upstream's master may change, the server must have said that it is the master.
        """
        connection, identity.greeted = await self._open_as(identity.login)
        return connection

    async def _open_as(self, login: Login) -> tuple[ServerConnection, Greeted]:
        connection = await self._reach()
        try:
            async with self._until_switched():
                greeted = await connection.greet(login, self.version, as_master=self.follows)
        except Refused:
            self._count_success()
            raise
        except Unreachable as error:
            self._count_failure(connection.target, error)
            if isinstance(error, NotMaster) and connection.target is self.target:
                self.on_not_master(connection.target, error)
            if self.given_up:
                raise self._broken() from error
            raise
        except BaseException:
            self.breaker.abandoned(time.monotonic())
            raise
        self._must_be_current(connection)
        self._count_success()
        return connection, greeted

    def _count_success(self) -> None:
        before = self.breaker.state
        self.breaker.connected(time.monotonic())
        self._note_breaker(before)

    def attach(self, up: Upstream, connection: ServerConnection, identity: Identity) -> None:
        """Hand a greeted connection to a link."""
        hello = identity.greeted.hello if identity.greeted else None
        up.target = connection.target
        if self.tracing is not None:
            self.tracing.attached(up, connection.target, connection.sock)
        up.attach(connection.sock, connection.tls, hello, self.commands.server_id(hello))
        if up.shared:
            known = identity.greeted is not None and not identity.greeted.unauthenticated
            for client in identity.clients:
                client.set_authenticated(known)
            if identity is self.default:
                self.on_master_up()
                self.spawn(self.on_default_up())

    def renew(self, target: Target) -> None:
        """The same server, to be connected to in another way; links that are there stay."""
        for up in self.plane.upstreams:
            if up.target is self.target:
                up.target = target
        self.target = target
        self.breaker.abandoned(time.monotonic())  # what is under way is to the target of before

    def switch(self, target: Target) -> None:
        """The upstream is another server from now on: every link to the old one ends.

        What was never sent, and reads, will be sent to the new one; see core/link/recovery.pyx for
        the
        rest. Clients with a link of their own lose it, with an error for what is under way.
        """
        self.target = target
        self.breaker.reset()
        if self.near is not None:
            self.near.reset("the master has changed")
        attempts, self._attempts = self._attempts, set()
        for limit in attempts:
            limit.reschedule(asyncio.get_running_loop().time())
        for identity in list(self.identities.values()):
            while identity.idle:
                identity.idle.pop().close()
            # The link first: what the retired ones move to it must wait for the new server.
            for up in (identity.link, *identity.retired):
                up.break_off("the master has changed")
            identity.retry.set()
        for up in list(self.plane.upstreams):
            up.break_off("the master has changed")
        self.connect(self.default)

    def _wake(self, identity: Identity) -> None:
        arrivals, identity.arrivals = identity.arrivals, []
        for arrival in arrivals:
            if not arrival.done():
                arrival.set_result(None)
        waiting, identity.waiting = identity.waiting, set()
        for client in waiting:
            if not client.closed:
                client.resume()

    async def bring_up(self, identity: Identity) -> bytes | None:
        """Wait until the identity's link is up; the error reply when it will not be."""
        if not identity.link.up and not (identity.connecting and identity.link.refusing):
            arrival: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            identity.arrivals.append(arrival)
            self.connect(identity)
            await arrival
        return None if identity.link.up else identity.link.refusal

    async def adopt(
        self, connection: ServerConnection, login: Login
    ) -> tuple[Identity, bytes | None]:
        """A connection on which the server has accepted this login: make it the identity's.

        Gives the identity, and the server's error if the login can't go on where the client was.
        When the master changes meanwhile, the login is proved to the new one. Raises Unreachable.
        """
        try:
            try:
                greeted = await connection.greet(
                    replace(login, user=None), self.version, as_master=self.follows
                )
                self._must_be_current(connection)
            except Unreachable:
                connection, greeted = await self.patiently(lambda: self._open_as(login))
        except Refused as error:
            return self.default, error.reply
        identity = self.identity(login, own_login=True)
        identity.greeted = greeted
        up = identity.link
        if up.up:
            up = Upstream(self.plane, identity, False)
        self.attach(up, connection, identity)
        if up.shared:
            self._wake(identity)
        else:
            up.idle_since = time.monotonic()
            identity.idle.append(up)
        return identity, None

    def forget(self, identity: Identity) -> None:
        """Nobody uses this identity any more."""
        self.identities.pop(identity.key, None)
        self.maintenance.forget(identity.link)
        identity.close()

    def count_held(self) -> None:
        """Add up the bytes of requests that wait for an upstream."""
        self._holding = set()
        if self.plane.writes_held or any(i.waiting for i in self.identities.values()):
            self._holding.update(self.plane.held_clients)
            for identity in self.identities.values():
                self._holding |= identity.waiting
        self.held_bytes = sum(client.unparsed for client in self._holding)
        if self._holding:
            links = [identity.link for identity in self.identities.values()]
            self.held_bytes += sum(link.retained for link in links if not link.up)

    def may_hold(self, client: Client) -> bool:
        """Whether this client's requests may wait (`failover.hold_bytes`).

        One that waits already, for writes to be let go, may go on waiting for a link.
        """
        if client in self._holding:
            return True
        held = self.held_bytes + client.unparsed
        if held > self.settings.failover.hold_bytes:
            return False
        self.held_bytes = held
        self._holding.add(client)
        return True

    # What the plane calls

    def stalled(self, client: Client, stall: int) -> None:
        """A session can't go on by itself."""
        if stall == stalls.SESSION_COMMAND:
            self.commands.run(client)
        elif stall == stalls.LINK:
            self._link_for(client, client.identity)
        elif stall == stalls.HELD:
            self._refuse_held(client)
        elif stall == stalls.WAIT_COMMAND:
            client.task = self.spawn(self.dedicated.wait(client))
        else:
            self.dedicated.give_one(
                client, pinned=stall == stalls.PIN, tainted=stall == stalls.ONCE
            )

    def _link_for(self, client: Client, identity: Identity) -> None:
        if not client.is_on(identity.link):
            client.use_shared(identity.link)
            client.resume()
        elif not self.may_hold(client):
            client.refuse(TOO_MUCH_HELD)
        else:
            identity.waiting.add(client)
            self.connect(identity)

    @staticmethod
    def _refuse_held(client: Client) -> None:
        """Too much waits already for one more write: an error, where there is room for one."""
        if client.mode == PINNED_MODE:
            # Replies may be due before it, which nobody counts here.
            client.close("held")
        elif client.in_transaction or client.head() is None:
            # A transaction must not go on without it; the rest of a large request, still to come,
            # must not be taken for requests.
            client.refuse_last(TOO_MUCH_HELD)
        else:
            client.refuse(TOO_MUCH_HELD)

    def client_closed(self, client: Client) -> None:
        """A client has gone."""
        if client.task is not None:
            client.task.cancel()
            client.task = None
        self._leave(client, client.identity)
        if self.near is not None:
            self.near.forget(client)
        self.on_client_closed(client)

    def upstream_lost(self, up: Upstream, reason: str) -> None:
        """A link was lost without our doing."""
        identity: Identity = up.identity
        if not up.shared or self.closing:
            return
        if up is not identity.link:
            if identity.link.refusing:
                up.refuse(unavailable(f"upstream {self.where}: {reason}"))
            else:
                up.move_to(identity.link)
        else:
            self.reconnects += 1
            log.warning("upstream link lost", upstream=str(up.target), reason=reason)
            if identity is self.default and up.target is self.target:
                self._last_failure = f"upstream {self.where}: {reason}"
                before = self.breaker.state
                self.breaker.lost(time.monotonic())
                self._note_breaker(before)
        if self.near is not None:
            self.near.reset("a connection to the server was lost")
        if self.is_current(up) and (identity is self.default or reason == NOT_MASTER):
            self.on_master_down()
        if identity.clients or identity is self.default:
            self.connect(identity)

    def released(self, client: Client, up: Upstream) -> None:
        """A client needs its dedicated link no more."""
        client.use_shared(client.identity.link)
        self.dedicated.take_back(client, up)

    def end_when_quiet(self, client: Client) -> None:
        """A client with a link for good sends no more, and the server can't be told."""
        self.spawn(self._end_when_quiet(client))

    async def _end_when_quiet(self, client: Client) -> None:
        received, since = client.pinned_bytes, time.monotonic()
        deadline = since + QUIET_AT_LATEST
        while not client.closed and since + QUIET > time.monotonic() < deadline:
            await asyncio.sleep(QUIET / 5)
            if client.pinned_bytes != received:
                received, since = client.pinned_bytes, time.monotonic()
        client.finish()

    def was_reset(self, client: Client) -> None:
        """The server has answered a pinned client's RESET."""
        self.commands.forget(client)
        client.resume()

    def audited(self, client: Client | None, kind: str, command: str, second: bytes) -> None:
        """A command was passed on, or refused, that the audit stream records."""
        if self.audit is not None:
            self.audit.noted(client, kind, command, second)

    def failed(self, connection: Client | Upstream, error: Exception) -> None:
        """Serving a connection raised an error: ours, so it is logged, and the connection ends."""
        log.error("internal error", error=repr(error), exc_info=error)
        if isinstance(connection, Upstream):
            connection.break_off("an internal error")
        else:
            connection.close("error")

    async def close(self) -> None:
        """Close every link and end every task."""
        self.closing = True
        if self.near is not None:
            await self.near.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for up in list(self.plane.upstreams):
            up.close()
        if self.tracing is not None:
            await self.tracing.close()
