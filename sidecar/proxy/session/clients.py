"""Clients: begins to serve them, moves them between identities, cleans up after them.

Calls the observers that keep something for each client (traces, hot keys, near cache). Does not
look at what clients send.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from functools import partial

from sidecar.proxy.io.client import Client
from sidecar.proxy.io.plane import Plane
from sidecar.proxy.links.dedicated import DedicatedLinks
from sidecar.proxy.links.identity import Identities, Identity
from sidecar.proxy.links.node import Nodes
from sidecar.proxy.session.client_ids import ClientIds
from sidecar.proxy.tasks import for_each
from sidecar.tls.handshake import Layer

# Called with a new client before it has an identity.
Arrived = Callable[[Client, socket.socket, Layer | None], object]
Joined = Callable[[Client, Identity], None]
Left = Callable[[Client], None]


def _tell(client: Client, told: Joined) -> None:
    told(client, client.identity)


class Clients:
    """The clients of one data plane. `arrived` is told of each, `first` gives its identity.
    `joined` are called when a client joins an identity, `left` when it has gone. `pins` says
    whether a client has a dedicated link from its first command on."""

    def __init__(
        self,
        plane: Plane,
        nodes: Nodes,
        identities: Identities,
        dedicated: DedicatedLinks,
        ids: ClientIds,
        arrived: Arrived,
        first: Callable[[Client], Identity],
        *,
        joined: Sequence[Joined],
        left: Sequence[Left],
        pins: Callable[[Client], bool],
    ) -> None:
        self._plane = plane
        self._nodes = nodes
        self._identities = identities
        self._dedicated = dedicated
        self._ids = ids
        self._arrived = arrived
        self._first = first
        self._joined = joined
        self._left = left
        self._pins = pins
        self.total = 0

    def welcome(
        self, sock: socket.socket, tls: Layer | None, address: object, policy: str = ""
    ) -> Client:
        """Begin to serve an accepted connection, on a listener with this command policy."""
        self.total += 1
        client = Client(self._plane, sock, tls, self._ids.new_id(), None, address)
        client.listener_policy = policy
        self._ids.add(client)
        self._arrived(client, sock, tls)
        self.join(client, self._first(client))
        if client.finishing:
            return client  # there are too many
        if self._pins(client):
            client.pin_at_once()
        client.start()
        return client

    def join(self, client: Client, identity: Identity) -> None:
        """Move a client to this identity. It must have no reply outstanding."""
        identity = self._identities.join(client, identity)
        for_each(self._joined, lambda told: told(client, identity))
        if self._nodes.shards is None:
            self._dedicated.refill(identity.to(self._nodes.home))

    def count(self, client: Client, identity: Identity) -> None:
        """A pinned client has logged in as another user, on the link that it has."""
        self._identities.count(client, identity)
        for_each(self._joined, lambda told: told(client, identity))

    def join_again(self) -> None:
        """What the identities stand for has changed: tell those that keep something for clients."""
        for client in list(self._plane.clients):
            for_each(self._joined, partial(_tell, client))

    def gone(self, client: Client) -> None:
        """Clean up after a client whose connection is closed."""
        if client.task is not None:
            client.task.cancel()
            client.task = None
        client.identity.leave(client)
        for_each(self._left, lambda told: told(client))
        self._ids.remove(client)

    async def end_idle(self, after: Callable[[], float]) -> None:
        """Close clients that were silent for `after()` seconds (0: never) and wait for nothing.
        Never ends."""
        while True:
            await asyncio.sleep(min(1.0, after() or 1.0))
            limit = after()
            if limit:
                silent = [c for c in self._plane.clients if c.silent_for > limit and c.idle]
                for_each(silent, lambda client: client.close("idle"))
