"""Tables of the drills: for the terminal (rich), for Markdown, and the JSON they come from."""

from __future__ import annotations

import dataclasses
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console

from bench.drills.figures import Figures
from bench.drills.runner import LaneResult
from bench.drills.targets import NEVER, Verdict
from bench.drills.world import Options
from bench.report import tables
from bench.report.tables import Row

Field = tuple[str, Callable[[Figures], str]]

NOTHING = re.compile(r"(never(, )?)*")
"""What a row without any time says, in drills without a switch."""

SUMMARY = (
    "drill",
    "lane",
    "longest pause, s",
    "fault to served, s",
    "errors: reads",
    "writes",
    "acknowledged",
    "lost",
    "twice",
    "stale + wrong",
    "targets",
)
COLOURS = {"met": "green", "MISSED": "bold red", "not judged": "yellow"}


def _seconds(value: float | None) -> str:
    if value is None:
        return "never"
    return f"{value:.3f} s" if abs(value) < 1 else f"{value:.2f} s"


def _times(values: Sequence[float | None]) -> str:
    return ", ".join(_seconds(value) for value in values)


def _kinds(kinds: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in kinds.items()) or "0"


FIELDS: tuple[Field, ...] = (
    ("commands a second before the fault", lambda f: f"{f.rate:,.0f}"),
    ("acknowledged (writes)", lambda f: f"{f.acknowledged:,} ({f.acknowledged_writes:,})"),
    ("fault to promotion", lambda f: _times(f.fault_to_promotion)),
    ("fault to announcement", lambda f: _times(f.fault_to_announced)),
    ("announcement to first served write", lambda f: _times(f.announced_to_served)),
    ("promotion to first served write", lambda f: _times(f.promotion_to_served)),
    ("fault to first served write", lambda f: _times(f.fault_to_served)),
    ("longest pause of a client", lambda f: _seconds(f.pause_client)),
    ("longest time without any success", lambda f: _seconds(f.pause_everybody)),
    (
        "longest read; write",
        lambda f: f"{_seconds(f.longest_read)}; {_seconds(f.longest_write)}",
    ),
    ("errors of reads", lambda f: _kinds(f.errors["read"])),
    ("errors of writes", lambda f: _kinds(f.errors["write"])),
    ("UNCERTAIN beyond those in flight", lambda f: f"{f.uncertain_excess:,}"),
    (
        "acknowledged SETs lost (sent after the switch)",
        lambda f: f"{f.lost:,} ({f.lost_when_known:,})",
    ),
    ("acknowledged increments lost", lambda f: f"{f.lost_increments:,}"),
    ("connections made again; refused", lambda f: f"{f.reconnects:,}; {f.refused_connects:,}"),
    ("executed twice", lambda f: f"{f.twice:,}"),
    ("refused yet applied", lambda f: f"{f.refused_yet_applied:,}"),
    ("stale reads; wrong reads", lambda f: f"{f.stale:,}; {f.wrong:,}"),
    ("unacknowledged values read, then gone", lambda f: f"{f.back:,}"),
)


