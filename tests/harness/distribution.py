"""Medians, ranges and quantiles; numpy computes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

_LARGER: Final = "higher"
"""No value is made up between two that were measured."""


@dataclass(frozen=True)
class Spread:
    """A median with the smallest and the largest value seen."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """The median and the range of at least one value."""
    return Spread(float(np.median(values)), min(values), max(values))


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie; between two of them, the larger."""
    return float(np.quantile(values, share, method=_LARGER))


def quantiles(values: Sequence[float], shares: Sequence[float]) -> list[float]:
    """Several at once; zeros when there are no values."""
    if not len(values):
        return [0.0 for _ in shares]
    return [float(found) for found in np.quantile(values, shares, method=_LARGER)]


def cumulative(values: Sequence[float]) -> tuple[list[float], list[float]]:
    """The values in order, and for each the share of all that do not exceed it."""
    ordered = np.sort(np.asarray(values, dtype=float))
    return ordered.tolist(), (np.arange(1, len(ordered) + 1) / len(ordered)).tolist()
