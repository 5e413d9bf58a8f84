"""Tables, targets and a picture of what `measure` found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from rich.table import Table

from bench.hotkeys.measure import JUMP_SHARE, KEYS, TOP, Figures
from bench.report import pictures
from bench.report.tables import table
from bench.report.verdict import Verdict
from tests.harness.distribution import cumulative, quantiles

TARGET_ACCURACY = 0.95
TARGET_DETECTION_MS = 100
TARGET_COST_NS = 10


def accuracy_table(rows: Sequence[Figures]) -> Table:
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
    return table(f"First {TOP} of {KEYS:,} keys after 1 s", columns, cells)


def detection_table(rows: Sequence[Figures]) -> Table:
    columns = ("load", "commands/s", "least", "median", "p90", "p98", "most")
    cells = [
        [row["load"], f"{row['rate']:,}"]
        + [f"{ms:.0f}" for ms in quantiles(row["ms"], (0, 0.5, 0.9, 0.98, 1))]
        for row in rows
    ]
    runs = len(rows[0]["ms"])
    return table(f"A key jumps to {JUMP_SHARE:.0%}: ms to its name, {runs} runs", columns, cells)


def cost_table(figures: Figures, stats: Figures) -> Table:
    by_load = figures["command_ns"]
    intervals = next(iter(by_load.values()))
    cells = [[load, *(f"{ns:.1f}" for ns in by_load[load].values())] for load in by_load]
    caption = (
        f"hash of 24 bytes {figures['hash_ns']:.1f} ns; tick {figures['tick_us']:.0f} µs, once a "
        f"second {figures['halving_tick_us']:.0f}; {stats['memory'] / 1024:.0f} KiB"
    )
    columns = ("load", *(f"1 in {i}" for i in intervals))
    return table("CPU ns per command", columns, cells, caption=caption)


def verdicts(figures: Figures) -> list[Verdict]:
    """Each target with what was measured."""
    judged = [row for row in figures["accuracy"] if row["load"] == "zipf 0.99"]
    recall, precision = (min(row[f] for row in judged) for f in ("recall", "precision"))
    jumps = next(r["ms"] for r in figures["detection"] if r["rate"] == 50_000)
    late = sum(ms > TARGET_DETECTION_MS for ms in jumps)
    dearest = max(by_interval[16] for by_interval in figures["cost"]["command_ns"].values())
    false = sum(row["named_hot"] for row in figures["accuracy"] if row["load"] == "uniform")

    def line(
        target: str, where: str, value: float, limit: float, unit: str = "x", *, above: bool = False
    ) -> Verdict:
        return Verdict(target, where, limit, unit, value, value, value, at_least=above)

    return [
        line("recall", "zipf 0.99", recall, TARGET_ACCURACY, above=True),
        line("precision", "zipf 0.99", precision, TARGET_ACCURACY, above=True),
        line(f"named after more than {TARGET_DETECTION_MS} ms", "1 % of the load", late, 0, "keys"),
        line("CPU of a command", "1 in 16", dearest, TARGET_COST_NS, "ns"),
        line("keys named hot", "uniform", false, 0, "keys"),
    ]


def draw(figures: Figures, folder: Path) -> None:
    """Detection times as cumulative shares, cost by interval."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    for row in figures["detection"]:
        label = f"{row['load']}, {row['rate']:,}/s"
        left.step(*cumulative(row["ms"]), where="post", label=label)
    left.axvline(TARGET_DETECTION_MS, color=pictures.PALE, lw=1, ls="--")
    left.set_title("Named within … ms of a jump to 1 %")
    for load, by_interval in figures["cost"]["command_ns"].items():
        right.plot(list(by_interval), list(by_interval.values()), "o-", label=load)
    right.axhline(TARGET_COST_NS, color=pictures.PALE, lw=1, ls="--")
    right.set_xscale("log", base=2)
    right.set_yscale("log")
    right.set_title("CPU ns per command, one in N sampled")
    for axis in (left, right):
        axis.legend(fontsize=8)
    pictures.save(fig, folder, "hotkeys")
