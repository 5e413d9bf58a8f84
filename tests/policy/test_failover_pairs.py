"""The failover machine in every sound state, with every event."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest

from sidecar.policy.failover import Failover, Phase
from sidecar.policy.failover_words import (
    NotMaster,
    Observed,
    Verified,
)
from sidecar.policy.topology import (
    PromotionAwaited,
    PromotionSeen,
    ReplicasChanged,
    SentinelFound,
)
from tests.policy.failover_steps import (
    ABORTED,
    ASK,
    BACK,
    BEGUN,
    DOWN,
    HOLD,
    LOST,
    NODES,
    ODOWN,
    REBOOT,
    SDOWN,
    SWITCHING,
    TICK,
    UP,
    A,
    B,
    C,
    answer,
    flaws,
    step,
    switched,
)


def states(phase: Phase) -> Iterator[Failover]:
    """Every sound state of a phase. A is the master, B the candidate; deadlines are 1 and 3."""
    switch = (False, True)
    for (early, held, begun, closing, announced, coordinated, up), known, left in itertools.product(
        itertools.product(switch, repeat=7),
        ((-1, None), (5, A), (5, B), (5, C)),
        ((), (B,), (C,), (B, C)),
    ):
        for master, due, patience in itertools.product((None, A), (1.0, 3.0), (1.0, 3.0)):
            machine = Failover(
                early, HOLD, phase, master, B if phase is SWITCHING else None, announced, up,
                *known, patience, held, begun, coordinated, closing, due if held else None,
                set(left),
            )  # fmt: skip
            if not flaws(machine) and (held or due == 1) and (phase is LOST or patience == 1):
                yield machine


def events() -> list[Observed]:
    """Every event, about each node; epochs older than 5, the same, newer."""
    found: list[Observed] = [
        BEGUN, ABORTED, SDOWN, ODOWN, BACK, REBOOT, ReplicasChanged(), SentinelFound(C), UP, DOWN,
        TICK,
    ]  # fmt: skip
    for node in NODES:
        found += [switched(node), *(answer(node, epoch) for epoch in (None, 4, 5, 6))]
        found += [PromotionAwaited(node), PromotionSeen(node), Verified(node)]
        found += [NotMaster(node, follows) for follows in (None, *NODES)]
    return found


@pytest.mark.parametrize("phase", Phase)
def test_every_event_in_every_state(phase: Phase) -> None:
    """What is sound stays so, and every step is one that can be accounted for.

    Since the first state is sound, all that can be reached are among these.
    """
    seen = 0
    for state in states(phase):
        for event in events():
            if state.master is None and event == UP:
                continue  # a link leads to a master
            machine = replace(state, left=set(state.left))
            try:
                commands = step(machine, event, 2.0)
            except AssertionError as error:
                raise AssertionError(f"{event} in {state} led to {machine}") from error
            assert (ASK in commands) or event != DOWN
            seen += 1
    assert seen > 10_000
    assert flaws(Failover(False, HOLD)) == []


def test_what_is_not_known_changes_nothing() -> None:
    machine = Failover(False, HOLD)
    assert machine.on("something else", 0.0) == []  # type: ignore[arg-type]
    assert machine == Failover(False, HOLD)
