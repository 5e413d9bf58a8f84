"""Nodes: the servers that make up the upstream. Today there is one, the *home* node.

A plain URL has one node; the master of a Sentinel group is one node, whose dialer is switched from
server to server; each primary of a cluster will be one. Which nodes there are, and which of them
answers for what, is known here only: everybody else is given a node, or asks `Nodes` for one.

A node knows how to reach its server (its dialer), and tells those who watch it what links show of
it. It knows no links: these belong to identities (identity.py), one set for each node.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sidecar.proxy.links.dialer import Dialer, Dialing
from sidecar.proxy.links.errors import NotMaster
from sidecar.proxy.links.target import Target

Told = Callable[[], None]
NotMasterSeen = Callable[[Target, NotMaster], None]


@dataclass
class _Watchers:
    up: list[Told] = field(default_factory=list)
    down: list[Told] = field(default_factory=list)
    not_master: list[NotMasterSeen] = field(default_factory=list)


class Node:
    """One server of the upstream."""

    def __init__(self, target: Target | None, dialing: Dialing) -> None:
        self.dialer = Dialer(target, dialing, self._say_not_master)
        self._watchers = _Watchers()

    def watch(
        self,
        *,
        up: Told | None = None,
        down: Told | None = None,
        not_master: NotMasterSeen | None = None,
    ) -> None:
        """Be told what links show: `up`, the sidecar's own link has come up; `down`, it was lost,
        or a link's server has said that it is no master; `not_master`, the server that was dialled
        said so. Those who watch are told in the order they began."""
        if up is not None:
            self._watchers.up.append(up)
        if down is not None:
            self._watchers.down.append(down)
        if not_master is not None:
            self._watchers.not_master.append(not_master)

    def say_up(self) -> None:
        """The sidecar's own link to this node has come up."""
        for told in self._watchers.up:
            told()

    def say_down(self) -> None:
        """The server of now was lost, or is no master any more."""
        for told in self._watchers.down:
            told()

    def _say_not_master(self, target: Target, error: NotMaster) -> None:
        for told in self._watchers.not_master:
            told(target, error)


class Nodes:
    """The upstream's nodes. `home` answers what names no key."""

    def __init__(self, home: Node) -> None:
        self.home = home
