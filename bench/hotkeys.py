"""Hot keys: accuracy against exact counts, time to a name, cost and memory of the native sketch.

    python -m bench.hotkeys            everything (about two minutes), written to bench/results/
    python -m bench.hotkeys --quick    one seed and few runs: does everything work?

Streams are seeded and time is told, so all figures but the costs are the same on every machine.
Costs are CPU time of this thread, the least of several rounds, since neighbours only ever add.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import random
import statistics
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from sidecar.core.hotkeys.sketch import HotKeys, name_of

RESULTS = Path(__file__).resolve().parent / "results"
TICK = 0.05
KEYS = 1_000_000
JUMPER = 2_000_000
TOP = 20
LOADS = {"zipf 0.8": 0.8, "zipf 0.99": 0.99, "zipf 1.2": 1.2, "uniform": 0.0}
RATES = (50_000, 200_000, 1_000_000)
JUMP_SHARE = 0.01
ROUNDS = 9
TARGET_ACCURACY = 0.95
TARGET_DETECTION_MS = 100
TARGET_COST_NS = 10
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


# Report.


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    for row in rows:
        table.add_row(*row)
    return table


def _percentile(values: Sequence[float], share: float) -> float:
    return values[min(len(values) - 1, round(share * (len(values) - 1)))]


def _accuracy_table(rows: Sequence[Figures]) -> Table:
    columns = ("load", "commands/s", "1 in", "precision", "worst", "recall", "worst", "named hot")
    cells = []
    for row in rows:
        found = [f"{row['load']}", f"{row['rate']:,}", str(row["interval"])]
        for field in ("precision", "recall"):
            # A uniform load has no first twenty: only that nothing is named counts.
            none = row["load"] == "uniform"
            values = (row[field], row[f"worst_{field}"])
            found += ["-" if none else f"{value:.3f}" for value in values]
        cells.append([*found, str(row["named_hot"])])
    return _table(f"First {TOP} of {KEYS:,} keys after 1 s", columns, cells)


def _detection_table(rows: Sequence[Figures]) -> Table:
    columns = ("load", "commands/s", "least", "median", "p90", "p98", "most")
    cells = [
        [row["load"], f"{row['rate']:,}"]
        + [f"{_percentile(row['ms'], share):.0f}" for share in (0, 0.5, 0.9, 0.98, 1)]
        for row in rows
    ]
    runs = len(rows[0]["ms"])
    return _table(f"A key jumps to {JUMP_SHARE:.0%}: ms to its name, {runs} runs", columns, cells)


def _cost_table(figures: Figures, stats: Figures) -> Table:
    by_load = figures["command_ns"]
    intervals = next(iter(by_load.values()))
    cells = [[load, *(f"{ns:.1f}" for ns in by_load[load].values())] for load in by_load]
    table = _table("CPU ns per command", ("load", *(f"1 in {i}" for i in intervals)), cells)
    table.caption = (
        f"hash of 24 bytes {figures['hash_ns']:.1f} ns; tick {figures['tick_us']:.0f} µs, once a "
        f"second {figures['halving_tick_us']:.0f}; {stats['memory'] / 1024:.0f} KiB"
    )
    table.caption_justify = "left"
    return table


def verdicts(figures: Figures) -> list[tuple[str, str, bool]]:
    """Each target with what was measured, and whether it is met."""
    judged = [row for row in figures["accuracy"] if row["load"] == "zipf 0.99"]
    recall, precision = (min(row[f] for row in judged) for f in ("recall", "precision"))
    jumps = next(r["ms"] for r in figures["detection"] if r["rate"] == 50_000)
    late = sum(ms > TARGET_DETECTION_MS for ms in jumps)
    dearest = max(by_interval[16] for by_interval in figures["cost"]["command_ns"].values())
    false = sum(row["named_hot"] for row in figures["accuracy"] if row["load"] == "uniform")
    return [
        ("recall of zipf 0.99 >= 0.95", f"{recall:.3f}", recall >= TARGET_ACCURACY),
        ("precision of zipf 0.99 >= 0.95", f"{precision:.3f}", precision >= TARGET_ACCURACY),
        ("1 % named within 100 ms", f"{len(jumps) - late} of {len(jumps)}", late == 0),
        ("<= 10 ns a command at 1 in 16", f"{dearest:.1f} ns", dearest <= TARGET_COST_NS),
        ("no key of a uniform load is hot", f"{false} named", false == 0),
    ]


def plot(figures: Figures, folder: Path) -> None:
    """Detection times as cumulative shares, cost by interval. Needs matplotlib."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    for row in figures["detection"]:
        shares = [(i + 1) / len(row["ms"]) for i in range(len(row["ms"]))]
        left.step(row["ms"], shares, where="post", label=f"{row['load']}, {row['rate']:,}/s")
    left.axvline(TARGET_DETECTION_MS, color="#8a8f98", lw=1, ls="--")
    left.set_title("Named within … ms of a jump to 1 %")
    for load, by_interval in figures["cost"]["command_ns"].items():
        right.plot(list(by_interval), list(by_interval.values()), "o-", label=load)
    right.axhline(TARGET_COST_NS, color="#8a8f98", lw=1, ls="--")
    right.set_xscale("log", base=2)
    right.set_yscale("log")
    right.set_title("CPU ns per command, one in N sampled")
    for axis in (left, right):
        axis.legend(frameon=False, fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    fig.tight_layout()
    for kind in ("png", "svg"):
        fig.savefig(folder / f"hotkeys.{kind}")
    plt.close(fig)


def main(argv: list[str] | None = None) -> int:
    """Measure and report; 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.hotkeys", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed, few runs")
    parser.add_argument("--out", type=Path, help="folder for the results (bench/results/TIME)")
    args = parser.parse_args(argv)
    console = Console(width=None if sys.stdout.isatty() else 110)
    figures: Figures = {"accuracy": accuracy(1 if args.quick else 5)}
    console.print(_accuracy_table(figures["accuracy"]))
    figures["detection"] = detection(5 if args.quick else 50)
    console.print(_detection_table(figures["detection"]))
    figures["cost"], figures["sketch"] = cost(), HotKeys(1).stats()
    console.print(_cost_table(figures["cost"], figures["sketch"]))
    found = verdicts(figures)
    figures["verdicts"] = [dict(zip(("target", "measured", "met"), v, strict=True)) for v in found]
    rows = [(target, measured, "met" if met else "MISSED") for target, measured, met in found]
    console.print(_table("Targets", ("target", "measured", ""), rows))
    stamp = datetime.datetime.now().strftime("hotkeys-%Y%m%d-%H%M%S")
    folder = args.out or RESULTS / stamp
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hotkeys.json").write_text(json.dumps(figures, indent=1) + "\n")
    try:
        plot(figures, folder)
    except ImportError:
        console.print("no plot: matplotlib is not installed")
    console.print(f"written to {os.path.relpath(folder)}")
    return 0 if all(met for *_, met in found) else 1


if __name__ == "__main__":
    sys.exit(main())
