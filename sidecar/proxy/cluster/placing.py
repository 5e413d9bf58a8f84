"""Places clients that need a link of their own on a shard of the cluster.

Most requests tell it by their keys. MULTI does not: if nothing behind it has come yet, it is
answered here, and is sent to the shard of the first key that follows. So is what names no key and
comes before that. Requests for a slot that
nobody has wait until somebody does, at most as long as commands are held (`failover.hold`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sidecar.core.protocol.slots import SlotTable, slot
from sidecar.proxy.io.client import Client
from sidecar.proxy.links.node import Node, Nodes

# Servers that a request is sent on to in a row, and the pause after them, in seconds.
MOST_HOPS = 5
AGAIN = 0.05
# A request that has not been sent elsewhere for so many seconds has been served since.
AFRESH = 1.0
NOT_SERVED = b"-CLUSTERDOWN Hash slot not served\r\n"
OK = b"+OK\r\n"
NO_CLUSTER = b"-ERR This instance has cluster support disabled\r\n"
# What a client says to a node of a cluster, and means nothing to a sidecar that knows the shards.
OF_A_NODE = (b"ASKING", b"READONLY", b"READWRITE")
NOTHING = b"*0\r\n"
QUEUED = b"+QUEUED\r\n"
# What is queued here in a transaction whose shard is not known: any server accepts it, with so many
# words at least and at most. Anything else is for a server to judge.
KEYLESS = {
    b"PING": (1, 2),
    b"ECHO": (2, 2),
    b"TIME": (1, 1),
    b"PUBLISH": (3, 3),
    b"DBSIZE": (1, 1),
    b"LASTSAVE": (1, 1),
}
MOST_QUEUED = 1000


@dataclass
class _Turned:
    """A client's request was sent elsewhere so often, since then, and then at last; `asked`: to a
    shard that has its slot not yet."""

    since: float
    latest: float
    count: int = 0
    asked: int | None = None


class Placing:
    """`hold` is how long requests may wait, in seconds. `doubt` is called when the slots may be
    known wrongly. `as_cluster`: clients are shown a cluster of one node."""

    def __init__(
        self,
        nodes: Nodes,
        slots: Callable[[], SlotTable],
        hold: Callable[[], float],
        doubt: Callable[[], None],
        *,
        as_cluster: bool,
    ) -> None:
        self._nodes = nodes
        self._slots = slots
        self.hold = hold
        self.doubt = doubt
        self._as_cluster = as_cluster
        # Whose requests have been sent elsewhere, and who waits.
        self._turned: dict[Client, _Turned] = {}
        self._again: dict[Client, tuple[float, bytes]] = {}
        self._waiting: dict[Client, float] = {}
        self._since: float | None = None  # of the client that is being resumed

    def node_for(self, client: Client) -> Node | None:
        """The node for a dedicated link; None: the client has been answered, or waits."""
        shards = self._nodes.shards
        if shards is None:
            return self._nodes.home
        turned = self._turned.get(client)
        if turned is not None and turned.asked in shards:
            return shards[turned.asked]
        number = client.shard_ahead()
        if number is None:
            number = self._of_channel(client)
        if number is None:
            if self._served(client):
                return None
            links = client.shard_links
            number = links.any if links is not None else -1
        node = shards.get(number)
        if node is None:
            self.wait(client)
        return node

    def _of_channel(self, client: Client) -> int | None:
        """The shard of the first channel of SSUBSCRIBE; channels are no keys, but have slots."""
        head = client.head()
        if head is None or len(head[0]) < 2 or head[0][0].upper() != b"SSUBSCRIBE":
            return None
        owner = self._slots().owner(slot(head[0][1]))
        return -1 if owner is None else owner

    def _served(self, client: Client) -> bool:
        """Whether the request at the head is part of a transaction whose shard is not known yet,
        and was answered."""
        head = client.head()
        if client.head_refused:
            return False  # the server has to know, so that it aborts the transaction
        if client.multi_unsent:
            return head is not None and self._served_in_multi(client, *head)
        name = head[0][0].upper() if head is not None and len(head[0]) == 1 else b""
        if name in OF_A_NODE:
            client.answer(OK if self._as_cluster else NO_CLUSTER)
            return True
        if name != b"MULTI":
            return False
        client.multi_unsent = True
        client.answer(OK)
        return True

    @staticmethod
    def _served_in_multi(client: Client, args: Sequence[bytes], raw: bytes) -> bool:
        queued = client.queued_unsent or []
        name = args[0].upper()
        if len(args) == 1 and (name == b"DISCARD" or (name == b"EXEC" and not queued)):
            client.multi_unsent = False
            client.answer(OK if name == b"DISCARD" else NOTHING)
            return True
        least, most = KEYLESS.get(name, (1, 0))
        if not least <= len(args) <= most or len(queued) >= MOST_QUEUED:
            return False
        queued.append((name, raw))
        client.queued_unsent = queued
        client.answer(QUEUED)
        return True

    # Requests that were sent elsewhere

    def turned_back(self, client: Client, error: bytes) -> None:
        """The server of a client's own link has answered its request by this redirection: serve it
        where that points, or again in a moment."""
        found = self._slots().follow(error)
        now = time.monotonic()
        turned = self._turned.get(client)
        if turned is None or now - turned.latest > AFRESH:
            turned = self._turned[client] = _Turned(now, now)
        turned.latest = now
        turned.count += 1
        number, ask = found if found is not None else (None, False)
        if number is None or turned.count % MOST_HOPS == 0:
            self._again[client] = (now + AGAIN, error)
            self.doubt()
            return
        turned.asked = number if ask else None
        client.resume()

    def asking(self, client: Client) -> bool:
        """Whether the link that the client is given is for a slot that is on its way there."""
        turned = self._turned.get(client)
        if turned is None or turned.asked is None:
            return False
        turned.asked = None
        return True

    def _look_again(self, now: float) -> None:
        for client, (at, error) in list(self._again.items()):
            if client.closed:
                del self._again[client]
            elif now >= at:
                del self._again[client]
                turned = self._turned.get(client)
                if turned is not None and now - turned.since >= self.hold():
                    client.refuse(error)
                else:
                    client.resume()
        for client, each in list(self._turned.items()):
            if client.closed or now - each.latest > AFRESH:
                self._turned.pop(client)

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
        self._look_again(now)
        for client, since in list(self._waiting.items()):
            if client.closed:
                del self._waiting[client]
            elif now - since >= self.hold():
                del self._waiting[client]
                if client.head() is None:
                    client.refuse_last(NOT_SERVED)  # the rest of a large request is still to come
                else:
                    client.refuse(NOT_SERVED)

    @property
    def waiting(self) -> int:
        """How many clients wait."""
        return len(self._waiting) + len(self._again)
