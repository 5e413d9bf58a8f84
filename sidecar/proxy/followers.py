"""Whoever follows the master just now: one that listens to Sentinels, one that watches a name, or
nobody. A switch of the upstream puts another one in its place.

Passes calls on; decides nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, cast

from sidecar.policy.following import Following
from sidecar.policy.following_words import Role
from sidecar.policy.topology import Address, Event, MasterNamed
from sidecar.proxy.changeover import Changeover
from sidecar.proxy.cluster.topology import Topology
from sidecar.proxy.destination import Destination
from sidecar.proxy.following import NameFollower
from sidecar.proxy.interruptions import Interruptions, LinkOutages
from sidecar.proxy.io.client import Client
from sidecar.proxy.io.plane import Plane
from sidecar.proxy.links.identity import NodeLinks
from sidecar.proxy.links.racing import Address as Found
from sidecar.proxy.links.target import Target
from sidecar.proxy.master import MasterFollower
from sidecar.proxy.pulse import Pulse
from sidecar.proxy.targets import Targets
from sidecar.proxy.tasks import Tasks


class Follower(Protocol):
    """What all followers have in common."""

    @property
    def phase(self) -> str: ...
    def tick(self, now: float) -> None: ...
    def server_ids(self) -> Iterable[tuple[Target | None, int]]: ...
    def stop(self) -> None: ...


class Followers:
    """For one node. `own` are the sidecar's own links to it; `retry` has links connect at once."""

    def __init__(
        self,
        plane: Plane,
        own: NodeLinks,
        changeover: Changeover,
        tasks: Tasks,
        pulse: Pulse,
        interruptions: Interruptions,
        version: bytes,
        retry: Callable[[], None],
    ) -> None:
        self._plane = plane
        self._own = own
        self.changeover = changeover
        self._tasks = tasks
        self._pulse = pulse
        self._interruptions = interruptions
        self._version = version
        self._retry = retry
        self.master: MasterFollower | None = None
        self.name: NameFollower | None = None
        self.cluster: Topology | None = None
        self._stop: Callable[[], None] = lambda: None

    @property
    def current(self) -> Follower | None:
        """The one of now; None where no master is followed."""
        return self.master or self.name or self.cluster

    def follow(self, destination: Destination, targets: Targets) -> None:
        """Have this upstream's master followed from now on, and no other."""
        self._stop()
        self.master = self.name = None
        dialer = self._own.node.dialer
        dialer.as_master = destination.follows_sentinels
        self._plane.follow_master(destination.follows_sentinels)
        if destination.follows_sentinels:
            self.master = MasterFollower(
                self._own.node,
                self.changeover,
                self._tasks,
                destination.settings.failover,
                login=destination.login,
                version=self._version,
                target_for=targets.of_address,
                sentinels=destination.sentinels,
            )
            self._stop = self.master.stop
        elif destination.follows_name:
            self.name = self._name_follower(destination, targets)
            self._stop = self.name.stop
        else:
            outages = LinkOutages(self._interruptions, lambda: dialer.where, time.time)
            self._stop = self._own.node.watch(up=outages.link_up, down=outages.link_down)

    def follow_cluster(self, cluster: Topology) -> None:
        """Have the shards of this cluster followed, and no master."""
        self.cluster = cluster
        self._stop = cluster.stop

    def _name_follower(self, destination: Destination, targets: Targets) -> NameFollower:
        settings = destination.settings
        return NameFollower(
            self._plane,
            self._own,
            self.changeover,
            self._tasks,
            self._pulse,
            destination.endpoint,
            wait=settings.upstream.wait,
            hold=settings.failover.hold,
            login=destination.login,
            version=self._version,
            target_for=targets.of_number,
            retry=self._retry,
            maintenance=settings.upstream.maintenance,
        )

    def arrive(self, target: Target, found: Address | Found | None, role: Role) -> None:
        """Lead all links to this server, which has just told its role. `found` is its address, as
        the Sentinels or the resolver give it."""
        if self.master is not None:
            self.master.arrive(cast("Address", found))
        elif self.name is not None:
            self.name.arrive(cast("Found", found), role)
        else:
            self.changeover.switch(target, first=False)

    def stop(self) -> None:
        """Nobody follows any more."""
        self._stop()
        self._stop = lambda: None

    # Passed on

    @property
    def phase(self) -> str | None:
        """The phase of the failover; None where no master is followed."""
        return self.current.phase if self.current is not None else None

    @property
    def machine(self) -> Following | None:
        """The state machine of a name."""
        return self.name.machine if self.name is not None else None

    def tick(self, now: float) -> None:
        """Let the decisions see that time passes."""
        if self.current is not None:
            self.current.tick(now)

    def server_ids(self) -> Sequence[tuple[Target | None, int]]:
        """The ids, on their servers, of the connections that ask for roles, or for shards."""
        return list(self.current.server_ids()) if self.current is not None else []

    def on_sentinel_event(self, event: Event) -> None:
        """Take in what a Sentinel says."""
        if self.master is not None:
            self.master.on_event(event)

    def named(self, master: Address) -> None:
        """The Sentinels name this master at the start."""
        self.on_sentinel_event(MasterNamed(master, switched=False))

    def noted(self, client: Client | None, kind: str, command: str, second: bytes) -> None:
        """See Plane.use_audit."""
        if self.name is not None:
            self.name.noted(client, kind, command, second)
