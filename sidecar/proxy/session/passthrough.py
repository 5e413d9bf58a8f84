"""Has a conversation with the server for one client, on a connection made for it.

For requests that must get through whatever the client's link is held up by: a script that an
operator wants to kill, a paused write. They are not about keys, so the connection is in database 0:
a server that is busy with a script refuses SELECT, but neither AUTH nor HELLO.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from sidecar.proxy.io.client import Client
from sidecar.proxy.links.errors import Refused, Unreachable, error_reply, reply_for
from sidecar.proxy.links.greeting import Login, ServerConnection
from sidecar.proxy.links.node import Node, Nodes
from sidecar.proxy.tasks import Tasks

Talk = Callable[[ServerConnection], Awaitable[bytes]]
Then = Callable[[bytes], None]
Merged = Callable[[Sequence[bytes]], bytes]


class PassThrough:
    """Opens a connection for each conversation, even beyond `upstream.max_links`."""

    def __init__(self, nodes: Nodes, tasks: Tasks) -> None:
        self._nodes = nodes
        self._tasks = tasks

    def ask(self, client: Client, request: bytes, node: Node | None = None) -> None:
        """Answer the request at the client's head with the reply of the server to `request`; of a
        cluster, with that of this node's."""
        client.task = self._tasks.spawn(
            self._answered(client, [node or self._nodes.home], _asking(request), _only)
        )

    def ask_shards(self, client: Client, request: bytes, merged: Merged) -> None:
        """As `ask`, at all shards of a cluster; `merged` makes one reply of theirs."""
        nodes = list((self._nodes.shards or {}).values())
        if not nodes:
            client.refuse(error_reply("CLUSTERDOWN", "no shard of the cluster is known"))
            return
        client.task = self._tasks.spawn(self._answered(client, nodes, _asking(request), merged))

    def talk(self, client: Client, talk: Talk, then: Then | None = None) -> None:
        """Call `then` with what `talk` returns, which otherwise is the answer; answer with an error
        if the server cannot be reached."""
        client.task = self._tasks.spawn(
            self._answered(client, [self._nodes.home], talk, _only, then)
        )

    async def _answered(
        self,
        client: Client,
        nodes: Sequence[Node],
        talk: Talk,
        merged: Merged,
        then: Then | None = None,
    ) -> None:
        login: Login = replace(client.identity.login, db=0, via=None)

        async def at(node: Node) -> bytes:
            connection, _ = await node.dialer.open(login, urgent=True)
            try:
                return await talk(connection)
            finally:
                connection.close()

        try:
            reply = merged(await asyncio.gather(*map(at, nodes)))
        except (Refused, Unreachable) as error:
            client.task = None
            client.refuse(reply_for(error))
            return
        client.task = None
        (then or client.answer)(reply)


def _asking(request: bytes) -> Talk:
    async def talk(connection: ServerConnection) -> bytes:
        return (await connection.ask(request))[0]

    return talk


def _only(replies: Sequence[bytes]) -> bytes:
    (reply,) = replies
    return reply
