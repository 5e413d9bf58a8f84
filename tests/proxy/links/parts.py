"""Links without a sidecar around them, on the loop of the test, to real servers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from sidecar.policy.backoff import Backoff
from sidecar.proxy.io.client import Client
from sidecar.proxy.io.plane import Plane
from sidecar.proxy.io.upstream import Upstream
from sidecar.proxy.learning import shipped_table
from sidecar.proxy.links.dialer import Dialing
from sidecar.proxy.links.greeting import Login
from sidecar.proxy.links.identity import Identities, LinkMaking
from sidecar.proxy.links.node import Node, Nodes
from sidecar.proxy.links.room import Room
from sidecar.proxy.links.shared import SharedLinks
from sidecar.proxy.links.switch import Switch
from sidecar.proxy.links.target import Target
from sidecar.proxy.tasks import Tasks
from sidecar.settings.sections.upstream import Breaker
from sidecar.settings.urls import Endpoint, parse_upstream

NOBODY = Login(2, None, b"", 0)
DIALING = Dialing(b"1", False, 0.2, Backoff(0.001, 0.01), Breaker(failures=3, open_for=0.05))


def target(port: int) -> Target:
    """The server at this port of loopback."""
    endpoint: Endpoint = parse_upstream(f"redis://127.0.0.1:{port}")
    return Target(endpoint, None, "", 2.0, 0)


@dataclass
class Told:
    """What the links have told: to the plane's handler, and to those who keep values."""

    lost: Callable[[Upstream, str], None] = lambda up, reason: None
    distrusted: list[str] = field(default_factory=list)

    def upstream_lost(self, up: Upstream, reason: str) -> None:
        self.lost(up, reason)

    def failed(self, connection: object, error: Exception) -> None:
        raise error

    def stalled(self, client: Client, stall: int) -> None: ...
    def client_closed(self, client: Client) -> None: ...
    def released(self, client: Client, up: Upstream) -> None: ...
    def was_reset(self, client: Client) -> None: ...
    def end_when_quiet(self, client: Client) -> None: ...
    def audited(self, client: Client | None, kind: str, command: str, second: bytes) -> None: ...
    def may_hold(self, client: Client) -> bool:
        return True


class Parts:
    """A plane with links to these servers, the first being home."""

    def __init__(self, *ports: int) -> None:
        self.told = Told()
        self.tasks = Tasks()
        self.plane = Plane(
            asyncio.get_running_loop(),
            shipped_table(),
            request_buffer=1 << 16,
            link_pause=1 << 20,
            output_pause=1 << 20,
            client_share=1 << 24,
        )
        self.plane.use_handler(self.told)
        room = Room(lambda: len(self.plane.upstreams), 100)
        self.nodes = [Node(target(port), DIALING, room) for port in ports]
        making = LinkMaking(self.plane, 0, lambda up, where, sock: None)
        self.identities = Identities(making, Nodes(self.nodes[0]), NOBODY)

        def distrust(node: Node, reason: str) -> None:
            self.told.distrusted.append(reason)

        self.shared = SharedLinks(
            self.identities, self.tasks, distrust, pool_idle=4, errors=lambda: 0
        )
        for node in self.nodes:
            node.watch(broken=lambda node=node: self.shared.broken(node))
        self.switch = Switch(self.plane, self.identities, self.shared, distrust)
        self.told.lost = self.shared.lost

    async def close(self) -> None:
        """End all of it."""
        await self.tasks.close()
        for up in list(self.plane.upstreams):
            up.close()
        self.plane.close()
