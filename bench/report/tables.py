"""Tables, for the terminal (rich) and as Markdown; the head of a page; files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from bench.report.verdict import Verdict

Row = list[str]
VERDICT_COLUMNS = ("target", "scenario", "measured (range)", "limit", "verdict")
_COLOURS = {"met": "green", "MISSED": "bold red", "not measured": "dim"}


def number(value: float) -> str:
    """Three significant figures, thousands grouped."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - len(str(int(value))) + 1)}f}"


def table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    left: Iterable[str] = (),
    style: Callable[[Sequence[str]], str] = lambda row: "",
    caption: str = "",
) -> Table:
    """A table for the terminal; the first column and those in `left` are aligned to the left."""
    made = Table(
        title=title,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
        caption=caption or None,
        caption_justify="left",
    )
    for at, name in enumerate(columns):
        aligned = at == 0 or name in left
        made.add_column(name, justify="left" if aligned else "right")
    for row in rows:
        made.add_row(*row, style=style(row))
    return made


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The same as lines of Markdown."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def verdict_rows(verdicts: Sequence[Verdict]) -> list[Row]:
    """Target, scenario, measured figure with its range, limit and verdict."""
    rows = []
    for v in verdicts:
        shown, unit = "-", "" if v.unit == "x" else f" {v.unit}"
        if v.measured is not None:
            ends = f" ({v.low:.2f}-{v.high:.2f})" if v.low != v.high else ""
            shown = f"{v.measured:.2f}{ends}{unit}"
        limit = f"{'≥' if v.at_least else '≤'} {v.limit:g}{unit}"
        rows.append([v.target, v.scenario, shown, limit, v.state])
    return rows


def print_verdicts(console: Console, verdicts: Sequence[Verdict]) -> None:
    """The table of targets on the terminal."""
    rows = [[*row[:-1], coloured(row[-1], _COLOURS)] for row in verdict_rows(verdicts)]
    console.print(table("targets", VERDICT_COLUMNS, rows, left=VERDICT_COLUMNS))


def coloured(text: str, colours: Mapping[str, str]) -> str:
    """A word in its colour, in rich's markup."""
    return f"[{colours[text]}]{text}[/]"


def print_problems(console: Console, problems: Iterable[str]) -> None:
    """What could not be measured."""
    for problem in problems:
        console.print(f"  failed or missing: {problem}", style="yellow", markup=False)


def head(title: str, facts: Mapping[str, Any]) -> list[str]:
    """The first lines of a page: when, on which machine, of what."""
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return [
        f"# {title}",
        "",
        f"{facts['when']}; {facts['cpu']}, {facts['cpus']} CPUs, Linux {facts['kernel']}, "
        f"Python {facts['python']}; load before the run {facts['load_before']:.2f}.",
        f"Versions: {versions}.",
    ]


def write(folder: Path, page: Sequence[str], data: Mapping[str, Any]) -> None:
    """results.md and results.json in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.md").write_text("\n".join(page).rstrip() + "\n")
    (folder / "results.json").write_text(json.dumps(data, indent=1, allow_nan=False) + "\n")
