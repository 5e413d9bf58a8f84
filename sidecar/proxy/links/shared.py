"""Shared links: connecting them, connecting them again, and who waits for one.

The shared link of an identity to a node is connected by one task at a time, with jittered backoff.
For as long as the dialer is patient, commands wait for it; after that they get an error at once,
until it is back. An open circuit breaker is the end of patience, too. A link that was there and is
lost is connected again at once, however often that happens; only when one is cut again and again
just after it has come up are there short pauses, so that nobody spins.

Everything here runs on the loop, one callback or task step at a time; between two awaits nothing
changes behind its back. After each await it looks again whether the links are still needed.

Knows links and the clients that wait for them; nothing of commands, sessions or the near cache.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import structlog

from sidecar.proxy.io.client import Client
from sidecar.proxy.io.upstream import NOT_MASTER, Upstream
from sidecar.proxy.links.errors import Refused, Unreachable, unavailable
from sidecar.proxy.links.greeting import Login, ServerConnection
from sidecar.proxy.links.identity import Identities, NodeLinks
from sidecar.proxy.links.node import Node
from sidecar.proxy.tasks import Tasks

log = structlog.get_logger()

# A link that lives shorter than SOON was cut short; after so many of them in a row there are
# pauses of at most REST seconds, well below what commands wait: they see a delay and no error.
SOON = 1.0
CUTS_AT_ONCE = 3
REST = 0.25


class SharedLinks:
    """The shared links of all identities. `distrust` is told, with the reason, when a connection
    was lost: what has been read from that server may not count any more."""

    def __init__(
        self, identities: Identities, tasks: Tasks, distrust: Callable[[str], None]
    ) -> None:
        self._identities = identities
        self._tasks = tasks
        self._distrust = distrust
        self.reconnects = 0

    # Connecting

    def connect(self, links: NodeLinks) -> None:
        """See that the shared link is up, or being connected."""
        if not links.connecting and not links.shared.up and not self._tasks.closing:
            links.connecting = True
            self._tasks.spawn(self._connect(links))

    async def _connect(self, links: NodeLinks) -> None:
        identity, dialer = links.identity, links.node.dialer
        deadline = time.monotonic() + dialer.patience
        attempt = 0
        try:
            if links.cut_short >= CUTS_AT_ONCE:
                attempts = links.cut_short - CUTS_AT_ONCE
                await self._pause(links, min(REST, dialer.pause(attempts, deadline)))
            while not self._tasks.closing and identity in self._identities:
                links.retry.clear()
                try:
                    connection = await links.open()
                except (Refused, Unreachable) as error:
                    self._failed(links, error, deadline)
                else:
                    self.attach(links, links.shared, connection)
                    self._wake(links)
                    return
                if not self._needed(links):
                    self._identities.forget(identity)
                    return
                await self._pause(links, dialer.pause(attempt, deadline))
                attempt += 1
        finally:
            links.connecting = False

    @staticmethod
    async def _pause(links: NodeLinks, seconds: float) -> None:
        """Wait before an attempt, unless there is another server to try meanwhile."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await links.retry.wait()

    def _needed(self, links: NodeLinks) -> bool:
        return bool(links.identity.clients) or self._is_own(links)

    def _is_own(self, links: NodeLinks) -> bool:
        """Whether they are the sidecar's own: of the identity that clients begin as."""
        return links.identity is self._identities.default

    def _failed(self, links: NodeLinks, error: Exception, deadline: float) -> None:
        """An attempt failed: say so to those who wait, if waiting is over."""
        identity, dialer = links.identity, links.node.dialer
        if isinstance(error, Refused):
            if links.shared.refuse(error.reply) and identity.clients:
                log.warning("upstream refused", upstream=dialer.where, error=str(error))
            if identity.own_login:
                for client in list(identity.clients):
                    client.finish()
        elif time.monotonic() >= deadline or dialer.given_up:
            if links.shared.refuse(unavailable(str(error))):
                log.error("upstream is down", error=str(error))
        else:
            return
        self._wake(links)

    def attach(self, links: NodeLinks, up: Upstream, connection: ServerConnection) -> None:
        """Hand a greeted connection to a shared link."""
        links.attach(up, connection)
        links.up_since = time.monotonic()
        for client in links.identity.clients:
            client.set_authenticated(links.authenticated)
        if self._is_own(links):
            links.node.say_up()

    # Waiting

    def wait(self, client: Client, links: NodeLinks) -> None:
        """Let a client go on when the shared link is up, or refuses."""
        links.waiting.add(client)
        self.connect(links)

    async def bring_up(self, links: NodeLinks) -> bytes | None:
        """Wait until the shared link is up; the error reply when it will not be."""
        up = links.shared
        if not up.up and not (links.connecting and up.refusing):
            arrival: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            links.arrivals.append(arrival)
            self.connect(links)
            await arrival
        return None if links.shared.up else links.shared.refusal

    @staticmethod
    def _wake(links: NodeLinks) -> None:
        arrivals, links.arrivals = links.arrivals, []
        for arrival in arrivals:
            if not arrival.done():
                arrival.set_result(None)
        waiting, links.waiting = links.waiting, set()
        for client in waiting:
            if not client.closed:
                client.resume()

    # Taking over what somebody else has opened

    async def adopt(
        self, connection: ServerConnection, login: Login, node: Node
    ) -> NodeLinks | bytes:
        """A connection on which the server has accepted this login: make it one of its identity's.

        Gives the identity's links, or the server's error if the login can't go on where the client
        was. When the server changes meanwhile, the login is proved to the new one. Raises
        Unreachable.
        """
        dialer = node.dialer
        try:
            try:
                greeted = await dialer.greet(connection, replace(login, user=None))
                dialer.must_be_current(connection)
            except Unreachable:
                connection, greeted = await dialer.patiently(lambda: dialer.open(login))
        except Refused as error:
            return error.reply
        links = self._identities.get(login, own_login=True).to(node)
        links.greeted = greeted
        if not links.shared.up:
            self.attach(links, links.shared, connection)
            self._wake(links)
        else:
            up = links.another(shared=False)
            links.attach(up, connection)
            up.idle_since = time.monotonic()
            links.idle.append(up)
        return links

    # Losing one

    def lost(self, up: Upstream, reason: str) -> None:
        """A link was lost without our doing; what it carried is the core's to settle."""
        links: NodeLinks = up.owner
        if not up.shared or self._tasks.closing:
            return
        if up is links.shared:
            self._lost_in_use(links, reason)
        elif links.shared.refusing:
            up.refuse(unavailable(f"upstream {links.node.dialer.where}: {reason}"))
        else:
            up.move_to(links.shared)
        self._distrust("a connection to the server was lost")
        if links.leads_here(up) and (self._is_own(links) or reason == NOT_MASTER):
            links.node.say_down()
        if self._needed(links):
            self.connect(links)

    def _lost_in_use(self, links: NodeLinks, reason: str) -> None:
        self.reconnects += 1
        soon = time.monotonic() - links.up_since < SOON
        links.cut_short = links.cut_short + 1 if soon else 0
        log.warning("upstream link lost", upstream=str(links.shared.target), reason=reason)
        if self._is_own(links) and links.leads_here(links.shared):
            links.node.dialer.lost(reason)
