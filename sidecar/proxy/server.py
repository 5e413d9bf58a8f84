"""The data plane as a whole: builds it, starts it, stops it.

The composition root starts and stops a `Proxy`. This file decides the order only: assembly.py joins
the parts, and each part does its work in its own file.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

from sidecar import __version__
from sidecar.core.protocol.slots import SlotTable
from sidecar.credentials import Credentials
from sidecar.policy.shards import Reading
from sidecar.policy.topology import Address, Event
from sidecar.proxy import assembly, comparison, descriptors
from sidecar.proxy import observers as observing
from sidecar.proxy.certificates import Certificates
from sidecar.proxy.changeover import Changeover
from sidecar.proxy.cluster.placing import Placing
from sidecar.proxy.cluster.survey import Survey
from sidecar.proxy.cluster.topology import Topology
from sidecar.proxy.destination import Destination
from sidecar.proxy.drain import drain
from sidecar.proxy.followers import Followers
from sidecar.proxy.interruptions import Interruptions
from sidecar.proxy.io.plane import Plane
from sidecar.proxy.links.dialer import Dialing
from sidecar.proxy.links.node import Node, Nodes
from sidecar.proxy.links.reauthentication import Reauthentication
from sidecar.proxy.links.room import Room
from sidecar.proxy.links.target import Target
from sidecar.proxy.listener import Listener
from sidecar.proxy.master import Sentinels
from sidecar.proxy.memory_guard import MemoryGuard, memory_limit
from sidecar.proxy.moving import Arrival, Mover
from sidecar.proxy.nearcache.warmup import Show, Warmup
from sidecar.proxy.overdue import Overdue
from sidecar.proxy.pause import Pause
from sidecar.proxy.pulse import Pulse
from sidecar.proxy.report import Parts, Report
from sidecar.proxy.server_info import ServerInfo
from sidecar.proxy.session.audit_trail import AuditTrail
from sidecar.proxy.session.client_ids import ClientIds
from sidecar.proxy.session.others import Crowd, Membership
from sidecar.proxy.side_connection import SideConnection
from sidecar.proxy.targets import Targets
from sidecar.proxy.tasks import Tasks, Ticker, for_each
from sidecar.settings.address_map import parse_map
from sidecar.settings.schema import Settings
from sidecar.settings.urls import Endpoint
from sidecar.telemetry.audit import Audit
from sidecar.telemetry.facts import ComparedServer
from sidecar.telemetry.handshakes import Handshakes


class Proxy:
    """The data plane of one sidecar, or of one of its workers (`membership`). `show_warming` shows
    the progress of a warm start."""

    def __init__(
        self,
        settings: Settings,
        upstream: Endpoint,
        *,
        audit: Audit | None = None,
        credentials: Credentials | None = None,
        show_warming: Show | None = None,
        membership: Membership | None = None,
    ) -> None:
        self.settings = settings
        self._membership = membership
        self.plane: Plane
        self.facts: ServerInfo
        self.report: Report
        self._audit = AuditTrail(audit) if audit is not None else None
        self._show_warming = show_warming
        self._destination = Destination(settings, upstream, credentials)
        self._user = self._destination.login.user
        self._tasks = Tasks()
        self._interruptions = Interruptions()
        self._followers: Followers
        self.pause: Pause
        self.mover: Mover
        self._warm: Warmup | None = None
        self._certificates: Certificates
        self._dialed = Handshakes("upstream")
        self._sides: list[SideConnection] = []
        self._ticking: list[Callable[[float], None]] = []
        self._overdue: Overdue
        self._targets: Targets
        self._observers: observing.Observers
        self._links: assembly.Links
        self._sessions: assembly.Sessions
        self._memory_guard: MemoryGuard
        self._listener: Listener | None = None  # None before the assembly

    @property
    def listening(self) -> list[str]:
        """The addresses that clients can connect to."""
        return self._listener.urls if self._listener is not None else []

    # Starting

    async def start(
        self,
        deadline: float,
        master: Address | None = None,
        sentinels: Sentinels | None = None,
        sockets: Sequence[socket.socket] = (),
    ) -> None:
        """Listen and connect until `deadline`, on the monotonic clock. Raises ProxyStartError,
        OSError (a listener), ssl.SSLError.

        A Sentinel upstream needs `sentinels`, and the `master` they name, if they know one.
        `sockets` listen already, in the place of new ones.
        """
        self._destination = replace(self._destination, sentinels=sentinels, master=master)
        reserve = descriptors.taken(self.settings, alone=self._membership is None)
        listener = self._listener = self._assemble(reserve)
        self._begin()
        try:
            listener.open(sockets)
            if self._followers.name is not None:
                await self._followers.name.begin(deadline)
            if self._followers.cluster is not None:
                wait = self.settings.upstream.start == "wait"
                await self._followers.cluster.begin(deadline, wait=wait)
            endpoint = self._destination.endpoint
            await self._sessions.learning.begin(self.settings.upstream, endpoint, deadline)
            if self._membership is not None:
                await self._membership.prepared()
        except BaseException:
            await self.close()
            raise
        if self._warm is not None:
            self._warm.begin()
        clients = self._sessions.clients
        self._tasks.spawn(clients.end_idle(lambda: self.settings.listen.idle_timeout))
        listener.begin()
        if self._membership is not None:
            self._tasks.spawn(listener.share())

    def _assemble(self, reserve: descriptors.Descriptors) -> Listener:
        settings, tasks, destination = self.settings, self._tasks, self._destination
        follows, login = destination.follows_sentinels, destination.login
        endpoint, version = destination.endpoint, __version__.encode()
        self._certificates = Certificates(settings, upstream=endpoint.tls)
        self._targets = Targets(settings.upstream, endpoint, self._certificates, self._dialed)
        cluster = destination.is_cluster
        target = None if follows or cluster else self._targets.of_url()
        memory = memory_limit(settings.limits.memory)
        plane = self.plane = assembly.make_plane(
            Plane, settings, memory, follows=follows, audited=self._audit is not None
        )
        self._memory_guard = MemoryGuard(plane, memory)
        room = Room(self._connections, settings.upstream.max_links)
        dialing = Dialing.of(settings, __version__, as_master=follows or cluster)
        nodes = Nodes(Node(target, dialing, room), cluster=cluster)
        membership = self._membership
        ids = ClientIds(membership.ids if membership is not None else None)
        observers = observing.make_observers(plane, nodes, tasks, ids, settings)
        links = assembly.make_links(plane, nodes, tasks, observers, login, settings)
        self._observers, self._links = observers, links
        self._sides = [SideConnection(nodes.home.dialer, login, version) for _ in range(2)]
        self.facts = ServerInfo(self._sides[0])
        self._attend_credentials(destination.credentials)
        pulse = Pulse(self._sides[1], tasks)
        self._overdue = Overdue(plane, links.identities, pulse)
        changeover = Changeover(
            plane, links.own, links.switch, self._interruptions, observers.record_work
        )
        self._followers = Followers(
            plane,
            links.own,
            changeover,
            tasks,
            pulse,
            self._interruptions,
            version,
            lambda: links.switch.retry(nodes.home),
        )
        placing = Placing(
            nodes,
            self._slots,
            lambda: self.settings.failover.hold,
            self._doubt,
            as_cluster=settings.cluster.present == "cluster",
        )
        if cluster:
            self._followers.follow_cluster(self._topology(nodes, dialing, room, placing))
        else:
            self._followers.follow(destination, self._targets)
        hold = lambda: self.settings.failover.hold  # noqa: E731
        self.pause = Pause(plane, changeover, hold)
        anonymous = lambda: not links.own.authenticated  # noqa: E731
        self.mover = Mover(plane, self.pause, self._arrive, hold, version, self._dialed, anonymous)
        self._sessions = assembly.make_sessions(
            plane,
            links,
            tasks,
            observers,
            ids,
            self._audit,
            self._link_ids,
            settings,
            self.pause,
            placing,
            noted=[self._followers.noted],
            others=membership.others if membership is not None else None,
        )
        self._warm = assembly.make_warmup(
            plane,
            links,
            tasks,
            observers,
            settings,
            self._show_warming,
            membership.snapshots if membership is not None else (),
        )
        listener = assembly.make_listener(
            settings,
            self._sessions,
            self._audit,
            lambda: self._certificates.server,
            plane,
            reserve,
            shared=membership is not None,
        )
        self.report = Report(self._parts(listener))
        return listener

    def _slots(self) -> SlotTable:
        assert self.plane.slots is not None
        return self.plane.slots

    def _doubt(self) -> None:
        if self._followers.cluster is not None:
            self._followers.cluster.doubt("moved")

    def _topology(self, nodes: Nodes, dialing: Dialing, room: Room, placing: Placing) -> Topology:
        settings, endpoint = self.settings, self._destination.endpoint
        targets = self._targets
        reached = parse_map(settings.cluster.map).reached
        self.plane.retry_within = settings.failover.hold
        self._ticking += [placing.tick, lambda now: self._sessions.monitors.tick(now)]
        return Topology(
            self.plane,
            nodes,
            self._links.identities,
            self._links.switch,
            self._tasks,
            Survey(
                targets.of_address,
                self._destination.login,
                __version__.encode(),
                Reading(endpoint.tls, reached),
            ),
            seeds=endpoint.members,
            every=settings.cluster.refresh,
            splits=settings.cluster.split,
            target_for=targets.of_address,
            new_node=lambda number, target: Node(target, dialing, room, number),
            known_better=placing.known_better,
            waiting=lambda: placing.waiting,
            resubscriptions=lambda: self._sessions.subscribers.resubscriptions,
            connect=self._links.shared.connect,
            came=self._observers.shard_came,
            went=self._observers.shard_went,
        )

    def _attend_credentials(self, credentials: Credentials | None) -> None:
        """Have links logged in again when the sidecar's own credentials change."""
        if credentials is None:
            return
        near = self._observers.near
        tracked = near.log_in if near is not None else lambda request: 0
        Reauthentication(self.plane, self._links.own, credentials, self._tasks, tracked)
        credentials.on_change(self._flush_for_another_user)

    def _connections(self) -> int:
        """The connections to servers that there are, without those that are being made. The one
        that asks the master for its role has its place before it is there."""
        links = len(self.plane.upstreams) + len(self.plane.tracked)
        asking = sum(len(list(side.server_ids())) for side in self._sides)
        if self._followers.current is not None:
            asking += max(1, len(self._followers.server_ids()))
        return links + asking + self._sessions.monitors.sources

    def _link_ids(self) -> Iterable[tuple[Target | None, int]]:
        """The ids, on their servers, of all lasting connections of this sidecar."""
        yield from ((up.target, up.server_id) for up in self.plane.upstreams)
        near = self._observers.near
        holders = (self._sessions.monitors, self._followers, *self._sides, near)
        yield from (each for holder in holders if holder for each in holder.server_ids())

    def _parts(self, listener: Listener) -> Parts:
        return Parts(
            settings=self.settings,
            upstream=self._destination.endpoint,
            plane=self.plane,
            identities=self._links.identities,
            own=self._links.own,
            shared=self._links.shared,
            hold=self._links.hold,
            clients=self._sessions.clients,
            listener=listener,
            certificates=self._certificates,
            hot=self._observers.hot,
            near=self._observers.near,
            tracing=self._observers.tracing,
            warm=self._warm,
            followers=self._followers,
            pause=self.pause,
            interruptions=self._interruptions,
            server_info=self.facts,
            overdue=self._overdue,
            dialed=self._dialed,
            guards=self._sessions.guards,
            logins=self._sessions.logins,
        )

    def _begin(self) -> None:
        """Start the background work."""
        observers = self._observers
        if observers.near is not None:
            observers.near.begin()
        optional = (observers.usage, observers.hot, observers.tracing)
        ticker = Ticker()
        for tick in (
            self._overdue.tick,
            self.plane.send_gathered,
            *self._sessions.ticking,
            self._memory_guard.tick,
            self._links.hold.count,
            *(each.tick for each in optional if each is not None),
            *(side.tick for side in self._sides),
            self._followers.tick,
            *self._ticking,
            self.pause.tick,
            lambda now: self._certificates.tick(now),
        ):
            ticker.add(tick)
        self._tasks.spawn(ticker.run(self._tasks))
        if self._destination.master is not None:
            self._followers.named(self._destination.master)

    # While it runs

    def _flush_for_another_user(self) -> None:
        """Values that one user of the server may read, another may not."""
        credentials = self._destination.credentials
        assert credentials is not None
        user, self._user = self._user, credentials.now.user
        if user != self._user:
            self.flush_cache()

    def on_sentinel_event(self, event: Event) -> None:
        """Take in what a Sentinel says."""
        self._followers.on_sentinel_event(event)

    def crowd(self) -> Crowd:
        """The clients and connections, for the other workers."""
        if self._listener is None:
            return Crowd((), {})
        return self._sessions.client_commands.crowd()

    def kill(self, numbers: Collection[int]) -> Sequence[int]:
        """Close the clients with these ids; the ids of those that are there."""
        return self._sessions.client_commands.kill_here(numbers)

    async def keep(self, number: int) -> int:
        """Give the client with this id a link for good; its id on the server, or 0."""
        return await self._sessions.client_commands.keep_here(number)

    def flush_cache(self) -> int:
        """Drop everything in the near cache; returns how many values there were."""
        near = self._observers.near
        return near.flush() if near is not None else 0

    async def ask_own(self) -> ComparedServer:
        """What the server in use tells of itself."""
        return await comparison.ask_own(self._links.own)

    async def look_at(self, destination: Destination) -> ComparedServer:
        """Reach another upstream's master, ask it, and leave it. Raises MoveError."""
        arrival = await self.mover.reach(destination)
        try:
            return await comparison.ask(arrival.connection)
        finally:
            arrival.connection.close()

    def _arrive(self, arrival: Arrival) -> None:
        """Everything leads to another upstream from now on: commands are held, and none is under
        way that could be waited for."""
        destination, own, dialer = arrival.destination, self._links.own, self._links.own.node.dialer
        login = destination.login
        self._destination, self._user = destination, login.user
        self.settings = destination.settings
        self._certificates, self._targets = arrival.certificates, arrival.targets
        self._followers.follow(destination, arrival.targets)
        self._links.identities.rebase(login)
        for side in self._sides:
            side.login = login
            side.close()
        self._attend_credentials(destination.credentials)
        self._followers.arrive(arrival.target, arrival.found, arrival.role)
        if self._observers.near is not None:
            self._observers.near.forget_spaces()
        self._sessions.clients.join_again()
        self._sessions.admission.moved()
        self._sessions.learning.take(arrival.told)
        self.report.use(self.settings, destination.endpoint, self._certificates)
        assembly.use(self._reloadable(), self.settings)
        assert dialer.target is not None
        arrival.connection.target = dialer.target
        self._links.shared.take(own, arrival.connection)

    def reload(self, settings: Settings, others: Callable[[], None]) -> None:
        """Use these settings from now on, and read the certificate files again. Raises OSError
        (ssl.SSLError) when a file is bad or an address cannot be listened on: then nothing has
        changed. Only settings that are declared reloadable may differ from those in use.

        `others` does the same for other parts. It is called once the files of this part are known
        to be good, and may raise the same errors.
        """
        began, error = time.monotonic(), ""
        listener = self._listener
        assert listener is not None
        try:
            fresh = self._certificates.read(settings)
            others()
            listener.use(settings.listen)
        except (OSError, ssl.SSLError) as problem:
            error = type(problem).__name__
            raise
        finally:
            self._observers.record_work("certificate reload", began, {}, error)
        self._certificates.use(fresh)
        self.settings = settings
        assembly.use(self._reloadable(), settings)
        for node in self._links.nodes.all:
            if node.dialer.target is not None:
                self._links.switch.renew(node, self._targets.renewed(node.dialer.target))

    def _reloadable(self) -> assembly.Reloadable:
        return assembly.Reloadable(
            self.plane,
            self._links,
            self._sessions,
            self._observers,
            self._memory_guard,
            self._targets,
            self._followers.master.machine if self._followers.master is not None else None,
            self._followers.machine,
            self._warm,
        )

    # Stopping

    async def drain(self, within: float, *, alone: bool = False) -> None:
        """Accept no more clients, and drain those that are there, for at most `within` seconds.
        `alone`: the other workers go on, and take over the new clients."""
        listener = self._listener
        assert listener is not None
        self.pause.refuse()  # nobody would let go on what waits
        if spread := self.settings.listen.reuse_port or alone:
            began = time.monotonic()
            await listener.hand_over()
            within -= time.monotonic() - began
        else:
            listener.stop()
        saving = set()
        if self._warm is not None:
            saving.add(self._tasks.spawn(self._warm.memory.save(last=True)))
        await drain(self.plane, lambda: listener.handshaking, within, spread=spread)
        if saving:
            await asyncio.wait(saving)

    async def close(self) -> None:
        """End everything now. May be called before `start`, and more than once."""
        if self._listener is None:
            return
        self._listener.close()
        for_each(self.plane.clients, lambda client: client.close("shutdown"))
        for_each(self._sides, lambda side: side.close())
        self._tasks.stop()
        if self._observers.near is not None:
            self._observers.near.close()
        await self._tasks.close()
        if self._sessions.logins is not None:
            self._sessions.logins.close()
        for_each(self.plane.upstreams, lambda up: up.close())
        if self._observers.tracing is not None:
            await self._observers.tracing.close()
        self.plane.close()
