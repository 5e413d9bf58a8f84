"""One run: a world, a load, faults, and what the checker says of it."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from bisect import bisect_left
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.consistency.faults import FAULTS, storm
from bench.consistency.load import Spec
from bench.consistency.shards import ShardsWorld
from bench.consistency.world import ClusterWorld, Fault, World, blocking, sidecar_settings
from tests.harness.checker.contract import Limits, Verdict, check
from tests.harness.checker.explain import explain
from tests.harness.checker.history import History
from tests.harness.distribution import quantiles

MILLISECOND = 1_000_000
SHARES = (0.5, 0.9, 0.99, 1.0)
SHOWN = 5
"""Violations explained in a report, of each rule."""

HANDOVER = 100 * MILLISECOND
"""Until a server of a cluster has heard that a slot is another's, on a machine under load."""

SETTLED = 1.5
"""Seconds after a fault from which on the time counts as calm again."""


@dataclass
class Options:
    """What to run."""

    seconds: float = 60.0
    calm: float = 0.25
    """Share of the time before the first fault."""
    server: str = "valkey"
    sidecars: int = 2
    clients: int = 5
    """At each site."""
    max_staleness: float = 0.5
    slack: float = 0.02
    seed: int = 0
    faults: Sequence[str] = tuple(FAULTS)
    failovers: int = 0
    """Instead of the other faults: planned failovers of a cluster with Sentinels."""
    cluster: bool = False
    """Instead of the other faults: a cluster whose slots move."""
    pinned: bool = True
    settings: dict[str, str] = field(default_factory=dict)
    say: Callable[[str], None] = print


@dataclass
class Outcome:
    """What came of it."""

    options: Options
    operations: int
    reads: int
    seconds: float
    violations: dict[str, int]
    explained: list[str]
    hits: float | None
    """Share of the cacheable reads through sidecars that did not go past the cache."""
    figures: dict[str, int]
    staleness: dict[str, dict[str, float]]
    """By sidecar and weather: writes made elsewhere, and quantiles in milliseconds."""
    samples: dict[str, list[float]]
    faults: dict[str, int]
    sidecar_logs: list[str]

    @property
    def good(self) -> bool:
        """Whether nothing was violated, in a run that saw something."""
        return not self.violations and self.operations > 0

    def as_json(self) -> dict[str, Any]:
        """Without the samples."""
        kept = dict(vars(self))
        for name in ("samples", "sidecar_logs"):
            del kept[name]
        kept["options"] = {k: v for k, v in vars(self.options).items() if k != "say"}
        return kept


Work = Coroutine[Any, Any, tuple[World | ClusterWorld | ShardsWorld, dict[str, int], float | None]]


def run(options: Options) -> Outcome:
    """Run it."""
    with tempfile.TemporaryDirectory(prefix="sidecar-consistency-") as folder:
        out = Path(folder) / "history"

        def spec(ports: list[int]) -> Spec:
            pinned = options.pinned and not options.cluster  # CLIENT TRACKING is refused there
            return Spec(ports, options.clients, str(out), seed=options.seed, pinned=pinned)

        work: Work
        if options.cluster:
            work = _cluster(options, spec)
        elif options.failovers:
            work = _failovers(options, spec)
        else:
            work = _mixed(options, spec)
        return asyncio.run(_judged(options, work, out))


async def _judged(options: Options, work: Work, out: Path) -> Outcome:
    begin = time.monotonic()
    world, told, hits = await work
    seconds = time.monotonic() - begin
    options.say(f"checking what was seen in {seconds:.0f} s")
    history = await blocking(History.load, out)
    slack = int(options.slack * 1e9)
    handover = HANDOVER if options.cluster else 0
    limits = Limits(int(options.max_staleness * 1e9), slack, slack, handover=handover)
    verdict = await blocking(check, history, limits)
    return _outcome(options, history, verdict, world, told, hits, seconds)


