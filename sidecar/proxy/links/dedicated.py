"""Dedicated links: gives them to clients, takes them back, keeps a pool; and WAIT.

Each identity keeps a pool of idle links. A link leaves it when a session needs one and returns when
the need has passed, unless it is tainted with state of its client.

Does not decide who needs a link (core/session/dispatch.pyx does), nor whether the server may be
dialled (dialer.py does).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from typing import Protocol

from hiredis import pack_command

from sidecar.proxy.io.client import Client
from sidecar.proxy.io.upstream import Upstream
from sidecar.proxy.links.errors import Refused, Unreachable, reply_for
from sidecar.proxy.links.greeting import ServerConnection, is_error
from sidecar.proxy.links.identity import NodeLinks
from sidecar.proxy.links.node import Node
from sidecar.proxy.tasks import Tasks
from sidecar.settings.sections.upstream import Upstream as Settings

# Nobody subscribes to it. Publishing moves the replication offset that WAIT, on the same
# connection, is about.
WAIT_CHANNEL = b"__redis-sidecar__:wait"
ASKING = pack_command((b"ASKING",))
# While links are short, one that has been idle for so many seconds is not kept for later.
IDLE_WHEN_SHORT = 1.0


class Use(Enum):
    """For how long a client has a dedicated link, and what becomes of it."""

    WHILE_NEEDED = "while needed"  # then it goes back to the pool
    ONCE = "once"  # then it is closed
    KEPT = "kept"  # for good; replies are matched with requests
    PINNED = "pinned"  # for good; bytes pass both ways


class Introduction(Protocol):
    """Makes the requests that give a link these names on the server, as far as it has others; by
    default those of a client that has set none."""

    def __call__(
        self, up: Upstream, protocol: int, names: tuple[bytes, bytes, bytes] = ..., /
    ) -> Sequence[bytes]: ...


class DedicatedLinks:
    """The dedicated links of all identities. `raw`: a link for good is always pinned."""

    def __init__(
        self,
        tasks: Tasks,
        settings: Settings,
        introduction: Introduction,
        *,
        raw: bool,
    ) -> None:
        self._tasks = tasks
        self._settings = settings
        self._introduction = introduction
        self._raw = raw
        self._for_good = Use.PINNED if raw else Use.KEPT

    @property
    def raw(self) -> bool:
        """Whether a link for good is always pinned: session pooling."""
        return self._raw

    def use(self, settings: Settings) -> None:
        """Size the pools by these settings from now on."""
        self._settings = settings

    def give_one(
        self,
        client: Client,
        node: Node,
        use: Use = Use.WHILE_NEEDED,
        *,
        any_db: bool = False,
        asking: bool = False,
    ) -> None:
        """Give a client a dedicated link to a node: at once from the pool, or once one is open. The
        requests that name the client to the server go before its command.

        With `any_db` it may be in any database, and there is room for it even beyond
        `upstream.max_links`: a server that is busy with a script refuses SELECT. With `asking` the
        slot of its command is on its way to this node of a cluster.
        """
        links: NodeLinks = client.identity.to(node)
        up = links.take_idle()
        if up is not None:
            self._give(client, up, use, asking=asking)
        else:
            links.spare = min(2 * self._settings.pool_spare, links.spare + 1)
            client.task = self._tasks.spawn(self._open_for(client, links, use, any_db, asking))
        self.refill(links)

    def give_named(self, client: Client, node: Node, use: Use) -> None:
        """Give a client a new dedicated link, once the server has answered the requests that name
        the client: nothing may stand before the client's command."""
        links: NodeLinks = client.identity.to(node)
        client.task = self._tasks.spawn(self._open_named(client, links, use))

    def give_if_free(self, client: Client, node: Node) -> None:
        """Give a client with large replies a dedicated link, if links are not short: others need
        theirs more."""
        links: NodeLinks = client.identity.to(node)
        if links.idle or not links.node.room.short:
            self.give_one(client, node)
        else:
            client.stay_shared()

    def take_back(self, up: Upstream) -> None:
        """Put a link that its client no longer needs into the pool, or close it."""
        links: NodeLinks = up.owner
        full = len(links.idle) >= self._settings.pool_idle
        if up.tainted or full or self._tasks.closing or not links.is_current(up):
            up.close()
        elif up.up:
            up.idle_since = time.monotonic()
            links.idle.append(up)

    def refill(self, links: NodeLinks) -> None:
        """Open spare links. With one at hand, a SUBSCRIBE reaches the server before a PUBLISH that
        another client sends right after it, as on a connection that already exists."""
        if not links.filling and self._lacks_spare(links):
            links.filling = True
            self._tasks.spawn(self._fill(links))

    def trim(self, links: NodeLinks, now: float) -> None:
        """Drop lost links from the pool, and close one that was not used for long."""
        while links.idle and not links.idle[0].up:
            links.idle.popleft()
        if links.shared.up:
            self.refill(links)
        if not links.idle:
            return
        idle_for, short = now - links.idle[0].idle_since, links.node.room.short
        if idle_for > self._settings.pool_idle_timeout:
            links.spare = max(self._settings.pool_spare, links.spare - 1)
            if len(links.idle) > links.spare:
                links.idle.popleft().close()
        elif short and idle_for > IDLE_WHEN_SHORT:
            links.idle.popleft().close()

    def keep(self, client: Client, node: Node) -> bool:
        """Make a client's own link its own for good. A client without one is given one instead, and
        runs its command again then; False."""
        up = client.dedicated
        if up is None:
            self.give_one(client, node, self._for_good)
        elif self._raw:
            client.pin()
        else:
            client.keep_link()
            return True
        return False

    async def keep_for(self, client: Client, node: Node) -> None:
        """Give a link for good to a client that has not asked for it, if it is between two requests
        or has a link to itself now."""
        if client.dedicated is not None:
            client.keep_link()
            return
        if not client.movable:
            return
        links: NodeLinks = client.identity.to(node)
        up = links.take_idle()
        if up is None:
            try:
                up = await self._open(links)
            except (Refused, Unreachable):
                return
        if client.movable:
            self._give(client, up, self._for_good)
        elif client.dedicated is not None:
            client.keep_link()
            up.close()
        else:
            up.close()

    async def wait(self, client: Client, node: Node) -> None:
        """Serve WAIT, which is about this client's writes on the shared link.

        A dedicated link has seen none of them. Publishing a message on it moves its replication
        offset past those writes, so WAIT covers them. If the user may not publish, WAIT goes down
        the shared link: the answer is right, but the other clients wait as well.
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
        return (
            not links.node.room.short and bool(links.identity.clients) and len(links.idle) < wanted
        )

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
        self, client: Client, links: NodeLinks, use: Use, any_db: bool, asking: bool
    ) -> None:
        up = await self._new(client, links, any_db)
        if up is not None:
            client.task = None
            self._give(client, up, use, asking=asking)

    async def _open_named(self, client: Client, links: NodeLinks, use: Use) -> None:
        """Open a link, on which the server has answered the client's names, and give it."""
        up = links.new_link(shared=False)
        try:
            connection = await links.node.dialer.patiently(links.open)
            up.target = connection.target
            await connection.ask(*self.named(client, up))
        except (Refused, Unreachable) as error:
            self._deny(client, reply_for(error))
            return
        client.task = None
        if client.closed:
            connection.close()
            return
        links.attach(up, connection)
        self._give(client, up, use)

    async def _new(self, client: Client, links: NodeLinks, any_db: bool = False) -> Upstream | None:
        """Open a link for this client; None if it got an error instead, or has gone."""
        try:
            up = await self._open(links, any_db)
        except (Refused, Unreachable) as error:
            self._deny(client, reply_for(error))
            return None
        if client.closed:
            up.close()
            return None
        return up

    async def _open(self, links: NodeLinks, any_db: bool = False) -> Upstream:
        """Open a link; retries for as long as commands may wait. Raises Refused, Unreachable."""
        dialer, login = links.node.dialer, links.identity.login

        async def anywhere() -> ServerConnection:
            return (await dialer.open(replace(login, db=0, via=None), urgent=True))[0]

        connection = await dialer.patiently(anywhere if any_db else links.open)
        up = links.new_link(shared=False)
        if self._settings.pooling == "session":
            # Its client's first request may be one that nothing may stand before, as SYNC.
            up.target = connection.target
            await connection.ask(*self._introduction(up, login.proto))
        links.attach(up, connection)
        return up

    def named(self, client: Client, up: Upstream) -> Sequence[bytes]:
        """The requests that give a link the names of a client on the server."""
        names = (client.name, client.lib_name, client.lib_version)
        return self._introduction(up, client.identity.login.proto, names)

    @staticmethod
    def _deny(client: Client, error: bytes) -> None:
        """Answer the request at the head with an error."""
        client.task = None
        if client.closed:
            return
        if client.head() is None:
            # The rest of a large request is still on its way and cannot be skipped.
            client.refuse_last(error)
        else:
            client.refuse(error)

    def _give(self, client: Client, up: Upstream, use: Use, *, asking: bool = False) -> None:
        for request in self.named(client, up):
            up.ask_first(request)
        if asking:
            up.ask_first(ASKING)
        client.use_dedicated(
            up, pinned=use is Use.PINNED, tainted=use is Use.ONCE, kept=use is Use.KEPT
        )
