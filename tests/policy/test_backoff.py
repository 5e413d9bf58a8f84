"""Pauses between attempts to connect."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.backoff import Backoff

SECONDS = st.floats(0.001, 60)
CHANCES = st.floats(0, 1, exclude_max=True)
ATTEMPTS = st.integers(0, 10_000)


@given(SECONDS, SECONDS, ATTEMPTS, CHANCES)
def test_a_pause_is_bounded(one: float, other: float, attempt: int, chance: float) -> None:
    """Half of the exponential delay at least, all of it at most, and never above the ceiling."""
    floor, ceiling = sorted((one, other))
    delay = Backoff(floor, ceiling).delay(attempt, chance)
    top = min(ceiling, floor * 2.0 ** min(attempt, 100))
    assert floor / 2 <= delay <= ceiling
    assert top / 2 <= delay <= top


@given(SECONDS, SECONDS, ATTEMPTS, CHANCES)
def test_pauses_grow(one: float, other: float, attempt: int, chance: float) -> None:
    backoff = Backoff(min(one, other), max(one, other))
    assert backoff.delay(attempt, chance) <= backoff.delay(attempt + 1, chance)
    assert backoff.delay(attempt, 0.0) <= backoff.delay(attempt, chance)


def test_pauses_in_numbers() -> None:
    backoff = Backoff(0.1, 1.0)
    assert [backoff.delay(n, 0.0) for n in range(6)] == [0.05, 0.1, 0.2, 0.4, 0.5, 0.5]
