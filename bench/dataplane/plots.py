"""Plots of a run, PNG and SVG: CPU per command, throughput, latency, growth, idle memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from bench.dataplane.runner import ScenarioResult
from bench.dataplane.scenarios import ALL_PEERS
from bench.report import pictures, rounds
from bench.report.pictures import COLOURS, save
from bench.report.rounds import LaneResult

SWEEPS = {"growth": "busy connections"}


def _bars(axis: Axes, lanes: Sequence[LaneResult], field: str, stacked: bool) -> None:
    """One bar a lane with a whisker from the smallest to the largest round."""
    for at, lane in enumerate(lanes):
        value = rounds.of(lane, field)
        colour = COLOURS[lane.peer]
        if stacked:  # proxy below, server on top in a lighter tone
            proxy, server = rounds.of(lane, "proxy").median, rounds.of(lane, "server").median
            axis.bar(at, proxy, color=colour, width=0.7)
            axis.bar(at, server, bottom=proxy, color=colour, alpha=0.35, width=0.7)
        else:
            axis.bar(at, value.median, color=colour, width=0.7)
        pictures.whisker(axis, at, value)
        text = f"{value.median:,.0f}" if value.median >= 100 else f"{value.median:.2f}"
        axis.annotate(
            text, (at, value.high), (0, 3), textcoords="offset points", ha="center", fontsize=8
        )
    axis.set_xticks(range(len(lanes)))
    labels = [f"{lane.peer}\n{lane.case}" if lane.case else lane.peer for lane in lanes]
    axis.set_xticklabels(labels, fontsize=8, rotation=0 if len(lanes) <= 6 else 40)
    axis.margins(y=0.12)


def _scenario(folder: Path, result: ScenarioResult, note: str) -> None:
    """CPU per command, throughput and tail latency of one scenario, side by side."""
    lanes = [lane for lane in result.lanes if lane.rounds]
    fig, axes = plt.subplots(1, 3, figsize=(4.2 * 3, 4.0))
    fields = (
        ("both", "CPU per command, µs\n(proxy; server on top, paler)"),
        ("rps", "commands per second"),
        ("p99", "p99 latency of a batch, µs"),
    )
    for axis, (field, title) in zip(axes, fields, strict=True):
        _bars(axis, lanes, field, stacked=field == "both")
        axis.set_title(title, fontsize=9)
    fig.suptitle(f"{result.scenario.name}: {result.scenario.title}", x=0.01, ha="left")
    save(fig, folder, result.scenario.name, note)


def _idle(folder: Path, result: ScenarioResult, note: str) -> None:
    lanes = [lane for lane in result.lanes if lane.rounds]
    fig, axis = plt.subplots(figsize=(6, 4))
    _bars(axis, lanes, "kib", stacked=False)
    axis.set_title(f"{result.scenario.title}, KiB")
    save(fig, folder, result.scenario.name, note)


def _sweep(folder: Path, result: ScenarioResult, note: str) -> None:
    """CPU per command over the number of busy connections, one line a peer."""
    fig, axis = plt.subplots(figsize=(7.5, 4.5))
    for peer in ALL_PEERS:
        lanes = [result.lane(peer, case) for case in result.scenario.cases]
        found = [lane for lane in lanes if lane]
        if not found:
            continue
        at = [float(result.scenario.cases[lane.case].conns) for lane in found]
        values = [rounds.of(lane, "server" if peer == "direct" else "proxy") for lane in found]
        pictures.band(axis, at, values, COLOURS[peer], peer)
    axis.set_xscale("log")
    axis.set_ylim(bottom=0)
    axis.set_xlabel(SWEEPS[result.scenario.name])
    axis.set_title("CPU per command of the proxy (direct: of the server), µs")
    axis.legend()
    save(fig, folder, result.scenario.name, note)


def _overview(folder: Path, results: Sequence[ScenarioResult], note: str) -> None:
    """Proxy CPU per command as a multiple of the sidecar's, over the plain scenarios."""
    wanted = [r for r in results if r.scenario.kind == "load" and r.lane("sidecar")]
    if not wanted:
        return
    fig, axis = plt.subplots(figsize=(1.8 + 1.5 * len(wanted), 4.2))
    peers = [p for p in ALL_PEERS if p not in ("direct", "sidecar")]
    for place, peer in enumerate(peers):
        for at, result in enumerate(wanted):
            ours, theirs = result.lane("sidecar"), result.lane(peer)
            found = rounds.ratio(theirs, ours, "proxy") if ours and theirs else None
            if found:
                x, first = at + (place - 1) * 0.26, at == 0
                axis.bar(x, found.median, 0.24, color=COLOURS[peer], label=peer if first else None)
                pictures.whisker(axis, x, found)
    axis.axhline(1, color=COLOURS["sidecar"], lw=1.5)
    axis.set_xticks(range(len(wanted)))
    axis.set_xticklabels([r.scenario.name for r in wanted])
    axis.set_title("Proxy CPU per command as a multiple of the sidecar's (red line)")
    axis.legend()
    save(fig, folder, "overview", note)


def draw(folder: Path, results: Sequence[ScenarioResult], facts: Mapping[str, Any]) -> None:
    """Every plot the run has figures for, as PNG and SVG in `folder`."""
    note = pictures.note(facts)
    with pictures.style():
        for result in results:
            if not any(lane.rounds for lane in result.lanes):
                continue
            if result.scenario.kind == "idle":
                _idle(folder, result, note)
            elif result.scenario.name in SWEEPS:
                _sweep(folder, result, note)
            else:
                _scenario(folder, result, note)
        simple = [r for r in results if list(r.scenario.cases) == [""]]
        _overview(folder, simple, note)
