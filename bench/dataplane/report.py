"""The tables of a run of the data plane's bench, and the JSON they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from bench.dataplane.runner import Options, ScenarioResult
from bench.report import rounds, tables
from bench.report.rounds import LaneResult
from bench.report.tables import Row, number
from bench.report.verdict import Verdict

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


def _ratio(ours: LaneResult | None, lane: LaneResult, field: str) -> str:
    if not ours or ours is lane:
        return ""
    found = rounds.ratio(ours, lane, field)
    return f"{found.median:.2f}" if found else ""


def _load_row(lane: LaneResult, ours: LaneResult | None) -> Row:
    cells = [number(rounds.of(lane, f).median) for f in ("rps", "p50", "p99", "p999")]
    proxied = lane.peer != "direct"
    cpu = {f: rounds.of(lane, f) for f in ("proxy", "server", "both")}
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
    size = rounds.of(lane, "kib")
    return [
        lane.case,
        lane.peer,
        f"{size.median:.2f}",
        f"{size.low:.2f}-{size.high:.2f}",
        f"{rounds.of(lane, 'base_mib').median:.1f}",
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
    console.print(
        tables.table(
            title,
            columns,
            body,
            left=("case", "peer"),
            style=lambda row: "bold green" if "sidecar" in row[:2] else "",
        )
    )
    tables.print_problems(console, problems)


def markdown(
    facts: Mapping[str, Any], results: Sequence[ScenarioResult], verdicts: Sequence[Verdict]
) -> list[str]:
    """The whole run as a Markdown page."""
    lines = [
        *tables.head("Bench results", facts),
        "",
        "CPU is microseconds per command; figures are medians; `sidecar ÷ peer` is the median of "
        "the ratios taken round by round.",
        "",
        "## Targets",
        "",
        *tables.markdown(tables.VERDICT_COLUMNS, tables.verdict_rows(verdicts)),
    ]
    for result in results:
        columns, body, problems = rows(result)
        lines += ["", f"## {result.scenario.name}: {result.scenario.title}", ""]
        lines += tables.markdown(columns, body) if body else []
        lines += [f"- failed or missing: {problem}" for problem in problems]
    return lines


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
