"""Moves a client to another identity at its own request: SELECT, HELLO, AUTH, RESET.

The client moves once the shared link of the other identity is up and the server has accepted the
change. The server judges a password every time, on a new connection, which then becomes one of the
identity's links. Errors are the server's own.

Knows neither the command nor the form of its reply: commands.py does.
"""

from __future__ import annotations

from collections.abc import Callable

from sidecar.proxy.io.client import Client
from sidecar.proxy.links.errors import Refused, Unreachable, reply_for
from sidecar.proxy.links.greeting import Login, is_error
from sidecar.proxy.links.identity import Identities, Identity, NodeLinks
from sidecar.proxy.links.node import Nodes
from sidecar.proxy.links.shared import SharedLinks
from sidecar.proxy.tasks import Tasks

Join = Callable[[Client, Identity], None]
Judged = Callable[[Client, bytes | None, bool], None]
# Make the reply to the client: from the new identity's links; or from the server's reply to the
# credentials and the new links (None: the server refused).
Reply = Callable[[NodeLinks], bytes]
ProofReply = Callable[[bytes, NodeLinks | None], bytes]


class IdentityChange:
    """Moves clients with `join`. `judged` is called with the user and whether the server accepted
    the credentials."""

    def __init__(
        self,
        nodes: Nodes,
        identities: Identities,
        shared: SharedLinks,
        tasks: Tasks,
        join: Join,
        judged: Judged,
    ) -> None:
        self._nodes = nodes
        self._identities = identities
        self._shared = shared
        self._tasks = tasks
        self._join = join
        self._judged = judged

    def reset(self, client: Client) -> None:
        """Move the client to the identity with which clients begin."""
        self._join(client, self._identities.default)

    def move(self, client: Client, login: Login, reply: Reply) -> None:
        """Move the client to a login that needs no proof, and answer; with the server's error if it
        refuses."""
        identity = self._identities.get(login, own_login=False)
        links = identity.to(self._nodes.home)
        if links.shared.up and links.greeted is not None:
            self._join(client, identity)
            client.answer(reply(links))
        else:
            client.task = self._tasks.spawn(self._move_later(client, links, reply))

    async def _move_later(self, client: Client, links: NodeLinks, reply: Reply) -> None:
        error = await self._shared.bring_up(links)
        client.task = None
        if client.closed:
            return
        if error is not None:
            client.refuse(error)
            return
        self._join(client, links.identity)
        client.answer(reply(links))

    def prove(self, client: Client, login: Login, raw: bytes, reply: ProofReply) -> None:
        """Send the client's own request `raw` to the server; if it accepts the credentials, move
        the client to this login. Answer in either case."""
        client.task = self._tasks.spawn(self._prove(client, login, raw, reply))

    async def _prove(self, client: Client, login: Login, raw: bytes, reply: ProofReply) -> None:
        node = self._nodes.home
        try:
            connection = await node.dialer.reach()
            said = (await connection.ask(raw))[0]
            self._judged(client, login.user, not is_error(said))
            if is_error(said):
                connection.close()
                client.task = None
                client.answer(reply(said, None))
                return
            adopted = await self._shared.adopt(connection, login, node)
        except (Refused, Unreachable) as error:
            client.task = None
            client.refuse(reply_for(error))
            return
        client.task = None
        if client.closed:
            return
        if isinstance(adopted, bytes):
            client.refuse(adopted)
            return
        self._join(client, adopted.identity)
        client.answer(reply(said, adopted))
