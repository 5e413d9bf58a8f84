"""A master, two replicas and three Sentinels on 127.0.0.1, and what can be done to them.

Every node and Sentinel starts from a configuration file of its own, which it rewrites when roles
change, so a restarted one comes back as what it last was. The Sentinels are told of each other
and of the replicas beforehand, so the cluster is ready in about a second.

With `faultnet` each node is reached only through a fault proxy (see `faultnet.py`), whose port it
announces; nodes and Sentinels then connect from addresses of their own, so that the proxy can
tell who is who.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from bench.drills.faultnet import FaultNet
from bench.drills.switches import SERVICE
from bench.drills.wire import Refused, ask, pairs
from bench.peers import find_server
from bench.procs import Child, Fleet, Unavailable

T = TypeVar("T")

NODES = 3
SENTINELS = 3
QUORUM = 2
FAILOVER_TIMEOUT = 10_000
"""Sentinel's `failover-timeout`, ms."""

PORTS = (12_000, 31_000)
"""Below the range from which the kernel takes ports of outgoing connections: a restarted node
finds its port free."""

DOWN = {"s_down", "o_down", "disconnected"}
"""Flags of a Sentinel that another one cannot reach."""

NODE_CONF = """port {real}
bind 127.0.0.1
bind-source-addr {source}
dir {folder}
save ""
appendonly no
protected-mode no
repl-diskless-sync-delay 0
repl-backlog-size 64mb
replica-announce-ip 127.0.0.1
replica-announce-port {port}
"""
SENTINEL_CONF = """port {port}
bind 127.0.0.1
bind-source-addr {source}
dir {folder}
protected-mode no
sentinel myid {id}
sentinel announce-ip 127.0.0.1
sentinel announce-port {port}
sentinel monitor {service} 127.0.0.1 {master} {quorum}
sentinel down-after-milliseconds {service} {down_after}
sentinel failover-timeout {service} {failover_timeout}
sentinel parallel-syncs {service} 1
"""


@dataclass(frozen=True)
class Shape:
    """How the cluster is set up."""

    server: str
    """`valkey` or `redis`."""
    down_after: int = 1000
    """Sentinel's `down-after-milliseconds`."""
    min_replicas: int = 0
    """The nodes' `min-replicas-to-write`, with a `min-replicas-max-lag` of 1 s; 0: off."""
    faultnet: bool = False


@dataclass
class Member:
    """A node or a Sentinel."""

    name: str
    argv: list[str]
    port: int
    """Where the others and the clients find it."""
    real: int
    """Where it listens: differs from `port` behind the fault proxy."""
    source: str
    """The address its own connections come from."""
    child: Child | None = None

    @property
    def running(self) -> bool:
        """Whether the process is there (frozen counts)."""
        return self.child is not None and self.child.process.poll() is None


def wait_for(check: Callable[[], T | None], what: str, deadline: float) -> T:
    """Poll until `check` returns something true, and return that; Unavailable after `deadline`."""
    limit = time.monotonic() + deadline
    while time.monotonic() < limit:
        try:
            if value := check():
                return value
        except (OSError, Refused):
            pass
        time.sleep(0.02)
    raise Unavailable(f"not within {deadline:.0f} s: {what}")


def stable_port(taken: Iterable[int] = ()) -> int:
    """A port nothing listens on and no outgoing connection will take."""
    for _ in range(1000):
        port = random.randint(*PORTS)
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in taken:
            return port
    raise Unavailable("no free port")


