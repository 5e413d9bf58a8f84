"""Places clients that need a link of their own on a shard of the cluster.

Most requests tell it by their keys. MULTI does not: if nothing behind it has come yet, it is
answered here, and is sent to the shard of the first key that follows. Requests for a slot that
nobody has wait until somebody does, at most as long as commands are held (`failover.hold`).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sidecar.proxy.io.client import Client
from sidecar.proxy.links.node import Node, Nodes

NOT_SERVED = b"-CLUSTERDOWN Hash slot not served\r\n"
OK = b"+OK\r\n"
NOTHING = b"*0\r\n"


class Placing:
    """`hold` is how long requests may wait, in seconds."""

    def __init__(self, nodes: Nodes, hold: Callable[[], float]) -> None:
        self._nodes = nodes
        self._hold = hold
        self._waiting: dict[Client, float] = {}
        self._since: float | None = None  # of the client that is being resumed

    def node_for(self, client: Client) -> Node | None:
        """The node for a dedicated link; None: the client has been answered, or waits."""
        shards = self._nodes.shards
        if shards is None:
            return self._nodes.home
        number = client.shard_ahead()
        if number is None:
            if self._served(client):
                return None
            links = client.shard_links
            number = links.any if links is not None else -1
        node = shards.get(number)
        if node is None:
            self.wait(client)
        return node

    def _served(self, client: Client) -> bool:
        """Whether the request at the head is part of a transaction whose shard is not known yet,
        and was answered."""
        head = client.head()
        name = head[0][0].upper() if head is not None and len(head[0]) == 1 else b""
        if client.multi_unsent:
            if name not in (b"DISCARD", b"EXEC"):
                return False
            client.multi_unsent = False
            client.answer(OK if name == b"DISCARD" else NOTHING)
            return True
        if name != b"MULTI":
            return False
        client.multi_unsent = True
        client.answer(OK)
        return True

    # Slots that nobody has

    def wait(self, client: Client) -> None:
        """Let a client wait until its slot has an owner."""
        self._waiting[client] = self._since or time.monotonic()

    def known_better(self) -> None:
        """The slots have changed: decide again on those that wait."""
        waiting, self._waiting = self._waiting, {}
        for client, self._since in waiting.items():
            if not client.closed:
                client.resume()
        self._since = None

    def tick(self, now: float) -> None:
        """Refuse those that have waited for too long."""
        for client, since in list(self._waiting.items()):
            if client.closed:
                del self._waiting[client]
            elif now - since >= self._hold():
                del self._waiting[client]
                if client.head() is None:
                    client.refuse_last(NOT_SERVED)  # the rest of a large request is still to come
                else:
                    client.refuse(NOT_SERVED)

    @property
    def waiting(self) -> int:
        """How many clients wait."""
        return len(self._waiting)
