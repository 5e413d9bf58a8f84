"""The load, a process of its own: many clients of the server and of its sidecars.

    python -m bench.consistency.load SPEC

SPEC is JSON (see `Spec`). Orders come on standard input, one a line, each answered with a line:

    wipe SITE COMMAND   no writes for the moment; then this command there, which deletes all keys
    still               no writes from now on: answered when none is under way
    go                  writes again
    names               the names of the keys in use
    wiped BEGIN END     all keys were deleted between these two moments, and no writes since
    closed AT           the server lost its data then; new keys from here on
    end                 write the history, say what was done, and end
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import uvloop

from bench.consistency.keys import Keys
from bench.consistency.operations import EXCHANGES, READING, WRITING, Who
from tests.harness.checker.history import DIRECT
from tests.harness.connection import Connection, Lost, Step
from tests.harness.resp import Refused

STILL_DEADLINE = 20.0
STYLES: Sequence[tuple[int, float]] = ((1, 0.01), (1, 0.1), (4, 0.03), (16, 0.01), (1, 0.0))
"""Depth of the pipeline, share of writes; one after the other for the clients of a site."""

DIRECT_CLIENTS = 2
"""They are fast, and what they see is not in question."""

FIGURES = ("reads", "past", "errors", "lost")
"""Reads the cache might answer, reads it may not, error replies, connections lost."""

PAUSE = 0.0005
"""Between two pieces of a client, on average (s)."""


@dataclass(frozen=True)
class Spec:
    """What to do."""

    ports: list[int]
    """By site; 0 where nobody connects."""
    clients: int
    """For each site."""
    out: str
    seed: int = 0
    pinned: bool = True
    """One more client of each sidecar that tracks for itself, and one named `fresh`."""

    def as_json(self) -> str:
        """For the command line."""
        return json.dumps(asdict(self))


@dataclass
class Manner:
    """How a client behaves."""

    site: int
    proto: int
    depth: int
    writes: float
    hello: tuple[tuple[str, ...], ...] = ()
    strict: bool = False
    counts_as: int | None = None
    """The site in the history: one with a connection of its own counts as a direct client."""


def manners(spec: Spec) -> list[Manner]:
    """All clients."""
    found = []
    for site, port in enumerate(spec.ports):
        if not port:
            continue
        for number in range(spec.clients if site else min(spec.clients, DIRECT_CLIENTS)):
            depth, writes = STYLES[number % len(STYLES)]
            found.append(Manner(site, 2 + number % 2, depth, writes))
        if site and spec.pinned:
            tracking = ("CLIENT", "tracking", "on")  # small letters: see tracking_proxy
            pinned = Manner(site, 3, 3, 0.1, (tracking,), strict=True, counts_as=DIRECT)
            found.append(pinned)
            found.append(Manner(site, 2, 2, 0.1, (("CLIENT", "SETNAME", "fresh:1"),), strict=True))
    return found


class Load:
    """All clients, and the keys."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.keys = Keys(spec.seed)
        self.reads = self.past = self.errors = self.lost = 0
        self.ending = False

    # A client

    async def client(self, manner: Manner) -> None:
        """Connect, work, connect again when the connection is lost."""
        while not self.ending:
            try:
                conn = await Connection.open(self.spec.ports[manner.site])
            except Lost:
                await asyncio.sleep(0.02)
                continue
            site = manner.site if manner.counts_as is None else manner.counts_as
            who = Who(self.keys, conn, site, manner.strict)
            try:
                await self._greet(conn, manner)
                await self._work(who, manner)
            except Lost:
                self.lost += 1
            conn.close()
            self.reads += who.reads
            self.past += who.past
            self.errors += who.errors

    @staticmethod
    async def _greet(conn: Connection, manner: Manner) -> None:
        """Protocol and state; whoever cannot have them tries again on another connection."""
        if manner.proto == 3:
            answer = await conn.ask("HELLO", 3)
            if isinstance(answer, Refused):
                raise Lost("HELLO")
        for words in manner.hello:
            if isinstance(await conn.ask(*words), Refused):
                raise Lost(words[1])

    async def _work(self, who: Who, manner: Manner) -> None:
        random = self.keys.random
        until = time.monotonic() + random.uniform(0.5, 20)
        while not self.ending and time.monotonic() < until:
            if not manner.strict and random.random() < 0.02:
                await random.choice(EXCHANGES)(who)
            else:
                await who.conn.send(self._steps(who, manner))
            if random.random() < 0.5:
                await asyncio.sleep(random.random() * 4 * PAUSE)

    def _steps(self, who: Who, manner: Manner) -> list[Step]:
        steps: list[Step] = []
        depth = self.keys.random.randint(1, manner.depth)
        while len(steps) < depth:
            kind = WRITING if self.keys.random.random() < manner.writes else READING
            step = self._choose(kind)(who) or READING[0][0](who)
            assert step is not None
            steps.append(step)
        return steps

    def _choose(self, kinds: Sequence[tuple[Any, int]]) -> Any:
        at = self.keys.random.random() * sum(weight for _, weight in kinds)
        for step, weight in kinds:
            at -= weight
            if at < 0:
                return step
        return kinds[-1][0]

    # Orders

    async def still(self) -> None:
        """No writes from now on."""
        self.keys.shut = True
        limit = time.monotonic() + STILL_DEADLINE
        while self.keys.under_way and time.monotonic() < limit:  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        if self.keys.under_way:
            raise RuntimeError(f"{self.keys.under_way} writes did not end")

    async def wipe(self, site: int, words: Sequence[str]) -> str:
        """A command that deletes all keys."""
        await self.still()
        begin = time.monotonic_ns()
        sure = False
        try:
            conn = await Connection.open(self.spec.ports[site])
            begin = time.monotonic_ns()
            answer = await conn.ask(*words)
            sure = not isinstance(answer, Refused)
            if words[0] == "SWAPDB" and sure:
                # Empty what has been put away, for the next time.
                await conn.ask("SELECT", words[2])
                await conn.ask("FLUSHDB")
            conn.close()
        except Lost:
            pass
        self.keys.wiped(site, begin, time.monotonic_ns(), sure=sure, what=" ".join(words))
        self.keys.shut = False
        return "sure" if sure else "unsure"

    async def obey(self, words: Sequence[str]) -> str:
        """One order."""
        if words[0] == "wipe":
            return await self.wipe(int(words[1]), words[2:])
        if words[0] == "still":
            await self.still()
        elif words[0] == "wiped":
            begin, end = int(words[1]), int(words[2])
            self.keys.wiped(0, begin, end, sure=True, what="restart")
            self.keys.shut = False
        elif words[0] == "closed":
            self.keys.close(int(words[1]))
        elif words[0] == "go":
            self.keys.shut = False
        elif words[0] == "names":
            return " ".join(
                key.name.decode() for key in [*self.keys.registers, *self.keys.counters]
            )
        return "done"

    async def run(self) -> None:
        """Until told to end."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        clients = [loop.create_task(self.client(manner)) for manner in manners(self.spec)]
        while words := (await reader.readline()).decode().split():
            if words[0] == "end":
                break
            print(await self.obey(words), flush=True)
            for client in clients:
                if client.done():
                    client.result()
        self.ending = True
        _, late = await asyncio.wait(clients, timeout=5)
        for client in late:
            client.cancel()
        self.keys.finish().save(Path(self.spec.out))
        print(json.dumps({name: getattr(self, name) for name in FIGURES}), flush=True)


if __name__ == "__main__":
    spec = Spec(**json.loads(sys.argv[1]))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(Load(spec).run())
