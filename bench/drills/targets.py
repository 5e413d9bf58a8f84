"""What must hold in which drill, each target as a rule over the sidecar's figures.

Nothing but the sidecar's lane is judged; the direct one stands beside it for comparison. A target
is not judged if the lane did not run, if a run of it failed, or if the options were not those it
is about. A missed one is shown as missed, always.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.drills.catalogue import DRILLS
from bench.drills.figures import Figures
from bench.drills.runner import LaneResult
from bench.drills.world import Options
from tests.harness.distribution import quantile

PLANNED = ("3", "4", "7")
CRASH = ("1", "2", "6a", "8")
SPLIT = ("6b", "6c")
SWITCH = tuple(sorted(PLANNED + CRASH + SPLIT))
CALM, RESTART = ("5",), ("9",)
HANDED_OVER, CLOSED = ("10a", "10d"), ("10b", "10c", "10e")
"""A name's master that hands over, and one that is gone when another one is promoted."""
SEAMLESS = ("11a", "11b", "12", "13", "14a", "14b")
"""What nobody is to notice."""
NAMED = tuple(sorted(HANDED_OVER + CLOSED))
EVERY = tuple(drill.number for drill in DRILLS)

ENOUGH_RUNS = 20
"""Values from which on the 99th percentile is judged; with fewer, the worst."""

NEVER = math.inf

Values = Callable[[Figures], Sequence[float | None]]
"""Of one run; None stands for something that never happened."""


@dataclass(frozen=True)
class Rule:
    """One target in some drills."""

    target: str
    drills: tuple[str, ...]
    limit: Callable[[Options], float | None]
    """None: these options are not what the target is about."""
    values: Values
    unit: str = ""
    """Empty for counts, which are promises; `s` or `ms` for times."""
    needs: str = ""
    """Shown when the limit is None."""
    percentile: bool = False


@dataclass(frozen=True)
class Verdict:
    """One target in one drill."""

    drill: str
    target: str
    limit: float | None
    unit: str
    measured: float | None
    samples: int
    reason: str = ""
    """Why it is not judged."""

    @property
    def state(self) -> str:
        """`met`, `MISSED` or `not judged`."""
        if self.measured is None or self.limit is None:
            return "not judged"
        return "met" if self.measured <= self.limit else "MISSED"

    @property
    def broken(self) -> bool:
        """A promise that was not kept, as opposed to a time that was too long."""
        return self.state == "MISSED" and not self.unit

    def as_dict(self) -> dict[str, Any]:
        """For the JSON report, which knows no infinity."""
        fields = {**asdict(self), "state": self.state}
        if self.measured == NEVER:
            fields["measured"] = "never"
        return fields


def _zero(_: Options) -> float:
    return 0.0


def _with_acks(options: Options) -> float | None:
    return 0.0 if options.min_replicas_ack else None


def _pause(options: Options) -> float:
    return 0.5 if options.promotion else 1.5


def _coordinated(options: Options) -> float:
    return 0.2 if options.server == "valkey" else _pause(options)


def _whole(options: Options) -> float:
    if options.down_after > 1000:
        return 5.0
    return 1.6 if options.promotion else 2.5


def _on_announcement(options: Options) -> float | None:
    return None if options.promotion else 50.0


def _on_promotion(options: Options) -> float | None:
    return 50.0 if options.promotion else None


def _milliseconds(times: Iterable[float | None]) -> list[float | None]:
    return [None if time is None else time * 1000 for time in times]


_ACKS = "--min-replicas-ack 1"
_ERRORS = "errors"
_LOST, _STALE = "acknowledged writes lost", "stale reads"

