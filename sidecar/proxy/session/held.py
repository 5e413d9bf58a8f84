"""Sessions that wait for an upstream, and what they get when too much is waiting already.

How much may be held is counted in links/hold.py; who connects the link is links/shared.py.
"""

from __future__ import annotations

from sidecar.proxy.io.client import PINNED_MODE, Client
from sidecar.proxy.links.errors import unavailable
from sidecar.proxy.links.hold import Hold
from sidecar.proxy.links.identity import NodeLinks
from sidecar.proxy.links.shared import SharedLinks

TOO_MUCH_HELD = unavailable(
    "there is no master, and too much is waiting for one already (failover.hold_bytes)"
)


class HeldSessions:
    """Lets sessions wait, within the limit."""

    def __init__(self, hold: Hold, shared: SharedLinks) -> None:
        self._hold = hold
        self._shared = shared

    def wait_for_link(self, client: Client, links: NodeLinks) -> None:
        """A session needs its shared link: lead it there, or let it wait for the link."""
        if not client.is_on(links.shared):
            client.use_shared(links.shared)
            client.resume()
        elif not self._hold.may_hold(client):
            client.refuse(TOO_MUCH_HELD)
        else:
            self._shared.wait(client, links)

    def may_hold(self, client: Client) -> bool:
        """Whether this client's write may wait until writes are let go."""
        return self._hold.may_hold(client)

    @staticmethod
    def refuse(client: Client) -> None:
        """Too much waits already for one more write: an error, where there is room for one."""
        if client.mode == PINNED_MODE:
            # Replies may be due before it, which nobody counts here.
            client.close("held")
        elif client.in_transaction or client.head() is None:
            # A transaction must not go on without it; the rest of a large request, still to come,
            # must not be taken for requests.
            client.refuse_last(TOO_MUCH_HELD)
        else:
            client.refuse(TOO_MUCH_HELD)
