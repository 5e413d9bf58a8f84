"""Subscribers of a cluster stay: when their node goes, or a slot leaves it, another one goes on.

Which subscriptions a client has is read from what passes on its link
(core/cluster/subscriptions.pyx). When the link is lost, a connection to another node is made, all
is subscribed there, the confirmations are swallowed, and the client goes on with that one: it has
seen nothing. Messages that are published meanwhile are lost, as they are for anybody who loses a
connection.

Channels and patterns are at any node. A sharded channel is at the node that has its slot. Those of
a client that are at other nodes than its link are on side links (side_links.py).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import structlog
from hiredis import pack_command

from sidecar.core.cluster.subscriptions import Subscriptions
from sidecar.core.protocol.slots import SlotTable, slot
from sidecar.proxy.cluster.side_links import AGAIN, NOT_HERE, Named, SideLinks
from sidecar.proxy.io.client import Client
from sidecar.proxy.io.side_link import SideLink
from sidecar.proxy.io.upstream import ENDED_BY_SERVER, Upstream
from sidecar.proxy.links.errors import Refused, Unreachable
from sidecar.proxy.links.greeting import ServerConnection
from sidecar.proxy.links.identity import NodeLinks
from sidecar.proxy.links.node import Node, Nodes
from sidecar.proxy.tasks import Tasks

log = structlog.get_logger()

SUBSCRIBING = frozenset((b"SUBSCRIBE", b"PSUBSCRIBE", b"SSUBSCRIBE"))
# Somebody without a subscription may send these, too, and gets a link for them.
FOLLOWED = SUBSCRIBING | {b"UNSUBSCRIBE", b"PUNSUBSCRIBE", b"SUNSUBSCRIBE"}
# Seconds between two looks at what is over in a moment; and how many looks it takes to see that a
# server is silent.
TOGETHER = 0.02
LOOKS = 50
PING = pack_command((b"PING",))
# Seconds until channels of one client whose slots are at several servers are taken to stay so.
APART = 1.0
# Channels that one request names.
MANY = 1000
CONFIRMATIONS = (b"subscribe", b"psubscribe", b"ssubscribe")


@dataclass
class _Event:
    """Links that were lost at one node for one reason: clients that wait, and are served again."""

    waiting: int = 0
    served: int = 0


@dataclass
class _Heard:
    """What a connection has said while it was subscribed on."""

    wanted: int
    messages: list[bytes] = field(default_factory=list)
    error: bytes = b""

    def __call__(self, frame: bytes) -> bool:
        """Take in one reply or push: whether all has been confirmed, or refused."""
        if frame[:1] == b"-":
            self.error = frame
        elif _word(frame) in CONFIRMATIONS:
            self.wanted -= 1
        else:
            self.messages.append(frame)
        return bool(self.error) or not self.wanted


class Subscribers:
    """`named` makes the requests that name a client on its new link. `hold` is how long a client
    may wait for a server, in seconds; `doubt` is called when the slots may be known wrongly."""

    def __init__(
        self,
        nodes: Nodes,
        slots: Callable[[], SlotTable],
        tasks: Tasks,
        named: Named,
        hold: Callable[[], float],
        doubt: Callable[[], None],
    ) -> None:
        self._nodes = nodes
        self._slots = slots
        self._tasks = tasks
        self._named = named
        self._hold = hold
        self._doubt = doubt
        self._events: dict[tuple[int | None, str], _Event] = {}
        self.resubscriptions = 0
        self.sides = SideLinks(nodes, slots, tasks, named, hold, doubt, self._restored)

    def _restored(self) -> None:
        self.resubscriptions += 1

    def begin(self, client: Client, name: bytes) -> None:
        """A client gets a link for good, for this command: follow what it subscribes to."""
        if self._nodes.shards is not None and name in FOLLOWED:
            pushes = client.identity.login.proto == 3
            client.subscriptions = Subscriptions(client.plane.table, pushes)

    # What the data path tells

    def left(self, client: Client, up: Upstream, reason: str) -> None:
        """A subscriber has no link any more: this one has gone. Its requests wait."""
        if client.task is not None:
            client.task.cancel()
        client.use_shared(client.identity.to(self._nodes.home).shared)
        client.task = self._tasks.spawn(self._resume(client, up, reason))

    def taken(self, client: Client, up: Upstream) -> None:
        """The server has ended subscriptions of this client, or sends it elsewhere: its slot is not
        there."""
        subscriptions = client.subscriptions
        assert subscriptions is not None
        if subscriptions.refusal is not None:
            self._doubt()
            self._slots().follow(subscriptions.refusal)
            owners = self._owners(_sharded(subscriptions))
            if subscriptions.is_new and len(owners) == 1 and subscriptions.movable:
                self._leave(client, up)
            else:
                self.sides.refused(client, up)
        elif subscriptions.taken:
            self._doubt()
            if client.task is None:
                client.task = self._tasks.spawn(self._follow(client, up, subscriptions))
        else:
            self.sides.see_to(client)
            if subscriptions.is_hollow and subscriptions.movable:
                self._leave(client, up)

    def _leave(self, client: Client, up: Upstream) -> None:
        if client.leave_link():
            self.left(client, up, "the slot has moved")
        else:
            client.close("upstream")

    async def _follow(self, client: Client, up: Upstream, subscriptions: Subscriptions) -> None:
        """Wait until it is known where a slot has gone that has left this link's server."""
        began = time.monotonic()
        apart = False
        while time.monotonic() - began < APART:
            owners = self._owners(subscriptions.sharded)
            apart = len(owners) > 1 or bool(subscriptions.away)
            if not apart and (owners != {up.owner.node.number} or not up.owner.is_current(up)):
                break
            self._doubt()
            await asyncio.sleep(TOGETHER)
        client.task = None
        if client.closed or client.dedicated is not up:
            return
        if apart:
            self.sides.restore(client, subscriptions.put_away())
            if subscriptions.is_hollow and subscriptions.movable:
                self._leave(client, up)
        else:
            self._leave(client, up)

    # Another link

    async def _resume(self, client: Client, up: Upstream, reason: str) -> None:
        subscriptions = client.subscriptions
        assert subscriptions is not None
        key = (up.owner.node.number, reason)
        event = self._events.setdefault(key, _Event())
        event.waiting += 1
        try:
            if reason == ENDED_BY_SERVER and await self._is_meant(up.owner):
                client.task = None
                client.finish()
                return
            if await self._go_on(client, subscriptions, up.owner.node):
                event.served += 1
                self.resubscriptions += 1
        finally:
            event.waiting -= 1
            if not event.waiting:
                del self._events[key]
                if event.served:
                    log.info("subscribers moved", shard=key[0], reason=reason, clients=event.served)

    @staticmethod
    async def _is_meant(links: NodeLinks) -> bool:
        """Whether a server has ended this one link, and goes on with others: the client was killed
        there, or has read too little."""
        shared = links.shared
        if not shared.up:
            return False
        received = shared.received
        shared.load((PING,))
        for _ in range(LOOKS):
            await asyncio.sleep(TOGETHER)
            if not shared.up or shared.received != received:
                break
        await asyncio.sleep(TOGETHER)  # its end may stand right behind what has come
        return shared.up and shared.received != received

    def side_lost(self, client: Client, up: SideLink, reason: str) -> None:
        """A side link of a subscriber was lost."""
        if reason == ENDED_BY_SERVER:
            self._tasks.spawn(self._side_ended(client, up))
        else:
            self.sides.lost(client, up)

    async def _side_ended(self, client: Client, up: SideLink) -> None:
        if await self._is_meant(up.owner):
            client.finish()
        else:
            self.sides.lost(client, up)

    async def _go_on(self, client: Client, subscriptions: Subscriptions, former: Node) -> bool:
        """Have another link go on. False: the client is gone, or is let go."""
        due = subscriptions.due_requests
        names = _sharded(subscriptions)
        subscriptions.begin_again()
        deadline = time.monotonic() + self._hold()
        tried = {former}
        while True:
            node = self._node_for(names, tried)
            if node is not None:
                tried.add(node)
                away = self._elsewhere(subscriptions.sharded, node)
                self.sides.leave(client, node)
                try:
                    up, said = await self._subscribed(client, subscriptions, node, away)
                    break
                except Refused as error:
                    client.task = None
                    client.refuse_last(error.reply)
                    return False
                except Unreachable:
                    pass
            self._doubt()
            if time.monotonic() >= deadline:
                client.task = None
                client.finish()
                return False
            await asyncio.sleep(AGAIN * (1 + random.random()))
        client.task = None
        if client.closed:
            up.close()
            return False
        subscriptions.away.clear()
        subscriptions.away.update(away)
        self.sides.see_to(client)
        self.sides.restore(client, self.sides.missing(client, away))
        first = b"".join(pack_command(tuple(words)) for words in due)
        client.use_dedicated(up, pinned=True, first=first)
        up.take(said)
        return True

    def _node_for(self, names: Iterable[bytes], tried: set[Node]) -> Node | None:
        """The node for these sharded channels; without any, one that has not been tried yet."""
        shards = self._nodes.shards or {}
        owners = [self._slots().owner(slot(name)) for name in names]
        if owners:
            number = max(owners, key=owners.count)
            return None if number is None else shards.get(number)
        if tried.issuperset(shards.values()):
            tried.clear()
        fresh = [node for node in shards.values() if node not in tried]
        return random.choice(fresh) if fresh else None

    def _owners(self, names: Iterable[bytes]) -> set[int | None]:
        return {self._slots().owner(slot(name)) for name in names}

    def _elsewhere(self, names: Iterable[bytes], node: Node) -> list[bytes]:
        """Those of these sharded channels that another node has."""
        return [name for name in names if self._slots().owner(slot(name)) != node.number]

    async def _subscribed(
        self, client: Client, subscriptions: Subscriptions, node: Node, but: Sequence[bytes]
    ) -> tuple[Upstream, bytes]:
        """A link to this node on which all is subscribed but for these sharded channels, and what
        its server has said behind that. Raises Refused, Unreachable."""
        links: NodeLinks = client.identity.to(node)
        connection = await links.open()
        up = links.new_link(shared=False)
        up.target = connection.target
        try:
            await connection.ask(*self._named(client, up))
            said = await _subscribe(connection, subscriptions, but)
        except BaseException:
            connection.close()
            raise
        links.attach(up, connection)
        return up, said