RULES: tuple[Rule, ...] = (
    Rule(
        _ERRORS,
        PLANNED + CALM + HANDED_OVER + SEAMLESS,
        _zero,
        lambda f: [f.read_errors + f.write_errors],
    ),
    Rule("errors of reads", CRASH + SPLIT + CLOSED, _zero, lambda f: [f.read_errors]),
    Rule("errors of writes but UNCERTAIN", CRASH + CLOSED, _zero, lambda f: [f.other_write_errors]),
    Rule("UNCERTAIN beyond those in flight", CRASH + CLOSED, _zero, lambda f: [f.uncertain_excess]),
    Rule("errors but lost connections", RESTART, _zero, lambda f: [f.server_errors]),
    Rule(_LOST, PLANNED + CALM + RESTART + HANDED_OVER + SEAMLESS, _zero, lambda f: [f.lost_all]),
    Rule(_LOST, CRASH + SPLIT, _with_acks, lambda f: [f.lost_all], needs=_ACKS),
    Rule("lost, sent after the fault", CLOSED, _zero, lambda f: [f.lost_since_fault]),
    Rule("written to a stale master", SWITCH + NAMED, _zero, lambda f: [f.lost_when_known]),
    Rule("executed twice", EVERY, _zero, lambda f: [f.twice]),
    Rule("refused yet applied", EVERY, _zero, lambda f: [f.refused_yet_applied]),
    Rule("wrong reads", EVERY, _zero, lambda f: [f.wrong]),
    Rule(_STALE, PLANNED + CALM + RESTART + HANDED_OVER + SEAMLESS, _zero, lambda f: [f.stale]),
    Rule(_STALE, CRASH + SPLIT, _with_acks, lambda f: [f.stale], needs=_ACKS),
    Rule("stale reads beyond lost writes", CLOSED, _zero, lambda f: [f.stale_beyond_lost]),
    Rule("failovers", CALM + RESTART, _zero, lambda f: [f.switches]),
    Rule("refused connects", SEAMLESS, _zero, lambda f: [f.refused_connects]),
    Rule("reconnects beyond one each", ("12",), _zero, lambda f: [f.reconnects_excess]),
    Rule("longest pause", ("3",), _pause, lambda f: [f.pause_client], "s"),
    Rule("longest pause", ("4", "7"), _coordinated, lambda f: [f.pause_client], "s"),
    Rule("longest pause", ("5", "13"), lambda _: 0.2, lambda f: [f.pause_client], "s"),
    Rule(
        "announcement to first served write",
        SWITCH,
        _on_announcement,
        lambda f: _milliseconds(f.announced_to_served),
        "ms",
        needs="--switch-on announcement",
        percentile=True,
    ),
    Rule(
        "announcement to first served write",
        NAMED,
        lambda _: 50.0,
        lambda f: _milliseconds(f.announced_to_served),
        "ms",
        percentile=True,
    ),
    Rule(
        "promotion to first served write",
        SWITCH,
        _on_promotion,
        lambda f: _milliseconds(f.promotion_to_served),
        "ms",
        needs="--switch-on promotion",
        percentile=True,
    ),
    Rule("whole failover", CRASH, _whole, lambda f: f.fault_to_served, "s"),
)


def measured(values: Sequence[float | None], percentile: bool) -> float:
    """The worst of all values, or their 99th percentile (nearest rank) if there are enough."""
    known = [NEVER if value is None else value for value in values]
    return quantile(known, 0.99) if percentile and len(known) >= ENOUGH_RUNS else max(known)


def _verdict(rule: Rule, result: LaneResult, options: Options) -> Verdict:
    number, limit = result.drill.number, rule.limit(options)
    values = [value for figures in result.good for value in rule.values(figures)]
    if limit is None:
        reason = f"needs {rule.needs}"
    elif result.problems:
        reason = "a run failed"
    else:
        reason = "" if values else "nothing measured"
    if reason:
        return Verdict(number, rule.target, limit, rule.unit, None, len(values), reason)
    found = measured(values, rule.percentile)
    return Verdict(number, rule.target, limit, rule.unit, found, len(values))


def judge(results: Iterable[LaneResult], options: Options) -> list[Verdict]:
    """Every rule for every drill whose sidecar lane was wanted, drill by drill."""
    return [
        _verdict(rule, result, options)
        for result in results
        if result.lane == "sidecar"
        for rule in RULES
        if result.drill.number in rule.drills
    ]


def promises(number: str, options: Options) -> list[str]:
    """The targets of a drill in words, for the list of drills."""
    return [_in_words(rule, options) for rule in RULES if number in rule.drills]


def _in_words(rule: Rule, options: Options) -> str:
    limit = rule.limit(options)
    if limit is None:
        return f"{rule.target} (with {rule.needs})"
    return f"{rule.target} ≤ {limit:g} {rule.unit}" if rule.unit else f"{rule.target} = 0"
