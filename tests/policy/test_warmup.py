"""Warming up: what is asked for next, and when it is over. Every state with every input."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sidecar.policy.warm_set import Entry
from sidecar.policy.warmup import Phase, Place, WarmUp

GATHERING, LOADING, DONE = Phase.GATHERING, Phase.LOADING, Phase.DONE
HERE: Place = (None, 0, None)
THERE: Place = (None, 1, None)


def entry(number: int, db: int = 0) -> Entry:
    """GET of a numbered key."""
    return Entry.of(None, db, b"get", b"%d" % number)


def make(concurrency: int = 4, rate: float = 0.0) -> WarmUp:
    """Begun at 0, with a deadline of 5 s."""
    return WarmUp(0.0, 5.0, concurrency, rate)


def loading(count: int = 10, concurrency: int = 4, rate: float = 0.0) -> WarmUp:
    """With entries of one place."""
    warm = make(concurrency, rate)
    warm.found([entry(n) for n in range(count)], 0.0)
    return warm


def done() -> WarmUp:
    """Over, for want of entries."""
    warm = make()
    warm.found([], 1.0)
    return warm


def ask(warm: WarmUp, now: float = 1.0, *places: Place) -> list[Entry]:
    """Ask for all that is due."""
    found = warm.due(places or (HERE,), now)
    for each in found:
        warm.asked(each)
    return found


def all_here(entry: Entry) -> bool:
    """Every answer is stored."""
    return True


# Every state, every input

INPUTS: dict[str, Callable[[WarmUp], object]] = {
    "found nothing": lambda warm: warm.found([], 1.0),
    "found": lambda warm: warm.found([entry(1)], 1.0),
    "due": lambda warm: warm.due([HERE], 1.0),
    "answered": lambda warm: warm.answered(HERE, 0, all_here, 1.0),
    "lost": lambda warm: warm.lost(HERE, 1.0),
    "give up": lambda warm: warm.give_up(HERE, 1.0),
    "stop": lambda warm: warm.stop(1.0),
    "asked": lambda warm: warm.asked(entry(0)),
    "passed": lambda warm: warm.passed(entry(0), True, 1.0),
}
STATES: dict[Phase, Callable[[], WarmUp]] = {GATHERING: make, LOADING: loading, DONE: done}
# What is not listed leaves the state as it is.
AFTER: dict[tuple[Phase, str], Phase | None] = {
    (GATHERING, "found nothing"): DONE,
    (GATHERING, "found"): LOADING,
    (GATHERING, "stop"): DONE,
    (LOADING, "found nothing"): None,
    (LOADING, "found"): None,
    (LOADING, "give up"): DONE,
    (LOADING, "stop"): DONE,
    (DONE, "found nothing"): None,
    (DONE, "found"): None,
}


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("state", STATES)
def test_every_state_with_every_input(state: Phase, name: str) -> None:
    """None in the table: an error."""
    warm = STATES[state]()
    assert warm.phase is state
    after = AFTER.get((state, name), state)
    if after is None:
        with pytest.raises(RuntimeError):
            INPUTS[name](warm)
    else:
        INPUTS[name](warm)
        assert warm.phase is after


# One by one


def test_loading_from_beginning_to_end() -> None:
    warm = loading(6, concurrency=4)
    assert ask(warm) == [entry(n) for n in range(4)]
    assert ask(warm) == []
    warm.answered(HERE, 3, lambda each: each == entry(0), 1.0)
    assert (warm.loaded, warm.failed, warm.under_way) == (1, 0, 3)
    assert ask(warm) == [entry(4)]
    warm.answered(HERE, 1, lambda each: each in (entry(1), entry(3)), 1.0)
    assert (warm.loaded, warm.failed, warm.under_way) == (3, 1, 1)
    assert ask(warm) == [entry(5)]
    warm.answered(HERE, 0, all_here, 2.0)
    assert (warm.phase, warm.loaded, warm.failed, warm.ended) == (DONE, 5, 1, 2.0)
    assert warm.duration(99.0) == 2.0


def test_answers_that_others_wait_for_are_not_ours() -> None:
    """More may be due than was asked for here. What is here has been answered all the same."""
    warm = loading(4)
    ask(warm)
    warm.answered(HERE, 9, lambda each: each in (entry(0), entry(1), entry(3)), 1.0)
    assert (warm.loaded, warm.under_way) == (2, 2)


def test_what_is_here_already_is_loaded_and_what_cannot_be_asked_for_has_failed() -> None:
    warm = loading(2)
    first, second = warm.due([HERE], 1.0)
    warm.passed(first, True, 1.0)
    warm.passed(second, False, 1.0)
    assert (warm.phase, warm.loaded, warm.failed) == (DONE, 1, 1)


def test_the_rate_is_kept() -> None:
    warm = loading(1000, concurrency=100, rate=10.0)
    found = 0
    for step in range(400):
        found += len(ask(warm, step / 100))
        warm.answered(HERE, 0, all_here, step / 100)
        assert found <= 1 + 10 * step / 100
    assert found == 40


def test_a_rate_does_not_pile_up() -> None:
    """After a minute without a connection no more than `concurrency` are asked for at once."""
    warm = loading(1000, concurrency=5, rate=10.0)
    assert len(ask(warm, 60.0)) == 5
    warm.answered(HERE, 0, all_here, 60.0)
    assert ask(warm, 60.0) == []


def test_places_take_turns_and_one_that_is_not_there_holds_up_nobody() -> None:
    warm = make(concurrency=3)
    warm.found([entry(n) for n in range(5)] + [entry(n, 1) for n in range(5)], 0.0)
    assert ask(warm, 1.0, THERE) == [entry(0, 1), entry(1, 1), entry(2, 1)]
    warm.answered(THERE, 0, all_here, 1.0)
    assert ask(warm, 1.0, HERE, THERE) == [entry(0), entry(3, 1), entry(1)]
    assert warm.places == [HERE, THERE]


def test_after_a_loss_all_is_read_again_but_what_was_under_way() -> None:
    warm = loading(6, concurrency=2)
    ask(warm)
    warm.answered(HERE, 0, all_here, 1.0)
    assert ask(warm) == [entry(2), entry(3)]
    warm.lost(HERE, 1.0)
    assert (warm.loaded, warm.failed, warm.under_way) == (0, 2, 0)
    assert ask(warm) == [entry(0), entry(1)]
    warm.answered(HERE, 0, all_here, 1.0)
    assert ask(warm) == [entry(4), entry(5)]
    warm.answered(HERE, 0, all_here, 1.0)
    assert (warm.phase, warm.loaded, warm.failed) == (DONE, 4, 2)


def test_after_two_losses_a_place_is_given_up_and_no_other() -> None:
    warm = make(concurrency=2)
    warm.found([entry(n) for n in range(4)] + [entry(9, 1)], 0.0)
    for _ in range(2):
        ask(warm)
        warm.lost(HERE, 1.0)
    assert (warm.phase, warm.failed, warm.places) == (LOADING, 4, [THERE])
    ask(warm, 1.0, THERE)
    warm.answered(THERE, 0, all_here, 1.0)
    assert (warm.phase, warm.loaded, warm.failed) == (DONE, 1, 4)


def test_ready_when_over_or_late() -> None:
    warm = loading()
    assert not warm.ready(4.9)
    assert warm.ready(5.0)
    warm.stop(1.0)
    assert warm.ready(1.0)
    assert not make().ready(0.0)


# In any order


class Machine(RuleBasedStateMachine):
    """Loading against a record of what was asked for: a server that answers in order."""

    @initialize(
        counts=st.lists(st.integers(0, 12), min_size=1, max_size=3),
        concurrency=st.integers(1, 5),
        rate=st.sampled_from([0.0, 3.0]),
    )
    def begin(self, counts: list[int], concurrency: int, rate: float) -> None:
        self.now = 0.0
        self.concurrency, self.rate = concurrency, rate
        self.warm = make(concurrency, rate)
        entries = [entry(n, db) for db, count in enumerate(counts) for n in range(count)]
        self.dbs = len(counts)
        self.total = len(entries)
        self.asked: Counter[Entry] = Counter()
        self.pending: dict[int, list[Entry]] = {db: [] for db in range(self.dbs)}
        self.here: set[Entry] = set()
        self.warm.found(entries, self.now)

    @rule(pause=st.floats(0, 2), up=st.sets(st.integers(0, 2)))
    def ask(self, pause: float, up: set[int]) -> None:
        self.now += pause
        for each in self.warm.due([(None, db, None) for db in up if db < self.dbs], self.now):
            assert each.db in up
            self.asked[each] += 1
            self.pending[each.db].append(each)
            self.warm.asked(each)

    @rule(db=st.integers(0, 2), answers=st.integers(0, 5), stored=st.booleans())
    def answer(self, db: int, answers: int, stored: bool) -> None:
        pending = self.pending.get(db, [])
        for each in pending[:answers]:
            if stored:
                self.here.add(each)
        del pending[:answers]
        self.warm.answered((None, db, None), len(pending), self.here.__contains__, self.now)

    @rule(db=st.integers(0, 2))
    def lose(self, db: int) -> None:
        self.pending.get(db, []).clear()
        self.here = {each for each in self.here if each.db != db}
        self.warm.lost((None, db, None), self.now)

    @rule(db=st.integers(0, 2))
    def give_up(self, db: int) -> None:
        self.pending.get(db, []).clear()
        self.warm.give_up((None, db, None), self.now)

    @invariant()
    def holds(self) -> None:
        warm = self.warm
        assert 0 <= warm.under_way <= self.concurrency
        assert warm.total == self.total
        assert warm.loaded >= 0
        assert warm.failed >= 0
        assert warm.loaded + warm.failed + warm.under_way <= self.total
        assert (warm.phase is DONE) == (warm.loaded + warm.failed == self.total)
        assert all(times <= 2 for times in self.asked.values())
        if self.rate:
            assert sum(self.asked.values()) <= 1 + self.rate * self.now + self.concurrency

    def teardown(self) -> None:
        """Whatever has happened, a server that answers brings it to an end."""
        if not hasattr(self, "warm"):
            return
        for _ in range(200):
            self.ask(1.0, {0, 1, 2})
            for db in range(self.dbs):
                self.answer(db, 99, True)
        assert self.warm.phase is DONE


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
