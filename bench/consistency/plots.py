"""The distribution of staleness, as a picture: PNG and SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt

from bench.consistency.runner import Outcome
from bench.report import pictures
from tests.harness.distribution import cumulative

FLOOR = 0.01
"""Milliseconds; what was not stale at all is drawn here."""


def _share_later(values: Sequence[float]) -> tuple[list[float], list[float]]:
    """For each staleness the share of writes that were seen later than that."""
    ordered, shares = cumulative([max(FLOOR, value) for value in values])
    return ordered, [1 - share + 1 / len(values) for share in shares]


def draw(folder: Path, outcomes: Sequence[Outcome]) -> None:
    """One picture of all runs."""
    with pictures.style():
        fig, axis = plt.subplots(figsize=(9, 5))
        for outcome in outcomes:
            name = "failovers" if outcome.options.failovers else "mixed"
            for weather, values in outcome.samples.items():
                if values:
                    label = f"{name}, {weather} ({len(values):,} writes)"
                    axis.step(*_share_later(values), where="post", label=label)
        bounds = {outcome.options.max_staleness * 1000 for outcome in outcomes}
        for bound in bounds:
            axis.axvline(bound, color="#d62828", lw=1, ls="--", label="cache.max_staleness")
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel("ms after a foreign write was acknowledged")
        axis.set_ylabel("share of writes still unseen by a read")
        axis.set_title("Staleness of foreign writes through a sidecar")
        axis.legend(fontsize=8)
        pictures.save(fig, folder, "staleness")
