"""Counts the bytes of requests that are held, and says whether more may be.

Held are the requests of clients that wait for a link, those that are kept back (Plane.hold_writes,
hold_all), and what is queued on shared links without a connection. Only counts: releases nobody.
"""

from __future__ import annotations

from sidecar.proxy.io.client import Client
from sidecar.proxy.io.plane import Plane
from sidecar.proxy.links.identity import Identities


class Hold:
    """What is held, and the limit: `most` bytes (`failover.hold_bytes`)."""

    def __init__(self, plane: Plane, identities: Identities, most: int) -> None:
        self._plane = plane
        self._identities = identities
        self.most = most
        self._holding: set[Client] = set()
        self.bytes = 0

    @property
    def clients(self) -> int:
        """The number of clients that wait."""
        return self._plane.held_count + sum(len(k.waiting) for k in self._identities.links)

    def count(self, now: float) -> None:
        """Count again; called at each tick."""
        links = self._identities.links
        self._holding = set()
        if self._plane.held_count or any(each.waiting for each in links):
            self._holding.update(self._plane.held_clients)
            for each in links:
                self._holding |= each.waiting
        self.bytes = sum(client.unparsed for client in self._holding)
        if self._holding:
            self.bytes += sum(each.shared.retained for each in links if not each.shared.up)

    def may_hold(self, client: Client) -> bool:
        """Whether this client's requests may wait.

        A client that already waits for its writes may go on to wait for a link.
        """
        if client in self._holding:
            return True
        held = self.bytes + client.unparsed
        if held > self.most:
            return False
        self.bytes = held
        self._holding.add(client)
        return True
