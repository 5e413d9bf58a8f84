"""A cluster whose slots move while the near cache reads from it.

Two sidecars serve values from their near caches. A third, without one, is site 0: what its clients
see is what the cluster has. Nobody else could be that: a client of one node cannot follow a key.

The slots that move are those of the keys in use. Beside, a shard comes and goes, a replica takes
over by hand, and a primary is killed. That one while nobody writes, since replication is
asynchronous: the cluster may lose what it has acknowledged, cache or no cache.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from redis.crc import key_slot

from bench.consistency.load import Spec
from bench.consistency.world import Fault, LoadProcess, blocking
from tests.harness.admin import metrics
from tests.harness.cluster import Cluster
from tests.harness.process import free_port
from tests.harness.servers import Sidecar

SHARDS = 3
NODE_TIMEOUT = 1500
STEP = 3  # slots that move one after the other
PAUSE = 0.05
HITS, MISSES = "sidecar_cache_hits_total", "sidecar_cache_misses_total"


@dataclass
class ShardsWorld:
    """The cluster, the sidecar without a cache, those with one, and the load."""

    cluster: Cluster
    plain: Sidecar
    sidecars: list[Sidecar]
    load: LoadProcess
    faults: list[Fault] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)
    moved: int = 0

    @classmethod
    async def build(
        cls, kind: str, settings: Mapping[str, Any], spec: Callable[..., Spec]
    ) -> ShardsWorld:
        """Start everything but the load."""
        cluster = await blocking(
            lambda: Cluster(kind, shards=SHARDS, replicas=1, node_timeout=NODE_TIMEOUT)
        )
        started: list[Sidecar] = []
        try:
            for mode in ({"cache.mode": "off"}, settings, settings):
                admin = f"127.0.0.1:{free_port()}"
                site = await blocking(
                    lambda mode=mode, admin=admin: Sidecar(cluster.url, settings=mode, admin=admin)
                )
                started.append(site)
        except BaseException:
            for process in (*started, cluster):
                process.close()
            raise
        load = LoadProcess(spec([sidecar.port for sidecar in started]))
        return cls(cluster, started[0], started[1:], load)

    async def change(self, seconds: float, chance: random.Random) -> None:
        """Move slots for so long, and do the other things in between."""
        begun = time.monotonic()
        turn = itertools.count()
        steps = self._steps()
        while (now := time.monotonic() - begun) < seconds:
            if steps and now >= steps[0][0] * seconds:
                _, name, step = steps.pop(0)
                await self._during(name, step)
            at_once = next(turn) % 2 == 0
            await self._during("slots moved", lambda: self._move(chance, at_once=at_once))  # noqa: B023
            await asyncio.sleep(PAUSE)

    def _steps(self) -> list[tuple[float, str, Callable[[], Awaitable[object]]]]:
        """At which share of the time, and what."""
        cluster = self.cluster
        return [
            (0.1, "shard added", lambda: blocking(cluster.add_shard)),
            (0.3, "replica took over by hand", lambda: blocking(cluster.failover, 1)),
            (0.45, "FLUSHALL", lambda: self.load.tell("wipe", 1, "FLUSHALL")),
            (0.55, "primary killed, no writes", self._kill),
            (0.85, "shard removed", lambda: blocking(self._remove)),
        ]

    async def _during(self, name: str, step: Callable[[], Awaitable[object]]) -> None:
        fault = Fault(name, time.monotonic_ns())
        self.faults.append(fault)
        await step()
        fault.end = time.monotonic_ns()

    async def _move(self, chance: random.Random, *, at_once: bool) -> None:
        names = (await self.load.tell("names")).split()
        slots = {key_slot(name.encode()) for name in chance.sample(names, min(STEP, len(names)))}
        to = chance.choice([shard.number for shard in self.cluster.shards])
        moving = [slot for slot in slots if self.cluster.owners[slot] != to]

        def move() -> None:
            if at_once and self.cluster.kind == "valkey":
                self.cluster.migrate_atomically(moving, to)
            else:
                for slot in moving:
                    self.cluster.migrate(slot, to)
                self.cluster.settle()  # two moves of a slot in one round of gossip may lose it

        await blocking(move)
        self.moved += len(moving)

    async def _kill(self) -> None:
        await self.load.tell("still")

        def kill() -> None:
            killed = self.cluster.kill(2)
            self.cluster.adopt(2)
            killed.start()
            self.cluster.settle()

        await blocking(kill)
        await self.load.tell("go")

    def _remove(self) -> None:
        cluster = self.cluster
        added = cluster.shards[-1].number
        for slot, number in enumerate(cluster.owners):
            if number == added:
                cluster.migrate(slot, 0)
        cluster.settle()
        cluster.remove_shard(added)

    def hits(self) -> float | None:
        """The share of cacheable reads that the near caches answered."""
        counts = [metrics(sidecar) for sidecar in self.sidecars]
        hits = sum(found[HITS] for found in counts)
        misses = sum(
            value for found in counts for name, value in found.items() if name.startswith(MISSES)
        )
        return hits / (hits + misses) if hits + misses else None

    async def close(self) -> None:
        """End everything."""
        await self.load.close()
        for sidecar in (self.plain, *self.sidecars):
            await blocking(sidecar.close)
        await blocking(self.cluster.close)
