"""A target, what was measured for it, and whether it is met.

What was not measured says so. A missed target is shown as missed, always.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Protocol, Self

from tests.harness.distribution import Spread


class Limit(Protocol):
    """What every rule says, wherever its figure comes from."""

    @property
    def target(self) -> str: ...
    @property
    def limit(self) -> float: ...
    @property
    def unit(self) -> str: ...
    @property
    def at_least(self) -> bool: ...


@dataclass(frozen=True)
class Verdict:
    """A target row: the measured figure (median, low, high), its limit and whether it is met."""

    target: str
    scenario: str
    limit: float
    unit: str
    measured: float | None
    low: float | None = None
    high: float | None = None
    at_least: bool = False

    @classmethod
    def of(cls, rule: Limit, scenario: str, figure: Spread | None) -> Self:
        """What a figure, or the want of one, means to a rule."""
        return cls(
            rule.target,
            scenario,
            rule.limit,
            rule.unit,
            measured=figure.median if figure else None,
            low=figure.low if figure else None,
            high=figure.high if figure else None,
            at_least=rule.at_least,
        )

    @property
    def state(self) -> str:
        if self.measured is None:
            return "not measured"
        met = self.measured >= self.limit if self.at_least else self.measured <= self.limit
        return "met" if met else "MISSED"

    def as_dict(self) -> dict[str, Any]:
        """For the JSON report."""
        return {**asdict(self), "state": self.state}