class Cluster:
    """The processes, by number: nodes 0 to 2 (0 is the master at first), Sentinels 0 to 2."""

    def __init__(self, fleet: Fleet, shape: Shape) -> None:
        self.fleet, self.shape = fleet, shape
        self._binary = find_server(shape.server)
        self._starts = 0
        self.unready: list[str] = []
        ports: list[int] = []
        for _ in range(2 * NODES + SENTINELS):
            ports.append(stable_port(ports))
        real, shown, sentinels = ports[:NODES], ports[NODES : 2 * NODES], ports[2 * NODES :]
        self.net = FaultNet(fleet, list(zip(shown, real, strict=True))) if shape.faultnet else None
        public = shown if shape.faultnet else real
        self.nodes = [self._node(i, public, real[i]) for i in range(NODES)]
        self.sentinels = [self._sentinel(i, sentinels) for i in range(SENTINELS)]

    # -- setting up ------------------------------------------------------------------------------

    def _source(self, last: int) -> str:
        return f"127.0.0.{last}" if self.shape.faultnet else "127.0.0.1"

    def _folder(self, name: str) -> Path:
        folder = self.fleet.dir / name
        folder.mkdir()
        return folder

    def _node(self, number: int, public: list[int], real: int) -> Member:
        name, source = f"node{number}", self._source(21 + number)
        folder = self._folder(name)
        text = NODE_CONF.format(real=real, port=public[number], source=source, folder=folder)
        if self.shape.min_replicas:
            text += f"min-replicas-to-write {self.shape.min_replicas}\nmin-replicas-max-lag 1\n"
        if number:
            text += f"replicaof 127.0.0.1 {public[0]}\n"
        conf = folder / "node.conf"
        conf.write_text(text)
        return Member(name, [self._binary, str(conf)], public[number], real, source)

    def _sentinel(self, number: int, ports: list[int]) -> Member:
        name, source = f"sentinel{number}", self._source(11 + number)
        folder = self._folder(name)
        text = SENTINEL_CONF.format(
            port=ports[number],
            source=source,
            folder=folder,
            id=f"{number + 1:040x}",
            service=SERVICE,
            master=self.nodes[0].port,
            quorum=QUORUM,
            down_after=self.shape.down_after,
            failover_timeout=FAILOVER_TIMEOUT,
        )
        for node in self.nodes[1:]:
            text += f"sentinel known-replica {SERVICE} 127.0.0.1 {node.port}\n"
        for other, port in enumerate(ports):
            if other != number:
                text += f"sentinel known-sentinel {SERVICE} 127.0.0.1 {port} {other + 1:040x}\n"
        conf = folder / "sentinel.conf"
        conf.write_text(text)
        port = ports[number]
        return Member(name, [self._binary, str(conf), "--sentinel"], port, port, source)

    def start_all(self) -> None:
        """Start everything and wait until a failover could happen."""
        for node in self.nodes:
            self.start(node)
        wait_for(self.replicating, "replicas in step with the master", 15)
        for sentinel in self.sentinels:
            self.start(sentinel)
        wait_for(self.sentinels_ready, "Sentinels that know everybody", 30)

    # -- doing things to it ----------------------------------------------------------------------

    def start(self, member: Member) -> None:
        """Start a member (again) and wait until it answers."""
        self._starts += 1
        child = self.fleet.start(f"{member.name}-{self._starts}", member.argv)
        member.child = child

        def answers() -> bool:
            if child.process.poll() is not None:
                raise Unavailable(f"{member.name} ended at start: {child.tail()}")
            return bool(ask(member.real, "PING", timeout=0.5) == "PONG")

        wait_for(answers, f"answer of {member.name}", 10)

    def signal(self, member: Member, number: signal.Signals) -> None:
        """Send a signal to a member; for those that end it, wait until it has."""
        assert member.child is not None
        os.kill(member.child.pid, number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            member.child.process.wait(20)
            self.fleet.end(member.child)

    def restart(self, member: Member) -> None:
        """A clean stop, then the same again."""
        self.signal(member, signal.SIGTERM)
        self.start(member)

    # -- asking it -------------------------------------------------------------------------------

    def by_port(self, port: int) -> Member:
        """The node the others know under `port`."""
        return next(node for node in self.nodes if node.port == port)

    def agreed_master(self) -> Member | None:
        """The master, if all Sentinels that run name the same."""
        found = {
            int(ask(sentinel.port, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1])
            for sentinel in self.sentinels
            if sentinel.running
        }
        return self.by_port(found.pop()) if len(found) == 1 else None

    def named_master(self) -> Member:
        """The master, as soon as all Sentinels that run name the same."""
        return wait_for(self.agreed_master, "Sentinels that name the same master", 15)

    def replicating(self) -> bool:
        """One master, which the Sentinels that run (if any) name; all other nodes follow it."""
        roles = {node.name: ask(node.real, "ROLE") for node in self.nodes}
        masters = [node for node in self.nodes if roles[node.name][0] == "master"]
        if len(masters) != 1:
            return False
        if any(s.running for s in self.sentinels) and self.agreed_master() is not masters[0]:
            return False
        follow = [role for role in roles.values() if role[0] == "slave"]
        return all(int(r[2]) == masters[0].port and r[3] == "connected" for r in follow)

    def sentinels_ready(self) -> bool:
        """Every running Sentinel sees all replicas and its fellows, none of them down."""
        running = [sentinel for sentinel in self.sentinels if sentinel.running]
        self.unready = [text for s in running if (text := self._unready(s, len(running)))]
        return not self.unready

    @staticmethod
    def _unready(sentinel: Member, running: int) -> str:
        """What this Sentinel still lacks; empty if nothing."""
        replicas = [pairs(r) for r in ask(sentinel.port, "SENTINEL", "REPLICAS", SERVICE)]
        fellows = [pairs(f) for f in ask(sentinel.port, "SENTINEL", "SENTINELS", SERVICE)]
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
            ask(port, "SENTINEL", "CKQUORUM", SERVICE)
        except Refused:
            return False
        return True
