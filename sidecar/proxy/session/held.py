"""Sessions whose requests are held: lets them wait, or answers with an error above the limit.

links/hold.py counts what is held, links/shared.py connects the link they wait for.
"""

from __future__ import annotations

from typing import Protocol

from sidecar.proxy.io.client import PINNED_MODE, Client
from sidecar.proxy.links.errors import unavailable
from sidecar.proxy.links.hold import Hold
from sidecar.proxy.links.identity import NodeLinks
from sidecar.proxy.links.shared import SharedLinks

PAUSED = unavailable("the upstream is paused, and has been for too long (failover.hold)")
TOO_MUCH_HELD = unavailable(
    "there is no master, and too much is waiting for one already (failover.hold_bytes)"
)


TOO_MUCH_PAUSED = unavailable(
    "the upstream is paused, and too much is waiting for it already (failover.hold_bytes)"
)


class Pausing(Protocol):
    """What is needed of proxy/pause.py."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why all commands are held; empty: they are not."""

    expired: bool
    """Whether they have been held for too long."""


class HeldSessions:
    """Lets sessions wait within `failover.hold_bytes`."""

    def __init__(self, hold: Hold, shared: SharedLinks, pause: Pausing) -> None:
        self._hold = hold
        self._shared = shared
        self._pause = pause

    def wait_for_link(self, client: Client, links: NodeLinks) -> None:
        """Put a session on its shared link, or let it wait until that is up."""
        if not client.is_on(links.shared):
            client.use_shared(links.shared)
            client.resume()
        elif client.shard_links is not None and (links.shared.up or links.shared.refusing):
            client.resume()  # replies from other shards were due, and it has come up meanwhile
        elif not self._hold.may_hold(client):
            client.refuse(TOO_MUCH_HELD)
        else:
            self._shared.wait(client, links)

    def may_hold(self, client: Client) -> bool:
        """Whether this client's command may wait for the end of a hold."""
        return not self._pause.expired and self._hold.may_hold(client)

    def refuse(self, client: Client) -> None:
        """Refuse a command that may not wait: with an error where the protocol allows one."""
        error = TOO_MUCH_HELD
        if self._pause.reasons:
            error = PAUSED if self._pause.expired else TOO_MUCH_PAUSED
        if client.mode == PINNED_MODE:
            # Other replies may be due before the error, and nobody counts them here.
            client.close("held")
        elif client.in_transaction or client.head() is None:
            # A transaction must not go on without this write, and the rest of a large request must
            # not be taken for new requests.
            client.refuse_last(error)
        else:
            client.refuse(error)
