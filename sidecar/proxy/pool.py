"""Links for sessions: which exist, who waits for one, and what happens when one is lost.

This is the handler of the plane: it is called when a session wants something, when a client or
a link has gone. Everything here runs on the loop, one callback or task step at a time; between
two awaits nothing changes behind its back, and after each await it looks again whether the
client is still there.

A shared link that is lost is connected again by one task per identity, with jittered backoff.
For `upstream.wait` seconds commands wait for it; after that they get an error at once, until it
is back.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import structlog
from hiredis import pack_command

from sidecar.config import Settings
from sidecar.policy.backoff import Backoff
from sidecar.proxy import plane as planes
from sidecar.proxy.errors import Refused, Unreachable, reply_for, unavailable
from sidecar.proxy.greeting import Login, Talk, Target, is_error
from sidecar.proxy.identity import Identity, Key
from sidecar.proxy.local import LocalCommands
from sidecar.proxy.plane import Client, Plane, Upstream

log = structlog.get_logger()

# Written to nobody: it moves the replication offset that a WAIT on the same connection is about.
WAIT_CHANNEL = b"__redis-sidecar__:wait"
UNUSED_IDENTITY = 60.0
# How often links are looked after, and after how much silence others are led past one.
TICK = 0.05
STALLED = 0.1
# A server that is busy as a whole holds up every link: more of them would not help.
MAX_RETIRED = 2


async def _nothing() -> None:
    """Nobody wants to know."""


class Pool:
    """All upstream links of one sidecar."""

    def __init__(self, settings: Settings, target: Target, login: Login, version: str) -> None:
        self.settings = settings
        self.target = target
        self.login = login
        self.version = version.encode()
        self.identities: dict[Key, Identity] = {}
        self.backoff = Backoff(settings.upstream.backoff_min, settings.upstream.backoff_max)
        self.reconnects = 0
        self.closing = False
        self.plane: Plane
        self.local: LocalCommands
        self.default: Identity
        self._tasks: set[asyncio.Task[None]] = set()
        self._silent: dict[Upstream, tuple[int, float]] = {}
        self.on_default_up: Callable[[], Coroutine[Any, Any, None]] = _nothing
        self.on_client_closed: Callable[[Client], None] = lambda client: None

    def begin(self, plane: Plane, setinfo_known: Callable[[], bool]) -> None:
        """The plane exists now; the default identity's link begins to connect."""
        self.plane = plane
        self.local = LocalCommands(self, setinfo_known)
        self.default = self.identity(self.login, own_login=False)
        self.spawn(self._housekeeping())

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
        self._refill(identity)
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
        deadline = time.monotonic() + self.settings.upstream.wait
        attempt = 0
        try:
            while not self.closing and self.identities.get(identity.key) is identity:
                try:
                    talk = await self.open(identity)
                except (Refused, Unreachable) as error:
                    self._failed(identity, error, deadline)
                else:
                    self._attach(identity.link, talk, identity)
                    self._wake(identity)
                    return
                if not identity.clients and identity is not self.default:
                    self._forget(identity)
                    return
                pause = self.backoff.delay(attempt, random.random())
                left = deadline - time.monotonic()
                attempt += 1
                await asyncio.sleep(min(pause, left) if left > 0 else pause)
        finally:
            identity.connecting = False

    def _failed(self, identity: Identity, error: Exception, deadline: float) -> None:
        """An attempt failed: say so to those who wait, if waiting is over."""
        if isinstance(error, Refused):
            if identity.link.refuse(error.reply) and identity.clients:
                log.warning("upstream refused", upstream=str(self.target), error=str(error))
            if identity.own_login:
                for client in list(identity.clients):
                    client.finish()
        elif time.monotonic() >= deadline:
            if identity.link.refuse(unavailable(str(error))):
                log.error("upstream is down", error=str(error))
        else:
            return
        self._wake(identity)

    async def open(self, identity: Identity) -> Talk:
        """A new connection, greeted as this identity. Raises Refused or Unreachable."""
        talk = await Talk.open(self.target)
        identity.greeted = await talk.greet(identity.login, self.version)
        return talk

    def _attach(self, up: Upstream, talk: Talk, identity: Identity) -> None:
        hello = identity.greeted.hello if identity.greeted else None
        up.attach(talk.sock, talk.tls, hello, self.local.server_id(hello))
        if up.shared:
            known = identity.greeted is not None and not identity.greeted.unauthenticated
            for client in identity.clients:
                client.set_authenticated(known)
            if identity is self.default:
                self.spawn(self.on_default_up())

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

    async def adopt(self, talk: Talk, login: Login) -> tuple[Identity, bytes | None]:
        """A connection on which the server has accepted this login: make it the identity's.

        Gives the identity, and the server's error if the login can't go on where the client was.
        """
        try:
            greeted = await talk.greet(replace(login, user=None), self.version)
        except Refused as error:
            return self.default, error.reply
        identity = self.identity(login, own_login=True)
        identity.greeted = greeted
        up = identity.link
        if up.up:
            up = Upstream(self.plane, identity, False)
        self._attach(up, talk, identity)
        if up.shared:
            self._wake(identity)
        else:
            up.idle_since = time.monotonic()
            identity.idle.append(up)
        return identity, None

    def _forget(self, identity: Identity) -> None:
        self.identities.pop(identity.key, None)
        self._silent.pop(identity.link, None)
        identity.close()

    # What the plane calls

    def wanted(self, client: Client, want: int) -> None:
        """A session can't go on by itself."""
        if want == planes.LOCAL:
            self.local.run(client)
        elif want == planes.LINK:
            self._link_for(client, client.identity)
        elif want == planes.WAIT:
            client.task = self.spawn(self._wait(client))
        else:
            self.dedicate(client, pinned=want == planes.PIN, spoilt=want == planes.ONCE)

    def _link_for(self, client: Client, identity: Identity) -> None:
        if not client.is_on(identity.link):
            client.use_shared(identity.link)
            client.resume()
        else:
            identity.waiting.add(client)
            self.connect(identity)

    def client_closed(self, client: Client) -> None:
        """A client has gone."""
        if client.task is not None:
            client.task.cancel()
            client.task = None
        self._leave(client, client.identity)
        self.on_client_closed(client)

    def upstream_lost(self, up: Upstream, reason: str) -> None:
        """A link was lost without our doing."""
        identity: Identity = up.identity
        if not up.shared or self.closing:
            return
        if up is not identity.link:
            up.refuse(unavailable(f"upstream {self.target}: {reason}"))
            return
        self.reconnects += 1
        log.warning("upstream link lost", upstream=str(self.target), reason=reason)
        if identity.clients or identity is self.default:
            self.connect(identity)

    def released(self, client: Client, up: Upstream) -> None:
        """A client needs its dedicated link no more."""
        identity: Identity = up.identity
        client.use_shared(client.identity.link)
        if up.spoilt or self.closing or len(identity.idle) >= self.settings.upstream.pool_idle:
            up.close()
        elif up.up:
            up.idle_since = time.monotonic()
            identity.idle.append(up)

    def was_reset(self, client: Client) -> None:
        """The server has answered a pinned client's RESET."""
        self.local.forget(client)
        client.resume()

    def failed(self, connection: Client | Upstream, error: Exception) -> None:
        """Serving a connection raised an error: ours, so it is logged, and the connection ends."""
        log.error("internal error", error=repr(error), exc_info=error)
        if isinstance(connection, Upstream):
            connection.break_off("an internal error")
        else:
            connection.close("error")

    # Dedicated links

    def dedicate(self, client: Client, *, pinned: bool, spoilt: bool = False) -> None:
        """Give a client a link of its own: at once from the idle ones, or when one is open."""
        identity: Identity = client.identity
        up = identity.take_idle()
        if up is not None:
            self._give(client, up, pinned, spoilt)
        else:
            identity.spare = min(2 * self.settings.upstream.pool_spare, identity.spare + 1)
            client.task = self.spawn(self._dedicate(client, pinned, spoilt))
        self._refill(identity)

    def _refill(self, identity: Identity) -> None:
        """Keep some links ready, so that a SUBSCRIBE is on its way before the PUBLISH that another
        client sends next, as it would be on a connection that is already there."""
        if not identity.filling and self._lacks_spare(identity):
            identity.filling = True
            self.spawn(self._fill(identity))

    def _lacks_spare(self, identity: Identity) -> bool:
        wanted = min(identity.spare, self.settings.upstream.pool_idle)
        return bool(identity.clients) and len(identity.idle) < wanted

    async def _fill(self, identity: Identity) -> None:
        try:
            while identity.link.up and self._lacks_spare(identity):
                up = await self._open_dedicated(identity)
                up.idle_since = time.monotonic()
                identity.idle.appendleft(up)
        except (Refused, Unreachable):
            return
        finally:
            identity.filling = False

    async def _dedicate(self, client: Client, pinned: bool, spoilt: bool) -> None:
        up = await self._new_dedicated(client)
        if up is not None:
            client.task = None
            self._give(client, up, pinned, spoilt)

    async def _new_dedicated(self, client: Client) -> Upstream | None:
        """A new link for this client; None when it got an error instead, or has gone."""
        try:
            up = await self._open_dedicated(client.identity)
        except (Refused, Unreachable) as error:
            self._deny(client, reply_for(error))
            return None
        if client.closed:
            up.close()
            return None
        return up

    async def _open_dedicated(self, identity: Identity) -> Upstream:
        """A new dedicated link; tried for as long as commands may wait."""
        deadline = time.monotonic() + self.settings.upstream.wait
        attempt = 0
        while True:
            if len(self.plane.upstreams) >= self.settings.upstream.max_links:
                raise Unreachable("too many upstream links (upstream.max_links)")
            try:
                talk = await self.open(identity)
                break
            except Unreachable:
                if time.monotonic() >= deadline:
                    raise
            await asyncio.sleep(self.backoff.delay(attempt, random.random()))
            attempt += 1
        up = Upstream(self.plane, identity, False)
        self._attach(up, talk, identity)
        return up

    def _deny(self, client: Client, error: bytes) -> None:
        """The request at the head can't be served."""
        client.task = None
        if client.closed:
            return
        if client.head() is None:
            # The rest of a large request is still to come, and nobody will read it.
            client.say(error)
            client.finish()
        else:
            client.answer(error)

    def _give(self, client: Client, up: Upstream, pinned: bool, spoilt: bool) -> None:
        if pinned:
            for request in self.local.introduction(client):
                up.ask_first(request)
        client.use_dedicated(up, pinned, spoilt)

    async def pin(self, client: Client) -> None:
        """Give a client that is between commands a link of its own for good."""
        if not client.idle:
            return
        up = client.identity.take_idle()
        if up is None:
            try:
                up = await self._open_dedicated(client.identity)
            except (Refused, Unreachable):
                return
        if not client.closed and client.idle:
            self._give(client, up, True, True)
        else:
            up.close()

    async def _wait(self, client: Client) -> None:
        """WAIT is about this client's writes, which went down the shared link.

        A dedicated link knows nothing of them. A message to nobody moves that connection's
        replication offset past them; WAIT then means at least those writes. Where the user may
        not publish, WAIT goes down the shared link: right, but others wait with it.
        """
        identity: Identity = client.identity
        up = identity.take_idle()
        request = pack_command((b"PUBLISH", WAIT_CHANNEL, b""))
        if identity.wait_is_provable is None:
            try:
                talk = await self.open(identity)
                identity.wait_is_provable = not is_error((await talk.ask(request))[0])
                talk.close()
            except (Refused, Unreachable) as error:
                self._deny(client, reply_for(error))
                return
        if not identity.wait_is_provable:
            client.task = None
            client.forward()
            return
        if up is None or not up.up:
            up = await self._new_dedicated(client)
        if up is not None:
            client.task = None
            up.ask_first(request)
            client.use_dedicated(up)

    # Housekeeping

    async def _housekeeping(self) -> None:
        while not self.closing:
            await asyncio.sleep(TICK)
            now = time.monotonic()
            self._watch_silence(now)
            for identity in list(self.identities.values()):
                self._trim(identity, now)

    def _watch_silence(self, now: float) -> None:
        """Look for shared links that owe replies and say nothing.

        After STALLED seconds others are led past it: a paused write, a long script or a request
        the server holds back would make them wait for what is not theirs. After
        `upstream.silence_timeout` the link is given up.
        """
        limit = self.settings.upstream.silence_timeout
        for identity in list(self.identities.values()):
            for up in (identity.link, *identity.retired):
                if not up.up or not up.outstanding:
                    self._silent.pop(up, None)
                    continue
                received, since = self._silent.get(up, (-1, now))
                if received != up.received:
                    self._silent[up] = (up.received, now)
                elif limit and now - since >= limit:
                    self._silent.pop(up, None)
                    up.break_off(f"it owes {up.outstanding} replies and was silent for {limit:g} s")
                elif now - since >= STALLED and up is identity.link and not identity.diverting:
                    self._divert(identity)

    def _divert(self, identity: Identity) -> None:
        """Lead clients past the identity's link, unless that has just been done."""
        if len(identity.retired) < MAX_RETIRED and not self.closing:
            identity.diverting = True
            self.spawn(self._replace_link(identity))

    async def _replace_link(self, identity: Identity) -> None:
        """A second shared link in the place of one that is held up."""
        try:
            talk = await self.open(identity)
        except (Refused, Unreachable):
            return
        finally:
            identity.diverting = False
        old = identity.link
        if self.closing or not old.up or old not in self._silent:
            talk.close()
            return
        up = Upstream(self.plane, identity, True)
        identity.link = up
        identity.retired.append(old)
        self._attach(up, talk, identity)
        old.divert_to(up)
        log.info("led clients past a link that is held up", outstanding=old.outstanding)

    def _trim(self, identity: Identity, now: float) -> None:
        settings = self.settings.upstream
        for up in [up for up in identity.retired if not up.outstanding]:
            identity.retired.remove(up)
            up.close()
        while identity.idle and not identity.idle[0].up:
            identity.idle.popleft()
        if identity.link.up:
            self._refill(identity)
        if identity.idle and now - identity.idle[0].idle_since > settings.pool_idle_timeout:
            # Not needed for that long: fewer will do.
            identity.spare = max(self.settings.upstream.pool_spare, identity.spare - 1)
            if len(identity.idle) > identity.spare:
                identity.idle.popleft().close()
        unused = identity.unused_since
        if (
            identity is not self.default
            and unused is not None
            and now - unused > UNUSED_IDENTITY
            and not identity.clients
            and not identity.link.outstanding
        ):
            self._forget(identity)

    async def close(self) -> None:
        """Close every link and end every task."""
        self.closing = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for up in list(self.plane.upstreams):
            up.close()
