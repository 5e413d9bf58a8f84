"""What a drill has at hand: the cluster, the watchers, the sidecar, the load, and steps to take."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.drills.clients import CLIENT_TIMEOUT, Spec
from bench.drills.cluster import Cluster, Shape, wait_for
from bench.drills.switches import SWITCH, Mark
from bench.drills.watch import Watch
from tests.harness.errors import Unavailable
from tests.harness.fleet import Fleet
from tests.harness.process import free_port
from tests.harness.resp import Refused
from tests.harness.sentinels import SERVICE, Node, SentinelProcess
from tests.harness.servers import Sidecar
from tests.harness.wire import call

LANES = ("sidecar", "direct")

SWITCH_DEADLINE = 40.0
SETTLE_DEADLINE = 30.0
"""Seconds. The slowest is a stale master: the Sentinels demote it about 10 s after it is back."""

Say = Callable[[str], None]


@dataclass
class Options:
    """How to drill."""

    server: str = "valkey"
    switch_on: str = "announcement"
    min_replicas_ack: int = 0
    down_after: int = 1000
    """ms."""
    client_timeout: float = CLIENT_TIMEOUT
    direct_retries: int = 0
    repeat: int = 1
    short: bool = False
    """A smoke run: less of everything."""
    sidecar_settings: dict[str, str] = field(default_factory=dict)

    @property
    def promotion(self) -> bool:
        """Whether the sidecar follows promotions instead of announcements."""
        return self.switch_on == "promotion"


def start_sidecar(fleet: Fleet, cluster: Cluster, options: Options) -> Sidecar:
    """The real program, in front of the cluster's Sentinels."""
    settings: dict[str, str | int | float] = {
        "failover.switch_on": options.switch_on,
        "failover.min_replicas_ack": options.min_replicas_ack,
        **options.sidecar_settings,
    }
    admin = f"127.0.0.1:{free_port()}"
    return fleet.add(Sidecar(cluster.url, settings=settings, defaults={}, admin=admin))


class LoadProcess:
    """The clients, in a process of their own."""

    def __init__(self, fleet: Fleet, spec: Spec) -> None:
        self._out = Path(spec.out)
        argv = [sys.executable, "-m", "bench.drills.load", json.dumps(spec.as_dict())]
        self.process = fleet.start("load", argv)
        ready = Path(f"{spec.out}.ready")
        self.process.wait_ready(ready.exists, 15)

    def stop(self) -> Path:
        """End the load; where its history is."""
        self.process.stop(30)
        return self._out


@dataclass
class Scene:
    """Handed to a drill. Every step says what it does, and marks it on the timeline."""

    options: Options
    lane: str
    cluster: Cluster
    watch: Watch
    sidecar: Sidecar | None
    say: Say
    marks: list[Mark] = field(default_factory=list)

    def mark(self, text: str, *, fault: bool = False) -> float:
        """Note that something is being done now."""
        now = time.monotonic()
        self.marks.append(Mark(now, text, fault))
        self.say(text)
        return now

    def pause(self, seconds: float) -> None:
        """Let the load go on."""
        time.sleep(seconds)

    def master(self) -> Node:
        """The master, as the Sentinels say."""
        return self.cluster.named_master()

    def replicas(self) -> list[Node]:
        """All other nodes."""
        master = self.master()
        return [node for node in self.cluster.nodes if node is not master]

    def kill(self, member: Node | SentinelProcess, *, fault: bool = False) -> float:
        """A crash: SIGKILL."""
        since = self.mark(f"kill -9 {member.name}", fault=fault)
        member.kill()
        return since

    def freeze(self, member: Node | SentinelProcess) -> float:
        """SIGSTOP: alive, connected and silent. It is the fault."""
        since = self.mark(f"SIGSTOP {member.name}", fault=True)
        member.pause()
        return since

    def thaw(self, member: Node | SentinelProcess) -> None:
        """SIGCONT, after `freeze`."""
        self.mark(f"SIGCONT {member.name}")
        member.resume()

    def start(self, member: Node | SentinelProcess) -> None:
        """Bring a member back."""
        self.mark(f"{member.name} started")
        member.start()

    def restart(self, member: Node | SentinelProcess) -> None:
        """A clean restart."""
        self.mark(f"restart of {member.name}")
        member.stop(20)
        member.start()

    def plan(self, *words: str) -> float:
        """SENTINEL FAILOVER, tried again while the Sentinels say that they cannot yet."""
        port = next(s.port for s in self.cluster.sentinels if s.running)
        limit = time.monotonic() + SWITCH_DEADLINE
        while True:
            since = time.monotonic()
            try:
                call(port, "SENTINEL", "FAILOVER", SERVICE, *words)
            except Refused as refused:
                if time.monotonic() > limit:
                    raise Unavailable(f"SENTINEL FAILOVER: {refused}") from refused
                time.sleep(0.1)
                continue
            text = " ".join(("SENTINEL FAILOVER", *words))
            self.marks.append(Mark(since, text, True))
            self.say(text)
            return since

    def switched(self, since: float) -> None:
        """Wait for the Sentinels to announce the new master."""
        said = wait_for(lambda: self.watch.heard(SWITCH, since), SWITCH, SWITCH_DEADLINE)
        self.say(f"{SWITCH} after {said.time - since:.2f} s")

    def settled(self) -> None:
        """Wait until all nodes agree and are in step, and the Sentinels could fail over again."""
        begin = time.monotonic()
        wait_for(self.cluster.replicating, "one master and two replicas in step", SETTLE_DEADLINE)
        try:
            wait_for(self.cluster.sentinels_ready, "Sentinels that see all", SETTLE_DEADLINE)
        except Unavailable as error:
            raise Unavailable(f"{error}: {'; '.join(self.cluster.unready)}") from error
        self.say(f"settled after {time.monotonic() - begin:.2f} s")


def shape_of(options: Options, *, faultnet: bool, min_replicas: int) -> Shape:
    """The cluster a drill needs."""
    return Shape(options.server, options.down_after, min_replicas, faultnet)
