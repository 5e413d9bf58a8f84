"""Tables of a run, on the terminal and as Markdown, and the JSON they come from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.nearcache.cases import Case
from bench.nearcache.lanes import Options
from bench.nearcache.targets import Found, Rounds
from bench.report import rounds, tables
from bench.report.rounds import Figures, LaneResult
from bench.report.tables import Row, number
from bench.report.verdict import Verdict
from tests.harness.distribution import Spread, spread

COLUMNS = (
    "lane", "hits", "commands/s", "spread", "÷ direct", "p50 µs", "p99 µs",
    "CPU proxy", "CPU server", "CPU both", "misses by reason",
)  # fmt: skip
PYTHON_COLUMNS = (
    "case", "lane", "hits", "commands/s", "spread", "p50 µs", "p99 µs", "CPU application",
    "CPU proxy", "CPU server",
)  # fmt: skip
Page = tuple[str, Sequence[str], list[Row], list[str]]


def _median(lane: LaneResult, quantity: str) -> str:
    return number(rounds.of(lane, quantity).median)


def _range(lane: LaneResult, quantity: str) -> str:
    found = rounds.of(lane, quantity)
    return f"{number(found.low)}-{number(found.high)}"


def _hits(lane: LaneResult) -> str:
    return f"{100 * rounds.of(lane, 'hits').median:.2f} %"


def _reasons(lane: LaneResult) -> str:
    """Those that took at least one read in ten thousand."""
    names = sorted({name for figures in lane.rounds for name in figures if name[:5] == "miss_"})
    shares = [(100 * rounds.of(lane, name).median, name[5:]) for name in names]
    return ", ".join(f"{name} {share:.2f} %" for share, name in shares if share >= 0.01)


def case_page(case: Case, lanes: Sequence[LaneResult]) -> Page:
    """One case: a row for each lane."""
    direct = next((lane for lane in lanes if lane.peer == "direct" and lane.rounds), None)
    table = []
    for lane in lanes:
        if not lane.rounds:
            continue
        against = rounds.ratio(lane, direct, "rps") if direct else None
        proxied = lane.peer != "direct"
        table.append([
            lane.peer, _hits(lane), _median(lane, "rps"), _range(lane, "rps"),
            f"{against.median:.2f}" if against and proxied else "",
            _median(lane, "p50"), _median(lane, "p99"),
            _median(lane, "proxy") if proxied else "-",
            _median(lane, "server"), _median(lane, "both"), _reasons(lane),
        ])  # fmt: skip
    return f"{case.name}: {case.title}", COLUMNS, table, _problems(lanes)


def _problems(lanes: Sequence[LaneResult]) -> list[str]:
    return [f"{lane.peer} {lane.case}: {lane.problem}" for lane in lanes if lane.problem]


def python_page(lanes: Sequence[LaneResult]) -> Page:
    """redis-py's lanes, of all cases."""
    table = [
        [
            lane.case, lane.peer, _hits(lane), _median(lane, "rps"), _range(lane, "rps"),
            *(_median(lane, q) for q in ("p50", "p99", "application", "proxy", "server")),
        ]
        for lane in lanes
        if lane.rounds
    ]  # fmt: skip
    title = "redis-py: its own cache, and the sidecar's; one connection, unpipelined"
    return title, PYTHON_COLUMNS, table, _problems(lanes)


def rounds_page(title: str, name: str, part: Rounds) -> Page:
    """A part that has a row for each of a few variations, and no lanes."""
    quantities = list(next(iter(part.values()))[0])
    table = []
    for variation, figures in part.items():
        spreads = [spread([one[quantity] for one in figures]) for quantity in quantities]
        table.append([variation, *(_spread(one) for one in spreads)])
    return title, (name, *quantities), table, []


def _spread(found: Spread) -> str:
    if found.low == found.high:
        return f"{found.median:.4g}"
    return f"{found.median:.4g} ({found.low:.4g}-{found.high:.4g})"


def other_pages(found: Found) -> list[Page]:
    """Every part that was measured but the loads."""
    pages = [python_page(found.python)] if found.python else []
    parts: tuple[tuple[str, str, Mapping[str, Sequence[Figures]]], ...] = (
        ("stampede on a cold key, 1 ms away", "mode", found.stampede),
        ("memory of an entry beyond key and value, bytes", "value", found.memory),
        ("staleness seen of foreign writes, ms", "mode", found.staleness),
        ("told of a write, then read it: ms from the write to the value", "case", found.news),
    )
    return pages + [rounds_page(*part) for part in parts if part[2]]


def show(console: Console, page: Page) -> None:
    """One table on the terminal."""
    title, columns, body, problems = page
    left = ("case", "lane", "mode", COLUMNS[-1])
    console.print(tables.table(title, columns, body, left=left))
    tables.print_problems(console, problems)


def _markdown(page: Page) -> list[str]:
    title, columns, body, problems = page
    lines = ["", f"## {title}", "", *tables.markdown(columns, body)]
    return lines + [""] * bool(problems) + [f"- failed or missing: {one}" for one in problems]


def write(
    folder: Path,
    facts: Mapping[str, Any],
    options: Options,
    cases: Sequence[Case],
    found: Found,
    verdicts: Sequence[Verdict],
) -> None:
    """results.md and results.json, rounds included."""
    lines = [
        *tables.head("Near cache", facts),
        "",
        "CPU is microseconds per command; figures are medians; ratios are medians of the ratios "
        "taken round by round.",
    ]
    pages: list[Page] = [("Targets", tables.VERDICT_COLUMNS, tables.verdict_rows(verdicts), [])]
    pages += [case_page(one, found.loads[one.name]) for one in cases if one.name in found.loads]
    for page in pages + other_pages(found):
        lines += _markdown(page)
    lines += ["", *(f"- {problem}" for problem in found.problems)]
    data = {
        "machine": dict(facts),
        "options": dataclasses.asdict(options),
        "cases": {one.name: dataclasses.asdict(one) for one in cases},
        "found": dataclasses.asdict(found),
        "targets": [verdict.as_dict() for verdict in verdicts],
    }
    tables.write(folder, lines, data)
