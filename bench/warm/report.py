"""What `bench.warm` found, as a table on the terminal, JSON, Markdown and a plot."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from bench import command_line
from bench.report import pictures, tables
from bench.report.pictures import COLOURS
from bench.report.verdict import Verdict

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


def verdicts(found: Found) -> list[Verdict]:
    """The targets of a warm start, and what was measured; p99 is that of the best round."""

    def of(load: str, case: str, field: str) -> float:
        value = (lowest if field == "p99" else median)(found[load][case], field)
        assert value is not None
        return value

    def line(
        target: str, where: str, value: float, limit: float, unit: str = "x", *, above: bool = False
    ) -> Verdict:
        return Verdict(target, where, limit, unit, value, value, value, at_least=above)

    ratios = [
        line("hits after / before", load, of(load, "warm", "hits") / of(load, "before", "hits"),
             0.98, above=True)
        for load in found
        if "before" in found[load]
    ]  # fmt: skip
    hot = "hot sessions"
    cold, warm = (of(hot, case, "p99") for case in ("cold", "warm"))
    return [
        line("hits after", "sessions", of("sessions", "warm", "hits"), 0.9, above=True),
        *ratios,
        line("p99", hot, warm, 0.5, "ms"),
        line("p99 cold / warm", hot, cold / warm, 25, above=True),
        line("warm-up of 10,000 keys on loopback", hot, of(hot, "loopback", "warmup"), 1, "s"),
    ]


def write(folder: Path, found: Found, facts: Mapping[str, Any], *, judge: bool) -> None:
    """Print the tables, and put everything into the folder."""
    console = command_line.terminal(120)
    body, page = rows(found), tables.head("Warm start", facts)
    console.print(tables.table("", COLUMNS, body))
    page += ["", *tables.markdown(COLUMNS, body)]
    if judge:
        judged = verdicts(found)
        tables.print_verdicts(console, judged)
        page += ["", *tables.markdown(tables.VERDICT_COLUMNS, tables.verdict_rows(judged))]
    tables.write(folder, page, {"facts": dict(facts), "rounds": found})
    with pictures.style():
        draw(folder, found, pictures.note(facts))
    console.print(command_line.shown(folder))


def draw(folder: Path, found: Found, note: str) -> None:
    """Hit ratios, and latencies of hot sessions, side by side."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4), width_ratios=(3, 2))
    _hits(left, found)
    _latencies(right, found)
    pictures.save(fig, folder, "warm", note)


def _hits(left: Axes, found: Found) -> None:
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


def _latencies(right: Axes, found: Found) -> None:
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
