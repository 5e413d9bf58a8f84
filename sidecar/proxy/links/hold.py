"""How many bytes of requests are held for want of an upstream, and whether more may be.

Held are: clients that wait for a link, clients whose writes are kept back, and what lies on shared
links that have no connection. Counts only; nothing here lets anybody go on.
"""

from __future__ import annotations

from sidecar.proxy.io.client import Client
from sidecar.proxy.io.plane import Plane
from sidecar.proxy.links.identity import Identities


class Hold:
    """The account of what is held; at most `most` bytes (`failover.hold_bytes`)."""

    def __init__(self, plane: Plane, identities: Identities, most: int) -> None:
        self._plane = plane
        self._identities = identities
        self._most = most
        self._holding: set[Client] = set()
        self.bytes = 0

    @property
    def clients(self) -> int:
        """Clients that wait."""
        return self._plane.writes_held + sum(len(k.waiting) for k in self._identities.links)

    def count(self, now: float) -> None:
        """Add up anew; called at each tick."""
        links = self._identities.links
        self._holding = set()
        if self._plane.writes_held or any(each.waiting for each in links):
            self._holding.update(self._plane.held_clients)
            for each in links:
                self._holding |= each.waiting
        self.bytes = sum(client.unparsed for client in self._holding)
        if self._holding:
            self.bytes += sum(each.shared.retained for each in links if not each.shared.up)

    def may_hold(self, client: Client) -> bool:
        """Whether this client's requests may wait.

        One that waits already, for writes to be let go, may go on waiting for a link.
        """
        if client in self._holding:
            return True
        held = self.bytes + client.unparsed
        if held > self._most:
            return False
        self.bytes = held
        self._holding.add(client)
        return True
