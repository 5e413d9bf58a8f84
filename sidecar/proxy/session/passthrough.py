"""Has a conversation with the server for one client, on a connection made for it.

For requests that must get through whatever the client's link is held up by: a script that an
operator wants to kill, a paused write. They are not about keys, so the connection is in database 0:
a server that is busy with a script refuses SELECT, but neither AUTH nor HELLO.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from sidecar.proxy.io.client import Client
from sidecar.proxy.links.errors import Refused, Unreachable, reply_for
from sidecar.proxy.links.greeting import Login, ServerConnection
from sidecar.proxy.links.node import Nodes
from sidecar.proxy.tasks import Tasks

Talk = Callable[[ServerConnection], Awaitable[bytes]]
Then = Callable[[bytes], None]


class PassThrough:
    """Opens a connection for each conversation, even beyond `upstream.max_links`."""

    def __init__(self, nodes: Nodes, tasks: Tasks) -> None:
        self._nodes = nodes
        self._tasks = tasks

    def ask(self, client: Client, request: bytes) -> None:
        """Answer the request at the client's head with the server's reply to `request`."""

        async def talk(connection: ServerConnection) -> bytes:
            return (await connection.ask(request))[0]

        self.talk(client, talk)

    def talk(self, client: Client, talk: Talk, then: Then | None = None) -> None:
        """Call `then` with what `talk` returns, which otherwise is the answer; answer with an error
        if the server cannot be reached."""
        client.task = self._tasks.spawn(self._talk(client, talk, then or client.answer))

    async def _talk(self, client: Client, talk: Talk, then: Then) -> None:
        login: Login = replace(client.identity.login, db=0, via=None)
        try:
            connection, _ = await self._nodes.home.dialer.open(login, urgent=True)
            try:
                reply = await talk(connection)
            finally:
                connection.close()
        except (Refused, Unreachable) as error:
            client.task = None
            client.refuse(reply_for(error))
            return
        client.task = None
        then(reply)
