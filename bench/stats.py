"""Medians, spreads and paired ratios over the rounds of lanes."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from bench.runner import LaneResult


@dataclass(frozen=True)
class Spread:
    """A median with the smallest and the largest value seen."""

    median: float
    low: float
    high: float


def spread(values: list[float]) -> Spread:
    """The median and the range of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def of(lane: LaneResult, field: str) -> Spread:
    """The spread of one measured quantity over a lane's rounds."""
    return spread([r[field] for r in lane.rounds])


def ratio(a: LaneResult, b: LaneResult, field_a: str, field_b: str = "") -> Spread | None:
    """Median of the ratios a/b taken round by round, so that slow drift cancels out."""
    pairs = zip(a.rounds, b.rounds, strict=False)
    values = [x[field_a] / y[field_b or field_a] for x, y in pairs if y[field_b or field_a]]
    return spread(values) if values else None
