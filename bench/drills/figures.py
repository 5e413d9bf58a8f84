"""The figures of one run: everything the report says about it, computed from what was recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.drills.spec import Connect
from bench.drills.switches import Announced, Mark, Role, Switch, switches
from tests.harness.checker import outcomes
from tests.harness.checker.records import Record

KNOWN_AFTER = 0.05
"""Seconds after the announcement within which everybody has heard of it."""

BEFORE_FAULT = 0.2
"""Writes acknowledged so shortly before a fault (s) may be lost by that one."""

BIN = 0.01
"""Width of a piece of the timeline (s)."""


@dataclass(frozen=True)
class Recording:
    """All that is known of a run."""

    records: Sequence[Record]
    final: outcomes.Final
    marks: Sequence[Mark]
    announced: Sequence[Announced]
    roles: Sequence[Role]
    retries: bool
    """Whether the client library tries commands again by itself: then no error of its says that
    the command was not executed."""
    connects: Sequence[Connect] = ()


@dataclass
class Figures:
    """One run. Times in seconds; counts are commands. Lists have one element for each fault."""

    commands: int = 0
    acknowledged: int = 0
    acknowledged_writes: int = 0
    rate: float = 0.0
    """Commands a second before the first fault."""
    errors: dict[str, dict[str, int]] = field(default_factory=dict)
    lost: int = 0
    """Acknowledged SETs missing in the end."""
    lost_increments: int = 0
    lost_when_known: int = 0
    """Of `lost`, those sent when the replacement of the master was known for KNOWN_AFTER."""
    lost_since_fault: int = 0
    """Of `lost`, those sent after a fault that was to end all service of the old master."""
    refused_yet_applied: int = 0
    twice: int = 0
    stale: int = 0
    back: int = 0
    wrong: int = 0
    uncertain_excess: int = 0
    reconnects: int = 0
    """Connections of clients beyond the first of each."""
    reconnects_excess: int = 0
    """Of these, those beyond one for each client and fault."""
    refused_connects: int = 0
    """Attempts of clients to connect that failed."""
    pause_client: float = 0.0
    pause_everybody: float = 0.0
    longest_read: float = 0.0
    longest_write: float = 0.0
    switches: int = 0
    fault_to_promotion: list[float | None] = field(default_factory=list)
    fault_to_announced: list[float | None] = field(default_factory=list)
    announced_to_served: list[float | None] = field(default_factory=list)
    """From the announcement to the first write served by the new master; negative: before it."""
    promotion_to_served: list[float | None] = field(default_factory=list)
    fault_to_served: list[float | None] = field(default_factory=list)

    @property
    def read_errors(self) -> int:
        """Reads that failed."""
        return sum(self.errors.get("read", {}).values())

    @property
    def write_errors(self) -> int:
        """Writes that failed."""
        return sum(self.errors.get("write", {}).values())

    @property
    def other_write_errors(self) -> int:
        """Writes that failed with anything but UNCERTAIN."""
        return self.write_errors - self.errors.get("write", {}).get("UNCERTAIN", 0)

    @property
    def server_errors(self) -> int:
        """Commands answered with an error, not cut off by the network."""
        kinds = [*self.errors.get("read", {}).items(), *self.errors.get("write", {}).items()]
        return sum(count for kind, count in kinds if kind.isupper())

    @property
    def stale_beyond_lost(self) -> int:
        """Stale reads that no lost write explains: each explains one."""
        return max(0, self.stale - self.lost)

    @property
    def lost_all(self) -> int:
        """Acknowledged writes lost, of either sort."""
        return self.lost + self.lost_increments

    def as_dict(self) -> dict[str, Any]:
        """For the JSON report."""
        return asdict(self)


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else end - start


def _lost_after(lost: Sequence[Record], found: Sequence[Switch]) -> int:
    """Lost although sent when the new master was known, and not by the next fault."""
    nexts = [*(s.fault - BEFORE_FAULT for s in found[1:]), float("inf")][: len(found)]
    count = 0
    for switch, following in zip(found, nexts, strict=True):
        if switch.announced is not None:
            since = switch.announced + KNOWN_AFTER
            count += sum(since < record.sent < following for record in lost)
    return count


def _interruptions(run: Recording, found: Sequence[Switch]) -> int:
    """How often commands in flight may have been cut off: Sentinels may switch more than asked."""
    return max(1, len(found), len(run.announced))


def _reconnects(connects: Sequence[Connect]) -> Counter[int]:
    """How often each client has connected again."""
    made = Counter(each.client for each in connects if not each.error)
    return Counter({client: count - 1 for client, count in made.items()})


def _times(figures: Figures, run: Recording, found: Sequence[Switch]) -> None:
    for switch in found:
        served = None
        if switch.announced is not None:
            since = switch.promoted if switch.promoted is not None else switch.announced
            served = outcomes.first_served(run.records, run.final, since)
        figures.fault_to_promotion.append(_between(switch.fault, switch.promoted))
        figures.fault_to_announced.append(_between(switch.fault, switch.announced))
        figures.announced_to_served.append(_between(switch.announced, served))
        figures.promotion_to_served.append(_between(switch.promoted, served))
        figures.fault_to_served.append(_between(switch.fault, served))


def measure(run: Recording) -> Figures:
    """Compute everything. Pauses count from the first fault on."""
    records = run.records
    not_executed = frozenset[str]() if run.retries else outcomes.NOT_EXECUTED
    begin, end = records[0].sent, max(record.answered for record in records)
    fault = min((mark.time for mark in run.marks if mark.fault), default=begin)
    found = switches(run.marks, run.announced, run.roles)
    lost = outcomes.lost_sets(records, run.final)
    counted = outcomes.counters(records, run.final, not_executed)
    read = outcomes.reads(records)
    pauses = outcomes.pauses(records, fault, end)
    reconnects = _reconnects(run.connects)
    figures = Figures(
        commands=len(records),
        acknowledged=sum(not r.error for r in records),
        acknowledged_writes=sum(r.write and not r.error for r in records),
        rate=sum(r.answered < fault for r in records) / max(fault - begin, 1e-9),
        errors=outcomes.errors(records),
        lost=len(lost),
        lost_increments=counted.lost,
        lost_when_known=_lost_after(lost, found),
        lost_since_fault=sum(record.sent > fault for record in lost),
        refused_yet_applied=outcomes.refused_yet_applied(records, run.final, not_executed),
        twice=counted.twice,
        stale=read.stale,
        back=read.back,
        wrong=read.wrong,
        uncertain_excess=outcomes.uncertain_excess(records, _interruptions(run, found)),
        reconnects=sum(reconnects.values()),
        reconnects_excess=sum(max(0, count - len(found)) for count in reconnects.values()),
        refused_connects=sum(bool(made.error) for made in run.connects),
        pause_client=pauses.client,
        pause_everybody=pauses.everybody,
        longest_read=pauses.read,
        longest_write=pauses.write,
        switches=sum(s.announced is not None for s in found),
    )
    _times(figures, run, found)
    return figures


def timeline(records: Sequence[Record], start: float) -> dict[str, list[list[float | str]]]:
    """For the picture: the slowest success of each BIN, and every error. Seconds after `start`."""
    slowest: dict[int, float] = {}
    for record in records:
        if not record.error:
            at = int((record.answered - start) / BIN)
            slowest[at] = max(slowest.get(at, 0.0), record.took)
    return {
        "slowest": [[round(at * BIN, 3), round(took, 6)] for at, took in sorted(slowest.items())],
        "errors": [
            [round(r.answered - start, 4), round(r.took, 6), r.error] for r in records if r.error
        ],
    }
