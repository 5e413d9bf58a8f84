"""A node's server is another one from now on: the step of a failover that the links see.

The master follower decides and has verified the new server (proxy/master.py); this cuts every link
to the old one and begins to connect to the new. What was never sent, and reads, will be sent to
the new one; see core/link/recovery.pyx for the rest. Clients with a link of their own lose it, with
an error for what is under way.
"""

from __future__ import annotations

from collections.abc import Callable

from sidecar.proxy.io.plane import Plane
from sidecar.proxy.io.upstream import Upstream
from sidecar.proxy.links.identity import Identities
from sidecar.proxy.links.node import Node
from sidecar.proxy.links.shared import SharedLinks
from sidecar.proxy.links.target import Target

CHANGED = "the master has changed"


class Switch:
    """Leads nodes to another server. `distrust` is told the reason before any link is cut."""

    def __init__(
        self,
        plane: Plane,
        identities: Identities,
        shared: SharedLinks,
        distrust: Callable[[str], None],
    ) -> None:
        self._plane = plane
        self._identities = identities
        self._shared = shared
        self._distrust = distrust

    def to(self, node: Node, target: Target) -> None:
        """Every link to the old server ends."""
        node.dialer.switch(target)
        self._distrust(CHANGED)
        for links in self._identities.links_to(node):
            links.close_idle()
            # The link first: what the retired ones move to it must wait for the new server.
            for up in (links.shared, *links.retired):
                up.break_off(CHANGED)
            links.retry.set()
        for up in self._links_of(node):
            up.break_off(CHANGED)
        self._shared.connect(self._identities.default.to(node))

    def renew(self, node: Node, target: Target) -> None:
        """The same server, to be connected to in another way; links that are there stay."""
        for up in self._links_of(node):
            if up.target is node.dialer.target:
                up.target = target
        node.dialer.renew(target)

    def _links_of(self, node: Node) -> list[Upstream]:
        return [up for up in self._plane.upstreams if up.owner.node is node]
