"""Accuracy, time to a name, and cost of the native sketch.

Streams are seeded and time is told, so all figures but the costs are the same on every machine.
Costs are CPU time of this thread, the least of several rounds, since neighbours only ever add.
"""

from __future__ import annotations

import itertools
import random
import statistics
import time
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from sidecar.core.hotkeys.detector import HotKeys, name_of

TICK = 0.05
KEYS = 1_000_000
JUMPER = 2_000_000
TOP = 20
LOADS = {"zipf 0.8": 0.8, "zipf 0.99": 0.99, "zipf 1.2": 1.2, "uniform": 0.0}
RATES = (50_000, 200_000, 1_000_000)
JUMP_SHARE = 0.01
ROUNDS = 9
Figures = dict[str, Any]


@cache
def _weights(exponent: float) -> list[float]:
    return list(itertools.accumulate((i + 1) ** -exponent for i in range(KEYS)))


def _picks(rng: random.Random, exponent: float, n: int) -> array[int]:
    return array("I", rng.choices(range(KEYS), cum_weights=_weights(exponent), k=n))


# Accuracy.


def _compare(hot: HotKeys, seen: Counter[int]) -> tuple[float, float]:
    """Precision and recall of the first 20; keys as frequent as the 20th may come in any order."""
    first = seen.most_common(TOP + 1)
    least, beyond = first[-2][1], first[-1][1]
    named = {key for _, key, *_ in hot.top(TOP)}
    right = sum(name_of(k) in named for k, count in seen.items() if count >= least)
    certain = [name_of(k) for k, count in first if count > beyond]
    return right / TOP, sum(key in named for key in certain) / max(1, len(certain))


def _second(exponent: float, rate: int, seed: int) -> Figures:
    """One second of a load, from nothing."""
    rng, hot = random.Random(seed), HotKeys(seed + 1000)
    seen: Counter[int] = Counter()
    named = set()
    hot.tick(0.0)
    for i in range(round(1 / TICK)):
        picks = _picks(rng, exponent, round(rate * TICK))
        seen.update(picks)
        hot.drive(picks)
        hot.tick((i + 1) * TICK)
        named |= {(space, key) for kind, space, key, _ in hot.take_events() if kind == "hot"}
    precision, recall = _compare(hot, seen)
    return {"precision": precision, "recall": recall, "named_hot": len(named)} | hot.stats()


def accuracy(seeds: int) -> list[Figures]:
    """Every load at every rate: means over seeds, and the worst."""
    rows = []
    for (load, exponent), rate in itertools.product(LOADS.items(), RATES):
        runs = [_second(exponent, rate, seed) for seed in range(seeds)]
        row: Figures = {"load": load, "rate": rate, "interval": runs[0]["interval"]}
        for field in ("precision", "recall"):
            row[field] = statistics.mean(run[field] for run in runs)
            row[f"worst_{field}"] = min(run[field] for run in runs)
        row["named_hot"] = max(run["named_hot"] for run in runs)
        row["admitted_per_sample"] = runs[0]["admitted"] / runs[0]["sampled"]
        rows.append(row)
    return rows


# Detection.


def _jump(seed: int, rate: int, exponent: float, background: Sequence[array[int]]) -> float:
    """Milliseconds from the jump of a key, at any time between two ticks, to its name."""
    rng, hot = random.Random(seed), HotKeys(seed)
    jump = 1.5 + rng.random() * TICK
    hot.tick(0.0)
    for i, picks in enumerate(background):
        mixed = array("I", picks)
        for at in range(max(0, round((jump - i * TICK) * rate)), len(mixed)):
            if rng.random() < JUMP_SHARE:
                mixed[at] = JUMPER
        hot.drive(mixed)
        hot.tick((i + 1) * TICK)
        if hot.is_hot(0, name_of(JUMPER)):
            return 1000 * ((i + 1) * TICK - jump)
    return float("inf")


def detection(runs: int) -> list[Figures]:
    """The distribution over runs, each with its own moment, seed and chance."""
    rows = []
    for rate, load in itertools.product((10_000, 50_000, 200_000), ("zipf 0.99", "uniform")):
        rng = random.Random(1)
        parts = [_picks(rng, LOADS[load], round(rate * TICK)) for _ in range(70)]
        found = sorted(_jump(seed, rate, LOADS[load], parts) for seed in range(runs))
        rows.append({"rate": rate, "load": load, "ms": found})
    return rows


# Cost.


def _least(action: Callable[[], object], n: int) -> float:
    """CPU time in nanoseconds of one of the n things an action does."""
    best = float("inf")
    for _ in range(ROUNDS):
        begin = time.thread_time_ns()
        action()
        best = min(best, time.thread_time_ns() - begin)
    return best / n


def _sampled(picks: array[int], interval: int) -> float:
    """CPU time of a command at a rate that leads to this interval."""
    hot, now = HotKeys(1), itertools.count(1)
    step = min(len(picks), interval * 10_000)
    seconds = step / ((interval - 0.5) * 210_000)
    part = memoryview(picks)[:step]
    hot.tick(0.0)
    for _ in range(40):
        hot.drive(part)
        hot.tick(next(now) * seconds)
    found = hot.stats()["interval"]
    if abs(found - interval) > interval / 20:
        raise RuntimeError(f"an interval of {found} instead of {interval}")
    best = float("inf")
    for at in range(0, len(picks) - step + 1, step):
        part = memoryview(picks)[at : at + step]
        begin = time.thread_time_ns()
        hot.drive(part)
        best = min(best, time.thread_time_ns() - begin)
        hot.tick(next(now) * seconds)
    return best / step


def cost() -> Figures:
    """Nanoseconds of a command by load and interval, of a hash, of a tick."""
    rng, n = random.Random(1), 1_600_000
    hot = HotKeys(1)
    loads = {load: _picks(rng, LOADS[load], n) for load in ("zipf 0.99", "uniform")}
    loads["all different"] = array("I", range(n))
    figures: Figures = {"hash_ns": _least(lambda: hot.drive(loads["uniform"], hash_only=True), n)}
    figures["command_ns"] = {
        load: {interval: _sampled(picks, interval) for interval in (1, 4, 16, 64)}
        for load, picks in loads.items()
    }
    now = itertools.count(1)
    hot.tick(0.0)
    ticks = []
    for _ in range(200):
        hot.drive(loads["zipf 0.99"][:2500])
        begin = time.thread_time_ns()
        hot.tick(next(now) * TICK)
        ticks.append((time.thread_time_ns() - begin) / 1000)
    # Every twentieth halves the cells as well.
    figures["tick_us"] = statistics.median(ticks)
    figures["halving_tick_us"] = statistics.median(ticks[19::20])
    return figures
