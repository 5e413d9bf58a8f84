"""Who is the master, and what is done meanwhile: the sequences that real Sentinels produce.

Each is a transcript. test_failover_disorder.py has those in which something goes wrong,
test_failover_pairs.py every state with every event, test_failover_world.py a small world in which
anything may come late, twice or never.
"""

from __future__ import annotations

import pytest

from sidecar.policy.failover import CLOSING, VERIFY_FOR
from sidecar.policy.failover_words import (
    Command,
    NotMaster,
    SwitchTo,
    Verified,
    Verify,
    WatchRole,
)
from sidecar.policy.topology import (
    PromotionAwaited,
    PromotionSeen,
)
from tests.policy.failover_steps import (
    ABORTED,
    ASK,
    BACK,
    BEGUN,
    DOWN,
    HOLDING,
    LOST,
    ODOWN,
    RELEASE,
    SDOWN,
    SEARCHING,
    SERVING,
    TICK,
    UP,
    A,
    B,
    C,
    answer,
    switched,
)
from tests.policy.failover_story import Story, begin, end, serving


def test_the_first_master() -> None:
    """None is known until a Sentinel names one; who asks meanwhile waits for a link."""
    tell = Story()
    tell(0.0, DOWN, ASK)
    tell(0.1, TICK)
    assert tell.at() == (SEARCHING, None)
    tell(0.2, answer(A, 5), HOLDING, Verify(A))
    tell(0.2, answer(A, 5))
    tell(0.3, NotMaster(A, None))
    tell(0.4, Verified(A), SwitchTo(A), RELEASE)
    assert tell.at() == (LOST, A)
    tell(0.5, UP)
    assert tell.at() == (SERVING, A)


def test_a_first_master_that_can_not_be_verified() -> None:
    """The links wait there; another one may still come."""
    tell = Story()
    tell(0.0, answer(A, None), HOLDING, Verify(A))
    tell(0.1, answer(A, 5))
    tell(VERIFY_FOR - 0.01, TICK)
    tell(VERIFY_FOR, TICK, SwitchTo(A), RELEASE, ASK)
    tell(1.1, DOWN, ASK)
    tell(5.0, switched(B), HOLDING, Verify(B))
    tell(5.1, Verified(B), SwitchTo(B), RELEASE)


def test_a_planned_switch_on_its_announcement() -> None:
    tell = serving()
    begin(tell)
    tell(1.03, BACK)  # Valkey's leader, though nobody had said +sdown
    tell(1.14, PromotionAwaited(B))
    tell(1.50, PromotionSeen(B))
    tell(1.60, answer(A, 5))
    tell(2.10, switched(B), Verify(B))
    tell(2.10, switched(B))
    tell(2.10, answer(B, 6))
    tell(2.11, Verified(B), SwitchTo(B), RELEASE)
    tell(2.11, switched(B))
    tell(2.12, UP)
    tell(2.12, PromotionSeen(B))
    end(tell, 3.2, B, 6)


def test_a_failover_that_is_joined_late() -> None:
    """Its beginning was not heard: the choice of a replica tells as much."""
    for early, then in ((False, WatchRole(A)), (True, Verify(B, eager=True))):
        tell = serving(early=early)
        tell(1.14, PromotionAwaited(B), HOLDING, then)
        tell(1.15, BACK)
        assert tell.machine.held
        assert tell.machine.begun


def test_a_planned_switch_on_promotion() -> None:
    """A second earlier. Whether it was a coordinated one is not known, so writes pause once more,
    see test_a_coordinated_switch."""
    tell = serving(early=True)
    begin(tell)
    tell(1.14, PromotionAwaited(B), Verify(B, eager=True))
    for moment in (1.141, 1.146, 1.151):
        tell(moment, NotMaster(B, A))
    tell(1.156, Verified(B), SwitchTo(B), RELEASE)
    tell(1.16, UP)
    tell(1.50, PromotionSeen(B), HOLDING, WatchRole(B))
    tell(1.50 + CLOSING, TICK, RELEASE, ASK)
    tell(1.61, answer(A, 5))
    tell(1.61, answer(B, 6))
    end(tell, 2.1, B, 6)


@pytest.mark.parametrize("early", [False, True])
def test_a_crash(early: bool) -> None:
    tell = serving(early=early)
    tell(1.0, DOWN, ASK)
    tell(1.0, answer(A, 5))
    tell(2.1, SDOWN)
    tell(2.2, ODOWN, HOLDING)
    tell(2.2, BEGUN)
    tell(2.3, ODOWN)
    tell(2.4, BEGUN)
    if early:
        tell(2.5, PromotionAwaited(B), Verify(B, eager=True))
        tell(2.51, Verified(B), SwitchTo(B), RELEASE)
        tell(2.52, UP)
        tell(3.3, PromotionSeen(B))
    else:
        tell(2.5, PromotionAwaited(B))
        tell(3.3, PromotionSeen(B))
        tell(3.4, switched(B), Verify(B))
        tell(3.41, Verified(B), SwitchTo(B), RELEASE)
        tell(3.42, UP)
    end(tell, 4.5, B, 6)


