"""Dedicated links: for clients whose commands need a connection of their own, and for WAIT.

Each identity keeps a few open and idle. One is taken when a session wants it and comes back when
the need has passed, unless it carries state that only its client may have.

Nothing here decides who needs one (core/session/dispatch.pyx does), nor where its node is and
whether it may be tried (dialer.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from hiredis import pack_command

from sidecar.proxy.io.client import Client
from sidecar.proxy.io.plane import Plane
from sidecar.proxy.io.upstream import Upstream
from sidecar.proxy.links.errors import Refused, Unreachable, reply_for, unavailable
from sidecar.proxy.links.greeting import ServerConnection, is_error
from sidecar.proxy.links.identity import NodeLinks
from sidecar.proxy.links.node import Node
from sidecar.proxy.tasks import Tasks
from sidecar.settings.sections.upstream import Upstream as Settings

# Written to nobody: it moves the replication offset that a WAIT on the same connection is about.
WAIT_CHANNEL = b"__redis-sidecar__:wait"

TOO_MANY_LINKS = unavailable("too many upstream links (upstream.max_links)")


class DedicatedLinks:
    """The dedicated links of all identities. `introduction` gives the requests that make a pinned
    link look like its client to the server."""

    def __init__(
        self,
        plane: Plane,
        tasks: Tasks,
        settings: Settings,
        introduction: Callable[[Client], Sequence[bytes]],
    ) -> None:
        self._plane = plane
        self._tasks = tasks
        self._settings = settings
        self._introduction = introduction

    def give_one(self, client: Client, node: Node, *, pinned: bool, tainted: bool = False) -> None:
        """Give a client a link of its own to a node: at once from the idle ones, or when one is
        open."""
        links: NodeLinks = client.identity.to(node)
        up = links.take_idle()
        if up is not None:
            self._give(client, up, pinned, tainted)
        else:
            links.spare = min(2 * self._settings.pool_spare, links.spare + 1)
            client.task = self._tasks.spawn(self._open_for(client, links, pinned, tainted))
        self.refill(links)

    def take_back(self, up: Upstream) -> None:
        """A client needs its dedicated link no more."""
        links: NodeLinks = up.owner
        full = len(links.idle) >= self._settings.pool_idle
        if up.tainted or full or self._tasks.closing or not links.leads_here(up):
            up.close()
        elif up.up:
            up.idle_since = time.monotonic()
            links.idle.append(up)

    def refill(self, links: NodeLinks) -> None:
        """Keep some links ready, so that a SUBSCRIBE is on its way before the PUBLISH that another
        client sends next, as it would be on a connection that is already there."""
        if not links.filling and self._lacks_spare(links):
            links.filling = True
            self._tasks.spawn(self._fill(links))

    def trim(self, links: NodeLinks, now: float) -> None:
        """Let go of idle links that are lost, or have not been needed for long."""
        while links.idle and not links.idle[0].up:
            links.idle.popleft()
        if links.shared.up:
            self.refill(links)
        if links.idle and now - links.idle[0].idle_since > self._settings.pool_idle_timeout:
            links.spare = max(self._settings.pool_spare, links.spare - 1)
            if len(links.idle) > links.spare:
                links.idle.popleft().close()

    async def pin(self, client: Client, node: Node) -> None:
        """Give a client that is between commands a link of its own for good."""
        if not client.idle:
            return
        links: NodeLinks = client.identity.to(node)
        up = links.take_idle()
        if up is None:
            try:
                up = await self._open(links)
            except (Refused, Unreachable):
                return
        if not client.closed and client.idle:
            self._give(client, up, True, True)
        else:
            up.close()

    async def wait(self, client: Client, node: Node) -> None:
        """WAIT is about this client's writes, which went down the shared link.

        A dedicated link knows nothing of them. A message to nobody moves that connection's
        replication offset past them; WAIT then means at least those writes. Where the user may
        not publish, WAIT goes down the shared link: right, but others wait with it.
        """
        links: NodeLinks = client.identity.to(node)
        request = pack_command((b"PUBLISH", WAIT_CHANNEL, b""))
        if links.wait_is_provable is None:
            try:
                connection = await node.dialer.patiently(links.open)
                links.wait_is_provable = not is_error((await connection.ask(request))[0])
                connection.close()
            except (Refused, Unreachable) as error:
                self._deny(client, reply_for(error))
                return
        if not links.wait_is_provable:
            client.task = None
            client.forward()
            return
        up = links.take_idle() or await self._new(client, links)
        if up is not None:
            client.task = None
            up.ask_first(request)
            client.use_dedicated(up)

    def _lacks_spare(self, links: NodeLinks) -> bool:
        wanted = min(links.spare, self._settings.pool_idle)
        return bool(links.identity.clients) and len(links.idle) < wanted

    async def _fill(self, links: NodeLinks) -> None:
        try:
            while links.shared.up and self._lacks_spare(links):
                up = await self._open(links)
                up.idle_since = time.monotonic()
                links.idle.appendleft(up)
        except (Refused, Unreachable):
            return
        finally:
            links.filling = False

    async def _open_for(
        self, client: Client, links: NodeLinks, pinned: bool, tainted: bool
    ) -> None:
        up = await self._new(client, links)
        if up is not None:
            client.task = None
            self._give(client, up, pinned, tainted)

    async def _new(self, client: Client, links: NodeLinks) -> Upstream | None:
        """A new link for this client; None when it got an error instead, or has gone."""
        try:
            up = await self._open(links)
        except (Refused, Unreachable) as error:
            self._deny(client, reply_for(error))
            return None
        if client.closed:
            up.close()
            return None
        return up

    async def _open(self, links: NodeLinks) -> Upstream:
        """A new link; tried for as long as commands may wait. Raises Refused or Unreachable."""
        connection = await links.node.dialer.patiently(lambda: self._connect(links))
        up = links.another(shared=False)
        links.attach(up, connection)
        return up

    async def _connect(self, links: NodeLinks) -> ServerConnection:
        if len(self._plane.upstreams) >= self._settings.max_links:
            raise Refused(TOO_MANY_LINKS)
        return await links.open()

    @staticmethod
    def _deny(client: Client, error: bytes) -> None:
        """The request at the head can't be served."""
        client.task = None
        if client.closed:
            return
        if client.head() is None:
            # The rest of a large request is still to come, and nobody will read it.
            client.refuse_last(error)
        else:
            client.refuse(error)

    def _give(self, client: Client, up: Upstream, pinned: bool, tainted: bool) -> None:
        if pinned:
            for request in self._introduction(client):
                up.ask_first(request)
        client.use_dedicated(up, pinned, tainted)