async def _subscribe(
    connection: ServerConnection, subscriptions: Subscriptions, but: Sequence[bytes]
) -> bytes:
    """Subscribe to all of it, but for these sharded channels; the messages that came meanwhile.
    Raises Refused, Unreachable."""
    sharded = subscriptions.sharded.difference(but)
    requests = [
        *_requests(b"SUBSCRIBE", subscriptions.channels, MANY),
        *_requests(b"PSUBSCRIBE", subscriptions.patterns, MANY),
        *_requests(b"SSUBSCRIBE", sharded, 1),  # those of one request must be of one slot
    ]
    heard = _Heard(len(subscriptions.channels) + len(subscriptions.patterns) + len(sharded))
    if not heard.wanted:
        return b""
    rest = await connection.converse(b"".join(requests), heard)
    if heard.error.startswith(NOT_HERE):
        raise Unreachable(f"upstream {connection.target} says {heard.error.decode().strip()}")
    if heard.error:
        raise Refused(heard.error)
    return b"".join(heard.messages) + rest


def _requests(word: bytes, names: Iterable[bytes], most: int) -> list[bytes]:
    """Requests with these names, `most` in each."""
    ordered = sorted(names)
    return [pack_command((word, *ordered[at : at + most])) for at in range(0, len(ordered), most)]


def _sharded(subscriptions: Subscriptions) -> set[bytes]:
    """The sharded channels that a client has or is about to have."""
    due = subscriptions.due_requests
    asked = (words[1:] for words in due if words[0].upper() == b"SSUBSCRIBE")
    return subscriptions.sharded.union(*asked)


def _word(frame: bytes) -> bytes:
    """The first word of an array or a push."""
    parts = frame.split(b"\r\n", 3)
    return parts[2] if len(parts) == 4 and frame[:1] in b"*>" else b""
