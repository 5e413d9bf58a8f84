"""Identities, and the links of an identity: one set for each node.

An identity is (protocol version, user, database). Its clients can share a link, because the server
treats their ordinary commands alike. For each node in use it has a shared link, which outlives its
connections, and the pool: idle dedicated links that are clean enough to be used again.

State only: shared.py and dedicated.py connect links, maintenance.py looks after them. Nothing here
starts a task.
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
from sidecar.proxy.io.shard_links import ShardLinks
from sidecar.proxy.io.upstream import Upstream
from sidecar.proxy.links.errors import Refused
from sidecar.proxy.links.greeting import Greeted, Login, ServerConnection
from sidecar.proxy.links.hello_reply import server_id
from sidecar.proxy.links.node import Node, Nodes
from sidecar.proxy.links.target import Target

Key = tuple[int, bytes | None, int, int]


@dataclass
class LinkMaking:
    """What it takes to make links. `spare` is the initial number of spare links of an identity.
    `attached` is called for each connected link before it carries anything."""

    plane: Plane
    spare: int
    attached: Callable[[Upstream, Target, socket.socket], None]


class NodeLinks:
    """The links of one identity to one node, and the clients that wait for the shared one."""

    def __init__(self, making: LinkMaking, identity: Identity, node: Node) -> None:
        self._making = making
        self.identity = identity
        self.node = node
        self.gone = False  # the node is none of the upstream's any more
        self._shared: Upstream
        self.shared = self.new_link(shared=True)
        self.greeted: Greeted | None = None
        # The shared link, who waits for it, and the links that it replaced.
        self.connecting = False
        self.connecting_since = 0.0
        self.retry = asyncio.Event()
        self.login_in_use: Login | None = None  # of the latest attempt
        self.up_since = 0.0
        self.cut_short = 0  # times in a row that it was lost soon after it had come up
        self.waiting: set[Client] = set()
        self.failure = ""  # why the latest attempt to connect it failed, while it is connected
        self.arrivals: list[asyncio.Future[None]] = []
        self.retired: list[Upstream] = []
        self.diverting = False
        self.silent: dict[Upstream, tuple[int, float]] = {}
        # Dedicated links; `idle` is the pool.
        self.idle: deque[Upstream] = deque()
        self.spare = making.spare
        self.filling = False
        self.wait_is_provable: bool | None = None

    @property
    def shared(self) -> Upstream:
        """The shared link."""
        return self._shared

    @shared.setter
    def shared(self, up: Upstream) -> None:
        self._shared = up
        if self.node.number is not None and self.identity.shard_links is not None:
            self.identity.shard_links.put(self.node.number, up)

    async def open(self, *, urgent: bool = False) -> ServerConnection:
        """Open a connection to the node, greeted as this identity; if it is `urgent`, even beyond
        `upstream.max_links`. Raises Refused, Unreachable."""
        dialer, refused = self.node.dialer, self.identity.refused
        try:
            return (await dialer.open(self.identity.login, urgent=urgent))[0]
        except Refused as error:
            if refused is None or not error.concerns_login:
                raise
            raise Refused(refused) from error

    def attach(self, up: Upstream, connection: ServerConnection) -> None:
        """Connect one of these links with a greeted connection."""
        greeted = connection.greeted
        if up.shared:
            self.greeted = greeted
        hello = greeted.hello if greeted is not None else None
        up.target = connection.target
        connection.target.own.carries(connection.sock, connection.asked)
        self._making.attached(up, connection.target, connection.sock)
        up.attach(connection.sock, connection.tls, hello, server_id(hello))

    def new_link(self, *, shared: bool) -> Upstream:
        """Make one more link, without a connection yet."""
        up = Upstream(self._making.plane, self, shared)
        if self.node.number is not None:
            up.lead_to_shard(self.node.number)
        return up

    def is_current(self, up: Upstream) -> bool:
        """Whether a link's connection leads to the current target of the node."""
        return up.target is self.node.dialer.target

    @property
    def authenticated(self) -> bool:
        """Whether the server takes commands on the shared link; True until it has been asked."""
        return self.greeted is None or not self.greeted.unauthenticated

    def take_idle(self) -> Upstream | None:
        """Take the most recently used link from the pool; None if the pool is empty."""
        while self.idle:
            up = self.idle.pop()
            if up.up:
                return up
        return None

    def take_spare(self) -> Upstream | None:
        """Take the link from the pool that is the least likely to have been used."""
        while self.idle:
            up = self.idle.popleft()
            if up.up:
                return up
        return None

    def close_idle(self) -> None:
        """Close the links of the pool."""
        while self.idle:
            self.idle.pop().close()

    def close(self) -> None:
        """Close all links that no client has to itself."""
        for up in (self.shared, *self.retired):
            up.close()
        self.close_idle()


