"""What a soak measures once a second, and what follows from it.

**Memory.** The samples after the warm-up are put into SPANS spans of equal length; of each the
median counts, so that a large value under way, or a fault, does not. A line is laid through the
medians (least squares). The growth is what the line rises from the first span to the last, as a
share of its height at the first. In less than LEAST seconds a line says nothing. The sidecar's
allocator is told to give large blocks back at once (stage.py): what it keeps for the next time
would change by more than what is looked for.

**Descriptors and tasks** are compared at rest, after the warm-up and at the end: all clients have
gone, and so have the links that were theirs. A scrape, a snapshot or a batch of spans opens
something for a moment, so the least counts of what is seen within a while. What leaks stays.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from bench.soak.client import Ledger
from tests.harness.admin import metrics
from tests.harness.errors import GONE
from tests.harness.servers import Sidecar
from tests.harness.wire import call

EVERY = 1.0
SPANS = 20
LEAST = 60.0
GONE_BY = 4.0
"""Seconds after the last client until the links that were its are closed (pool_idle_timeout)."""
WATCHED = 3.0
"""Seconds within which the least counts."""
PATIENCE = 30.0
"""Seconds within which the sidecar has noticed that all clients have gone."""
TASKS, CLIENTS = "sidecar_event_loop_tasks", "sidecar_client_connections"
CPU = "process_cpu_seconds_total"


@dataclass(frozen=True)
class Sample:
    """One moment (s since the start): memory in bytes, counts now, and totals so far."""

    at: float
    rss: int
    descriptors: int
    tasks: int
    commands: int
    errors: int
    cpu: float
    """Seconds of CPU that the sidecar has used."""


@dataclass(frozen=True)
class Rest:
    """What is left when all clients have gone; rss in bytes."""

    at: float
    rss: int
    descriptors: int
    tasks: int
    clients: int = 0
    listed: str = field(default="", repr=False)
    """The clients that are left, as CLIENT LIST has them."""


class Sampler:
    """Takes samples of a sidecar until cancelled."""

    def __init__(self, sidecar: Sidecar, ledger: Ledger) -> None:
        self.sidecar, self.ledger = sidecar, ledger
        self.samples: list[Sample] = []
        self._asking = asyncio.Lock()
        self.begun = time.monotonic()

    async def run(self) -> None:
        """Once every EVERY seconds; what cannot be asked at the moment is left out."""
        while True:
            await asyncio.sleep(EVERY)
            with suppress(*GONE):
                rss, descriptors, tasks, _, cpu = await self._ask()
                errors = sum(self.ledger.errors.values())
                self.samples.append(
                    Sample(self.now, rss, descriptors, tasks, self.ledger.commands, errors, cpu)
                )

    async def _ask(self) -> tuple[int, int, int, int, float]:
        """Memory, descriptors, tasks, clients and CPU; one who asks at a time."""
        async with self._asking:
            found = await asyncio.to_thread(metrics, self.sidecar)
            figures = self.sidecar.rss(), self.sidecar.descriptors()
            return *figures, int(found[TASKS]), int(found[CLIENTS]), found[CPU]

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.begun

    async def at_rest(self, *, at_once: bool = False) -> Rest:
        """What is left when no client is there any more, and (unless it is wanted at once) links
        have had time to go."""
        until, left, listed = time.monotonic() + PATIENCE, 0, ""
        while left := (await self._ask())[3]:
            if time.monotonic() > until:
                listed = str(await asyncio.to_thread(call, self.sidecar.port, "CLIENT", "LIST"))
                break
            await asyncio.sleep(0.2)
        await asyncio.sleep(0 if at_once else GONE_BY)
        seen, until = [await self._ask()], time.monotonic() + (0 if at_once else WATCHED)
        while time.monotonic() < until:
            await asyncio.sleep(0.1)
            seen.append(await self._ask())
        rss, descriptors, tasks, *_ = map(min, zip(*seen, strict=True))
        return Rest(self.now, int(rss), int(descriptors), int(tasks), left, listed)


def medians(samples: Sequence[Sample], begin: float, end: float) -> list[tuple[float, float]]:
    """Of each span between two moments: its middle, and the median of its memory."""
    length = (end - begin) / SPANS
    found = []
    for span in range(SPANS):
        low = begin + span * length
        inside = [sample.rss for sample in samples if low <= sample.at < low + length]
        if inside:
            found.append((low + length / 2, statistics.median(inside)))
    return found


def growth(samples: Sequence[Sample], begin: float, end: float) -> float | None:
    """By which share memory has grown between two moments (see above), or None: too short."""
    points = medians(samples, begin, end)
    if end - begin < LEAST or len(points) < SPANS // 2:
        return None
    at, rss = zip(*points, strict=True)
    slope, base = statistics.linear_regression(at, rss)
    first, last = base + slope * at[0], base + slope * at[-1]
    return float((last - first) / first)
