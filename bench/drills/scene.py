"""What a drill has at hand: the cluster, the watchers, the sidecar, the load, and steps to take."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.drills.clients import CLIENT_TIMEOUT, Spec
from bench.drills.cluster import Cluster, Member, Shape, stable_port, wait_for
from bench.drills.switches import SERVICE, SWITCH, Mark
from bench.drills.watch import Watch
from bench.drills.wire import Refused, ask
from bench.procs import Address, Child, Fleet, Unavailable, wait_ready

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
    sidecar_settings: list[str] = field(default_factory=list)

    @property
    def promotion(self) -> bool:
        """Whether the sidecar follows promotions instead of announcements."""
        return self.switch_on == "promotion"


class SidecarProcess:
    """The real program, in front of the cluster's Sentinels."""

    def __init__(self, fleet: Fleet, cluster: Cluster, options: Options) -> None:
        self._fleet = fleet
        self.port, self.admin = stable_port(), stable_port()
        names = ",".join(f"127.0.0.1:{s.port}" for s in cluster.sentinels)
        self._argv = [
            *(sys.executable, "-m", "sidecar", "run"),
            *("--listen", f"redis://127.0.0.1:{self.port}"),
            *("--upstream", f"redis+sentinel://{names}/{SERVICE}"),
            *("--admin", f"127.0.0.1:{self.admin}"),
            *("--set", f"failover.switch_on={options.switch_on}"),
            *("--set", f"failover.min_replicas_ack={options.min_replicas_ack}"),
        ]
        for setting in options.sidecar_settings:
            self._argv += ["--set", setting]
        self._starts = 0
        self.logs: list[Path] = []
        self.child = self.start()

    def start(self) -> Child:
        """Start it (again, at the same address) and wait until it serves."""
        self._starts += 1
        self.child = self._fleet.start(f"sidecar-{self._starts}", self._argv)
        self.logs.append(self.child.log)
        wait_ready(self.child, Address(port=self.port))
        return self.child

    def stop(self) -> None:
        """SIGTERM, and wait until it has drained and ended."""
        os.kill(self.child.pid, signal.SIGTERM)
        self.child.process.wait(20)
        self._fleet.end(self.child)

    def log(self) -> str:
        """What it logged, of all its lives."""
        return "".join(log.read_text(errors="replace") for log in self.logs)


class LoadProcess:
    """The clients, in a process of their own."""

    def __init__(self, fleet: Fleet, spec: Spec) -> None:
        self._out = Path(spec.out)
        argv = [sys.executable, "-m", "bench.drills.load", json.dumps(spec.as_dict())]
        self.child = fleet.start("load", argv)
        ready = Path(f"{spec.out}.ready")

        def served() -> bool:
            if self.child.process.poll() is not None:
                raise Unavailable(f"the load ended at start: {self.child.tail()}")
            return ready.exists()

        wait_for(served, f"an answer for every client: {self.child.tail()}", 15)

    def stop(self) -> Path:
        """End the load; where its history is."""
        os.kill(self.child.pid, signal.SIGTERM)
        wait_for(self._out.exists, f"the history of the load: {self.child.tail()}", 30)
        return self._out


@dataclass
class Scene:
    """Handed to a drill. Every step says what it does, and marks it on the timeline."""

    options: Options
    lane: str
    cluster: Cluster
    watch: Watch
    sidecar: SidecarProcess | None
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

    def master(self) -> Member:
        """The master, as the Sentinels say."""
        return self.cluster.named_master()

    def replicas(self) -> list[Member]:
        """All other nodes."""
        master = self.master()
        return [node for node in self.cluster.nodes if node is not master]

    def kill(self, member: Member, *, fault: bool = False) -> float:
        """A crash: SIGKILL."""
        since = self.mark(f"kill -9 {member.name}", fault=fault)
        self.cluster.signal(member, signal.SIGKILL)
        return since

    def freeze(self, member: Member) -> float:
        """SIGSTOP: alive, connected and silent. It is the fault."""
        since = self.mark(f"SIGSTOP {member.name}", fault=True)
        self.cluster.signal(member, signal.SIGSTOP)
        return since

    def thaw(self, member: Member) -> None:
        """SIGCONT, after `freeze`."""
        self.mark(f"SIGCONT {member.name}")
        self.cluster.signal(member, signal.SIGCONT)

    def start(self, member: Member) -> None:
        """Bring a member back."""
        self.mark(f"{member.name} started")
        self.cluster.start(member)

    def restart(self, member: Member) -> None:
        """A clean restart."""
        self.mark(f"restart of {member.name}")
        self.cluster.restart(member)

    def plan(self, *words: str) -> float:
        """SENTINEL FAILOVER, tried again while the Sentinels say that they cannot yet."""
        port = next(s.port for s in self.cluster.sentinels if s.running)
        limit = time.monotonic() + SWITCH_DEADLINE
        while True:
            since = time.monotonic()
            try:
                ask(port, "SENTINEL", "FAILOVER", SERVICE, *words)
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
