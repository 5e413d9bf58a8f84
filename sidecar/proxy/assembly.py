"""Makes the parts of the data plane and joins them, from the bottom up.

Each part gets what it needs and nothing more. A part that is not configured is replaced here by a
function that does nothing, so that no other part has to check for it. The dataclasses only carry
parts from one step to the next; no part gets one of them.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from hiredis import pack_command

from sidecar.core.protocol.slots import SlotTable, slot
from sidecar.policy.backoff import Backoff
from sidecar.policy.command_policy import catalogue_from_data
from sidecar.policy.failover import Failover
from sidecar.policy.following import Following
from sidecar.policy.shipped import shipped_commands
from sidecar.proxy.cluster.fan_out import FanOut
from sidecar.proxy.cluster.monitors import Monitors
from sidecar.proxy.cluster.placing import Placing
from sidecar.proxy.cluster.subscribers import Subscribers
from sidecar.proxy.descriptors import Descriptors
from sidecar.proxy.io.plane import Plane
from sidecar.proxy.learning import Learning, shipped_table
from sidecar.proxy.links.dedicated import DedicatedLinks
from sidecar.proxy.links.greeting import Login, ServerConnection
from sidecar.proxy.links.hold import Hold
from sidecar.proxy.links.identity import Identities, LinkMaking, NodeLinks
from sidecar.proxy.links.maintenance import LinkMaintenance
from sidecar.proxy.links.node import Nodes
from sidecar.proxy.links.shared import SharedLinks
from sidecar.proxy.links.switch import Switch
from sidecar.proxy.links.target import Target
from sidecar.proxy.listener import Listener
from sidecar.proxy.memory_guard import CLIENT_SHARES, MemoryGuard, memory_limit
from sidecar.proxy.nearcache.snapshot import OwnUser
from sidecar.proxy.nearcache.warmup import Show, Warmup
from sidecar.proxy.observers import Observers
from sidecar.proxy.pause import Pause
from sidecar.proxy.session.admission import Admission
from sidecar.proxy.session.audit_trail import AuditTrail
from sidecar.proxy.session.client_command import ClientCommands
from sidecar.proxy.session.client_ids import ClientIds
from sidecar.proxy.session.clients import Clients
from sidecar.proxy.session.commands import SessionCommands
from sidecar.proxy.session.guards import Guards
from sidecar.proxy.session.handler import Audited, Handler
from sidecar.proxy.session.held import HeldSessions
from sidecar.proxy.session.identity_change import IdentityChange
from sidecar.proxy.session.names import ClientNames
from sidecar.proxy.session.others import Others
from sidecar.proxy.session.passthrough import PassThrough
from sidecar.proxy.session.rewrites import Rewrites
from sidecar.proxy.session.sidecar_logins import SidecarLogins
from sidecar.proxy.targets import Targets
from sidecar.proxy.tasks import Tasks
from sidecar.proxy.trust import Trust, make_trust
from sidecar.settings.schema import Settings
from sidecar.tls.handshake import Layer


def make_plane(
    new: Callable[..., Plane], settings: Settings, memory: int, *, follows: bool, audited: bool
) -> Plane:
    """Make a plane; its handler is set by `make_sessions`. `memory` is the limit in bytes for the
    buffers of all clients."""
    limits, failover = settings.limits, settings.failover
    plane = new(
        asyncio.get_running_loop(),
        shipped_table(judges=settings.identities.mode == "terminate"),
        request_buffer=limits.request_buffer,
        link_pause=limits.link_output_pause,
        output_pause=limits.client_output_pause,
        client_share=memory // CLIENT_SHARES,
    )
    if follows:
        plane.follow_master()
    plane.use_audit(refusals=audited)
    if failover.min_replicas_ack:
        replicas, timeout = failover.min_replicas_ack, int(failover.ack_timeout * 1000)
        plane.require_acks(replicas, pack_command((b"WAIT", str(replicas), str(timeout))))
    return plane


@dataclass(frozen=True)
class Links:
    """The links of all identities. `own` are those of the sidecar itself to the home node."""

    nodes: Nodes
    identities: Identities
    own: NodeLinks
    shared: SharedLinks
    switch: Switch
    hold: Hold


def make_links(
    plane: Plane,
    nodes: Nodes,
    tasks: Tasks,
    observers: Observers,
    login: Login,
    settings: Settings,
) -> Links:
    """Make everything about links; none is connected yet."""
    making = LinkMaking(plane, settings.upstream.pool_spare, observers.attached)
    identities = Identities(making, nodes, login)
    idle = settings.upstream.pool_idle
    shared = SharedLinks(identities, tasks, observers.distrust, idle, lambda: plane.errors_made)
    nodes.home.watch(broken=lambda: shared.broken(nodes.home))
    return Links(
        nodes,
        identities,
        identities.default.to(nodes.home),
        shared,
        Switch(plane, identities, shared, observers.distrust),
        Hold(plane, identities, settings.failover.hold_bytes),
    )


@dataclass(frozen=True)
class Sessions:
    """The parts that serve clients."""

    clients: Clients
    learning: Learning
    admission: Admission
    maintenance: LinkMaintenance
    dedicated: DedicatedLinks
    client_commands: ClientCommands
    subscribers: Subscribers
    monitors: Monitors
    trust: Trust
    logins: SidecarLogins | None
    guards: Guards
    rewrites: Rewrites

    @property
    def ticking(self) -> Sequence[Callable[[float], None]]:
        """What is to be called at each tick, in this order."""
        return (
            self.maintenance.tick,
            self.learning.tick,
            self.admission.tick,
            self.trust.book.tick,
            self.guards.tick,
        )


def make_sessions(
    plane: Plane,
    links: Links,
    tasks: Tasks,
    observers: Observers,
    ids: ClientIds,
    audit: AuditTrail | None,
    link_ids: Callable[[], Iterable[tuple[Target | None, int]]],
    settings: Settings,
    pause: Pause,
    placing: Placing,
    *,
    noted: Sequence[Audited],
    others: Others | None,
) -> Sessions:
    """Make the handler of the plane and everything it calls. `noted` are told of audited
    commands, beside the parts that are made here."""
    nodes, shared = links.nodes, links.shared
    judges = settings.identities.mode == "terminate"
    learning = Learning(
        plane, links.own, shared, tasks, observers.evicts, observers.in_cluster, judges=judges
    )
    names = ClientNames(observers.named)
    raw = settings.failover.min_replicas_ack > 0  # else pushes would overtake replies withheld
    dedicated = DedicatedLinks(tasks, settings.upstream, names.introduction, raw=raw)
    admission = Admission(links.identities, links.own, tasks)
    trust = make_trust(
        plane,
        links.identities,
        settings,
        admission.first,
        audit.login if audit else None,
        observers.near.join if observers.near is not None else None,
    )
    guards = Guards(
        plane,
        settings,
        trust.book,
        catalogue_from_data(shipped_commands()),
        trust.principal_of,
    )
    learning.learnt = guards.learnt
    rewrites = Rewrites(
        plane,
        trust.book,
        trust.principal_of,
        guards.policy_names,
        judges=judges,
        in_cluster=nodes.shards is not None,
    )
    clients = Clients(
        plane,
        nodes,
        links.identities,
        dedicated,
        ids,
        trust.arrived,
        trust.first,
        joined=[*observers.joined, rewrites.joined, guards.join],
        left=[observers.forget, guards.gone],
        pins=trust.pins,
    )
    pass_through = PassThrough(nodes, tasks)
    change = IdentityChange(
        nodes, links.identities, shared, tasks, clients.join, trust.first, trust.judged
    )
    logins = trust.logins(change, clients, tasks)
    client_commands = ClientCommands(
        nodes, ids, names, dedicated, pass_through, tasks, link_ids, others
    )
    fan_out = None
    if nodes.shards is not None:
        fan_out = FanOut(
            nodes,
            lambda: _known(plane.slots),
            links.own,
            shared,
            tasks,
            placing.doubt,
            placing.hold,
            as_cluster=settings.cluster.present == "cluster",
        )
    commands = SessionCommands(
        nodes, change, names, client_commands, dedicated, pass_through, fan_out, logins, guards
    )
    subscribers = Subscribers(
        nodes, lambda: _known(plane.slots), tasks, dedicated.named, placing.hold, placing.doubt
    )
    monitors = Monitors(nodes, dedicated, tasks)
    held = HeldSessions(links.hold, shared, pause)
    all_noted = [learning.noted, admission.noted, *noted]
    if audit is not None:
        all_noted.append(audit.noted)
    plane.use_handler(
        Handler(
            nodes,
            tasks,
            clients,
            commands,
            shared,
            dedicated,
            held,
            placing,
            subscribers,
            monitors,
            logins,
            all_noted,
        )
    )
    silence = settings.upstream.silence_timeout
    maintenance = LinkMaintenance(links.identities, shared, dedicated, tasks, silence)
    nodes.home.room.ask(maintenance.let_go)
    return Sessions(
        clients,
        learning,
        admission,
        maintenance,
        dedicated,
        client_commands,
        subscribers,
        monitors,
        trust,
        logins,
        guards,
        rewrites,
    )


def _known(slots: SlotTable | None) -> SlotTable:
    assert slots is not None
    return slots


@dataclass(frozen=True)
class Reloadable:
    """The parts whose settings may change while they run. `sentinels` and `name` are the machine
    that follows the master; None where nothing is followed that way."""

    plane: Plane
    links: Links
    sessions: Sessions
    observers: Observers
    memory_guard: MemoryGuard
    targets: Targets
    sentinels: Failover | None
    name: Following | None
    warm: Warmup | None


def use(parts: Reloadable, settings: Settings) -> None:
    """Have all parts use these settings."""
    upstream, limits = settings.upstream, settings.limits
    memory = memory_limit(limits.memory)
    parts.memory_guard.limit = memory
    parts.plane.set_limits(
        request_buffer=limits.request_buffer,
        link_pause=limits.link_output_pause,
        output_pause=limits.client_output_pause,
        client_share=memory // CLIENT_SHARES,
    )
    parts.targets.use(upstream)
    dialer = parts.links.own.node.dialer
    for node in parts.links.nodes.all:
        node.dialer.backoff = Backoff(upstream.backoff_min, upstream.backoff_max)
        node.dialer.outcomes.use(settings.breaker)
    parts.links.own.node.room.most = upstream.max_links
    parts.links.hold.most = settings.failover.hold_bytes
    parts.links.shared.pool_idle = upstream.pool_idle
    parts.links.identities.use_spare(upstream.pool_spare)
    parts.sessions.dedicated.use(upstream)
    parts.sessions.trust.book.use(settings)
    parts.sessions.guards.use(settings)
    parts.sessions.rewrites.refresh()
    parts.sessions.maintenance.silence_timeout = upstream.silence_timeout
    if parts.sentinels is not None:
        parts.sentinels.hold = settings.failover.hold
        parts.sentinels.early = settings.failover.switch_on == "promotion"
        dialer.wait_for(settings.failover.hold)
    elif parts.links.nodes.shards is not None:
        parts.plane.retry_within = settings.failover.hold
        for node in parts.links.nodes.all:
            node.dialer.wait_for(settings.failover.hold)
    elif parts.name is not None:
        parts.name.wait, parts.name.hold = upstream.wait, settings.failover.hold
        dialer.wait_for(parts.name.patience)
    else:
        dialer.wait_for(upstream.wait)
    if parts.observers.near is not None:
        parts.observers.near.use(settings.cache)
    if parts.observers.hot is not None:
        parts.observers.hot.use(settings.hotkeys)
    if parts.observers.tracing is not None:
        parts.observers.tracing.use(settings.tracing)
    if parts.warm is not None:
        parts.warm.memory.interval = settings.warm.interval


def make_listener(
    settings: Settings,
    sessions: Sessions,
    audit: AuditTrail | None,
    context: Callable[[], ssl.SSLContext | None],
    plane: Plane,
    reserve: Descriptors,
    *,
    shared: bool,
) -> Listener:
    """Make what accepts clients; `context` is that of TLS at the moment."""
    clients = sessions.clients

    def welcome(sock: socket.socket, tls: Layer | None, address: object, policy: str) -> None:
        client = clients.welcome(sock, tls, address, policy)
        if audit is not None:
            audit.arrived(client, tls)

    def refused(reason: str, who: str, address: object) -> None:
        if audit is not None:
            audit.turned_away(reason, who, address)

    connected = lambda: len(plane.clients)  # noqa: E731
    return Listener(settings.listen, welcome, context, connected, reserve, refused, shared)


def make_warmup(
    plane: Plane,
    links: Links,
    tasks: Tasks,
    observers: Observers,
    settings: Settings,
    show: Show | None,
    others: Sequence[str] = (),
) -> Warmup | None:
    """Make the warm start; None when none is configured."""
    if observers.near is None or not Warmup.wanted(settings):
        return None
    own = links.own
    identity, nodes = own.identity, links.nodes

    def connect(shard: int | None) -> Awaitable[ServerConnection]:
        node = None if shard is None or nodes.shards is None else nodes.shards.get(shard)
        return identity.to(node or nodes.home).open()

    def shard_of(key: bytes) -> int | None:
        return None if nodes.shards is None else _known(plane.slots).owner(slot(key))

    user = OwnUser(
        lambda: identity.login,
        connect,
        lambda: links.shared.bring_up(own),
        lambda: [None] if nodes.shards is None else list(nodes.shards),
        shard_of,
    )
    return Warmup(
        plane,
        observers.near,
        user,
        tasks,
        settings,
        hot=observers.hot.hot if observers.hot is not None else frozenset(),
        record_work=observers.record_work,
        show=show,
        others=others,
    )
