"""A master, two replicas and three Sentinels on 127.0.0.1, left to their own pace once they are up.

`Partitioned`: each node is reached only through a fault proxy (see `faultnet.py`), whose port it
announces; nodes and Sentinels then connect from addresses of their own, so that the proxy can
tell who is who.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from bench.drills.faultnet import FaultNet
from bench.drills.spec import Spec
from bench.drills.switches import Address
from bench.drills.world import Options, wait_for
from tests.harness import sentinels
from tests.harness.fleet import Fleet
from tests.harness.process import free_port
from tests.harness.resp import Refused, pairs
from tests.harness.sentinels import SERVICE, Node, SentinelProcess
from tests.harness.servers import Settings
from tests.harness.wire import call

NODES = 3
SENTINELS = 3
QUORUM = 2
FAILOVER_TIMEOUT = 10_000
"""Sentinel's `failover-timeout`, ms."""

DOWN = {"s_down", "o_down", "disconnected"}
"""Flags of a Sentinel that another one cannot reach."""


class Cluster(sentinels.Cluster):
    """Nodes by number: 0 is the master at first."""

    ABOUT: ClassVar[str] = (
        "1 master, 2 replicas, 3 Sentinels (quorum 2, `failover-timeout` "
        f"{FAILOVER_TIMEOUT}, `parallel-syncs` 1)"
    )
    DIRECT: ClassVar[str] = "redis-py's own Sentinel client, `Sentinel([...]).master_for(service)`"
    partitions: ClassVar[bool] = False
    """Whether each node is reached through a fault proxy."""
    min_replicas: ClassVar[int] = 0
    """The nodes' `min-replicas-to-write`, with a `min-replicas-max-lag` of 1 s; 0: off."""

    def __init__(self, fleet: Fleet, options: Options) -> None:
        self.options = options
        self.unready: list[str] = []
        self.net: FaultNet | None = None
        self._real, self._shown = [], []
        if self.partitions:
            self._shown = [free_port() for _ in range(NODES)]
            self._real = [free_port() for _ in range(NODES)]
            self.net = FaultNet(fleet, list(zip(self._shown, self._real, strict=True)))
        super().__init__(
            NODES - 1,
            SENTINELS,
            options.flavour,
            quorum=QUORUM,
            down_after_ms=options.down_after,
            failover_timeout_ms=FAILOVER_TIMEOUT,
        )

    # -- the sidecar, the clients, the report ------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """See World."""
        return {
            "failover.switch_on": self.options.switch_on,
            "failover.min_replicas_ack": self.options.min_replicas_ack,
        }

    @property
    def env(self) -> dict[str, str]:
        """See World."""
        return {}

    def direct(self, spec: Spec) -> Spec:
        """Clients that ask the Sentinels."""
        ports = tuple(sentinel.port for sentinel in self.sentinels)
        return replace(spec.with_retries(self.options.direct_retries), sentinels=ports)

    def holder(self) -> Address:
        """The master that all Sentinels name."""
        return self.named_master().address

    # -- how it is set up --------------------------------------------------------------------------

    def _node_settings(self, number: int) -> dict[str, str | int | float]:
        settings: dict[str, str | int | float] = {"repl-backlog-size": "64mb"}
        if self.min_replicas:
            settings |= {"min-replicas-to-write": self.min_replicas}
            settings |= {"min-replicas-max-lag": 1}
        if self.partitions:
            settings |= {
                "port": self._real[number],
                "bind-source-addr": f"127.0.0.{21 + number}",
                "protected-mode": "no",
                "replica-announce-ip": "127.0.0.1",
                "replica-announce-port": self._shown[number],
            }
        return settings

    def _sentinel_lines(self, number: int) -> list[str]:
        if not self.partitions:
            return []
        source = f"bind-source-addr 127.0.0.{11 + number}"
        return [source, "protected-mode no", "sentinel announce-ip 127.0.0.1"]

    # -- asking it -------------------------------------------------------------------------------

    def agreed_master(self) -> Node | None:
        """The master, if all Sentinels that run name the same."""
        found = {
            int(call(sentinel.port, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1])
            for sentinel in self.sentinels
            if sentinel.running
        }
        return self.node(found.pop()) if len(found) == 1 else None

    def named_master(self) -> Node:
        """The master, as soon as all Sentinels that run name the same."""
        return wait_for(self.agreed_master, "Sentinels that name the same master", 15)

    def replicating(self) -> bool:
        """One master, which the Sentinels that run (if any) name; all other nodes follow it."""
        roles = {node.name: call(node.port, "ROLE") for node in self.nodes}
        masters = [node for node in self.nodes if roles[node.name][0] == "master"]
        if len(masters) != 1:
            return False
        if any(s.running for s in self.sentinels) and self.agreed_master() is not masters[0]:
            return False
        follow = [role for role in roles.values() if role[0] == "slave"]
        return all(int(r[2]) == masters[0].listening and r[3] == "connected" for r in follow)

    def sentinels_ready(self) -> bool:
        """Every running Sentinel sees all replicas and its fellows, none of them down."""
        running = [sentinel for sentinel in self.sentinels if sentinel.running]
        self.unready = [text for s in running if (text := self._unready(s, len(running)))]
        return not self.unready

    @staticmethod
    def _unready(sentinel: SentinelProcess, running: int) -> str:
        """What this Sentinel still lacks; empty if nothing."""
        replicas = [pairs(r) for r in call(sentinel.port, "SENTINEL", "REPLICAS", SERVICE)]
        fellows = [pairs(f) for f in call(sentinel.port, "SENTINEL", "SENTINELS", SERVICE)]
        # 0: it has not yet told this Sentinel about itself, and could not be promoted.
        good = [r for r in replicas if r["flags"] == "slave" and int(r["info-refresh"]) > 0]
        near = [f for f in fellows if not DOWN & set(f["flags"].split(","))]
        if len(good) == NODES - 1 and len(near) >= running - 1:
            return ""
        seen = [f"{m['port']} {m['flags']}" for m in (*replicas, *fellows)]
        return f"{sentinel.name} sees {', '.join(seen)}"

    def can_fail_over(self) -> bool:
        """Whether a quorum and a majority of Sentinels are there, as the first running one says."""
        port = next(s.port for s in self.sentinels if s.running)
        try:
            call(port, "SENTINEL", "CKQUORUM", SERVICE)
        except Refused:
            return False
        return True


class Partitioned(Cluster):
    """One whose network can be taken away."""

    partitions = True


class Bounded(Partitioned):
    """One whose master refuses writes when no replica has been heard of for 1-2 s."""

    min_replicas = 1