class Identity:
    """One identity, its clients, and its links to each node in use.

    `shard_links` are its shared links to the shards of a cluster; None: the upstream is none.
    `own_login`: a client logged in by itself. When the server stops accepting those credentials,
    the clients are closed, because a direct client would have to log in again, too. `refused`: the
    credentials are the sidecar's for a principal, and not the clients' own; they get this error
    while the server refuses them.
    """

    def __init__(
        self, making: LinkMaking, login: Login, own_login: bool, shard_links: ShardLinks | None
    ) -> None:
        self.login = login
        self.shard_links = shard_links
        self.own_login = own_login
        self.refused: bytes | None = None
        self.clients: set[Client] = set()
        self.unused_since: float | None = time.monotonic()
        self._making = making
        self._links: dict[Node, NodeLinks] = {}

    @property
    def key(self) -> Key:
        """What distinguishes identities. The password does not: the last proven one counts."""
        login = self.login
        return (login.proto, login.user, login.db, login.era)

    @property
    def links(self) -> list[NodeLinks]:
        """Its links to all nodes in use."""
        return list(self._links.values())

    def to(self, node: Node) -> NodeLinks:
        """Its links to this node; made at the first call."""
        links = self._links.get(node)
        if links is None:
            links = self._links[node] = NodeLinks(self._making, self, node)
        return links

    def leave_node(self, node: Node) -> NodeLinks | None:
        """Its links to this node, which it has no more; None if it had none."""
        links = self._links.pop(node, None)
        if links is not None:
            links.gone = True
        if links is not None and self.shard_links is not None and node.number is not None:
            self.shard_links.put(node.number, None)
        return links

    def learn(self, login: Login) -> None:
        """A client has proved this login: use it for new connections."""
        if login != self.login:
            self.login = login
            for links in self.links:
                links.retry.set()

    @property
    def in_use(self) -> bool:
        """Whether anybody is served, or waited for, on its links."""
        return bool(self.clients) or any(
            links.connecting or links.arrivals or links.shared.outstanding for links in self.links
        )

    def leave(self, client: Client) -> None:
        """A client leaves this identity."""
        self.clients.discard(client)
        for links in self.links:
            links.waiting.discard(client)
        if not self.clients:
            self.unused_since = time.monotonic()


def _rebased(identity: Identity, before: Login, now: Login) -> Login:
    """The login of this identity once the sidecar's own is another one. Who has logged in keeps
    the credentials; who has selected no other database gets that of the sidecar."""
    login = identity.login
    db = now.db if login.db == before.db else login.db
    if not identity.own_login:
        return replace(now, proto=login.proto, db=db, era=login.era)
    via = login.via
    if not db:
        via = None
    elif via is None or via.auth == before.auth:
        via = replace(now, db=db)
    else:
        via = replace(via, db=db)
    return replace(login, db=db, via=via)


