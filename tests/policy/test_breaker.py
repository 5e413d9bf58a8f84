"""The circuit breaker: when it opens, what it lets through, when it closes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sidecar.policy.breaker import PROBE_FOR, Breaker, State

CLOSED, OPEN, HALF_OPEN = State.CLOSED, State.OPEN, State.HALF_OPEN
EPSILON = 1e-6


def make(failures: int = 3, grace: float = 0.0) -> Breaker:
    """Three failures within 10 s open it, for 0.5 s at first and 2 s at most."""
    return Breaker(failures, window=10.0, grace=grace, open_for=0.5, open_max=2.0)


def opened(at: float = 0.0) -> Breaker:
    """Has just opened."""
    breaker = make()
    for _ in range(3):
        breaker.failed(at)
    assert (breaker.state, breaker.retry_at) == (OPEN, at + 0.5)
    return breaker


def half_open(at: float = 0.0) -> Breaker:
    """The probe has just been let through."""
    breaker = opened(at - 0.5)
    assert breaker.may_connect(at)
    assert breaker.state is HALF_OPEN
    return breaker


# Every state, every input

INPUTS: dict[str, Callable[[Breaker, float], object]] = {
    "may_connect": Breaker.may_connect,
    "connected": Breaker.connected,
    "failed": Breaker.failed,
    "lost": Breaker.lost,
    "abandoned": Breaker.abandoned,
    "reset": lambda breaker, now: breaker.reset(),
}
STATES: dict[State, Callable[[], Breaker]] = {CLOSED: make, OPEN: opened, HALF_OPEN: half_open}
AFTER: dict[tuple[State, str], State] = {
    (OPEN, "may_connect"): OPEN,
    (OPEN, "failed"): OPEN,
    (OPEN, "lost"): OPEN,
    (OPEN, "abandoned"): OPEN,
    (HALF_OPEN, "may_connect"): HALF_OPEN,
    (HALF_OPEN, "failed"): OPEN,
    (HALF_OPEN, "lost"): HALF_OPEN,
    (HALF_OPEN, "abandoned"): OPEN,
}


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("state", STATES)
def test_every_input_in_every_state(state: State, name: str) -> None:
    """One input each, a tenth of a second after the state was reached; unlisted: closed."""
    breaker = STATES[state]()
    said = INPUTS[name](breaker, 0.1)
    assert breaker.state is AFTER.get((state, name), CLOSED)
    assert said is ((state is CLOSED) if name == "may_connect" else None)


@pytest.mark.parametrize("name", ["failed", "lost"])
def test_an_open_breaker_is_not_put_off(name: str) -> None:
    """A crowd of attempts begun before it opened fails one by one: the probe is due all the same,
    and the pause after it has doubled once."""
    breaker = opened()
    for step in range(1, 50):
        INPUTS[name](breaker, step / 100)
    assert (breaker.retry_at, breaker.opened) == (0.5, 1)
    assert breaker.may_connect(0.5)
    breaker.failed(0.6)
    assert (breaker.retry_at, breaker.opened) == (1.6, 2)


def test_losses_say_nothing_about_the_probe() -> None:
    breaker = half_open()
    for _ in range(5):
        breaker.lost(0.1)
    assert breaker.state is HALF_OPEN
    breaker.connected(0.2)
    assert breaker.state is CLOSED


# Opening


def test_so_many_failures_open_it() -> None:
    breaker = make()
    breaker.failed(0.0)
    breaker.failed(1.0)
    assert breaker.state is CLOSED
    breaker.failed(2.0)
    assert (breaker.state, breaker.opened, breaker.retry_at) == (OPEN, 1, 2.5)


def test_only_those_within_the_window_count() -> None:
    breaker = make()
    for now in (0.0, 9.0, 10.0, 19.5):
        breaker.failed(now)
        assert breaker.state is CLOSED
    breaker.failed(19.9)
    assert breaker.state is OPEN


def test_a_connection_makes_failures_forgotten() -> None:
    breaker = make()
    for now in (0.0, 0.1, 0.3, 0.4):
        breaker.failed(now)
        if now == 0.1:
            breaker.connected(0.2)
    assert breaker.state is CLOSED


def test_failures_and_losses_are_not_added_up() -> None:
    breaker = make()
    for now in (0.0, 0.1):
        breaker.failed(now)
        breaker.lost(now)
    assert breaker.state is CLOSED


def test_requests_wait_for_the_grace_anyway() -> None:
    """However many attempts fail, it opens with the first that fails after the grace."""
    breaker = make(grace=5.0)
    for step in range(100):
        breaker.failed(1.0 + step * 0.05 - EPSILON * (step > 0))
    assert breaker.state is CLOSED
    breaker.failed(6.0)
    assert breaker.state is OPEN


def test_the_grace_runs_from_the_loss_of_a_connection() -> None:
    breaker = make(grace=5.0)
    breaker.lost(0.0)
    for now in (4.7, 4.8, 4.9):
        breaker.failed(now)
    assert breaker.state is CLOSED
    breaker.failed(5.0)
    assert breaker.state is OPEN


def test_the_grace_begins_anew_with_each_connection() -> None:
    breaker = make(grace=5.0)
    for now in (0.0, 1.0, 4.0):
        breaker.failed(now)
    breaker.connected(4.5)
    for now in (5.0, 6.0, 7.0, 9.9):
        breaker.failed(now)
    assert breaker.state is CLOSED
    breaker.failed(10.0)
    assert breaker.state is OPEN


def test_the_grace_alone_is_no_reason() -> None:
    breaker = make(grace=5.0)
    for now in (0.0, 20.0, 21.0):
        breaker.failed(now)
        assert breaker.state is CLOSED
    breaker.failed(22.0)
    assert breaker.state is OPEN


@pytest.mark.parametrize("grace", [0.0, 60.0])
@pytest.mark.parametrize("pause", [0.0, 0.01, 1.0])
def test_links_that_come_and_go_do_not_open_it(pause: float, grace: float) -> None:
    """A server that accepts is there, however often it cuts."""
    breaker = make(grace=grace)
    for step in range(100):
        breaker.connected(step * pause)
        breaker.lost(step * pause)
    assert (breaker.state, breaker.opened) == (CLOSED, 0)


@pytest.mark.parametrize("grace", [0.0, 5.0])
def test_without_a_number_of_failures_it_never_opens(grace: float) -> None:
    breaker = make(0, grace)
    for step in range(100):
        breaker.failed(step * 0.2)
        breaker.lost(step * 0.2)
        assert breaker.may_connect(step * 0.2)
    assert (breaker.state, breaker.opened) == (CLOSED, 0)


# Probes


def test_one_probe_and_no_other() -> None:
    breaker = opened()
    assert not breaker.may_connect(0.5 - EPSILON)
    assert [breaker.may_connect(0.5 + step) for step in range(10)] == [True] + [False] * 9
    assert breaker.state is HALF_OPEN


def test_a_probe_that_comes_about_closes_it() -> None:
    breaker = half_open()
    breaker.connected(0.1)
    assert breaker.state is CLOSED
    assert [breaker.may_connect(0.1) for _ in range(3)] == [True] * 3
    breaker.failed(0.2)
    breaker.failed(0.3)
    assert breaker.state is CLOSED


def test_the_pause_doubles_with_each_failed_probe() -> None:
    """Up to open_max; a success begins from the first pause again."""
    breaker, now, pauses = opened(), 0.0, [0.5]
    for _ in range(4):
        now = breaker.retry_at
        assert breaker.may_connect(now)
        now += 0.1
        breaker.failed(now)
        assert breaker.state is OPEN
        pauses.append(round(breaker.retry_at - now, 6))
    assert (pauses, breaker.opened) == ([0.5, 1.0, 2.0, 2.0, 2.0], 5)
    assert breaker.may_connect(breaker.retry_at)
    breaker.connected(now + 3)
    for _ in range(3):
        breaker.failed(now + 4)
    assert breaker.retry_at == now + 4.5


def test_one_failed_probe_is_enough() -> None:
    """Long after the failures that opened it."""
    breaker = opened()
    assert breaker.may_connect(1000.0)
    breaker.failed(1001.0)
    assert (breaker.state, breaker.retry_at) == (OPEN, 1002.0)


def test_an_abandoned_probe_is_due_again() -> None:
    """At once, and it has not failed: the pause stays as it was."""
    breaker = half_open()
    breaker.abandoned(0.1)
    assert breaker.opened == 1
    assert breaker.may_connect(0.1)
    assert not breaker.may_connect(0.1)
    breaker.failed(0.2)
    assert breaker.retry_at == 1.2


def test_an_abandoned_attempt_does_not_shorten_a_pause() -> None:
    breaker = opened()
    breaker.abandoned(0.1)
    assert not breaker.may_connect(0.4)


def test_a_probe_nobody_speaks_of_again_is_forgotten() -> None:
    breaker = half_open()
    assert not breaker.may_connect(PROBE_FOR - EPSILON)
    assert breaker.may_connect(PROBE_FOR)
    assert not breaker.may_connect(PROBE_FOR)
    assert breaker.state is HALF_OPEN


def test_another_upstream_begins_anew() -> None:
    breaker = half_open()
    breaker.failed(0.0)
    assert breaker.retry_at == 1.0
    breaker.reset()
    assert breaker.may_connect(0.0)
    for _ in range(2):
        breaker.failed(0.1)
        breaker.lost(0.1)
    assert breaker.state is CLOSED
    breaker.failed(0.1)
    assert breaker.retry_at == 0.6


def test_the_grace_begins_anew_with_another_upstream() -> None:
    breaker = make(grace=5.0)
    breaker.failed(0.0)
    breaker.reset()
    for now in (4.0, 5.0, 6.0):
        breaker.failed(now)
    assert breaker.state is CLOSED


SPANS = st.floats(0, 12) | st.sampled_from([0.0, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, PROBE_FOR])


class AnyOrder(RuleBasedStateMachine):
    """Attempts overlap and end in any order, links are lost, time passes.

    The model says when it must open, and knows of one probe at most.
    """

    @initialize(failures=st.integers(0, 4), grace=st.sampled_from([0.0, 1.0, 5.0]))
    def begin(self, failures: int, grace: float) -> None:
        self.breaker = make(failures, grace)
        self.now = 0.0
        self.trying = 0
        self.probe: float | None = None
        self.down_since: float | None = None
        self.failures: list[float] = []

    def _recent(self, events: list[float]) -> bool:
        wanted = self.breaker.failures
        return bool(wanted) and sum(t > self.now - 10.0 for t in events) >= wanted

    def _trouble(self) -> None:
        if self.down_since is None:
            self.down_since = self.now

    @rule(seconds=SPANS)
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def tries(self) -> None:
        before = self.breaker.state
        if not self.breaker.may_connect(self.now):
            assert before is not CLOSED
            return
        self.trying += 1
        if before is not CLOSED:
            assert self.probe is None or self.now >= self.probe + PROBE_FOR
            assert before is HALF_OPEN or self.now >= self.breaker.retry_at
            self.probe = self.now

    @precondition(lambda self: self.trying)
    @rule()
    def connects(self) -> None:
        self.trying -= 1
        self.breaker.connected(self.now)
        self.failures.clear()
        self.down_since = self.probe = None
        assert self.breaker.state is CLOSED
        assert self.breaker.may_connect(self.now)

    @precondition(lambda self: self.trying)
    @rule()
    def fails(self) -> None:
        self.trying -= 1
        before, due = self.breaker.state, self.breaker.retry_at
        self.breaker.failed(self.now)
        self._trouble()
        if before is CLOSED:
            self.failures.append(self.now)
            assert self.down_since is not None
            graceless = self.now - self.down_since >= self.breaker.grace
            must_open = self._recent(self.failures) and graceless
            assert self.breaker.state is (OPEN if must_open else CLOSED)
        else:
            assert self.breaker.state is OPEN
            assert before is HALF_OPEN or self.breaker.retry_at == due
            self.probe = None

    @precondition(lambda self: self.trying)
    @rule()
    def is_abandoned(self) -> None:
        self.trying -= 1
        before = self.breaker.state
        self.breaker.abandoned(self.now)
        assert self.breaker.state is (OPEN if before is HALF_OPEN else before)
        self.probe = None

    @rule()
    def loses_a_link(self) -> None:
        before, due = self.breaker.state, self.breaker.retry_at
        self.breaker.lost(self.now)
        self._trouble()
        assert (self.breaker.state, self.breaker.retry_at) == (before, due)

    @rule()
    def follows_another(self) -> None:
        self.breaker.reset()
        self.failures.clear()
        self.down_since = self.probe = None
        assert self.breaker.state is CLOSED

    @invariant()
    def pauses_are_bounded(self) -> None:
        if self.breaker.state is OPEN:
            assert self.breaker.retry_at <= self.now + self.breaker.open_max

    @invariant()
    def one_probe_is_known_while_half_open(self) -> None:
        assert (self.breaker.state is HALF_OPEN) == (self.probe is not None)

    @invariant()
    def never_without_failures(self) -> None:
        assert self.breaker.failures or self.breaker.state is CLOSED

    def teardown(self) -> None:
        """Whatever has happened, and whoever forgets to tell: it is tried again some day."""
        if hasattr(self, "breaker"):
            assert self.breaker.may_connect(self.now + max(PROBE_FOR, self.breaker.open_max))


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
