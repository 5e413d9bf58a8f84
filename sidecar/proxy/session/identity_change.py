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
First = Callable[[Client], Identity]
Judged = Callable[[Client, bytes | None, bool], None]
# Make the reply to the client: from the server's; or from its reply to the credentials and the new
# links (None: the server refused).
Reply = Callable[[bytes], bytes]
There = Callable[[NodeLinks], None]
ProofReply = Callable[[bytes, NodeLinks | None], bytes]


class IdentityChange:
    """Moves clients with `join`. `first` gives the identity with which a client
    begins. `judged` is called with
    the user and whether the server accepted the credentials."""

    def __init__(
        self,
        nodes: Nodes,
        identities: Identities,
        shared: SharedLinks,
        tasks: Tasks,
        join: Join,
        first: First,
        judged: Judged,
    ) -> None:
        self._nodes = nodes
        self._identities = identities
        self._shared = shared
        self._tasks = tasks
        self._join = join
        self._first = first
        self._judged = judged

    def reset(self, client: Client) -> None:
        """Move the client to the identity with which new clients begin."""
        self._join(client, self._first(client))

    def move(self, client: Client, login: Login, request: bytes, reply: Reply) -> None:
        """Move the client to a login that needs no proof, if the server accepts `request` on the
        shared link of that login, where it changes nothing; and answer."""
        before: Identity = client.identity

        def judged(said: bytes) -> None:
            if is_error(said):
                self._join(client, before)
            client.answer(reply(said))

        def there(links: NodeLinks) -> None:
            self._join(client, links.identity)
            client.ask(request, judged)

        self._when_up(client, login, there)

    def enter(self, client: Client, principal: str, identity: Identity, joined: There) -> None:
        """Make the client this principal and move it to its identity, as the sidecar itself has
        judged, and call `joined`."""

        def there(links: NodeLinks) -> None:
            client.principal = principal  # who is told of the join asks for it
            self._join(client, links.identity)
            joined(links)

        self._when_links_up(client, identity.to(self._nodes.home), there)

    def _when_up(self, client: Client, login: Login, there: There) -> None:
        """Call `there` with the links of this login once its shared link is up; if it does not come
        up, the client gets the error."""
        own: bool = client.identity.own_login
        identity = self._identities.get(login, own_login=own)
        self._when_links_up(client, identity.to(self._nodes.home), there)

    def _when_links_up(self, client: Client, links: NodeLinks, there: There) -> None:
        if links.shared.up and links.greeted is not None:
            there(links)
        else:
            client.task = self._tasks.spawn(self._bring_up(client, links, there))

    async def _bring_up(self, client: Client, links: NodeLinks, there: There) -> None:
        error = await self._shared.bring_up(links)
        client.task = None
        if client.closed:
            return
        if error is not None:
            client.refuse(error)
        else:
            there(links)

    def prove(self, client: Client, login: Login, raw: bytes, reply: ProofReply) -> None:
        """Send the client's own request `raw` to the server; if it accepts the credentials, move
        the client to this login. Answer in either case."""
        client.task = self._tasks.spawn(self._prove(client, login, raw, reply))

    def judged(self, client: Client, user: bytes, said: bytes) -> None:
        """A client has sent its credentials down a link of its own: the server said this."""
        self._judged(client, user, not is_error(said))

    async def _prove(self, client: Client, login: Login, raw: bytes, reply: ProofReply) -> None:
        dialer = self._nodes.home.dialer
        try:
            said, adopted = await dialer.patiently(lambda: self._attempt(login, raw))
        except (Refused, Unreachable) as error:
            client.task = None
            client.refuse(reply_for(error))
            return
        client.task = None
        self._judged(client, login.user, not is_error(said))
        if client.closed:
            return
        if isinstance(adopted, bytes):
            client.refuse(adopted)
            return
        if adopted is not None:
            self._join(client, adopted.identity)
        client.answer(reply(said, adopted))

    async def _attempt(self, login: Login, raw: bytes) -> tuple[bytes, NodeLinks | bytes | None]:
        """The server's reply to the credentials, and what `SharedLinks.adopt` says of them; None
        when it has refused them. Logins are proved a few at a time, like all connecting: the turn
        lasts until the connection is one of the identity's, or closed."""
        node = self._nodes.home
        async with node.dialer.turn():
            connection = await node.dialer.connect()
            said = (await connection.ask(raw))[0]
            if is_error(said):
                connection.close()
                return said, None
            return said, await self._shared.adopt(connection, login, node)
