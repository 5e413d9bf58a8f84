"""Rounds: what was measured of each lane, and what follows from several rounds.

Within a round each lane is measured once, and each round starts with the next lane, so that no
lane always follows the same neighbour. A lane that fails is reported with the reason and left
out of the following rounds; it never stops the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.load.loadgen import LoadFailed
from tests.harness.distribution import Spread, spread

Figures = dict[str, float]
Tick = Callable[[str], None]
"""Called before each measurement with what it is."""


@dataclass
class LaneResult:
    """One peer under one case: its rounds in order, or the reason why there are none."""

    peer: str
    case: str
    rounds: list[Figures] = field(default_factory=list)
    problem: str = ""


def in_turns(
    results: Sequence[LaneResult], repeat: int, measure: Callable[[LaneResult, int], Figures]
) -> None:
    """Measure each lane `repeat` times; `measure` is told the lane and the round, from 1 on."""
    for turn in range(repeat):
        first = turn % len(results)
        for result in (*results[first:], *results[:first]):
            if result.problem:
                continue
            try:
                result.rounds.append(measure(result, turn + 1))
            except LoadFailed as error:
                result.problem = f"round {turn + 1}: {error}"


def of(lane: LaneResult, field: str) -> Spread:
    """The spread of one measured quantity over a lane's rounds."""
    return spread([r[field] for r in lane.rounds])


def ratio(a: LaneResult, b: LaneResult, field_a: str, field_b: str = "") -> Spread | None:
    """Median of the ratios a/b taken round by round, so that slow drift cancels out."""
    pairs = zip(a.rounds, b.rounds, strict=False)
    values = [x[field_a] / y[field_b or field_a] for x, y in pairs if y[field_b or field_a]]
    return spread(values) if values else None
