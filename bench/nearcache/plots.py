"""Plots of a run, PNG and SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from bench.nearcache.cases import Case
from bench.nearcache.targets import Found
from bench.report import pictures, rounds
from bench.report.pictures import COLOURS as PEERS
from bench.report.pictures import save

COLOURS = {
    "direct": PEERS["direct"],
    "off": "#eab0b8",
    "hot": PEERS["sidecar"],
    "rules": "#7a1f2e",
    "envoy": PEERS["envoy"],
}


def _groups(axis: Axes, found: Found, cases: Sequence[Case], stacked: bool) -> None:
    """A group of bars for each case: throughput over direct's, or CPU of proxy and server."""
    for place, (name, colour) in enumerate(COLOURS.items()):
        for at, case in enumerate(cases):
            lane, x = found.lane(case.name, name), at + (place - 2) * 0.17
            label = name if at == 0 else None
            if not lane:
                continue
            if stacked:
                proxy, server = rounds.of(lane, "proxy").median, rounds.of(lane, "server").median
                axis.bar(x, proxy, 0.16, color=colour, label=label)
                axis.bar(x, server, 0.16, bottom=proxy, color=colour, alpha=0.4)
                continue
            ratio = found.ratio(case.name, name, "direct", "rps")
            if ratio:
                axis.bar(x, ratio.median, 0.16, color=colour, label=label)
                pictures.whisker(axis, x, ratio)
    axis.set_xticks(range(len(cases)), [case.name.replace("-", "\n") for case in cases], fontsize=7)


def _loopback(folder: Path, found: Found, cases: Sequence[Case], note: str) -> None:
    fig, (upper, lower) = plt.subplots(2, 1, figsize=(3 + 1.1 * len(cases), 7.5))
    _groups(upper, found, cases, stacked=False)
    upper.set_title("Throughput as a multiple of direct's", fontsize=9)
    upper.set_yscale("log")
    upper.margins(y=0.2)
    upper.legend(ncols=5, fontsize=8, loc="upper center")
    _groups(lower, found, cases, stacked=True)
    lower.set_title("CPU per command, µs: proxy; server on top, paler", fontsize=9)
    save(fig, folder, "loads", note)


def _trips(folder: Path, found: Found, cases: Sequence[Case], note: str) -> None:
    """Throughput and p99 over the distance, one line a lane; one column a load."""
    loads = {case.load: "" for case in cases}
    for case in cases:
        loads[case.load] = loads[case.load] or case.title.rpartition(", round trip")[0]
    fig, axes = plt.subplots(2, len(loads), figsize=(5 * len(loads), 7), squeeze=False)
    for column, (load, title) in enumerate(loads.items()):
        those = sorted((c for c in cases if c.load == load), key=lambda c: c.trip or 0)
        for row, quantity in enumerate(("rps", "p99")):
            axis: Axes = axes[row][column]
            for name, colour in COLOURS.items():
                lanes = [(c, lane) for c in those if (lane := found.lane(c.name, name))]
                spreads = [rounds.of(lane, quantity) for _, lane in lanes]
                at = [1000 * (c.trip or 0) for c, _ in lanes]
                pictures.band(axis, at, spreads, colour, name)
            axis.set_yscale("log")
            axis.set_xlabel("round trip longer by, ms", fontsize=8)
            what = "commands per second" if quantity == "rps" else "p99 of a batch, µs"
            axis.set_title(f"{what}\n{title}", fontsize=8)
    axes[0][0].legend(fontsize=8)
    save(fig, folder, "distance", note)


def _python(folder: Path, found: Found, note: str) -> None:
    lanes = [lane for lane in found.python if lane.rounds]
    fig, axes = plt.subplots(1, 2, figsize=(12, 1 + 0.33 * len(lanes)), sharey=True)
    shades = ("#8a8f98", "#2e86ab", "#eab0b8", "#7a1f2e", "#66a182")
    names = list(dict.fromkeys(lane.peer for lane in lanes))
    for at, lane in enumerate(lanes):
        colour = shades[names.index(lane.peer) % len(shades)]
        for axis, quantity in zip(axes, ("rps", "p99"), strict=True):
            value = rounds.of(lane, quantity)
            bars = axis.barh(at, value.median, 0.75, color=colour)
            axis.bar_label(bars, fmt="{:,.0f}", fontsize=7, padding=3)
    axes[0].set_yticks(
        range(len(lanes)), [f"{lane.peer}; {lane.case}" for lane in lanes], fontsize=7
    )
    axes[0].invert_yaxis()
    axes[0].set_title("redis-py, one connection: commands per second", fontsize=9)
    axes[1].set_title("p99, µs", fontsize=9)
    for axis in axes:
        axis.margins(x=0.15)
    save(fig, folder, "python", note)


def draw(folder: Path, found: Found, cases: Sequence[Case], facts: Mapping[str, Any]) -> None:
    """Whatever the run has figures for."""
    note = pictures.note(facts)
    measured = [case for case in cases if any(x.rounds for x in found.loads.get(case.name, []))]
    near = [case for case in measured if case.trip is None]
    far = [case for case in measured if case.trip is not None]
    with pictures.style():
        if near:
            _loopback(folder, found, near, note)
        if far:
            _trips(folder, found, far, note)
        if any(lane.rounds for lane in found.python):
            _python(folder, found, note)
