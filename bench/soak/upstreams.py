"""What the sidecar of a soak stands in front of, and what can go wrong there.

* `plain`: one server behind a fault proxy;
* `sentinel`: a master, two replicas and three Sentinels behind a fault proxy for each node;
* `cluster`: three shards with a replica each.

No fault here loses what a server has acknowledged: no process is killed, and a node is frozen for
less time than the others wait for it. So whatever is missing at the end the sidecar has lost.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from bench.consistency.world import SERVERS
from bench.drills.cluster import Partitioned
from bench.drills.world import Options
from tests.harness.closing import Closing
from tests.harness.cluster import Cluster
from tests.harness.faults import OTHERS, TRACKED, tracking_proxy
from tests.harness.fleet import Fleet
from tests.harness.process import wait_until
from tests.harness.server_stats import links
from tests.harness.servers import Server
from tests.harness.wire import Wire

FROZEN = 1.0
"""Seconds."""
PATIENT = 6000
"""Milliseconds until Sentinels or nodes take a silent one for dead."""
MOVED = 8
"""Slots that move at one time."""

Fault = Callable[[], object]


class Upstream(Protocol):
    """What the soak has to know of it."""

    @property
    def url(self) -> str:
        """For the sidecar."""

    @property
    def primaries(self) -> Sequence[Server]:
        """The servers that take writes now."""

    @property
    def faults(self) -> Mapping[str, Fault]:
        """What can go wrong here and nowhere else. Each blocks until it is over."""

    def close(self) -> None:
        """End all of it."""


class Plain(Closing):
    """One server."""

    def __init__(self, kind: str, fleet: Fleet) -> None:
        self.server = fleet.add(SERVERS[kind]())
        self.network = tracking_proxy(self.server.port)
        self.url = self.network.url
        self.primaries = [self.server]
        self.faults: Mapping[str, Fault] = {
            "links cut": self.network.cut,
            "tracked link held": self._hold,
            "network slow": self._slow,
        }

    def _hold(self) -> None:
        self.network.group(TRACKED).hold()
        time.sleep(FROZEN)
        self.network.heal()

    def _slow(self) -> None:
        self.network.group(OTHERS).delay = 0.03
        self.network.group(TRACKED).delay = 0.1
        time.sleep(FROZEN)
        self.network.heal()

    def close(self) -> None:
        """The server ends with its fleet."""
        self.network.close()


class Watched(Partitioned):
    """A master, its replicas and Sentinels."""

    def __init__(self, kind: str, fleet: Fleet) -> None:
        super().__init__(fleet, Options(server=kind, down_after=PATIENT))

    @property
    def primaries(self) -> Sequence[Server]:
        """The master that the Sentinels name."""
        return [self.named_master()]

    @property
    def faults(self) -> Mapping[str, Fault]:
        """A switch, and links cut."""
        return {"planned failover": self._switch, "master cut off from clients": self._cut}

    def _switch(self) -> None:
        before = self.named_master()
        self.failover()
        wait_until(lambda: self.named_master() is not before, "another master", 30)
        self.settle()

    def _cut(self) -> None:
        assert self.net is not None
        self.net.cut(self.nodes.index(self.named_master()), ["clients"])
        time.sleep(FROZEN)
        self.net.heal()


class Shards(Cluster):
    """A cluster."""

    def __init__(self, kind: str, fleet: Fleet) -> None:
        self._chance = random.Random(3)
        super().__init__(kind, shards=3, replicas=1, node_timeout=PATIENT)

    @property
    def primaries(self) -> Sequence[Server]:
        """One of each shard."""
        return [shard.primary for shard in self.shards]

    @property
    def faults(self) -> Mapping[str, Fault]:
        """Slots that move, and replicas that take over."""
        return {
            "slots moved": self._move,
            "slots moved at once": self._move_at_once,
            "replica took over": lambda: self.failover(self._chance.randrange(3)),
        }

    def _some(self) -> tuple[list[int], int]:
        """Slots of keys in use, and another shard for them."""
        to = self._chance.randrange(3)
        used = [slot for slot, owner in enumerate(self.owners) if owner != to]
        return self._chance.sample(used, MOVED * 20), to

    def _move(self) -> None:
        slots, to = self._some()
        for slot in slots[:MOVED]:
            self.migrate(slot, to)
        self.settle()

    def _move_at_once(self) -> None:
        if self.kind == "valkey":
            self.migrate_atomically(*self._some())
        else:
            self._move()


UPSTREAMS: dict[str, Callable[[str, Fleet], Upstream]] = {
    "plain": Plain,
    "sentinel": Watched,
    "cluster": Shards,
}


def freeze(upstream: Upstream, chance: random.Random) -> None:
    """A server is alive, connected and silent."""
    server = chance.choice(upstream.primaries)
    server.pause()
    time.sleep(FROZEN)
    server.resume()


def kill_links(upstream: Upstream, *, tracked: bool) -> None:
    """CLIENT KILL for the sidecar's connections of one kind."""
    for server in upstream.primaries:
        with Wire(server.port) as wire:
            for link in links(wire, tracked=tracked):
                wire.ask("CLIENT", "KILL", "ID", link["id"])


def forget_scripts(upstream: Upstream) -> None:
    """SCRIPT FLUSH, behind the sidecar's back."""
    for server in upstream.primaries:
        with Wire(server.port) as wire:
            wire.ask("SCRIPT", "FLUSH")