class Identities:
    """All identities in use. `default` is the sidecar's own. New clients begin with it, or, if it
    has no login, with that of the present era. `refused` is that of the others; see Identity."""

    def __init__(self, making: LinkMaking, nodes: Nodes, login: Login) -> None:
        self._making = making
        self._nodes = nodes
        self._known: dict[Key, Identity] = {}
        self._apart: set[Identity] = set()
        self.refused: bytes | None = None
        self.default = self.get(login, own_login=False)
        self._eras = 0

    def __iter__(self) -> Iterator[Identity]:
        return iter(list(self._known.values()))

    def __contains__(self, identity: Identity) -> bool:
        return self._known.get(identity.key) is identity

    @property
    def links(self) -> list[NodeLinks]:
        """The links of all identities to all nodes."""
        return [links for identity in self for links in identity.links]

    def links_to(self, node: Node) -> list[NodeLinks]:
        """The links of all identities to one node."""
        return [links for links in self.links if links.node is node]

    def get(self, login: Login, *, own_login: bool) -> Identity:
        """The identity of a login; made if it is new.

        With `own_login`, a client has proved it: its password replaces the older one of this user,
        in every database and protocol.
        """
        key = (login.proto, login.user, login.db, login.era)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._made(login, own_login)
            found.to(self._nodes.home)
        elif own_login:
            found.learn(login)
        if own_login:
            for other in self:
                if other.own_login and other.login.user == login.user:
                    other.learn(replace(other.login, password=login.password))
        return found

    def relearn(self, user: bytes, password: bytes) -> None:
        """Use this password for new connections of a user whose logins are not its clients'."""
        for identity in self:
            if identity.refused is not None and identity.login.user == user:
                identity.learn(replace(identity.login, password=password))

    def apart(self, refusal: bytes) -> Identity:
        """Make an identity that is none of these: nothing connects its links, and they answer every
        command with `refusal`."""
        identity = Identity(
            self._making, Login(2, b"", b"", self.default.login.db, -1), False, None
        )
        links = identity.to(self._nodes.home)
        links.greeted = Greeted(None, unauthenticated=True)
        links.shared.refuse(refusal)
        self._apart.add(identity)
        return identity

    def _made(self, login: Login, own_login: bool) -> Identity:
        shards = self._nodes.shards
        identity = Identity(
            self._making, login, own_login, None if shards is None else ShardLinks()
        )
        identity.refused = self.refused if own_login else None
        if shards and identity.shard_links is not None:
            identity.shard_links.any = min(shards)
            for node in shards.values():
                identity.to(node)
        return identity

    def add_node(self, node: Node) -> None:
        """There is a node more: every identity gets links to it, once they are needed."""
        for identity in self:
            identity.to(node)

    def use_any(self, number: int) -> None:
        """Clients send to this shard what names no key."""
        for identity in self:
            if identity.shard_links is not None:
                identity.shard_links.any = number

    def use_spare(self, spare: int) -> None:
        """Keep so many spare links of each identity from now on."""
        self._making.spare = spare
        for links in self.links:
            links.spare = spare

    def is_up(self, login: Login, node: Node) -> bool:
        """Whether the identity of this login is known and has its shared link to this node."""
        found = self._known.get((login.proto, login.user, login.db, login.era))
        return found is not None and found.to(node).shared.up

    def new_era(self) -> int:
        """The number of an era of its own: the links of its identities are all made from now on."""
        self._eras += 1
        return self._eras

    def of_era(self, era: int) -> Identity:
        """The identity of a client that begins in this era without a login; 0 is the first."""
        return self.get(replace(self.default.login, era=era), own_login=False)

    def rebase(self, login: Login) -> None:
        """This is the sidecar's own login from now on: what identities owe to the one before they
        have of this one. Their links stay theirs, and are to be connected again."""
        before, known = self.default.login, list(self._known.values())
        self._known = {}
        for identity in (self.default, *(each for each in known if each is not self.default)):
            identity.login = _rebased(identity, before, login)
            if identity.key in self._known:  # two databases are one now: links of its own will do
                identity.login = replace(identity.login, era=self.new_era())
            self._known[identity.key] = identity

    def join(self, client: Client, identity: Identity) -> Identity:
        """Move a client to this identity. It must have no reply outstanding.

        Returns the identity that it has joined: another one of the same key, if this one was
        forgotten meanwhile.
        """
        if identity not in self._apart:
            identity = self._known.setdefault(identity.key, identity)
            for node in (self._nodes.shards or {}).values():
                identity.to(node)  # it may have been forgotten when a node came
        old: Identity | None = client.identity
        if old is not None:
            old.leave(client)
        client.identity = identity
        identity.clients.add(client)
        identity.unused_since = None
        links = identity.to(self._nodes.home)
        client.use_shared(links.shared)
        if self._nodes.shards is not None:
            client.join_shards(identity.shard_links)
        client.set_authenticated(links.authenticated)
        return identity

    def count(self, client: Client, identity: Identity) -> None:
        """A client's own link is that of another user from now on: it is one of this identity's
        clients, and stays on its link."""
        client.identity.leave(client)
        client.identity = identity
        identity.clients.add(client)
        identity.unused_since = None

    def forget(self, identity: Identity) -> None:
        """Drop an identity that nobody uses, with its links."""
        self._known.pop(identity.key, None)
        for links in identity.links:
            links.close()
