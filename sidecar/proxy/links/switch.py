"""Switches a node to another server: the step of a failover that concerns the links.

The master follower (proxy/master.py) has decided and has verified the new server. This cuts every
link to the old server and begins to connect to the new one. Requests that were never sent, and
reads, go to the new server; see core/link/recovery.pyx for the others. Clients with a dedicated
link lose it, with an error for what is under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sidecar.proxy.io.plane import Plane
from sidecar.proxy.io.upstream import Upstream
from sidecar.proxy.links.identity import Identities, NodeLinks
from sidecar.proxy.links.node import Node
from sidecar.proxy.links.shared import SharedLinks
from sidecar.proxy.links.target import Target
from sidecar.proxy.tasks import for_each

CHANGED = "the master has changed"
# Seconds for which the answers of a shard's former server are awaited.
AWAITED = 1.0


class Switch:
    """Switches nodes. `distrust` is called with the node and the reason before any link is cut."""

    def __init__(
        self,
        plane: Plane,
        identities: Identities,
        shared: SharedLinks,
        distrust: Callable[[Node, str], None],
    ) -> None:
        self._plane = plane
        self._identities = identities
        self._shared = shared
        self._distrust = distrust

    def to(self, node: Node, target: Target) -> None:
        """Switch to this server: every link to the old one ends."""
        node.dialer.switch(target)
        self._distrust(node, CHANGED)
        for_each(self._identities.links_to(node), self._cut)
        for_each(self._links_of(node), lambda up: up.break_off(CHANGED))
        self._shared.connect(self._identities.default.to(node))

    def over(self, node: Node, target: Target) -> None:
        """Switch a shard of a cluster to this server. A server that was its primary answers what is
        under way there by a redirection, so that is waited for, for a moment."""
        node.dialer.switch(target)
        self._distrust(node, CHANGED)
        for_each(self._identities.links_to(node), self._succeed)
        self._shared.connect(self._identities.default.to(node))
        asyncio.get_running_loop().call_later(AWAITED, self._end_former, node)

    def _succeed(self, links: NodeLinks) -> None:
        links.close_idle()
        former = links.shared
        if former.up and former.outstanding:
            links.shared = links.new_link(shared=True)
            former.retire()
            links.retired.append(former)
            self._shared.connect(links)
        else:
            former.break_off(CHANGED)
        links.retry.set()

    def _end_former(self, node: Node) -> None:
        """What a former server of a shard has not answered until now, it does not answer."""
        for_each(
            (up for up in self._links_of(node) if up.target is not node.dialer.target),
            lambda up: up.break_off(CHANGED),
        )

    def abandon(self, node: Node) -> None:
        """A shard has no server now. Its subscribers, to whom a silent one owes nothing, are served
        elsewhere."""
        for_each(
            (up for up in self._links_of(node) if up.client and up.client.subscriptions),
            lambda up: up.break_off("the shard has no primary"),
        )

    def remove(self, node: Node) -> None:
        """The shard has gone: every link to it ends, and what waited there goes elsewhere."""
        links = self._identities.links_to(node)
        for each in links:
            each.identity.leave_node(node)
            each.close_idle()
        for_each(
            (up for each in links for up in (each.shared, *each.retired)), lambda up: up.leave()
        )
        for_each(self._links_of(node), lambda up: up.break_off("the shard has gone"))
        for_each(links, self._shared.wake)

    def retry(self, node: Node) -> None:
        """Have every link to the node connect at once that waits before its next attempt."""
        for_each(self._identities.links_to(node), lambda links: links.retry.set())

    def renew(self, node: Node, target: Target) -> None:
        """Use other certificates for new connections to the same server; existing links stay."""
        for up in self._links_of(node):
            if up.target is node.dialer.target:
                up.target = target
        node.dialer.renew(target)

    def _cut(self, links: NodeLinks) -> None:
        links.close_idle()
        # The shared link first: what retired links move to it must wait for the new server.
        for_each((links.shared, *links.retired), lambda up: up.break_off(CHANGED))
        links.retry.set()

    def _links_of(self, node: Node) -> list[Upstream]:
        return [up for up in self._plane.upstreams if up.owner.node is node]
