"""The near cache's targets, each as a rule over what was measured, with its verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bench.report import rounds
from bench.report.rounds import Figures, LaneResult
from bench.report.verdict import Verdict
from tests.harness.distribution import Spread, spread

Rounds = Mapping[str, Sequence[Figures]]


@dataclass
class Found:
    """Everything of one run; a part that was left out is empty."""

    loads: dict[str, list[LaneResult]] = field(default_factory=dict)
    python: list[LaneResult] = field(default_factory=list)
    stampede: Rounds = field(default_factory=dict)
    memory: Rounds = field(default_factory=dict)
    staleness: Rounds = field(default_factory=dict)
    news: Rounds = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def lane(self, case: str, name: str) -> LaneResult | None:
        """A lane with rounds none of which failed."""
        for lane in self.loads.get(case, []):
            if lane.peer == name and lane.rounds and not lane.problem:
                return lane
        return None

    def ratio(self, case: str, ours: str, base: str, a: str, b: str = "") -> Spread | None:
        """Round by round: what `ours` has of `a`, in terms of what `base` has of `b`."""
        one, other = self.lane(case, ours), self.lane(case, base)
        return rounds.ratio(one, other, a, b) if one and other else None


def over(part: Rounds, name: str, quantity: str) -> Spread | None:
    """The spread of a quantity over rounds."""
    values = [figures[quantity] for figures in part.get(name, [])]
    return spread(values) if values else None


@dataclass(frozen=True)
class Rule:
    """One target: how its figure is got, and the limit."""

    target: str
    where: str
    limit: float
    figure: Callable[[Found], Spread | None]
    at_least: bool = False
    unit: str = "x"


RPS, CPU = ("rps", "rps"), ("server", "server")


def _ratio(
    target: str,
    case: str,
    ours: str,
    base: str,
    quantities: tuple[str, str],
    limit: float,
    at_least: bool,
) -> Rule:
    def figure(found: Found) -> Spread | None:
        return found.ratio(case, ours, base, *quantities)

    return Rule(target, case, limit, figure, at_least)


def _over(target: str, part: str, name: str, quantity: str, limit: float, unit: str) -> Rule:
    def figure(found: Found) -> Spread | None:
        return over(getattr(found, part), name, quantity)

    return Rule(target, part, limit, figure, unit=unit)


def _mixed() -> Iterator[Rule]:
    """Reads and writes, in both modes that cache, among few keys and among many."""
    for case in ("zipf10k-95-p16", "zipf100k-95-p16"):
        for mode in ("hot", "rules"):
            yield _ratio(f"{mode}: throughput / cache off", case, mode, "off", RPS, 1.0, True)
            yield _ratio(f"{mode}: server CPU / cache off", case, mode, "off", CPU, 0.4, False)


RULES: tuple[Rule, ...] = (
    _ratio("hit: CPU of sidecar / direct's server", "zipf10k-100-p1", "rules", "direct",
           ("proxy", "server"), 1.05, False),
    _ratio("hit: throughput / direct, 1 ms away", "zipf10k-100-p1-1000us", "rules", "direct",
           RPS, 5, True),
    _ratio("hit, pipeline 16: throughput / direct", "zipf10k-100-p16", "rules", "direct",
           RPS, 1.3, True),
    _ratio("hit, pipeline 64: throughput / direct", "zipf10k-100-p64", "rules", "direct",
           RPS, 2.5, True),
    *_mixed(),
    _over("stampede: reads at the server", "stampede", "rules", "reads", 1, "reads"),
    _over("memory of an entry beyond key and value, as counted", "memory", "16", "counted",
          120, "bytes"),
    _over("the same, as the process grew", "memory", "16", "process", 120, "bytes"),
    _over("foreign writes: p99 of staleness", "staleness", "rules", "p99", 5, "ms"),
    _over("a message, then a read: stale values", "news", "rules message", "stale", 0, "reads"),
    _over("a pop, then a read: stale values", "news", "rules pop", "stale", 0, "reads"),
)  # fmt: skip


def judge(found: Found) -> list[Verdict]:
    """One verdict for every rule."""
    return [Verdict.of(rule, rule.where, rule.figure(found)) for rule in RULES]