async def _mixed(options: Options, spec: Any) -> tuple[World, dict[str, int], float | None]:
    settings = sidecar_settings(options.max_staleness, options.settings)
    world = await World.build(options.server, options.sidecars, settings, spec)
    try:
        await world.load.start()
        end = time.monotonic() + options.seconds
        sampling = asyncio.create_task(_sample(world))
        await asyncio.sleep(options.seconds * options.calm)
        options.say("calm is over, faults begin")
        chance = random.Random(options.seed)
        if options.faults:
            await storm(world, end, chance, options.faults)
        else:
            await asyncio.sleep(max(0, end - time.monotonic()))
        sampling.cancel()
        told = await world.load.end()
        await blocking(world.figures.sample, world.server.port)
        for sidecar in world.sidecars:
            if not sidecar.running:
                raise RuntimeError(f"a sidecar ended: {sidecar.log()[-2000:]}")
        told["server_reads"], told["fills"] = world.figures.reads, world.figures.fills
        passed = max(0, world.figures.reads - world.figures.fills - told["past"])
        hits = 1 - passed / told["reads"] if told["reads"] else None
        world.logs = [sidecar.log() for sidecar in world.sidecars]
        return world, told, hits
    finally:
        await world.close()


async def _sample(world: World) -> None:
    while True:
        await blocking(world.figures.sample, world.server.port)
        await asyncio.sleep(0.5)


async def _failovers(options: Options, spec: Any) -> tuple[ClusterWorld, dict[str, int], None]:
    settings = sidecar_settings(options.max_staleness, options.settings)
    world = await ClusterWorld.build(options.server, settings, spec)
    try:
        await world.load.start()
        for number in range(options.failovers):
            await asyncio.sleep(2)
            options.say(f"planned failover {number + 1}")
            await world.switch()
        await asyncio.sleep(2)
        told = await world.load.end()
        world.logs = [sidecar.log() for sidecar in world.sidecars]
        return world, told, None
    finally:
        await world.close()


async def _cluster(options: Options, spec: Any) -> tuple[ShardsWorld, dict[str, int], float | None]:
    settings = sidecar_settings(options.max_staleness, options.settings)
    world = await ShardsWorld.build(options.server, settings, spec)
    try:
        await world.load.start()
        await asyncio.sleep(options.seconds * options.calm)
        options.say("calm is over, slots move")
        share = options.seconds * (1 - options.calm)
        await world.change(share, random.Random(options.seed))
        told = await world.load.end()
        told["slots moved"] = world.moved
        world.logs = [sidecar.log() for sidecar in world.sidecars]
        return world, told, await blocking(world.hits)
    finally:
        await world.close()


def _outcome(
    options: Options,
    history: History,
    verdict: Verdict,
    world: World | ClusterWorld | ShardsWorld,
    told: dict[str, int],
    hits: float | None,
    seconds: float,
) -> Outcome:
    explained: list[str] = []
    for rule in verdict.count():
        of_rule = [v for v in verdict.violations if v.rule == rule][:SHOWN]
        for number, violation in enumerate(of_rule):
            during = _during(world.faults, history.begin[violation.row])
            text = explain(history, violation, more=number == 0)
            explained.append(f"{text}\n  during    {during}")
    stale = _by_weather(verdict, world.faults)
    names = [fault.name for fault in world.faults]
    return Outcome(
        options=options,
        operations=verdict.operations,
        reads=verdict.reads,
        seconds=seconds,
        violations=verdict.count(),
        explained=explained,
        hits=hits,
        figures=told,
        staleness={name: _figures(values) for name, values in stale.items()},
        samples={name: [n / MILLISECOND for n in values] for name, values in stale.items()},
        faults={name: names.count(name) for name in sorted(set(names))},
        sidecar_logs=world.logs,
    )


def _during(faults: Sequence[Fault], at: int) -> str:
    """What was going on then."""
    found = [f for f in faults if f.begin <= at <= (f.end or at) + int(SETTLED * 1e9)]
    return ", ".join(f.name for f in found) or "calm"


def _by_weather(verdict: Verdict, faults: Sequence[Fault]) -> dict[str, list[int]]:
    """Staleness of writes, by sidecar: in calm times, and in others."""
    begins = [fault.begin for fault in faults]
    found: dict[str, list[int]] = {}
    rows = zip(verdict.stale_at, verdict.stale_for, verdict.stale_site, strict=True)
    for at, stale, site in rows:
        number = bisect_left(begins, at + 100 * MILLISECOND) - 1
        calm = number < 0 or at > (faults[number].end or at) + int(SETTLED * 1e9)
        name = f"sidecar {site}, {'calm' if calm else 'faults'}"
        found.setdefault(name, []).append(stale)
    return dict(sorted(found.items()))


def _figures(values: Sequence[int]) -> dict[str, float]:
    found = [value / MILLISECOND for value in quantiles(values, SHARES)]
    names = ("p50", "p90", "p99", "max")
    return {"writes": len(values), **dict(zip(names, found, strict=True))}
