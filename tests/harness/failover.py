"""Failovers under test: the load they are tested with, and what is done to clusters.

Each client sends its next command when the last one is answered, through redis-py without retries,
so nothing that the sidecar lets through is hidden. What a client was told is compared with what the
servers hold in the end:

* writers append ever higher numbers to a list of their own: a number that was acknowledged must be
  there once, one that was refused not at all, one that is uncertain at most once;
* counters INCR a key of their own: its value can never exceed the number of attempts;
* readers GET what a counter writes: never less than was acknowledged when they asked.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from .accepting import LoopThread
from .checker.outcomes import judge_counter, judge_list
from .checker.records import Told
from .process import wait_until
from .sentinels import SERVICE, Cluster
from .servers import WORKERS, Sidecar
from .wire import Wire

SERVED_DEADLINE = 20.0
PATIENT: dict[str, str | int | float] = {"failover.hold": 25}
"""Settings for a crash. Sentinels of one host notice it in the same millisecond, and may each vote
for themselves: then they try again ten seconds later."""
THINK = 0.002
"""Seconds between two commands of a client, so that the load is not all that the machine does."""


class Load(LoopThread):
    """Clients of a sidecar, at work from the constructor until `stop`."""

    def __init__(
        self,
        port: int,
        *,
        writers: int = 3,
        counters: int = 2,
        readers: int = 2,
        name: str = "load",
    ) -> None:
        super().__init__()
        self.port, self.name = port, name
        self.lists = [Told() for _ in range(writers)]
        self.counts = [Told() for _ in range(counters)]
        self.reads = [Told() for _ in range(readers)]
        self.stale: list[str] = []
        self.longest_pause = 0.0
        self._stopping = False
        self._latest = [0] * counters
        work = [
            *(self._write(i, told) for i, told in enumerate(self.lists)),
            *(self._count(i, told) for i, told in enumerate(self.counts)),
            *(self._read(i % counters, told) for i, told in enumerate(self.reads)),
        ]
        self._done = [asyncio.run_coroutine_threadsafe(each, self.loop) for each in work]

    @property
    def told(self) -> list[Told]:
        """What all clients were told."""
        return [*self.lists, *self.counts, *self.reads]

    @property
    def errors(self) -> Counter[str]:
        """The errors of all clients, by code."""
        return sum((told.errors for told in self.told), Counter())

    @property
    def acknowledged(self) -> int:
        """Acknowledged writes."""
        return sum(len(told.acknowledged) for told in (*self.lists, *self.counts))

    def until_served(self, times: int = 20) -> None:
        """Wait until every client has been served so many more times."""
        before = [len(told.acknowledged) for told in self.told]

        def served() -> bool:
            now = [len(told.acknowledged) for told in self.told]
            return all(n - b >= times for n, b in zip(now, before, strict=True))

        wait_until(served, f"every client served {times} more times", SERVED_DEADLINE)

    def stop(self) -> None:
        """No new commands; wait for the answers to those that are under way."""
        self._stopping = True
        for each in self._done:
            each.result(SERVED_DEADLINE)
        self._done.clear()

    def close(self) -> None:
        """End the clients, whatever they wait for."""
        self._stopping = True
        super().close()

    def judge(self, where: int | tuple[str, int]) -> Counter[str]:
        """Everything that is wrong, given what the server there holds; `stop` comes first."""
        wrong: Counter[str] = Counter()
        # Through another worker a read may show the value before: docs/compatibility.md.
        if self.stale and WORKERS == 1:
            wrong["stale reads"] = len(self.stale)
        with Wire(where) as wire:
            for i, told in enumerate(self.lists):
                reply = wire.cmd("LRANGE", f"{self.name}:list:{i}", 0, -1)
                wrong += judge_list(told, [int(n) for n in reply.split(b"\r\n")[2::2]])
            for i, told in enumerate(self.counts):
                reply = wire.cmd("GET", f"{self.name}:count:{i}")
                wrong += judge_counter(
                    told, int(reply.split(b"\r\n")[1]) if reply[1:2] != b"-" else 0
                )
        return wrong

    def _client(self) -> Redis:
        return Redis(
            port=self.port, max_connections=1, socket_timeout=30, retry=Retry(NoBackoff(), 0)
        )

    async def _write(self, i: int, told: Told) -> None:
        number = 0
        async with self._client() as redis:
            while not self._stopping:
                number += 1
                begun = time.monotonic()
                error = await self._ask(redis, "RPUSH", f"{self.name}:list:{i}", number)
                told.numbers.append((number, error if isinstance(error, str) else ""))
                self.longest_pause = max(self.longest_pause, time.monotonic() - begun)
                await asyncio.sleep(THINK)

    async def _count(self, i: int, told: Told) -> None:
        async with self._client() as redis:
            while not self._stopping:
                reply = await self._ask(redis, "INCR", f"{self.name}:count:{i}")
                if isinstance(reply, str):
                    told.numbers.append((0, reply))
                else:
                    told.numbers.append((reply, ""))
                    self._latest[i] = reply
                await asyncio.sleep(THINK)

    async def _read(self, i: int, told: Told) -> None:
        async with self._client() as redis:
            while not self._stopping:
                due = self._latest[i]
                reply = await self._ask(redis, "GET", f"{self.name}:count:{i}")
                if isinstance(reply, str):
                    told.numbers.append((0, reply))
                else:
                    told.numbers.append((reply, ""))
                    if reply < due:
                        self.stale.append(f"read {reply} after {due} was acknowledged")
                await asyncio.sleep(THINK)

    @staticmethod
    async def _ask(redis: Any, *command: str | int) -> int | str:
        """A number, or the code of an error: the server's first word, or the exception's name."""
        try:
            return int(await redis.execute_command(*command) or 0)
        except RedisError as error:
            code = str(error).partition(" ")[0]
            return code if code.isupper() else type(error).__name__


def news(sidecar: Sidecar, event: str, before: int = 0) -> list[dict[str, Any]]:
    """What the sidecar has logged under this name, from the start of its log or from `before`."""
    lines = sidecar.log()[before:].splitlines()
    entries = [json.loads(line) for line in lines if line.startswith("{")]
    return [entry for entry in entries if entry["event"] == event]


def news_of_each(sidecar: Sidecar, event: str) -> list[list[dict[str, Any]]]:
    """The same for each of its workers; for a single process there is one."""
    found: list[list[dict[str, Any]]] = [[] for _ in range(sidecar.workers)]
    for entry in news(sidecar, event):
        found[entry.get("worker", 1) - 1].append(entry)
    return found


def times_logged(sidecar: Sidecar, event: str) -> int:
    """How often all of its workers have logged this."""
    return min(map(len, news_of_each(sidecar, event)))


def followed(sidecar: Sidecar) -> list[int]:
    """The ports of the masters it has gone to, in order: those that all of its workers have."""
    entries = min(news_of_each(sidecar, "master followed"), key=len)
    return [int(entry["address"].rpartition(":")[2]) for entry in entries]


def settled(cluster: Cluster) -> int:
    """Wait until nothing is going on, and the master that the Sentinels name says that it is one.

    A failover under way ends first: hurried as in `settle`, a Sentinel that has not heard of it
    would undo its promotion. A master that was changed behind their backs they replace.
    """

    def quiet() -> bool:
        states = (cluster.ask(each, "SENTINEL", "MASTER", SERVICE) for each in cluster.sentinels)
        return not any("failover_in_progress" in str(state) for state in states)

    def agreed() -> int:
        port = cluster.current_master()
        return port if cluster.order(cluster.node(port), "ROLE")[0] == "master" else 0

    wait_until(quiet, "no failover under way", SERVED_DEADLINE)
    if not agreed():
        for sentinel in cluster.sentinels:
            assert cluster.ask(sentinel, "SENTINEL", "DEBUG", "info-period", 100) == "OK"
        wait_until(agreed, "the master is one", SERVED_DEADLINE)
        wait_until(quiet, "no failover under way", SERVED_DEADLINE)
    cluster.settle()
    return cluster.current_master()


def repaired(cluster: Cluster) -> Cluster:
    """The cluster, with all of it running and in agreement, whoever is the master, and empty."""
    for node in cluster.nodes:
        if not node.running:
            node.start()
    for sentinel in cluster.sentinels:
        if not sentinel.running:
            sentinel.start()
    assert cluster.order(cluster.node(settled(cluster)), "FLUSHALL") == "OK"
    return cluster


@contextmanager
def undecided(cluster: Cluster) -> Iterator[None]:
    """A planned failover that does not get on in here: the replica to be promoted is suspended.

    It is given up by the Sentinels after their failover-timeout, 5 s.
    """
    master = cluster.current_master()
    replicas = [node for node in cluster.nodes if node.port != master]
    for node in replicas:
        node.pause()
    try:
        cluster.failover()
        yield
    finally:
        for node in replicas:
            node.resume()


def hand_over(cluster: Cluster, port: int, to: int) -> None:
    """`FAILOVER TO` on the master: both nodes change roles, and no Sentinel is told."""
    master, replica = cluster.node(port), cluster.node(to)

    def accepted() -> bool:
        return bool(cluster.order(master, "FAILOVER", "TO", "127.0.0.1", to) == "OK")

    wait_until(accepted, "FAILOVER is accepted")
    wait_until(lambda: cluster.order(replica, "ROLE")[0] == "master", "the promotion")
    wait_until(lambda: cluster.order(master, "ROLE")[3:4] == ["connected"], "the replication")
