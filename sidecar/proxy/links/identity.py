"""Who a client is to the server, and the links of that identity: a set of them for each node.

An identity is (protocol version, user, database): clients of one identity may share a link,
since the server can't tell their ordinary commands apart. For each node in use it has one shared
link, which outlives its connections, and the idle dedicated links that are clean enough to be
used again.

State only: who connects a link is in shared.py and dedicated.py, who looks after it in
maintenance.py. Nothing here starts a task.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from sidecar.proxy.io.client import Client
from sidecar.proxy.io.plane import Plane
from sidecar.proxy.io.upstream import Upstream
from sidecar.proxy.links.greeting import Greeted, Login, ServerConnection
from sidecar.proxy.links.hello_reply import server_id
from sidecar.proxy.links.node import Node, Nodes
from sidecar.proxy.links.target import Target

Key = tuple[int, bytes | None, int]


@dataclass(frozen=True)
class LinkMaking:
    """What links are made with. `spare` dedicated links of an identity are kept ready at first;
    `attached` is told where each link leads before it carries anything."""

    plane: Plane
    spare: int
    attached: Callable[[Upstream, Target, socket.socket], None]


class NodeLinks:
    """The links of one identity to one node, and the clients that wait for them."""

    def __init__(self, making: LinkMaking, identity: Identity, node: Node) -> None:
        self._making = making
        self.identity = identity
        self.node = node
        self.shared = Upstream(making.plane, self, True)
        self.greeted: Greeted | None = None
        # The shared link: who waits for it, and those it took the place of.
        self.connecting = False
        self.retry = asyncio.Event()
        self.up_since = 0.0
        self.cut_short = 0  # times in a row that it was lost soon after it had come up
        self.waiting: set[Client] = set()
        self.arrivals: list[asyncio.Future[None]] = []
        self.retired: list[Upstream] = []
        self.diverting = False
        self.silent: dict[Upstream, tuple[int, float]] = {}
        # Dedicated links.
        self.idle: deque[Upstream] = deque()
        self.spare = making.spare
        self.filling = False
        self.wait_is_provable: bool | None = None

    async def open(self) -> ServerConnection:
        """A new connection to the node, greeted as this identity. Raises Refused, Unreachable."""
        connection, self.greeted = await self.node.dialer.open(self.identity.login)
        return connection

    def attach(self, up: Upstream, connection: ServerConnection) -> None:
        """Hand a greeted connection to one of these links."""
        hello = self.greeted.hello if self.greeted else None
        up.target = connection.target
        self._making.attached(up, connection.target, connection.sock)
        up.attach(connection.sock, connection.tls, hello, server_id(hello))

    def another(self, *, shared: bool) -> Upstream:
        """One more link, without a connection yet."""
        return Upstream(self._making.plane, self, shared)

    def leads_here(self, up: Upstream) -> bool:
        """Whether a link's connection is to the node's server of now."""
        return up.target is self.node.dialer.target

    @property
    def authenticated(self) -> bool:
        """Whether clients are past the server's AUTH; so it is assumed until it has been asked."""
        return self.greeted is None or not self.greeted.unauthenticated

    def take_idle(self) -> Upstream | None:
        """A dedicated link that is ready for use, the most recently used first."""
        while self.idle:
            up = self.idle.pop()
            if up.up:
                return up
        return None

    def close_idle(self) -> None:
        """Close the dedicated links that nobody uses."""
        while self.idle:
            self.idle.pop().close()

    def close(self) -> None:
        """Close all links; nobody uses them any more."""
        for up in (self.shared, *self.retired):
            up.close()
        self.close_idle()


class Identity:
    """One identity, its clients, and its links to each node in use.

    `own_login` tells that a client has logged in itself: when the server stops accepting those
    credentials, its clients are closed, as a direct client would have to log in again.
    """

    def __init__(self, making: LinkMaking, login: Login, own_login: bool) -> None:
        self.login = login
        self.own_login = own_login
        self.clients: set[Client] = set()
        self.unused_since: float | None = time.monotonic()
        self._making = making
        self._links: dict[Node, NodeLinks] = {}

    @property
    def key(self) -> Key:
        """What tells identities apart. The password does not: the latest proven one counts."""
        return (self.login.proto, self.login.user, self.login.db)

    @property
    def links(self) -> list[NodeLinks]:
        """Its links, node by node."""
        return list(self._links.values())

    def to(self, node: Node) -> NodeLinks:
        """Its links to this node, made at the first use."""
        links = self._links.get(node)
        if links is None:
            links = self._links[node] = NodeLinks(self._making, self, node)
        return links

    def learn(self, password: bytes) -> None:
        """A client has just proved this password: reconnect with it from now on."""
        self.login = replace(self.login, password=password)

    def leave(self, client: Client) -> None:
        """A client is not of this identity any more."""
        self.clients.discard(client)
        for links in self.links:
            links.waiting.discard(client)
        if not self.clients:
            self.unused_since = time.monotonic()


class Identities:
    """All identities in use. `default` is the sidecar's own: clients begin as it."""

    def __init__(self, making: LinkMaking, nodes: Nodes, login: Login) -> None:
        self._making = making
        self._nodes = nodes
        self._known: dict[Key, Identity] = {}
        self.default = self.get(login, own_login=False)

    def __iter__(self) -> Iterator[Identity]:
        return iter(list(self._known.values()))

    def __contains__(self, identity: Identity) -> bool:
        return self._known.get(identity.key) is identity

    @property
    def links(self) -> list[NodeLinks]:
        """The links of all of them."""
        return [links for identity in self for links in identity.links]

    def links_to(self, node: Node) -> list[NodeLinks]:
        """The links of all of them to one node."""
        return [links for links in self.links if links.node is node]

    def get(self, login: Login, *, own_login: bool) -> Identity:
        """The identity of a login, made if it is new; a proven password replaces the old one."""
        key = (login.proto, login.user, login.db)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = Identity(self._making, login, own_login)
            found.to(self._nodes.home)
        elif own_login:
            found.learn(login.password)
        return found

    def join(self, client: Client, identity: Identity) -> None:
        """Make a client one of this identity's. It must have nothing outstanding."""
        old: Identity | None = client.identity
        if old is not None:
            old.leave(client)
        client.identity = identity
        identity.clients.add(client)
        identity.unused_since = None
        links = identity.to(self._nodes.home)
        client.use_shared(links.shared)
        client.set_authenticated(links.authenticated)

    def forget(self, identity: Identity) -> None:
        """Nobody uses this identity any more."""
        self._known.pop(identity.key, None)
        for links in identity.links:
            links.close()
