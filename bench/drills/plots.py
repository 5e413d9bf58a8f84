"""Pictures of the drills, PNG and SVG: a timeline of each drill, lanes one above the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from bench.drills.runner import LaneResult, Run
from bench.report import pictures
from bench.report.pictures import COLOURS, save

MARKS = {"fault": "#111111", "step": "#8a8f98", "sentinel": "#2e86ab"}
ERRORS = "#d62828"
FLOOR_MS = 0.1
LONG_MS = 50.0
"""What took longer is drawn from sending to answer, not only where it was answered."""

WIDTH = 11.0
"""Inches."""

LABEL_POINTS = 9.0
"""Between two labels of marks."""

EDGE = 1.5
"""Seconds shown before the first mark."""

SHORT = {
    "+failover-state-send-slaveof-noone": "+slaveof-noone",
    "-failover-abort-no-good-slave": "-abort-no-good-slave",
    "-failover-abort-not-elected": "-abort-not-elected",
    "-failover-abort-slave-timeout": "-abort-slave-timeout",
}


def _shown(result: LaneResult) -> Run | None:
    """The run with the longest pause: what the tables judge."""
    good = [(run.figures.pause_client, at) for at, run in enumerate(result.runs) if run.figures]
    return result.runs[max(good)[1]] if good else None


def _marks(axis: Axes, run: Run) -> None:
    """Vertical lines with their names above the plot, moved to the right where they would touch."""
    begin, end = axis.get_xlim()
    scale = WIDTH * 72 * 0.88 / (end - begin)  # points a second, nearly
    free = 0.0
    for time, text, kind in run.marks:
        style = ":" if kind == "sentinel" else "-"
        axis.axvline(time, color=MARKS[kind], lw=1.3 if kind == "fault" else 0.8, ls=style)
        at = (time - begin) * scale
        place = max(at, free)
        free = place + LABEL_POINTS
        axis.annotate(
            SHORT.get(text, text),
            (time, 1.0),
            (1 + place - at, 2),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            rotation=55,
            fontsize=6.5,
            color=MARKS[kind],
            annotation_clip=False,
        )


def _timeline(axis: Axes, lane: str, run: Run) -> None:
    slowest, failed = run.timeline["slowest"], run.timeline["errors"]
    times = [float(point[0]) for point in slowest]
    took = [max(float(point[1]) * 1000, FLOOR_MS) for point in slowest]
    long = [(t, ms) for t, ms in zip(times, took, strict=True) if ms > LONG_MS]
    begins, ends = [t - ms / 1000 for t, ms in long], [t for t, _ in long]
    axis.hlines([ms for _, ms in long], begins, ends, color=COLOURS[lane], lw=0.8)
    axis.scatter(times, took, s=3, color=COLOURS[lane], linewidths=0, label="slowest success")
    if failed:
        at = [float(point[0]) for point in failed]
        took = [max(float(point[1]) * 1000, FLOOR_MS) for point in failed]
        label = f"{len(failed):,} errors"
        axis.scatter(at, took, s=7, color=ERRORS, linewidths=0, label=label, zorder=3)
    axis.set_yscale("log")
    axis.set_ylim(bottom=FLOOR_MS)
    axis.set_ylabel(f"{lane}\nms, by 10 ms")
    axis.legend(
        loc="lower right",
        fontsize=7,
        markerscale=2,
        frameon=True,
        framealpha=0.9,
        edgecolor="none",
    )


def _caption(run: Run) -> str:
    figures = run.figures
    assert figures is not None
    errors = figures.read_errors + figures.write_errors
    return (
        f"longest pause {figures.pause_client:.2f} s, {errors:,} errors, "
        f"{figures.lost_all:,} acknowledged writes lost, {figures.twice:,} executed twice"
    )


def _drill(folder: Path, results: Sequence[LaneResult], note: str) -> None:
    shown = [(result.lane, run) for result in results if (run := _shown(result))]
    if not shown:
        return
    fig, axes = plt.subplots(
        len(shown),
        1,
        figsize=(WIDTH, 0.6 + 3.6 * len(shown)),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    ends = [float(run.timeline["slowest"][-1][0]) for _, run in shown]
    begin = min(run.marks[0][0] for _, run in shown) - EDGE
    for axis, (lane, run) in zip(axes[:, 0], shown, strict=True):
        axis.set_xlim(begin, max(ends))
        _timeline(axis, lane, run)
        _marks(axis, run)
        axis.set_xlabel(_caption(run), fontsize=9)
    axes[-1, 0].set_xlabel(_caption(shown[-1][1]) + "\nseconds after the fault", fontsize=9)
    drill = results[0].drill
    fig.suptitle(f"{drill.number} {drill.name}", x=0.01, ha="left", fontweight="bold")
    save(fig, folder, f"drill-{drill.number}", note, top=0.98)


def _overview(folder: Path, drills: Sequence[Sequence[LaneResult]], note: str) -> None:
    """Pauses, errors and losses of all drills, both lanes."""
    shown = [results for results in drills if any(result.good for result in results)]
    if len(shown) < 2:
        return
    fig, axes = plt.subplots(1, 3, figsize=(13, 1.2 + 0.45 * len(shown)), sharey=True)
    titles = ("longest pause, s", "errors", "acknowledged writes lost")
    for at, results in enumerate(shown):
        for result in results:
            run = _shown(result)
            if run is None or run.figures is None:
                continue
            f = run.figures
            y = at + (0.2 if result.lane == "direct" else -0.2)
            values = (f.pause_client, f.read_errors + f.write_errors, f.lost_all)
            for axis, value in zip(axes, values, strict=True):
                axis.barh(y, value, 0.38, color=COLOURS[result.lane])
                text = f" {value:,.2f}" if isinstance(value, float) else f" {value:,}"
                axis.text(value, y, text, va="center", fontsize=7)
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title)
        axis.margins(x=0.18)
    for axis in axes[1:]:
        axis.set_xscale("symlog", linthresh=1)
        axis.set_xlim(left=0)
    names = [f"{results[0].drill.number} {results[0].drill.name}" for results in shown]
    axes[0].set_yticks(range(len(shown)), names)
    axes[0].invert_yaxis()
    fig.suptitle("red: through the sidecar; grey: redis-py directly", fontsize=9)
    save(fig, folder, "overview", note, top=0.98)


def draw(folder: Path, drills: Sequence[Sequence[LaneResult]], facts: Mapping[str, Any]) -> None:
    """A picture for each drill and one of all, into `folder`."""
    note = pictures.note(facts)
    with pictures.style():
        for results in drills:
            _drill(folder, results, note)
        _overview(folder, drills, note)
