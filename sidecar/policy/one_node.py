"""What a cluster of one node says of itself: the sidecar, shown to clients that work with clusters
only (`cluster.present = "cluster"`). Pure.

The node has all slots, and the address at which the client has reached it. Replies have the shape
of the client's protocol, as a server writes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from sidecar.core.protocol.slots import slot

SLOTS = 16384
BUS = 10000  # what is added to a port for the bus, where nothing else is said


def text(value: str) -> bytes:
    """A bulk string."""
    data = value.encode()
    return b"$%d\r\n%b\r\n" % (len(data), data)


def number(value: int) -> bytes:
    """An integer."""
    return b":%d\r\n" % value


def array(*items: bytes) -> bytes:
    """An array of raw elements."""
    return b"*%d\r\n%b" % (len(items), b"".join(items))


@dataclass(frozen=True)
class OneNode:
    """The node at this address, for a client with this protocol."""

    host: str
    port: int
    protocol: int
    tls: bool = False

    @property
    def id(self) -> str:
        """The same for as long as the address is."""
        return hashlib.sha1(f"{self.host}:{self.port}".encode()).hexdigest()

    def answer(self, args: list[bytes]) -> bytes | None:
        """The reply to a CLUSTER command; None: a shard has to be asked, or it is no such
        command."""
        word = args[1].lower() if len(args) > 1 else b""
        if word == b"keyslot" and len(args) == 3:
            return number(slot(args[2]))
        if word in (b"replicas", b"slaves") and len(args) == 3:
            return array()
        answers: dict[bytes, Callable[[], bytes]] = {
            b"slots": self._slots,
            b"shards": self._shards,
            b"nodes": self._nodes,
            b"info": self._info,
            b"myid": lambda: text(self.id),
            b"myshardid": lambda: text(self.id),
            b"links": array,
        }
        return answers[word]() if word in answers and len(args) == 2 else None

    def _slots(self) -> bytes:
        node = array(text(self.host), number(self.port), text(self.id), array())
        return array(array(number(0), number(SLOTS - 1), node))

    def _map(self, *pairs: tuple[str, bytes]) -> bytes:
        items = b"".join(text(name) + value for name, value in pairs)
        if self.protocol == 2:
            return b"*%d\r\n%b" % (2 * len(pairs), items)
        return b"%%%d\r\n%b" % (len(pairs), items)

    def _shards(self) -> bytes:
        node = self._map(
            ("id", text(self.id)),
            ("tls-port" if self.tls else "port", number(self.port)),
            ("ip", text(self.host)),
            ("endpoint", text(self.host)),
            ("role", text("master")),
            ("replication-offset", number(0)),
            ("health", text("online")),
        )
        slots = array(number(0), number(SLOTS - 1))
        return array(self._map(("slots", slots), ("nodes", array(node))))

    def _lines(self, value: str) -> bytes:
        """A text of several lines."""
        data = value.encode()
        if self.protocol == 2:
            return b"$%d\r\n%b\r\n" % (len(data), data)
        return b"=%d\r\ntxt:%b\r\n" % (len(data) + 4, data)

    def _nodes(self) -> bytes:
        where = f"{self.host}:{self.port}@{self.port + BUS}"
        return self._lines(f"{self.id} {where} myself,master - 0 0 1 connected 0-{SLOTS - 1}\n")

    def _info(self) -> bytes:
        fields = {
            "enabled": 1,
            "state": "ok",
            "slots_assigned": SLOTS,
            "slots_ok": SLOTS,
            "slots_pfail": 0,
            "slots_fail": 0,
            "known_nodes": 1,
            "size": 1,
            "current_epoch": 1,
            "my_epoch": 1,
        }
        return self._lines("".join(f"cluster_{name}:{value}\r\n" for name, value in fields.items()))
