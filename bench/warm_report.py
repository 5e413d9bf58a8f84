"""What `bench.warm` found, as a table on the terminal, JSON, Markdown and a plot."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from rich import box
from rich.console import Console
from rich.table import Table

from bench.plots import COLOURS, STYLE

Found = Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]]
COLOUR = {"before": COLOURS["direct"], "warm": COLOURS["sidecar"], "cold": COLOURS["envoy"]}
COLUMNS = ("load", "case", "hits", "p50 ms", "p99 ms", "p99 best", "warm-up s", "to ready s")


def median(rounds: Sequence[Mapping[str, float]], field: str) -> float | None:
    """Over the rounds; None when it was not measured."""
    values = [figures[field] for figures in rounds if field in figures]
    return statistics.median(values) if values else None


def lowest(rounds: Sequence[Mapping[str, float]], field: str) -> float | None:
    """Of the round that whatever else runs on the machine has disturbed least."""
    return min((figures[field] for figures in rounds if field in figures), default=None)


FIELDS = (
    ("hits", median, "{:.1%}"),
    ("p50", median, "{:.3f}"),
    ("p99", median, "{:.3f}"),
    ("p99", lowest, "{:.3f}"),
    ("warmup", median, "{:.2f}"),
    ("process", median, "{:.2f}"),
)


def rows(found: Found) -> list[list[str]]:
    """One for each load and case."""
    table = []
    for load, cases in found.items():
        for case, rounds in cases.items():
            values = [(pick(rounds, field), form) for field, pick, form in FIELDS]
            cells = ["" if value is None else form.format(value) for value, form in values]
            table.append([load, case, *cells])
    return table


def verdicts(found: Found) -> list[list[str]]:
    """The targets of a warm start, and what was measured; p99 is that of the best round."""

    def of(load: str, case: str, field: str) -> float:
        value = (lowest if field == "p99" else median)(found[load][case], field)
        assert value is not None
        return value

    def line(target: str, value: float, limit: float, above: bool, form: str) -> list[str]:
        met = value >= limit if above else value <= limit
        shown = f"{'≥' if above else '≤'} {form.format(limit)}"
        return [target, form.format(value), shown, "met" if met else "MISSED"]

    found_lines = [
        line("sessions: hits after", of("sessions", "warm", "hits"), 0.9, True, "{:.3f}")
    ]
    for load in found:
        if "before" in found[load]:
            ratio = of(load, "warm", "hits") / of(load, "before", "hits")
            found_lines.append(line(f"{load}: hits after / before", ratio, 0.98, True, "{:.3f}"))
    cold, warm = (of("hot sessions", case, "p99") for case in ("cold", "warm"))
    return [
        *found_lines,
        line("hot session: p99, ms", warm, 0.5, False, "{:.3f}"),
        line("hot session: p99 cold / warm", cold / warm, 25, True, "{:.1f}"),
        line("10,000 keys on loopback: warm-up, s", of("hot sessions", "loopback", "warmup"), 1,
             False, "{:.2f}"),
    ]  # fmt: skip


def write(folder: Path, found: Found, facts: Mapping[str, object], *, judge: bool) -> None:
    """Print the tables, and put everything into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"facts": facts, "rounds": found}, indent=1)
    (folder / "results.json").write_text(text + "\n")
    console = Console(width=120)
    lines = [f"# Warm start, {facts['when']}", ""]
    tables: list[tuple[Sequence[str], list[list[str]]]] = [(COLUMNS, rows(found))]
    if judge:
        tables.append((("target", "measured", "limit", "verdict"), verdicts(found)))
    for columns, body in tables:
        table = Table(box=box.SIMPLE_HEAD)
        for number, column in enumerate(columns):
            table.add_column(column, justify="left" if number == 0 else "right")
        for row in body:
            table.add_row(*row)
        console.print(table)
        lines += [f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *body)]
        lines.append("")
    (folder / "results.md").write_text("\n".join(lines))
    draw(folder, found, facts)
    console.print(f"written to {os.path.relpath(folder)}")


def draw(folder: Path, found: Found, facts: Mapping[str, object]) -> None:
    """Hit ratios, and latencies of hot sessions, side by side."""
    with plt.rc_context(STYLE):
        fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4), width_ratios=(3, 2))
        loads = [load for load in found if "before" in found[load]]
        for number, (case, colour) in enumerate(COLOUR.items()):
            values = [100 * (median(found[load][case], "hits") or 0) for load in loads]
            places = [at + 0.27 * (number - 1) for at in range(len(loads))]
            bars = left.bar(places, values, 0.25, color=colour, label=case)
            left.bar_label(bars, fmt="%.0f", fontsize=8)
        left.set_xticks(range(len(loads)), loads, fontsize=8)
        left.set_ylim(0, 115)
        left.set_title("Reads answered from the cache, of 10,000, %", fontsize=9)
        left.legend(ncols=3, fontsize=8, loc="upper center")
        for number, case in enumerate(("warm", "cold")):
            for shift, field in ((-0.2, "p50"), (0.2, "p99")):
                value = median(found["hot sessions"][case], field) or 0
                bars = right.bar(
                    number + shift, value, 0.36, color=COLOUR[case], alpha=0.5 + (shift > 0) / 2
                )
                right.bar_label(bars, labels=[f"{field}\n{value:.2f}"], fontsize=8)
        right.set_yscale("log")
        right.set_xticks(range(2), ("warm", "cold"))
        right.margins(y=0.25)
        right.set_title("First GET of a hot session, server 3 ms away, ms", fontsize=9)
        note = f"{facts['cpu']}, {facts['cpus']} CPUs, Linux {facts['kernel']}; {facts['when']}"
        fig.text(0.01, 0.005, note, fontsize=7, color="#8a8f98")
        fig.tight_layout(rect=(0, 0.03, 1, 1))
        for kind in ("png", "svg"):
            fig.savefig(folder / f"warm.{kind}")
        plt.close(fig)
