"""Dedicated links: for clients whose commands need a connection of their own, and for WAIT.

Each identity keeps a few open and idle. One is taken when a session wants it and comes back when
the need has passed, unless it carries state that only its client may have.

Nothing here decides who needs one (core/session/dispatch.pyx does), and nothing connects but
through the
pool, which knows where the upstream is and whether it may be tried.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from hiredis import pack_command

from sidecar.proxy.io.client import Client
from sidecar.proxy.io.upstream import Upstream
from sidecar.proxy.links.errors import Refused, Unreachable, reply_for, unavailable
from sidecar.proxy.links.greeting import ServerConnection, is_error
from sidecar.proxy.links.identity import Identity

if TYPE_CHECKING:
    from sidecar.proxy.links.pool import Pool

# Written to nobody: it moves the replication offset that a WAIT on the same connection is about.
WAIT_CHANNEL = b"__redis-sidecar__:wait"

TOO_MANY_LINKS = unavailable("too many upstream links (upstream.max_links)")


class DedicatedLinks:
    """The dedicated links of all identities of one pool."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.settings = pool.settings.upstream

    def give_one(self, client: Client, *, pinned: bool, tainted: bool = False) -> None:
        """Give a client a link of its own: at once from the idle ones, or when one is open."""
        identity: Identity = client.identity
        up = identity.take_idle()
        if up is not None:
            self._give(client, up, pinned, tainted)
        else:
            identity.spare = min(2 * self.settings.pool_spare, identity.spare + 1)
            client.task = self.pool.spawn(self._open_for(client, pinned, tainted))
        self.refill(identity)

    def take_back(self, client: Client, up: Upstream) -> None:
        """A client needs its dedicated link no more."""
        identity: Identity = up.identity
        full = len(identity.idle) >= self.settings.pool_idle
        if up.tainted or full or self.pool.closing or not self.pool.is_current(up):
            up.close()
        elif up.up:
            up.idle_since = time.monotonic()
            identity.idle.append(up)

    def refill(self, identity: Identity) -> None:
        """Keep some links ready, so that a SUBSCRIBE is on its way before the PUBLISH that another
        client sends next, as it would be on a connection that is already there."""
        if not identity.filling and self._lacks_spare(identity):
            identity.filling = True
            self.pool.spawn(self._fill(identity))

    def trim(self, identity: Identity, now: float) -> None:
        """Let go of idle links that are lost, or have not been needed for long."""
        while identity.idle and not identity.idle[0].up:
            identity.idle.popleft()
        if identity.link.up:
            self.refill(identity)
        if identity.idle and now - identity.idle[0].idle_since > self.settings.pool_idle_timeout:
            identity.spare = max(self.settings.pool_spare, identity.spare - 1)
            if len(identity.idle) > identity.spare:
                identity.idle.popleft().close()

    async def pin(self, client: Client) -> None:
        """Give a client that is between commands a link of its own for good."""
        if not client.idle:
            return
        up = client.identity.take_idle()
        if up is None:
            try:
                up = await self._open(client.identity)
            except (Refused, Unreachable):
                return
        if not client.closed and client.idle:
            self._give(client, up, True, True)
        else:
            up.close()

    async def wait(self, client: Client) -> None:
        """WAIT is about this client's writes, which went down the shared link.

        A dedicated link knows nothing of them. A message to nobody moves that connection's
        replication offset past them; WAIT then means at least those writes. Where the user may
        not publish, WAIT goes down the shared link: right, but others wait with it.
        """
        identity: Identity = client.identity
        request = pack_command((b"PUBLISH", WAIT_CHANNEL, b""))
        if identity.wait_is_provable is None:
            try:
                connection = await self.pool.patiently(lambda: self.pool.open(identity))
                identity.wait_is_provable = not is_error((await connection.ask(request))[0])
                connection.close()
            except (Refused, Unreachable) as error:
                self._deny(client, reply_for(error))
                return
        if not identity.wait_is_provable:
            client.task = None
            client.forward()
            return
        up = identity.take_idle() or await self._new(client)
        if up is not None:
            client.task = None
            up.ask_first(request)
            client.use_dedicated(up)

    def _lacks_spare(self, identity: Identity) -> bool:
        wanted = min(identity.spare, self.settings.pool_idle)
        return bool(identity.clients) and len(identity.idle) < wanted

    async def _fill(self, identity: Identity) -> None:
        try:
            while identity.link.up and self._lacks_spare(identity):
                up = await self._open(identity)
                up.idle_since = time.monotonic()
                identity.idle.appendleft(up)
        except (Refused, Unreachable):
            return
        finally:
            identity.filling = False

    async def _open_for(self, client: Client, pinned: bool, tainted: bool) -> None:
        up = await self._new(client)
        if up is not None:
            client.task = None
            self._give(client, up, pinned, tainted)

    async def _new(self, client: Client) -> Upstream | None:
        """A new link for this client; None when it got an error instead, or has gone."""
        try:
            up = await self._open(client.identity)
        except (Refused, Unreachable) as error:
            self._deny(client, reply_for(error))
            return None
        if client.closed:
            up.close()
            return None
        return up

    async def _open(self, identity: Identity) -> Upstream:
        """A new link; tried for as long as commands may wait. Raises Refused or Unreachable."""
        connection = await self.pool.patiently(lambda: self._connect(identity))
        up = Upstream(self.pool.plane, identity, False)
        self.pool.attach(up, connection, identity)
        return up

    async def _connect(self, identity: Identity) -> ServerConnection:
        if len(self.pool.plane.upstreams) >= self.settings.max_links:
            raise Refused(TOO_MANY_LINKS)
        return await self.pool.open(identity)

    def _deny(self, client: Client, error: bytes) -> None:
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
            for request in self.pool.commands.introduction(client):
                up.ask_first(request)
        client.use_dedicated(up, pinned, tainted)
