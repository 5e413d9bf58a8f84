"""Sends one request of a client to the server on a connection of its own, and returns the reply.

For requests that must not touch the shared link, or whose error text only the server knows.
"""

from __future__ import annotations

from collections.abc import Callable

from sidecar.proxy.io.client import Client
from sidecar.proxy.links.errors import Refused, Unreachable, reply_for
from sidecar.proxy.links.greeting import ServerConnection
from sidecar.proxy.links.identity import NodeLinks
from sidecar.proxy.links.node import Nodes
from sidecar.proxy.tasks import Tasks

Change = Callable[[bytes, ServerConnection], bytes]


def unchanged(reply: bytes, _: ServerConnection) -> bytes:
    """The server's reply as it is."""
    return reply


class PassThrough:
    """Sends single requests to the server."""

    def __init__(self, nodes: Nodes, tasks: Tasks) -> None:
        self._nodes = nodes
        self._tasks = tasks

    def ask(self, client: Client, request: bytes, change: Change = unchanged) -> None:
        """Answer the request at the client's head with the server's reply to `request`.

        `change` may change the reply; it runs while the connection is open, and only if there was a
        reply.
        """
        links: NodeLinks = client.identity.to(self._nodes.home)
        client.task = self._tasks.spawn(self._ask(client, links, request, change))

    @staticmethod
    async def _ask(client: Client, links: NodeLinks, request: bytes, change: Change) -> None:
        try:
            connection = await links.open()
            try:
                reply = change((await connection.ask(request))[0], connection)
            finally:
                connection.close()
        except (Refused, Unreachable) as error:
            client.task = None
            client.refuse(reply_for(error))
        else:
            client.task = None
            client.answer(reply)
