"""The handler of the plane: passes each call on to the part that is responsible.

The plane (io/plane.pyx) calls it on the loop when a session needs something that the data path
cannot do, or when a client or a link has gone. The handler only chooses the part, and the node that
serves the session.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from sidecar.proxy.cluster.monitors import Monitors
from sidecar.proxy.cluster.placing import Placing
from sidecar.proxy.cluster.subscribers import Subscribers
from sidecar.proxy.io import client as stalls
from sidecar.proxy.io.client import Client
from sidecar.proxy.io.side_link import SideLink
from sidecar.proxy.io.upstream import Upstream
from sidecar.proxy.links.dedicated import DedicatedLinks, Use
from sidecar.proxy.links.monitor_lines import MonitorLines
from sidecar.proxy.links.node import Node, Nodes
from sidecar.proxy.links.shared import SharedLinks
from sidecar.proxy.session.clients import Clients
from sidecar.proxy.session.commands import SessionCommands
from sidecar.proxy.session.held import HeldSessions
from sidecar.proxy.session.quiet import finish_when_quiet
from sidecar.proxy.session.sidecar_logins import SidecarLogins
from sidecar.proxy.tasks import Tasks, for_each

log = structlog.get_logger()

# Servers refuse these behind other requests in the same write.
ALONE = (b"SYNC", b"PSYNC", b"SCRIPT")

# By what a session waits for. For anything else it has the link while it needs it.
USES = {stalls.PIN: Use.PINNED, stalls.ONCE: Use.ONCE}

Audited = Callable[[Client | None, str, str, bytes], None]


class Handler:
    """Passes on the calls of the plane. `noted` are told of audited commands."""

    def __init__(
        self,
        nodes: Nodes,
        tasks: Tasks,
        clients: Clients,
        commands: SessionCommands,
        shared: SharedLinks,
        dedicated: DedicatedLinks,
        held: HeldSessions,
        placing: Placing,
        subscribers: Subscribers,
        monitors: Monitors,
        logins: SidecarLogins | None,
        noted: Sequence[Audited],
    ) -> None:
        self._nodes = nodes
        self._tasks = tasks
        self._clients = clients
        self._commands = commands
        self._shared = shared
        self._dedicated = dedicated
        self._held = held
        self._placing = placing
        self._subscribers = subscribers
        self._monitors = monitors
        self._logins = logins  # None: the server judges them
        self._noted = noted

    def stalled(self, client: Client, stall: int) -> None:
        """A session cannot go on by itself."""
        if stall == stalls.SESSION_COMMAND:
            self._commands.run(client)
        elif self._logins is not None and self._logins.turns_away(client):
            pass  # a stranger gets no link
        elif stall == stalls.LINK:
            self._wait_for_link(client)
        elif stall == stalls.HELD:
            self._held.refuse(client)
        elif (node := self._placing.node_for(client)) is None:
            pass  # it was answered, or waits
        elif stall == stalls.HEAVY:
            self._dedicated.give_if_free(client, node)
        elif stall == stalls.WAIT_COMMAND:
            client.task = self._tasks.spawn(self._commands.wait(client, node))
        else:
            self._give_link(client, node, stall)

    def _wait_for_link(self, client: Client) -> None:
        node = self._nodes.wanted_by(client)
        if node is None:
            self._placing.wait(client)
        else:
            self._held.wait_for_link(client, client.identity.to(node))

    def _give_link(self, client: Client, node: Node, stall: int) -> None:
        head = client.head()
        name = head[0][0].upper() if head is not None and head[0] else b""
        if name == b"MONITOR" and self._nodes.shards is not None:
            self._monitors.begin(client, node)
            return
        use = USES.get(stall, Use.WHILE_NEEDED)
        if name in ALONE:
            self._dedicated.give_named(client, node, use)
        else:
            asking = self._placing.asking(client)
            self._subscribers.begin(client, name)
            any_db = name == b"SHUTDOWN"
            self._dedicated.give_one(client, node, use, any_db=any_db, asking=asking)

    def may_hold(self, client: Client) -> bool:
        """Whether this client's write may be held."""
        if self._logins is not None and self._logins.is_stranger(client):
            return False
        return self._held.may_hold(client)

    def client_closed(self, client: Client) -> None:
        """A client's connection is closed."""
        self._monitors.end(client)
        self._subscribers.sides.gone(client)
        self._clients.gone(client)

    def upstream_lost(self, up: Upstream, reason: str) -> None:
        """A link was lost."""
        self._shared.lost(up, reason)

    def released(self, client: Client, up: Upstream) -> None:
        """A client no longer needs its dedicated link."""
        client.use_shared(client.identity.to(self._nodes.home).shared)
        self._dedicated.take_back(up)

    def turned_back(self, client: Client, error: bytes) -> None:
        """A server of the cluster has sent the request of a client's own link elsewhere."""
        self._placing.turned_back(client, error)

    def subscriber_left(self, client: Client, up: Upstream, reason: str) -> None:
        """A subscriber of a cluster has lost its link, and may go on on another one."""
        self._subscribers.left(client, up, reason)

    def subscriptions_taken(self, client: Client, up: Upstream) -> None:
        """A server of the cluster does not have the slot of what a client has subscribed to."""
        self._subscribers.taken(client, up)

    def subscriber_changed(self, client: Client) -> None:
        """A client that had side links is no subscriber any more, or is followed no more."""
        self._subscribers.sides.see_to(client)

    def side_said(self, client: Client, up: SideLink, frame: bytes) -> None:
        """What is no message has come on a side link."""
        self._subscribers.sides.said(client, up, frame)

    def side_lost(self, client: Client, up: SideLink, reason: str) -> None:
        """A side link was lost."""
        self._subscribers.side_lost(client, up, reason)

    def end_when_quiet(self, client: Client) -> None:
        """A pinned client sends no more, and TLS cannot tell the server so."""
        self._tasks.spawn(finish_when_quiet(client))

    def was_reset(self, client: Client) -> None:
        """The server answered RESET of a pinned client."""
        client.lines = None
        self._monitors.end(client)
        self._commands.forget(client)
        client.resume()

    def audited(self, client: Client | None, kind: str, command: str, second: bytes) -> None:
        """An audited command was passed on or refused."""
        if command == "monitor" and kind == "command" and client is not None:
            self._hide_own_commands(client)
        for_each(self._noted, lambda told: told(client, kind, command, second))

    def _hide_own_commands(self, client: Client) -> None:
        """A client is about to monitor, on whatever link it has."""
        target = self._nodes.home.dialer.target
        if self._nodes.shards is None and not self._dedicated.raw and target is not None:
            client.lines = client.lines or MonitorLines(target.own)

    def failed(self, error: Exception) -> None:
        """Serving a connection raised an error, which is a bug: log it. The plane ends the
        connection."""
        log.error("internal error", error=repr(error), exc_info=error)
