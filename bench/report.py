"""Tables of a run: for the terminal (rich), for Markdown, and the JSON they come from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from bench import stats
from bench.runner import LaneResult, Options, ScenarioResult
from bench.verdict import Verdict

LOAD_COLUMNS = (
    "case",
    "peer",
    "commands/s",
    "p50 µs",
    "p99 µs",
    "p99.9 µs",
    "CPU proxy",
    "CPU server",
    "CPU both",
    "spread of proxy",
    "sidecar ÷ peer: proxy",
    "both",
)
IDLE_COLUMNS = ("case", "peer", "KiB / connection", "spread", "before, MiB", "sidecar ÷ peer")
Row = list[str]


def number(value: float) -> str:
    """Three significant figures, thousands grouped."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - len(str(int(value))) + 1)}f}"


def _ratio(ours: LaneResult | None, lane: LaneResult, field: str) -> str:
    if not ours or ours is lane:
        return ""
    found = stats.ratio(ours, lane, field)
    return f"{found.median:.2f}" if found else ""


def _load_row(lane: LaneResult, ours: LaneResult | None) -> Row:
    cells = [number(stats.of(lane, f).median) for f in ("rps", "p50", "p99", "p999")]
    proxied = lane.peer != "direct"
    cpu = {f: stats.of(lane, f) for f in ("proxy", "server", "both")}
    shown = cpu["proxy"] if proxied else cpu["server"]
    return [
        lane.case,
        lane.peer,
        *cells,
        number(cpu["proxy"].median) if proxied else "-",
        number(cpu["server"].median),
        number(cpu["both"].median),
        f"{number(shown.low)}-{number(shown.high)}",
        _ratio(ours, lane, "proxy"),
        _ratio(ours, lane, "both"),
    ]


def _idle_row(lane: LaneResult, ours: LaneResult | None) -> Row:
    size = stats.of(lane, "kib")
    return [
        lane.case,
        lane.peer,
        f"{size.median:.2f}",
        f"{size.low:.2f}-{size.high:.2f}",
        f"{stats.of(lane, 'base_mib').median:.1f}",
        _ratio(ours, lane, "kib"),
    ]


def rows(result: ScenarioResult) -> tuple[Sequence[str], list[Row], list[str]]:
    """Columns, rows and the problems of a scenario; a column nobody fills is left out."""
    idle = result.scenario.kind == "idle"
    columns = IDLE_COLUMNS if idle else LOAD_COLUMNS
    make = _idle_row if idle else _load_row
    table: list[Row] = []
    problems: dict[tuple[str, str], list[str]] = {}
    for lane in result.lanes:
        if lane.rounds:
            table.append(make(lane, result.lane("sidecar", lane.case)))
        if lane.problem:
            problems.setdefault((lane.peer, lane.problem), []).append(lane.case)
    used = [i for i in range(len(columns)) if any(row[i] for row in table)]
    texts = [f"{p} {' '.join(c)}".strip() + f": {why}" for (p, why), c in problems.items()]
    return [columns[i] for i in used], [[row[i] for i in used] for row in table], texts


def print_scenario(console: Console, result: ScenarioResult) -> None:
    """One scenario on the terminal."""
    columns, body, problems = rows(result)
    title = f"{result.scenario.name}: {result.scenario.title}"
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for name in columns:
        left = name in ("case", "peer")
        table.add_column(name, justify="left" if left else "right", no_wrap=left)
    for row in body:
        table.add_row(*row, style="bold green" if "sidecar" in row[:2] else "")
    console.print(table)
    for problem in problems:
        console.print(f"  failed or missing: {problem}", style="yellow", markup=False)


def verdict_rows(verdicts: Sequence[Verdict]) -> list[Row]:
    """Target, scenario, measured figure with its range, limit and verdict."""
    table = []
    for v in verdicts:
        shown, unit = "-", "" if v.unit == "x" else f" {v.unit}"
        if v.measured is not None:
            shown = f"{v.measured:.2f} ({v.low:.2f}-{v.high:.2f}){unit}"
        limit = f"{'≥' if v.at_least else '≤'} {v.limit:g}{unit}"
        table.append([v.target, v.scenario, shown, limit, v.state])
    return table


VERDICT_COLUMNS = ("target", "scenario", "measured (range)", "limit", "verdict")
_COLOURS = {"met": "green", "MISSED": "bold red", "not measured": "dim"}


def print_verdicts(console: Console, verdicts: Sequence[Verdict]) -> None:
    """The table of targets on the terminal."""
    table = Table(title="targets", box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for name in VERDICT_COLUMNS:
        table.add_column(name)
    for row in verdict_rows(verdicts):
        table.add_row(*row[:-1], f"[{_COLOURS[row[-1]]}]{row[-1]}[/]")
    console.print(table)


def _markdown(columns: Sequence[str], body: Sequence[Row]) -> list[str]:
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return lines + ["| " + " | ".join(row) + " |" for row in body]


def markdown(
    facts: Mapping[str, Any], results: Sequence[ScenarioResult], verdicts: Sequence[Verdict]
) -> str:
    """The whole run as a Markdown page."""
    versions = ", ".join(f"{k} {v}" for k, v in facts["versions"].items())
    lines = [
        "# Bench results",
        "",
        f"{facts['when']}; {facts['cpu']}, {facts['cpus']} CPUs, Linux {facts['kernel']}, "
        f"Python {facts['python']}; load before the run {facts['load_before']:.2f}.",
        f"Versions: {versions}.",
        "",
        "CPU is microseconds per command; figures are medians; `sidecar ÷ peer` is the median of "
        "the ratios taken round by round.",
        "",
        "## Targets",
        "",
        *_markdown(VERDICT_COLUMNS, verdict_rows(verdicts)),
    ]
    for result in results:
        columns, body, problems = rows(result)
        lines += ["", f"## {result.scenario.name}: {result.scenario.title}", ""]
        lines += _markdown(columns, body) if body else []
        lines += [f"- failed or missing: {problem}" for problem in problems]
    return "\n".join(lines) + "\n"


def as_json(
    facts: Mapping[str, Any],
    options: Options,
    results: Sequence[ScenarioResult],
    verdicts: Sequence[Verdict],
) -> dict[str, Any]:
    """Everything, rounds included."""
    return {
        "machine": dict(facts),
        "options": vars(options),
        "scenarios": [result.as_dict() for result in results],
        "targets": [verdict.as_dict() for verdict in verdicts],
    }


def write(folder: Path, page: str, data: Mapping[str, Any]) -> None:
    """results.md and results.json in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.md").write_text(page)
    (folder / "results.json").write_text(json.dumps(data, indent=1) + "\n")
