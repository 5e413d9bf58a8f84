"""All clients of the soak, on one event loop: at work, at rest, and at the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from itertools import count

from bench.cluster import clients as walking
from bench.cluster.clients import Command
from bench.soak import guests, pairs, roles
from bench.soak.client import Client, Door, Ledger
from bench.soak.values import Key, Wrong
from tests.harness.connection import Lost

SCAN_PAUSE = 0.02
"""Seconds between two steps of a walk over all keys."""
SETTLED = 30.0
"""Seconds within which everything can be read again once nothing goes wrong any more."""


class Paced(walking.Plain):
    """A connection of the walker, which walks slowly."""

    def run(self, commands: Sequence[Command]) -> list[object]:
        """As it is; a step of a walk after a pause."""
        if commands[0][0] == "SCAN":
            time.sleep(SCAN_PAUSE)
        return super().run(commands)


class Load:
    """The clients. They know what they have been told through all rests."""

    def __init__(
        self, doors: Sequence[Door], admin: str, ledger: Ledger, *, size: int, think: float
    ) -> None:
        self.doors, self.admin, self.ledger, self.think = doors, admin, ledger, think
        self._seeds = count(1)
        self.clients: list[Client] = []
        self.walks = self.missed = 0
        self._everybody: list[Key] = []
        for number in range(size):
            self._add(number)
        self._ending = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._walker: walking.Scanner | None = None

    def _add(self, number: int) -> None:
        """One client of each role."""
        queue, channel = pairs.Queue(number), pairs.Channel(number)

        def common() -> tuple[Door, Ledger, int, float]:
            seed = next(self._seeds)
            return self.doors[seed % len(self.doors)], self.ledger, seed, self.think

        self.clients += [
            *(roles.Keeping(*common(), 3 * number + each, self._everybody) for each in range(3)),
            roles.Counting(*common(), number),
            roles.Trading(*common(), number),
            roles.Scripting(*common(), number),
            roles.Lifting(*common(), number),
            roles.Dawdling(*common(), 100 + number),
            pairs.Pushing(*common(), queue),
            pairs.Popping(*common(), queue),
            pairs.Publishing(*common(), channel),
            pairs.Listening(*common(), channel),
        ]

    async def begin(self) -> None:
        """Everybody comes (again)."""
        self._ending.clear()
        plain = next(door.where for door in self.doors if isinstance(door.where, int))
        if not self._walker:
            self._walker = await asyncio.to_thread(lambda: walking.Scanner(Paced(int(plain))))
        self._walker.start()
        work = [client.run(self._ending) for client in self.clients]
        work += [
            guests.come_and_go(self.doors, self.ledger, next(self._seeds), self.think, self._ending)
            for _ in range(2)
        ]
        work.append(guests.look_on(self.admin, self.ledger, next(self._seeds), self._ending))
        self._tasks = [asyncio.create_task(each) for each in work]

    def check(self) -> None:
        """Raise what a client has failed with: a bug of the soak itself."""
        for task in self._tasks:
            if task.done():
                task.result()

    async def rest(self) -> None:
        """Everybody goes."""
        self._ending.set()
        await asyncio.gather(*self._tasks)
        if walker := self._walker:
            await asyncio.to_thread(walker.stop)
            self.walks += walker.walks
            self.missed += walker.missed
            self._walker = None

    async def look_back(self) -> None:
        """Nothing goes wrong any more: what was acknowledged is there."""
        for client in self.clients:
            try:
                async with asyncio.timeout(SETTLED):
                    await client.settle()
            except (Wrong, Lost, TimeoutError) as error:
                self.ledger.note_wrong(f"at the end, {client.name}: {error!r}")

    async def close(self) -> None:
        """End it, whatever its state."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._walker and self._walker.is_alive():
            await asyncio.to_thread(self._walker.stop)
