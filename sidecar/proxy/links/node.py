"""Nodes: the places in the upstream that links lead to.

A plain URL has one node, the home node. The master of a Sentinel service is one node, whose dialer
switches from server to server. Each shard of a cluster is one, whose dialer switches to another
server when that becomes its primary; the home node leads to one of the primaries beside, for what
concerns no shard. Only this file knows which nodes there are and which of them answers what:
everybody else is given a node or asks `Nodes` for one.

A node has a dialer, and shares the room for links with all nodes. It tells its watchers what links
show. It has no links: those belong to identities (identity.py), one set for each node.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sidecar.proxy.io.client import Client
from sidecar.proxy.links.dialer import Dialer, Dialing
from sidecar.proxy.links.errors import NotMaster
from sidecar.proxy.links.room import Room
from sidecar.proxy.links.target import Target

Told = Callable[[], None]
Down = Callable[[bool], None]
NotMasterSeen = Callable[[Target, NotMaster], None]


@dataclass
class _Watchers:
    up: list[Told] = field(default_factory=list)
    down: list[Down] = field(default_factory=list)
    not_master: list[NotMasterSeen] = field(default_factory=list)
    broken: list[Told] = field(default_factory=list)


class Node:
    """One place in the upstream; `number` is that of a cluster's shard."""

    def __init__(
        self, target: Target | None, dialing: Dialing, room: Room, number: int | None = None
    ) -> None:
        self.number = number
        self.room = room
        # The server has announced work until then (monotonic): its silence does not mean much.
        self.patient_until = 0.0
        self.dialer = Dialer(target, dialing, room, self._tell_not_master, self._tell_broken)
        self._watchers = _Watchers()

    def watch(
        self,
        *,
        up: Told | None = None,
        down: Down | None = None,
        not_master: NotMasterSeen | None = None,
        broken: Told | None = None,
    ) -> Told:
        """Register functions to call, in the order of registration; returns what takes them out
        again.

        `up`: the sidecar's own link came up. `down`: it was lost (False), or the server said on any
        link that it is not the master (True). `not_master`: the server said so in a greeting.
        `broken`: the circuit breaker has opened.
        """
        watchers = self._watchers
        registered: list[tuple[list[Any], object]] = [
            (watchers.up, up),
            (watchers.down, down),
            (watchers.not_master, not_master),
            (watchers.broken, broken),
        ]
        registered = [(told, call) for told, call in registered if call is not None]
        for told, call in registered:
            told.append(call)

        def unwatch() -> None:
            for told, call in registered:
                told.remove(call)

        return unwatch

    def link_up(self) -> None:
        """Tell the watchers that the sidecar's own link came up."""
        for told in list(self._watchers.up):
            told()

    def link_down(self, demoted: bool) -> None:
        """Tell the watchers that the server was lost, or (`demoted`) is not the master any more."""
        for told in list(self._watchers.down):
            told(demoted)

    def _tell_not_master(self, target: Target, error: NotMaster) -> None:
        for told in list(self._watchers.not_master):
            told(target, error)

    def _tell_broken(self) -> None:
        for told in self._watchers.broken:
            told()


class Nodes:
    """The nodes of the upstream. `home` answers what names no key. `shards` are those of a cluster,
    by their numbers; None: the upstream is no cluster."""

    def __init__(self, home: Node, *, cluster: bool = False) -> None:
        self.home = home
        self.shards: dict[int, Node] | None = {} if cluster else None

    @property
    def all(self) -> list[Node]:
        """Every node."""
        return [self.home, *(self.shards or {}).values()]

    def server_of(self, target: Target | None) -> str:
        """What tells the servers of a cluster apart, of which each gives ids of its own; of one
        server at a time "", whatever its address is."""
        return str(target) if self.shards is not None and target is not None else ""

    def wanted_by(self, client: Client) -> Node | None:
        """The node that a client's next request is for; None: no shard has its slot."""
        if self.shards is None:
            return self.home
        number = client.wanted_shard
        return None if number is None else self.shards.get(number)
