"""The consistency checker: made-up histories, each kind of violation, and none where none is."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.harness.checker.contract import MILLISECOND, RULES, Limits, check
from tests.harness.checker.explain import explain
from tests.harness.checker.history import (
    ABSENT,
    GARBLED,
    NEVER,
    PRESENT,
    UNKNOWN,
    WIPED,
    History,
    Kind,
)
from tests.harness.distribution import quantiles

LIMITS = Limits(bound=100 * MILLISECOND, slack=0, expiry_slack=0)
HERE, THERE, DIRECT = 1, 2, 0


class Told:
    """A history of one key, told in milliseconds."""

    def __init__(self, *, counter: bool = False) -> None:
        self.history = History()
        self.key = self.history.new_key("k", counter=counter)

    def _add(
        self, kind: Kind, site: int, begin: float, end: float, version: int, **more: int
    ) -> Told:
        last = NEVER if end < 0 else int(end * MILLISECOND)
        strict, client = bool(more.get("strict")), more.get("client", len(self.history) + 1)
        self.history.add(
            kind, self.key, int(begin * MILLISECOND), last, version,
            site=site, client=client, strict=strict,
        )  # fmt: skip
        return self

    def read(self, site: int, begin: float, end: float, version: int, **more: int) -> Told:
        return self._add(Kind.READ, site, begin, end, version, **more)

    def write(self, site: int, begin: float, end: float, version: int, **more: int) -> Told:
        return self._add(Kind.WRITE, site, begin, end, version, **more)

    def delete(self, site: int, begin: float, end: float, version: int) -> Told:
        return self._add(Kind.DELETE, site, begin, end, version)

    def expiry(self, earliest: float, latest: float, version: int) -> Told:
        return self._add(Kind.EXPIRY, DIRECT, earliest, latest, version)

    def count(self, site: int, begin: float, end: float, version: int) -> Told:
        return self._add(Kind.COUNT, site, begin, end, version)

    def broken(self, limits: Limits = LIMITS) -> list[str]:
        """The rules broken, in the order of time."""
        verdict = check(self.history, limits)
        assert all(explain(self.history, violation) for violation in verdict.violations)
        return [violation.rule for violation in verdict.violations]


def test_read_your_writes_of_all_clients_of_a_sidecar() -> None:
    told = Told().write(HERE, 0, 1, 2).write(HERE, 10, 11, 4)
    told.read(HERE, 5, 6, 2).read(HERE, 10.5, 12, 2).read(HERE, 11.5, 12, 4)
    assert told.broken() == []
    assert told.read(HERE, 11.5, 12, 2).broken() == ["own"]


def test_what_overlaps_may_be_either() -> None:
    told = Told().write(HERE, 0, 1, 2).write(HERE, 10, 20, 4)
    told.read(HERE, 11, 12, 4).read(HERE, 11.5, 13, 2)
    assert told.broken() == []


def test_the_same_moment_is_not_before() -> None:
    assert Told().write(HERE, 0, 1, 2).read(HERE, 1, 2, ABSENT).broken() == []


def test_monotonic_reads_of_all_clients_of_a_sidecar() -> None:
    told = Told().write(DIRECT, 0, 1, 2).write(DIRECT, 10, 50, 4)
    told.read(HERE, 11, 12, 4)
    assert told.broken() == []
    assert told.read(HERE, 13, 14, 2).broken() == ["own"]


def test_another_sidecar_is_not_bound_by_what_this_one_said() -> None:
    told = Told().write(DIRECT, 0, 1, 2).write(DIRECT, 10, 50, 4)
    assert told.read(HERE, 11, 12, 4).read(THERE, 13, 14, 2).broken() == []


def test_order_within_a_pipeline() -> None:
    told = Told().write(HERE, 0, 1, 2)
    told.write(HERE, 10, 20, 4, client=7).read(HERE, 10, 20, 4, client=7)
    assert told.broken() == []
    told.write(HERE, 30, 40, 6, client=7).read(HERE, 30, 40, 4, client=7)
    assert told.broken() == ["order"]


@pytest.mark.parametrize("site", [DIRECT, THERE])
def test_foreign_writes_are_seen_within_the_bound(site: int) -> None:
    told = Told().write(site, 0, 1, 2).write(site, 10, 11, 4)
    told.read(HERE, 110.9, 111, 2)
    assert told.broken() == []
    assert told.read(HERE, 111.1, 112, 2).broken() == ["foreign"]


def test_a_bound_of_its_own_and_slack() -> None:
    told = Told().write(DIRECT, 0, 1, 2).write(DIRECT, 10, 11, 4).read(HERE, 40, 41, 2)
    assert told.broken(Limits(bound=100 * MILLISECOND)) == []
    short = {HERE: 10 * MILLISECOND}
    assert told.broken(Limits(bound=100 * MILLISECOND, bounds=short)) == ["foreign"]
    assert told.broken(Limits(bound=0, slack=30 * MILLISECOND)) == []


def test_a_foreign_write_counts_from_when_anybody_saw_it() -> None:
    told = Told().write(DIRECT, 0, 1, 2).write(DIRECT, 10, -1, 4)
    assert told.read(HERE, 200, 201, 2).broken() == []
    told.read(THERE, 210, 211, 4).read(HERE, 310, 311, 2)
    assert told.broken() == []
    assert told.read(HERE, 312, 313, 2).broken() == ["foreign"]


def test_an_uncertain_write_may_come_late_or_never() -> None:
    told = Told().write(HERE, 0, 1, 2).write(HERE, 10, -1, 4)
    told.read(HERE, 20, 21, 2).read(HERE, 500, 501, 4)
    assert told.broken() == []
    assert told.read(HERE, 502, 503, 2).broken() == ["own"]


def test_a_server_that_has_lost_a_slot_may_answer_for_a_moment() -> None:
    """What was told at the same site, or longer ago, is to be seen all the same."""
    limits = replace(LIMITS, handover=10 * MILLISECOND)
    told = Told().write(DIRECT, 0, 1, 2).write(HERE, 20, 21, 4)
    assert told.read(DIRECT, 25, 26, 2).broken(limits) == []
    assert told.read(HERE, 25, 26, 2, strict=1).broken(limits) == ["strict"]
    assert told.read(DIRECT, 32, 33, 2).broken(limits) == ["strict", "strict"]


def test_no_cache_stands_before_strict_reads() -> None:
    told = Told().write(DIRECT, 0, 1, 2).write(DIRECT, 10, 11, 4).read(HERE, 12, 13, 2)
    assert told.broken() == []
    assert told.read(HERE, 14, 15, 2, strict=1).broken() == ["strict"]
    assert told.read(DIRECT, 16, 17, 2).broken() == ["strict", "strict"]


def test_values_that_nobody_wrote() -> None:
    told = Told().write(HERE, 0, 1, 2).read(HERE, 2, 3, 4).write(HERE, 10, 11, 4)
    assert told.broken() == ["unwritten"]
    assert told.read(HERE, 12, 13, GARBLED).broken() == ["unwritten", "garbled"]


def test_absence_is_taken_for_whatever_fits() -> None:
    told = Told().read(HERE, 0, 1, ABSENT).write(HERE, 2, 3, 2).delete(HERE, 4, 5, 4)
    told.read(HERE, 4.5, 4.6, ABSENT).read(HERE, 6, 7, ABSENT)
    assert told.broken() == []
    told.write(HERE, 8, 9, 6).read(HERE, 8.5, 8.6, ABSENT)
    assert told.broken() == []
    assert told.read(HERE, 10, 11, ABSENT).broken() == ["own"]


def test_absence_that_would_be_older_than_what_was_seen() -> None:
    told = Told().write(DIRECT, 0, 1, 2).read(HERE, 0, 1, 2).read(HERE, 2, 3, ABSENT)
    assert told.broken() == ["own"]


def test_presence_is_taken_for_whatever_fits() -> None:
    told = Told().write(HERE, 0, 1, 2).delete(HERE, 4, 5, 4)
    told.read(HERE, 2, 3, PRESENT).read(HERE, 4.5, 4.6, PRESENT)
    assert told.broken() == []
    told.read(HERE, 6, 7, PRESENT)
    assert told.broken() == ["own"]
    assert Told().read(HERE, 0, 1, PRESENT).broken() == ["unwritten"]


def test_expiry() -> None:
    told = Told().write(DIRECT, 0, 1, 2).expiry(50, 51, 3)
    told.read(HERE, 10, 11, 2).read(HERE, 50.5, 50.6, ABSENT).read(THERE, 50.7, 50.8, 2)
    assert told.broken() == []
    assert told.read(THERE, 51.5, 51.6, 2).broken() == ["expired"]
    assert told.read(DIRECT, 51.7, 51.8, 2).broken() == ["expired", "strict"]


def test_gone_before_its_time() -> None:
    told = Told().write(DIRECT, 0, 1, 2).expiry(50, 51, 3).read(DIRECT, 40, 41, ABSENT)
    assert told.broken() == ["strict"]


def test_an_expiry_that_was_overtaken() -> None:
    told = Told().write(HERE, 0, 1, 2).expiry(50, -1, 3).write(HERE, 50.5, 51, 4)
    assert told.read(HERE, 60, 61, 4).broken() == []
    assert told.read(HERE, 62, 63, ABSENT).broken() == ["own"]


def test_counters() -> None:
    told = Told(counter=True).read(HERE, 0, 1, ABSENT)
    told.count(HERE, 2, 3, 1).count(DIRECT, 2, 30, 2).count(THERE, 4, -1, UNKNOWN)
    told.read(HERE, 5, 6, 1).read(HERE, 20, 21, 3).read(DIRECT, 22, 23, 3)
    assert told.broken() == []
    assert told.read(HERE, 24, 25, 4).broken() == ["unwritten"]
    assert told.count(HERE, 40, 41, 2).broken() == ["unwritten", "twice"]
    assert told.count(HERE, 42, 43, 4).read(HERE, 44, 45, 3).broken()[-1] == "own"


def test_a_lost_increment() -> None:
    told = Told(counter=True).count(HERE, 0, 1, 1).count(HERE, 2, 3, 2).read(DIRECT, 4, 5, 2)
    told.count(HERE, 6, -1, UNKNOWN)
    assert told.broken() == []
    told = Told(counter=True).count(HERE, 0, 1, 5).count(HERE, 2, 3, 4)
    assert told.broken() == ["lost"]


def test_a_counter_that_was_wiped() -> None:
    told = Told(counter=True).count(HERE, 0, 1, 1).count(HERE, 2, 3, 2).delete(HERE, 4, 5, WIPED)
    told.read(THERE, 50, 51, 2).read(HERE, 4.5, 5.5, 2).read(HERE, 6, 7, ABSENT)
    assert told.broken() == []
    assert told.read(HERE, 8, 9, 2).broken() == ["own"]
    assert told.read(THERE, 200, 201, PRESENT).broken() == ["own", "foreign"]


def test_what_ended_after_a_key_was_closed_says_nothing() -> None:
    told = Told().write(HERE, 0, 1, 2).write(HERE, 10, 11, 4).read(HERE, 20, 21, 2)
    told.history.closed[told.key] = 20 * MILLISECOND
    assert told.broken() == []


def test_staleness_is_measured_for_writes_elsewhere() -> None:
    told = Told().write(HERE, 0, 1, 2).write(DIRECT, 10, 11, 4).write(THERE, 50, 51, 6)
    told.read(HERE, 12, 13, 2).read(HERE, 14, 15, 2).read(HERE, 16, 17, 4)
    told.read(HERE, 60, 61, 6)
    verdict = check(told.history, LIMITS)
    found = dict(zip(verdict.stale_at, verdict.stale_for, strict=True))
    assert found == {11 * MILLISECOND: 3 * MILLISECOND, 51 * MILLISECOND: 0}
    assert quantiles(verdict.stale_for, [0.5, 1]) == [3 * MILLISECOND, 3 * MILLISECOND]
    assert quantiles([], [0.5]) == [0]


def test_files_and_words(tmp_path: Path) -> None:
    told = Told(counter=True).count(HERE, 0, 1, 1).read(HERE, 2, 3, 0).count(HERE, 4, -1, UNKNOWN)
    told.history.closed[0] = 7
    told.history.save(tmp_path / "history")
    again = History.load(tmp_path / "history")
    assert vars(again) == vars(told.history)
    told.history.closed.clear()
    [violation] = check(told.history, LIMITS).violations
    assert "own: saw 0, at least 1 was known 1.000 ms before" in explain(told.history, violation)
    assert "never" in told.history.describe(2)


class Simulated:
    """A server, and sidecars that answer from a copy that is at most so old: a true history."""

    def __init__(self, seed: int, *, lag: float, keys: int = 3) -> None:
        self.random = random.Random(seed)
        self.lag = lag
        self.history = History()
        self.keys = [self.history.new_key(f"k{i}") for i in range(keys)]
        self.states: dict[int, list[tuple[float, int]]] = {key: [(0.0, 0)] for key in self.keys}
        self.copies: dict[tuple[int, int], int] = {}
        self.now = 0.0

    def run(self, operations: int) -> History:
        for _ in range(operations):
            self.now += self.random.uniform(0.1, 3)
            self._one(self.random.choice(self.keys), self.random.randint(0, 2))
        return self.history

    def _one(self, key: int, site: int) -> None:
        begin, end = self.now - self.random.random() * 5, self.now + self.random.random() * 5
        times = int(begin * MILLISECOND), int(end * MILLISECOND)
        states = self.states[key]
        if self.random.random() < 0.3:
            version = states[-1][1] + 2
            states.append((self.now, version))
            kind = Kind.DELETE if self.random.random() < 0.3 else Kind.WRITE
            self.history.add(kind, key, *times, version, site=site, client=len(self.history))
            self.copies[key, site] = version
            return
        version = self._seen(key, site, begin)
        gone = version == 0 or self._deleted(key, version)
        told = ABSENT if gone else version
        self.history.add(Kind.READ, key, *times, told, site=site, client=len(self.history))

    def _seen(self, key: int, site: int, begin: float) -> int:
        states = self.states[key]
        if site == DIRECT:
            return states[-1][1]
        oldest = max(version for at, version in states if at <= max(0, begin - self.lag))
        oldest = max(oldest, self.copies.get((key, site), 0))
        version = self.random.choice([v for _, v in states if v >= oldest])
        self.copies[key, site] = version
        return version

    def _deleted(self, key: int, version: int) -> bool:
        rows = range(len(self.history))
        row = next(
            r for r in rows if (self.history.key[r], self.history.version[r]) == (key, version)
        )
        return self.history.kind[row] == Kind.DELETE


@pytest.mark.parametrize("seed", range(8))
def test_a_true_history_is_never_accused(seed: int) -> None:
    assert check(Simulated(seed, lag=80).run(600), LIMITS).violations == []


def test_staleness_beyond_the_bound_is_found() -> None:
    found: set[str] = set()
    for seed in range(8):
        found |= set(check(Simulated(seed, lag=400).run(600), LIMITS).count())
    assert found == {"foreign"}


def test_a_copy_that_goes_back_is_found() -> None:
    def forgetful(seed: int) -> Iterable[str]:
        simulated = Simulated(seed, lag=80)
        simulated.copies = Forgetful()
        return check(simulated.run(600), LIMITS).count()

    found = {rule for seed in range(8) for rule in forgetful(seed)}
    assert found == {"own"}


class Forgetful(dict[tuple[int, int], int]):
    """Sidecars that do not know what they have said."""

    def __setitem__(self, key: tuple[int, int], version: int) -> None:
        """Forget it."""


def test_every_rule_has_a_test_here() -> None:
    text = Path(__file__).read_text()
    assert [rule for rule in RULES if f'"{rule}"' not in text] == []


def test_cost_is_about_linear() -> None:
    def seconds(operations: int) -> float:
        history = History()
        key = history.new_key("k", counter=True)
        for at in range(operations):
            kind = Kind.COUNT if at % 10 == 0 else Kind.READ
            history.add(kind, key, at * 10, at * 10 + 15, at // 10 + 1, site=1, client=at % 50)
        begin = time.process_time()
        assert check(history, LIMITS).violations == []
        return time.process_time() - begin

    # The least of several: another process may have had the processor's cache meanwhile.
    assert min(seconds(40_000) for _ in range(3)) < 12 * min(seconds(10_000) for _ in range(3))
