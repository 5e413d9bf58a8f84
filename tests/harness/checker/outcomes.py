"""What a history proves: losses, commands executed twice, stale reads, pauses. Pure functions.

`final` is what the last master holds once everything has been repaired: number by key. A command
with an error is *refused* if the error says that it was not executed, else *uncertain*.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from .records import GARBLED, MISSING, SHARED_COUNTER, Record, Told

Final = Mapping[str, int]

NOT_EXECUTED = frozenset(
    {"READONLY", "UNAVAILABLE", "LOADING", "MASTERDOWN", "NOREPLICAS", "refused", "no-master"}
)
"""Kinds of errors that promise it, unless the client library may have tried before."""


REFUSED = ("UNAVAILABLE",)
"""The same, of clients that talk to the sidecar only."""


@dataclass(frozen=True)
class Twice:
    """What the counters tell."""

    twice: int
    """Increments beyond those acknowledged and those uncertain: executed twice or though refused.
    At least so many."""
    lost: int
    """Acknowledged increments that went missing, at least."""


@dataclass(frozen=True)
class Reads:
    """What the readers got that they should not."""

    stale: int
    """Older than what the same client had seen acknowledged. Counted once for each step back."""
    back: int
    """Older than what it had read before, which nobody had acknowledged: a write that was seen,
    failed, and is gone."""
    wrong: int
    """Never written under that key."""


@dataclass(frozen=True)
class Pauses:
    """Seconds."""

    client: float
    """The longest time in which one client had no success, be it waiting or in errors."""
    everybody: float
    """The longest time in which no client had any success."""
    read: float
    """The longest a single read took, whatever came of it."""
    write: float
    """The same for a write."""


def lost_sets(records: Iterable[Record], final: Final) -> list[Record]:
    """Acknowledged SETs the last master does not have, neither them nor a later one of the key."""
    return [
        record
        for record in records
        if record.op == "set"
        and not record.error
        and final.get(record.key, MISSING) < record.number
    ]


def refused_yet_applied(
    records: Iterable[Record], final: Final, not_executed: frozenset[str]
) -> int:
    """SETs whose error promised that they were not executed, and which are there all the same."""
    return sum(
        final.get(record.key, MISSING) == record.number
        for record in records
        if record.op == "set" and record.error in not_executed
    )


def counters(records: Iterable[Record], final: Final, not_executed: frozenset[str]) -> Twice:
    """Judge all INCRs; `records` in the order in which they were sent."""
    by_key: defaultdict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.op == "incr":
            by_key[record.key].append(record)
    found = [
        (_shared if key == SHARED_COUNTER else _own)(mine, max(final.get(key, 0), 0), not_executed)
        for key, mine in by_key.items()
    ]
    return Twice(sum(f.twice for f in found), sum(f.lost for f in found))


def _own(records: Iterable[Record], final: int, not_executed: frozenset[str]) -> Twice:
    """One client's own counter: each step from answer to answer has to add up."""
    twice = lost = last = unsure = 0
    for record in records:
        if record.error:
            unsure += record.error not in not_executed
            continue
        step = record.value - last
        lost += max(0, 1 - step)
        twice += max(0, step - 1 - unsure)
        last, unsure = record.value, 0
    step = final - last
    return Twice(twice + max(0, step - unsure), lost + max(0, -step))


def _shared(records: Sequence[Record], final: int, not_executed: frozenset[str]) -> Twice:
    """The counter of several clients: no value is given twice, and the sum has to add up."""
    values = [record.value for record in records if not record.error]
    unsure = sum(bool(r.error) and r.error not in not_executed for r in records)
    given_twice = len(values) - len(set(values))
    return Twice(
        twice=max(0, final - len(values) - unsure),
        lost=max(given_twice, len(values) - final, 0),
    )


