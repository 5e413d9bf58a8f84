"""Shared links: connects them, reconnects lost ones, and wakes the clients that wait.

One task at a time connects the shared link of an identity to a node, with jittered backoff.
Commands wait for it for as long as the dialer is patient; after that, or once the breaker opens,
they get an error at once until the link is up. A lost link is reconnected at once, however often
that happens. Only if it is cut again and again just after it came up, there are short pauses.

Everything runs on the loop, so nothing changes between two awaits. After each await, the code
checks again whether the links are still needed.

Knows links and the clients that wait for them; knows no commands and no near cache.
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
from sidecar.proxy.links.greeting import Login, ServerConnection, is_error
from sidecar.proxy.links.identity import Identities, NodeLinks
from sidecar.proxy.links.node import Node
from sidecar.proxy.links.outage import Outage
from sidecar.proxy.tasks import Tasks

log = structlog.get_logger()

# A link that lives shorter than SOON was cut short; after so many of them in a row there are
# pauses of at most REST seconds, well below what commands wait: they see a delay and no error.
SOON = 1.0
CUTS_AT_ONCE = 3
REST = 0.25


class SharedLinks:
    """The shared links of all identities. `distrust` is called with the node and the reason when a
    connection was lost, because values read from that server may be out of date. `pool_idle` is the
    most idle dedicated links of an identity; `errors` counts the error replies that the sidecar has
    made."""

    def __init__(
        self,
        identities: Identities,
        tasks: Tasks,
        distrust: Callable[[Node, str], None],
        pool_idle: int,
        errors: Callable[[], int],
    ) -> None:
        self._identities = identities
        self._tasks = tasks
        self._distrust = distrust
        self.pool_idle = pool_idle
        self.reconnects = 0
        self._outage = Outage(errors)

    # Connecting

    def connect(self, links: NodeLinks) -> None:
        """Connect the shared link, unless it is up or being connected."""
        if not links.connecting and not links.shared.up and not self._tasks.closing:
            links.connecting = True
            links.connecting_since = time.monotonic()
            self._tasks.spawn(self._connect(links))

    async def _connect(self, links: NodeLinks) -> None:
        identity, dialer = links.identity, links.node.dialer
        began = time.monotonic()
        patience = dialer.wait(lambda: self._out_of_patience(links))
        links.failure = ""
        attempt = 0
        try:
            if links.cut_short >= CUTS_AT_ONCE:
                attempts = links.cut_short - CUTS_AT_ONCE
                await self._pause(links, min(REST, dialer.pause(attempts, began + dialer.patience)))
            while not self._tasks.closing and identity in self._identities and not links.gone:
                links.retry.clear()
                login = links.login_in_use = identity.login
                try:
                    connection = await links.open(urgent=self._is_own(links))
                except (Refused, Unreachable) as error:
                    if links.shared.up:
                        return  # a client's login has brought a connection meanwhile
                    if isinstance(error, Refused) and identity.login is not login:
                        continue
                    self._failed(links, error, began + dialer.patience)
                else:
                    if links.shared.up:
                        connection.close()
                        return
                    self.take(links, connection)
                    return
                if links.gone:
                    return
                if not self._needed(links):
                    self._identities.forget(identity)
                    return
                await self._pause(links, dialer.pause(attempt, began + dialer.patience))
                attempt += 1
        finally:
            patience.end()
            links.connecting = False
            if not self._tasks.closing:
                self._outage.over(links)

    @staticmethod
    async def _pause(links: NodeLinks, seconds: float) -> None:
        """Wait before an attempt, unless there is another server to try meanwhile."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await links.retry.wait()

    def _needed(self, links: NodeLinks) -> bool:
        wanted = bool(links.identity.clients or links.arrivals) or self._is_own(links)
        return wanted and not links.gone

    def _is_own(self, links: NodeLinks) -> bool:
        """Whether these are the sidecar's own links."""
        return links.identity is self._identities.default

    def _failed(self, links: NodeLinks, error: Exception, deadline: float) -> None:
        """An attempt failed. If waiting is over, those who wait get the error."""
        identity, dialer = links.identity, links.node.dialer
        if isinstance(error, Refused):
            if links.shared.refuse(error.reply) and identity.clients:
                log.warning("upstream greeting refused", upstream=dialer.where, error=str(error))
            if identity.own_login and identity.refused is None:
                waiting, links.waiting = links.waiting, set()
                for client in waiting:
                    if not client.closed:
                        client.refuse_last(error.reply)
                for client in list(identity.clients):
                    if client.unparsed and not client.outstanding:
                        client.refuse_last(error.reply)  # its command is held
                    else:
                        client.finish()
        elif time.monotonic() >= deadline or dialer.given_up:
            self._give_up(links, str(error))
            return
        else:
            links.failure = str(error)
            return
        self.wake(links)

    def _out_of_patience(self, links: NodeLinks) -> None:
        """Commands have waited long enough, whatever the attempt under way comes to."""
        dialer = links.node.dialer
        if not links.shared.refusing:
            silent = (
                dialer.unknown_because if dialer.target is None else str(dialer.outcomes.silent())
            )
            self._give_up(links, links.failure or silent)

    def _give_up(self, links: NodeLinks, why: str) -> None:
        if links.shared.refuse(unavailable(why)):
            self._outage.gave_up(links, why)
        self.wake(links)

    def broken(self, node: Node) -> None:
        """The breaker has opened: whoever waits for a link to this node is told at once, and every
        link that refuses already gives the same reason from now on."""
        why = str(node.dialer.outcomes.broken())
        for links in self._identities.links_to(node):
            if links.connecting and not links.shared.up:
                self._give_up(links, why)

    def attach(self, links: NodeLinks, up: Upstream, connection: ServerConnection) -> None:
        """Connect a shared link with a greeted connection."""
        links.attach(up, connection)
        links.up_since = time.monotonic()
        for client in links.identity.clients:
            client.set_authenticated(links.authenticated)
        if self._is_own(links):
            links.node.link_up()

    def take(self, links: NodeLinks, connection: ServerConnection) -> None:
        """Connect the shared link, which is not up, with this greeted connection."""
        self.attach(links, links.shared, connection)
        self.wake(links)

    # Waiting

    def wait(self, client: Client, links: NodeLinks) -> None:
        """Resume a client once the shared link is up, or answers with an error."""
        links.waiting.add(client)
        self.connect(links)

    async def bring_up(self, links: NodeLinks) -> bytes | None:
        """Wait until the shared link is up; returns the error reply if it does not come up."""
        up = links.shared
        refused = links.connecting and up.refusing and links.login_in_use is links.identity.login
        if not up.up and not refused:
            arrival: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            links.arrivals.append(arrival)
            self.connect(links)
            await arrival
        return None if links.shared.up else links.shared.refusal

    @staticmethod
    def wake(links: NodeLinks) -> None:
        """Resume those who wait for these links."""
        arrivals, links.arrivals = links.arrivals, []
        for arrival in arrivals:
            if not arrival.done():
                arrival.set_result(None)
        waiting, links.waiting = links.waiting, set()
        for client in waiting:
            if not client.closed:
                client.resume()

    # Taking over a connection

    async def adopt(
        self, connection: ServerConnection, login: Login, node: Node
    ) -> NodeLinks | bytes:
        """Make a connection, on which the server has accepted this login, one of the identity's
        links, or close it if the pool is full. To be called within the dialer's `turn`.

        Returns the identity's links, or the server's error if it refuses the rest of the greeting.
        Raises Unreachable; then the login has to be proved again, perhaps to another server.
        """
        dialer = node.dialer
        try:
            await dialer.greet(connection, replace(login, user=None, via=None))
            login = replace(login, via=None)
        except Refused as error:
            if not is_error(error.reply, b"NOPERM"):
                return error.reply
            if self._identities.is_up(login, node):
                connection.close()
                return self._identities.get(login, own_login=True).to(node)
            if login.via is None:
                return error.reply
            # This user may not SELECT. A direct client would be in the database already.
            try:
                connection = await dialer.connect()
                await dialer.greet(connection, login)
            except Refused:
                return error.reply
        dialer.must_be_current(connection)
        links = self._identities.get(login, own_login=True).to(node)
        if not links.shared.up:
            self.take(links, connection)
        elif len(links.idle) < self.pool_idle and not node.room.short:
            up = links.new_link(shared=False)
            links.attach(up, connection)
            up.idle_since = time.monotonic()
            links.idle.append(up)
        else:
            connection.close()
        return links

    # Losing a link

    def lost(self, up: Upstream, reason: str) -> None:
        """A link was lost. The core has already decided about the requests on it."""
        links: NodeLinks = up.owner
        if not up.shared or self._tasks.closing:
            return
        if up is links.shared:
            self._lost_in_use(links, reason)
        elif links.shared.refusing:
            up.refuse(unavailable(f"upstream {links.node.dialer.where}: {reason}"))
        else:
            up.move_to(links.shared)
        self._distrust(links.node, "a connection to the server was lost")
        if links.is_current(up) and (self._is_own(links) or reason == NOT_MASTER):
            links.node.link_down(reason == NOT_MASTER)
        if self._needed(links):
            self.connect(links)
        else:
            self._outage.over(links)

    def _lost_in_use(self, links: NodeLinks, reason: str) -> None:
        self.reconnects += 1
        soon = time.monotonic() - links.up_since < SOON
        links.cut_short = links.cut_short + 1 if soon else 0
        self._outage.lost(links, reason)
        if self._is_own(links) and links.is_current(links.shared):
            links.node.dialer.outcomes.lost(reason)