def representative(result: LaneResult) -> Figures | None:
    """Of several runs the one with the median pause."""
    ordered = sorted(result.good, key=lambda figures: figures.pause_client)
    return ordered[len(ordered) // 2] if ordered else None


def drill_rows(results: Sequence[LaneResult]) -> tuple[Row, list[Row]]:
    """Columns and rows of one drill: a figure a row, a lane a column."""
    shown = [(r.lane, figures) for r in results if (figures := representative(r))]
    rows = []
    for name, text in FIELDS:
        cells = [text(figures) for _, figures in shown]
        if not all(NOTHING.fullmatch(cell) for cell in cells):
            rows.append([name, *cells])
    return ["", *(lane for lane, _ in shown)], rows


def spread_lines(results: Sequence[LaneResult]) -> list[str]:
    """With several runs: median and worst of the times that have targets."""
    lines = []
    for result in results:
        if len(result.good) < 2:
            continue
        times: dict[str, list[float]] = {
            "longest pause": [f.pause_client for f in result.good],
            "announcement to served": _known(result, lambda f: f.announced_to_served),
            "promotion to served": _known(result, lambda f: f.promotion_to_served),
            "fault to served": _known(result, lambda f: f.fault_to_served),
        }
        texts = [
            f"{name} {_seconds(statistics.median(values))} (worst {_seconds(max(values))})"
            for name, values in times.items()
            if values
        ]
        lost = sum(f.lost_all for f in result.good)
        lines.append(
            f"{result.lane}, {len(result.good)} runs: {', '.join(texts)}; {lost:,} lost in all"
        )
    return lines


def _known(result: LaneResult, pick: Callable[[Figures], list[float | None]]) -> list[float]:
    return [value for f in result.good for value in pick(f) if value is not None]


def problem_lines(results: Sequence[LaneResult]) -> list[str]:
    """What went wrong with the drill itself."""
    return [f"{result.lane}: {problem}" for result in results for problem in result.problems]


def print_drill(console: Console, results: Sequence[LaneResult]) -> None:
    """One drill on the terminal, its lanes side by side."""
    drill = results[0].drill
    columns, rows = drill_rows(results)
    if rows and len(columns) > 1:
        console.print(tables.table(f"{drill.number} {drill.name}", columns, rows))
    for line in spread_lines(results):
        console.print(f"  {line}", markup=False)
    for line in problem_lines(results):
        console.print(f"  FAILED: {line}", style="bold red", markup=False)


def _verdict_text(result: LaneResult, verdicts: Sequence[Verdict]) -> str:
    if result.problems:
        return "FAILED"
    if result.lane != "sidecar":
        return "-"
    mine = [v.state for v in verdicts if v.drill == result.drill.number]
    missed = mine.count("MISSED")
    return f"{missed} MISSED" if missed else f"{mine.count('met')} met"


def summary_rows(results: Sequence[LaneResult], verdicts: Sequence[Verdict]) -> list[Row]:
    """A row for each drill and lane; of several runs the worst of each figure."""
    rows = []
    for result in results:
        name, good = f"{result.drill.number} {result.drill.name}", result.good
        cells = ["-"] * 8
        if good:
            served = [t for f in good for t in f.fault_to_served]
            known = [t for t in served if t is not None]
            cells = [
                f"{max(f.pause_client for f in good):.2f}",
                f"{max(known):.2f}" if known else "-",
                f"{max(f.read_errors for f in good):,}",
                f"{max(f.write_errors for f in good):,}",
                f"{min(f.acknowledged for f in good):,}",
                f"{max(f.lost_all for f in good):,}",
                f"{max(f.twice for f in good):,}",
                f"{max(f.stale + f.wrong for f in good):,}",
            ]
        rows.append([name, result.lane, *cells, _verdict_text(result, verdicts)])
    return rows


def _quantity(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    if value == NEVER:
        return "never"
    digits = {"": 0, "ms": 1, "s": 2}[unit]
    return f"{value:,.{digits}f} {unit}".strip()


def verdict_rows(verdicts: Sequence[Verdict]) -> list[Row]:
    """Drill, target, limit, measured, verdict."""
    rows = []
    for v in verdicts:
        state = f"{v.state} ({v.reason})" if v.reason else v.state
        measured = _quantity(v.measured, v.unit)
        if v.samples > 1 and v.measured is not None:
            measured += f" of {v.samples}"
        rows.append([v.drill, v.target, _quantity(v.limit, v.unit), measured, state])
    return rows


VERDICT_COLUMNS = ("drill", "target", "limit", "measured", "verdict")


def print_summary(
    console: Console, results: Sequence[LaneResult], verdicts: Sequence[Verdict]
) -> None:
    """The last table, and the targets that were missed."""
    rows = []
    for row in summary_rows(results, verdicts):
        colour = "green" if row[-1].endswith("met") else "bold red"
        rows.append([*row[:-1], row[-1] if row[-1] == "-" else f"[{colour}]{row[-1]}[/]"])
    dim = lambda row: "" if row[1] == "sidecar" else "dim"  # noqa: E731
    console.print(tables.table("all drills", SUMMARY, rows, left=("lane",), style=dim))
    if missed := verdict_rows([v for v in verdicts if v.state == "MISSED"]):
        console.print(
            tables.table("missed", VERDICT_COLUMNS, missed, left=("target",), style=lambda _: "red")
        )
    states = [v.state for v in verdicts]
    counts = [f"[{COLOURS[s]}]{states.count(s)} {s}[/]" for s in COLOURS]
    console.print("targets: " + ", ".join(counts))


def as_json(
    facts: Mapping[str, Any],
    options: Options,
    results: Sequence[LaneResult],
    verdicts: Sequence[Verdict],
) -> dict[str, Any]:
    """Everything, every run, with its timeline."""
    return {
        "machine": dict(facts),
        "options": dataclasses.asdict(options),
        "drills": [
            {
                "number": result.drill.number,
                "name": result.drill.name,
                "about": result.drill.about,
                "lane": result.lane,
                "runs": [run.as_dict() for run in result.runs],
            }
            for result in results
        ],
        "targets": [verdict.as_dict() for verdict in verdicts],
    }