def test_a_frozen_master() -> None:
    """Its link stays up and its role can't be asked. When it thaws, nobody is interested."""
    tell = serving()
    tell(2.2, ODOWN, HOLDING, WatchRole(A))
    tell(2.2, BEGUN)
    tell(2.5, PromotionAwaited(B))
    tell(3.4, switched(B), Verify(B))
    tell(3.41, Verified(B), SwitchTo(B), RELEASE)
    tell(3.42, UP)
    end(tell, 4.5, B, 6)
    tell(30.0, NotMaster(A, B))
    tell(30.0, Verified(A))
    assert tell.at() == (SERVING, B)


@pytest.mark.parametrize("closed", [False, True])
def test_a_coordinated_switch(closed: bool) -> None:
    """The master gives up its role by itself. Later the Sentinels close all connections: writes
    are not in flight then. They go on as soon as the link is back, or nothing was closed."""
    tell = serving()
    begin(tell)
    tell(1.14, PromotionAwaited(B))
    tell(1.24, NotMaster(A, B), Verify(B), ASK)
    tell(1.24, NotMaster(B, A))
    tell(1.24, answer(A, 5))
    tell(1.25, Verified(B), SwitchTo(B), RELEASE)
    tell(1.26, UP)
    tell(1.60, PromotionSeen(B), HOLDING, WatchRole(B))
    if closed:
        tell(1.61, DOWN, ASK)
        tell(1.62, UP, RELEASE)
    else:
        tell(1.65, TICK)
        tell(1.61 + CLOSING, TICK, RELEASE, ASK)
    tell(1.80, PromotionSeen(B))
    end(tell, 2.1, B, 6)


def test_a_coordinated_switch_on_promotion() -> None:
    """Whoever says it first: the old master, or the new one."""
    for demoted_first in (False, True):
        tell = serving(early=True)
        begin(tell)
        tell(1.14, PromotionAwaited(B), Verify(B, eager=True))
        if demoted_first:
            tell(1.23, NotMaster(A, B))
        tell(1.24, Verified(B), SwitchTo(B), RELEASE)
        tell(1.25, UP)
        tell(1.60, PromotionSeen(B), HOLDING, WatchRole(B))
        tell(1.61, DOWN, ASK)
        tell(1.62, UP, RELEASE)
        end(tell, 2.1, B, 6)


def test_a_coordinated_switch_after_a_lost_link() -> None:
    """The old master has closed the link already: what it says of itself tells what it is."""
    pause: list[Command] = [HOLDING, WatchRole(B)]
    for follows, then in ((B, pause), (C, []), (None, [])):
        tell = serving(early=True)
        begin(tell)
        tell(1.14, PromotionAwaited(B), Verify(B, eager=True))
        tell(1.23, DOWN, ASK)
        tell(1.23, NotMaster(A, follows))
        tell(1.24, Verified(B), SwitchTo(B), RELEASE)
        tell(1.25, UP)
        tell(1.60, PromotionSeen(B), *then)


def test_a_coordinated_switch_to_one_that_does_not_answer() -> None:
    """The Sentinels name the old master for a second yet, which it is not by its own word."""
    tell = serving()
    begin(tell)
    tell(1.24, NotMaster(A, B), Verify(B), ASK)
    tell(1.24, ABORTED)
    tell(1.24 + VERIFY_FOR, TICK, SwitchTo(B), RELEASE, ASK)
    for moment in (2.3, 3.0, 4.0, 5.0):
        tell(moment, answer(A, 5))
    tell(6.0, answer(B, 6))
    tell(20.0, UP)
    assert tell.at() == (SERVING, B)


def test_what_a_coordinated_switch_leaves_behind() -> None:
    """Nothing: another one may be planned otherwise."""
    tell = serving()
    tell(1.24, NotMaster(A, B), HOLDING, Verify(B), ASK)
    tell(1.25, Verified(B), SwitchTo(B), RELEASE)
    tell(1.26, UP)
    tell(1.60, PromotionSeen(C))
    tell(20.0, BEGUN, HOLDING, WatchRole(B))
    tell(21.0, switched(C), Verify(C))
    tell(21.1, Verified(C), SwitchTo(C), RELEASE)
    tell(21.1, UP)
    tell(21.2, PromotionSeen(C))
    assert not tell.machine.held


def test_a_coordinated_switch_that_is_heard_of_late() -> None:
    """The leader's messages come when its failover is over for us: nothing to hold for."""
    tell = serving()
    tell(1.24, NotMaster(A, B), HOLDING, Verify(B), ASK)
    tell(1.25, Verified(B), SwitchTo(B), RELEASE)
    tell(1.26, UP)
    tell(1.30, PromotionAwaited(B))
    assert not tell.machine.held
    tell(1.60, PromotionSeen(B), HOLDING, WatchRole(B))
    tell(1.61, BACK)
    tell(1.61, DOWN, ASK)
    tell(1.62, UP, RELEASE)


def test_a_failover_that_begins_while_connections_are_closed() -> None:
    """It is no reason any more to let writes go on after a moment."""
    for told in (BEGUN, ODOWN, PromotionAwaited(C)):
        tell = serving()
        tell(1.24, NotMaster(A, B), HOLDING, Verify(B), ASK)
        tell(1.25, Verified(B), SwitchTo(B), RELEASE)
        tell(1.26, UP)
        tell(1.60, PromotionSeen(B), HOLDING, WatchRole(B))
        tell(1.61, told)
        tell(1.62, DOWN, ASK)
        tell(1.63, UP, WatchRole(B))
        tell(1.60 + CLOSING, TICK)
        tell(2.6, switched(C), Verify(C))
        tell(2.61, Verified(C), SwitchTo(C), RELEASE)
