"""The consistency checker with a short load (`make consistency` has the long one)."""

from __future__ import annotations

import pytest

from bench.consistency.faults import FAULTS
from bench.consistency.runner import Options, run

SLOW = ("server restarted", "server stopped for a while")
"""Left to the long run."""


@pytest.mark.timeout(90)
@pytest.mark.parametrize(
    "server", ["valkey", pytest.param("redis7", marks=[pytest.mark.redis, pytest.mark.slow])]
)
def test_nothing_is_violated_under_faults(server: str) -> None:
    """Two sidecars, direct clients, and faults: what anybody saw keeps the contract."""
    faults = [name for name in FAULTS if name not in SLOW]
    said: list[str] = []
    options = Options(
        seconds=9.0, calm=0.2, clients=3, server=server, faults=faults, say=said.append
    )
    outcome = run(options)
    assert outcome.violations == {}, "\n".join(outcome.explained)
    assert outcome.operations > 3000
    assert outcome.hits is not None
    assert outcome.hits > 0.1
    assert outcome.faults, said
    assert all(found["max"] <= 520 for found in outcome.staleness.values()), outcome.staleness
