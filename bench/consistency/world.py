"""What the load runs against: a server and two sidecars, or a cluster with Sentinels.

Site 1 reaches the server through a fault proxy, where each of its connections can be disturbed by
itself; site 2 directly, so what is measured there is the sidecar's own doing. Everything is a
child process; what blocks is done in a thread.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from bench.consistency.load import FIGURES, Spec
from tests.harness.errors import GONE
from tests.harness.faults import FaultProxy, tracking_proxy
from tests.harness.process import wait_until
from tests.harness.programs import ROOT
from tests.harness.sentinels import Cluster, Flavour
from tests.harness.server_stats import all_calls, links
from tests.harness.servers import Server, Sidecar, redis7, valkey
from tests.harness.wire import Wire, call

T = TypeVar("T")


READ_COMMANDS = (
    "get", "mget", "getrange", "exists", "strlen", "hget", "hgetall", "hmget", "hvals", "hexists",
    "hlen", "lrange", "lindex", "llen",
)  # fmt: skip

SERVERS: dict[str, Callable[[], Server]] = {"valkey": valkey, "redis7": redis7}


def sidecar_settings(max_staleness: float, more: Mapping[str, str]) -> dict[str, Any]:
    """Everything is cached, and nobody loses patience."""
    return {
        "cache.mode": "rules",
        "cache.rules": '["*"]',
        "cache.max_staleness": f"{max_staleness:g}s",
        "breaker.failures": 0,
        "upstream.backoff_max": "100ms",
        **more,
    }


async def blocking(work: Callable[..., T], *arguments: Any) -> T:
    """Something that blocks, in a thread."""
    return await asyncio.get_running_loop().run_in_executor(None, work, *arguments)


@dataclass
class Figures:
    """What the server counted, added up over its lives: it forgets when it is restarted."""

    reads: int = 0
    fills: int = 0
    _last: tuple[int, int] = (0, 0)

    def sample(self, port: int) -> None:
        """Ask it; a server that is not there has nothing to say."""
        try:
            with Wire(port, deadline=1) as wire:
                calls = all_calls(wire)
        except GONE:
            return
        now = (sum(calls.get(name, 0) for name in READ_COMMANDS), calls.get("pttl", 0))
        begun_anew = now[0] < self._last[0]
        before = (0, 0) if begun_anew else self._last
        self.reads += now[0] - before[0]
        self.fills += now[1] - before[1]
        self._last = now


class LoadProcess:
    """The load, and the orders given to it."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self._child: asyncio.subprocess.Process

    async def start(self) -> None:
        """Begin."""
        self._child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.consistency.load", self.spec.as_json()),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )

    async def tell(self, *words: str | int, deadline: float = 40) -> str:
        """Give an order and wait for its answer."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(" ".join(str(word) for word in words).encode() + b"\n")
        async with asyncio.timeout(deadline):
            answer = (await self._child.stdout.readline()).decode().strip()
        if not answer:
            raise RuntimeError(f"the load ended with {await self._child.wait()}")
        return answer

    async def end(self) -> dict[str, int]:
        """Have the history written: what was done."""
        figures = json.loads(await self.tell("end", deadline=60))
        await self._child.wait()
        return {name: int(figures[name]) for name in FIGURES}

    async def close(self) -> None:
        """End it, whatever its state."""
        if self._child.returncode is None:
            self._child.kill()
            await self._child.wait()


@dataclass
class Fault:
    """One fault: what, and from when to when (CLOCK_MONOTONIC, ns)."""

    name: str
    begin: int
    end: int = 0


@dataclass
class World:
    """The server, its sidecars (the first behind `network`) and the load."""

    server: Server
    network: FaultProxy
    sidecars: list[Sidecar]
    load: LoadProcess
    figures: Figures = field(default_factory=Figures)
    faults: list[Fault] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)

    @classmethod
    async def build(
        cls, kind: str, sidecars: int, settings: Mapping[str, Any], spec: Callable[..., Spec]
    ) -> World:
        """Start everything but the load."""
        server = await blocking(SERVERS[kind])
        network = await blocking(tracking_proxy, server.port)
        started: list[Sidecar] = []
        try:
            for url in (network.url, server.url)[:sidecars]:
                site = await blocking(lambda url=url: Sidecar(url, settings=settings))
                started.append(site)
        except BaseException:
            for part in (*started, network, server):
                part.close()
            raise
        ports = [server.port, *(sidecar.port for sidecar in started)]
        return cls(server, network, started, LoadProcess(spec(ports)))

    async def order(self, *words: str | int) -> None:
        """One command to the server itself."""

        await blocking(call, self.server.port, *words)

    async def kill(self, *, tracked: bool) -> int:
        """CLIENT KILL for the sidecars' connections of one kind: how many."""

        def kill_all() -> int:
            with Wire(self.server.port) as wire:
                found = [link["id"] for link in links(wire, tracked=tracked)]
                return sum(wire.ask("CLIENT", "KILL", "ID", number) == 1 for number in found)

        return await blocking(kill_all)

    async def close(self) -> None:
        """End everything."""
        await blocking(self.network.close)
        await self.load.close()
        for process in (*self.sidecars, self.server):
            await blocking(process.close)


@dataclass
class ClusterWorld:
    """A master, replicas, Sentinels, and sidecars that follow them. Nobody talks to the nodes
    directly: what is written to an old master is lost, cache or no cache."""

    cluster: Cluster
    sidecars: list[Sidecar]
    load: LoadProcess
    faults: list[Fault] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)

    @classmethod
    async def build(
        cls, kind: str, settings: Mapping[str, Any], spec: Callable[..., Spec]
    ) -> ClusterWorld:
        """Start everything but the load."""
        flavour: Flavour = "valkey" if kind == "valkey" else "redis7"
        cluster = await blocking(lambda: Cluster(flavour=flavour))
        started: list[Sidecar] = []
        try:
            for _ in range(2):
                site = await blocking(lambda: Sidecar(cluster.url, settings=settings))
                started.append(site)
        except BaseException:
            for process in started:
                process.close()
            cluster.close()
            raise
        return cls(cluster, started, LoadProcess(spec([0, *(s.port for s in started)])))

    async def switch(self) -> None:
        """A planned failover, from its order until everybody agrees again."""
        before = self.cluster.current_master()
        fault = Fault("planned failover", time.monotonic_ns())
        self.faults.append(fault)

        def run() -> None:
            self.cluster.failover()
            wait_until(lambda: self.cluster.current_master() != before, "another master", 20)
            fault.end = time.monotonic_ns()
            self.cluster.settle()

        await blocking(run)

    async def close(self) -> None:
        """End everything."""
        await self.load.close()
        for sidecar in self.sidecars:
            await blocking(sidecar.close)
        await blocking(self.cluster.close)