def reads(records: Iterable[Record]) -> Reads:
    """Judge all GETs of keys which the same client writes; `records` in the order sent.

    After a step back the client goes on from what it read, so one lost write is one stale read.
    """
    acknowledged: defaultdict[str, int] = defaultdict(lambda: MISSING)
    seen: defaultdict[str, int] = defaultdict(lambda: MISSING)
    highest: defaultdict[str, int] = defaultdict(lambda: MISSING)
    stale = back = wrong = 0
    for record in records:
        key = record.key
        if record.op == "set":
            highest[key] = max(highest[key], record.number)
            if not record.error:
                acknowledged[key] = seen[key] = record.number
        elif record.op == "get" and not record.error:
            if record.value == GARBLED or record.value > highest[key]:
                wrong += 1
                continue
            stale += record.value < acknowledged[key]
            back += acknowledged[key] <= record.value < seen[key]
            acknowledged[key] = min(acknowledged[key], record.value)
            seen[key] = record.value
    return Reads(stale, back, wrong)


def _longest_gap(times: Sequence[float], start: float, end: float) -> float:
    edges = [start, *(t for t in times if start <= t <= end), end]
    return max(b - a for a, b in pairwise(edges))


def pauses(records: Sequence[Record], start: float, end: float) -> Pauses:
    """The longest waits between `start` and `end` (s)."""
    successes: defaultdict[int, list[float]] = defaultdict(list)
    for record in records:
        successes[record.client]  # a client without any success counts
        if not record.error:
            successes[record.client].append(record.answered)
    everybody = sorted(time for times in successes.values() for time in times)
    within = [record for record in records if record.answered >= start and record.sent <= end]
    return Pauses(
        client=max((_longest_gap(times, start, end) for times in successes.values()), default=0.0),
        everybody=_longest_gap(everybody, start, end),
        read=max((record.took for record in within if not record.write), default=0.0),
        write=max((record.took for record in within if record.write), default=0.0),
    )


def errors(records: Iterable[Record]) -> dict[str, dict[str, int]]:
    """Errors by kind, of reads and of writes."""
    found: dict[str, Counter[str]] = {"read": Counter(), "write": Counter()}
    for record in records:
        if record.error:
            found["write" if record.write else "read"][record.error] += 1
    return {side: dict(kinds.most_common()) for side, kinds in found.items()}


def uncertain_excess(records: Iterable[Record], faults: int) -> int:
    """`UNCERTAIN` writes beyond those that can have been in flight: one a client and fault."""
    by_client = Counter(r.client for r in records if r.error == "UNCERTAIN")
    return sum(max(0, count - faults) for count in by_client.values())


def first_served(records: Iterable[Record], final: Final, since: float) -> float | None:
    """When the first write executed by the new master was answered.

    `since` is its promotion. Whatever the old master still executed after that is lost, so a SET
    that was acknowledged after the promotion and is there in the end was executed by the new one.
    If a later SET of its key is what is there, it tells nothing.
    """
    times = [
        record.answered
        for record in records
        if record.op == "set"
        and not record.error
        and record.answered >= since
        and final.get(record.key) == record.number
    ]
    return min(times, default=None)


def judge_list(told: Told, found: list[int]) -> Counter[str]:
    """What is wrong with a list, given what its writer was told; empty when nothing is."""
    wrong: Counter[str] = Counter()
    counts = Counter(found)
    for number, error in told.numbers:
        if not error and not counts[number]:
            wrong["lost"] += 1
        if error in REFUSED and counts[number]:
            wrong["done though refused"] += 1
    wrong["twice"] += sum(count - 1 for count in counts.values() if count > 1)
    wrong["unasked"] += len(counts.keys() - {number for number, _ in told.numbers})
    wrong["out of order"] += int(list(dict.fromkeys(found)) != sorted(counts))
    return +wrong


def judge_counter(told: Told, found: int) -> Counter[str]:
    """The same for a counter; the numbers are the replies to INCR, 0 for an error."""
    wrong: Counter[str] = Counter()
    attempts = last = 0
    for number, error in told.numbers:
        attempts += error not in REFUSED
        if error:
            continue
        wrong["twice"] += number > attempts
        wrong["lost"] += number <= last
        last = number
    wrong["twice"] += found > attempts
    wrong["lost"] += found < last
    return +wrong
