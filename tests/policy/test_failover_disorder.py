"""Failovers that go wrong: given up, leaders that die, words that come late or contradict others.

Transcripts, as in test_failover.py.
"""

from __future__ import annotations

from sidecar.policy.failover import VERIFY_FOR
from sidecar.policy.failover_words import (
    NotMaster,
    SwitchTo,
    Verified,
    Verify,
    WatchRole,
)
from sidecar.policy.topology import (
    PromotionAwaited,
)
from tests.policy.failover_steps import (
    ABORTED,
    ASK,
    BACK,
    BEGUN,
    DOWN,
    HOLD,
    HOLDING,
    LOST,
    ODOWN,
    REBOOT,
    RELEASE,
    SDOWN,
    SERVING,
    STOP,
    TICK,
    UP,
    A,
    B,
    C,
    answer,
    switched,
)
from tests.policy.failover_story import begin, end, serving


def test_a_failover_that_is_given_up() -> None:
    tell = serving()
    begin(tell)
    tell(3.0, ABORTED, RELEASE)
    tell(3.0, ABORTED)
    assert tell.at() == (SERVING, A)


def test_a_failover_given_up_after_its_replica_was_chosen() -> None:
    tell = serving(early=True)
    begin(tell)
    tell(1.14, PromotionAwaited(B), Verify(B, eager=True))
    tell(1.2, NotMaster(B, A))
    tell(2.0, ABORTED, STOP, RELEASE)
    tell(2.1, Verified(B))
    assert tell.at() == (SERVING, A)


def test_what_is_announced_is_not_given_up() -> None:
    """The abort is another Sentinel's, which was not elected."""
    tell = serving()
    begin(tell)
    tell(2.1, switched(B), Verify(B))
    tell(2.11, ABORTED)
    tell(2.12, Verified(B), SwitchTo(B), RELEASE)


def test_a_chosen_replica_that_an_answer_names_is_announced() -> None:
    """Its epoch is known from then on: no later answer would be news."""
    tell = serving(early=True)
    begin(tell)
    tell(1.14, PromotionAwaited(B), Verify(B, eager=True))
    tell(1.5, answer(B, 6))
    tell(1.6, ABORTED)
    tell(1.5 + VERIFY_FOR, TICK, SwitchTo(B), RELEASE, ASK)


def test_a_chosen_replica_that_is_announced() -> None:
    tell = serving(early=True)
    begin(tell)
    tell(1.14, PromotionAwaited(B), Verify(B, eager=True))
    tell(2.1, switched(B))
    tell(2.2, ABORTED)
    tell(2.1 + VERIFY_FOR, TICK, SwitchTo(B), RELEASE, ASK)


def test_a_failover_of_which_nothing_more_is_heard() -> None:
    """Its leader has died. However often it is told again, writes go on after `hold`."""
    tell = serving()
    begin(tell)
    for moment in range(2, 11):
        tell(moment, BEGUN)
        tell(moment, ODOWN)
        tell(moment, PromotionAwaited(B))
        tell(moment, TICK)
    tell(11.0, TICK, RELEASE, ASK)
    tell(11.1, BEGUN, HOLDING, WatchRole(A))


def test_a_leader_that_dies_before_its_announcement() -> None:
    """Nobody else knows of B, which is made a replica again: the way back, as documented."""
    tell = serving(early=True)
    begin(tell)
    tell(1.14, PromotionAwaited(B), Verify(B, eager=True))
    tell(1.15, Verified(B), SwitchTo(B), RELEASE)
    tell(1.16, UP)
    for moment in range(2, 15):
        tell(moment, answer(A, 5))
        tell(moment, TICK)
    assert tell.at() == (SERVING, B)
    tell(15.0, DOWN, ASK)
    tell(15.1, answer(A, 5))
    tell(15.1, NotMaster(B, A), HOLDING, Verify(A), ASK)
    tell(15.2, Verified(A), SwitchTo(A), RELEASE)


def test_a_leader_that_dies_with_the_replica_it_promoted() -> None:
    """One host had both. The others still have their master, and no reason for a failover."""
    tell = serving(early=True)
    begin(tell)
    tell(1.14, PromotionAwaited(B), Verify(B, eager=True))
    tell(1.15, Verified(B), SwitchTo(B), RELEASE)
    tell(1.16, UP)
    tell(2.5, DOWN, ASK)
    for moment in range(3, 13):
        tell(moment, answer(A, 5))
        tell(moment, DOWN, ASK)
        tell(moment, TICK)
    assert tell.at() == (LOST, B)
    tell(13.0, answer(A, 5), HOLDING, Verify(A))
    tell(13.1, answer(A, 5))
    tell(13.2, Verified(A), SwitchTo(A), RELEASE)


def test_a_leader_that_dies_and_another_choice() -> None:
    tell = serving(early=True)
    tell(1.0, DOWN, ASK)
    tell(2.2, ODOWN, HOLDING)
    tell(2.5, PromotionAwaited(B), Verify(B, eager=True))
    tell(2.6, NotMaster(B, A))
    tell(8.0, BEGUN)
    tell(8.2, PromotionAwaited(C), Verify(C, eager=True))
    tell(8.2, Verified(B))
    tell(8.3, Verified(C), SwitchTo(C), RELEASE)
    tell(8.4, UP)
    end(tell, 9.3, C, 7)


def test_three_in_a_row_and_back_at_the_first() -> None:
    """To go where one was before takes an answer with a newer epoch."""
    tell = serving()
    for epoch, (old, new) in enumerate(((A, B), (B, C)), start=6):
        now = 20.0 * epoch
        tell(now, BEGUN, HOLDING, WatchRole(old))
        tell(now + 1.1, switched(new), Verify(new))
        tell(now + 1.11, Verified(new), SwitchTo(new), RELEASE)
        tell(now + 1.12, UP)
        end(tell, now + 2, new, epoch)
    tell(200.0, BEGUN, HOLDING, WatchRole(C))
    tell(201.1, switched(A), ASK)
    tell(201.1, answer(C, 7))
    tell(201.1, answer(A, 8), Verify(A))
    tell(201.1, switched(A))
    tell(201.2, Verified(A), SwitchTo(A), RELEASE)
    tell(201.3, UP)
    end(tell, 202.0, A, 8)


def test_late_words_about_masters_that_were_left() -> None:
    tell = serving()
    tell(1.0, switched(B), HOLDING, Verify(B))
    tell(1.0, switched(A))
    tell(1.1, Verified(B), SwitchTo(B), RELEASE)
    tell(1.1, answer(A, 5))
    tell(1.2, switched(A), ASK)
    tell(1.3, UP)
    tell(1.3, switched(A), ASK)
    tell(1.3, answer(A, 4))
    tell(1.3, answer(A, 5))
    tell(2.0, DOWN, ASK)
    tell(2.0, answer(A, 5))
    tell(2.0, switched(A), ASK)
    assert tell.at() == (LOST, B)


def test_an_announcement_that_an_answer_shows_to_be_late() -> None:
    """By a Sentinel that is one failover behind. C has never been our master."""
    tell = serving(B, 7)
    tell(1.0, switched(C), HOLDING, Verify(C))
    tell(1.0, answer(B, 7))
    tell(1.0, answer(C, 6), STOP, RELEASE)
    assert tell.at() == (SERVING, B)
    tell(1.0, Verified(C))
    assert tell.at() == (SERVING, B)


def test_a_late_announcement_during_a_failover() -> None:
    """It is dropped; the failover that has begun goes on holding writes."""
    tell = serving(A, 7)
    begin(tell)
    tell(1.2, switched(C), Verify(C))
    tell(1.2, answer(C, 6), STOP, WatchRole(A))
    tell(1.1 + HOLD, TICK)
    tell(2.1, switched(B), Verify(B))
    tell(2.2, Verified(B), SwitchTo(B), RELEASE)


def test_an_outdated_answer_about_a_candidate_that_the_newest_names() -> None:
    """It was master before, too: that is what the Sentinel behind remembers."""
    tell = serving()
    tell(1.0, switched(B), HOLDING, Verify(B))
    tell(1.0, answer(B, 6))
    tell(1.0, answer(B, 4))
    tell(1.1, Verified(B), SwitchTo(B), RELEASE)


def test_a_master_elected_anew_while_another_is_verified() -> None:
    tell = serving()
    tell(1.0, switched(B), HOLDING, Verify(B))
    tell(1.1, answer(B, 6))
    tell(1.8, answer(A, 7), STOP, RELEASE)
    assert tell.at() == (SERVING, A)


def test_two_announcements_at_once() -> None:
    """The first is verified until an answer tells which is newer, and is left then."""
    tell = serving()
    tell(1.0, switched(B), HOLDING, Verify(B))
    tell(1.0, switched(C), ASK)
    tell(1.0, switched(B))
    tell(1.0, switched(C), ASK)
    tell(1.5, answer(C, 7), Verify(C))
    tell(1.5, switched(B), ASK)
    tell(1.5, answer(B, 6))
    tell(2.4, TICK)
    tell(2.4, Verified(C), SwitchTo(C), RELEASE)
    tell(2.5, UP)
    tell(2.5, switched(B), ASK)
    end(tell, 3.0, C, 7)


def test_an_announcement_wins_over_a_choice() -> None:
    tell = serving(early=True)
    begin(tell)
    tell(1.14, PromotionAwaited(B), Verify(B, eager=True))
    tell(2.0, switched(C), Verify(C))
    tell(2.1, PromotionAwaited(B))
    tell(2.2, Verified(C), SwitchTo(C), RELEASE)


def test_a_dead_node_announced_late() -> None:
    """Nobody says so but its silence. The newest epoch still names the one that was left."""
    tell = serving(B, 7)
    tell(1.0, switched(C), HOLDING, Verify(C))
    tell(1.0, answer(B, 7))
    tell(2.0, TICK, SwitchTo(C), RELEASE, ASK)
    tell(2.0, answer(B, 7), HOLDING, Verify(B))
    tell(2.0, answer(B, 7))
    tell(2.1, Verified(B), SwitchTo(B), RELEASE)
    tell(2.2, UP)
    end(tell, 3.0, B, 7)


def test_a_dead_node_announced_late_and_nobody_else_in_sight() -> None:
    """The one that was left must say that it is the master; a deadline is not enough."""
    tell = serving(B, 7)
    tell(1.0, switched(C), HOLDING, Verify(C))
    tell(2.0, TICK, SwitchTo(C), RELEASE, ASK)
    tell(2.0, answer(B, 7), HOLDING, Verify(B))
    tell(2.9, NotMaster(B, A))
    tell(3.0, TICK, STOP, RELEASE, ASK)
    assert tell.at() == (LOST, C)


def test_an_announced_master_that_is_slow_to_answer() -> None:
    """The links go there and wait. The old one, still there for a Sentinel behind, is left."""
    tell = serving()
    begin(tell)
    tell(2.1, switched(B), Verify(B))
    tell(2.1, answer(B, 6))
    tell(2.9, switched(B))
    tell(3.0, TICK)
    tell(3.1, TICK, SwitchTo(B), RELEASE, ASK)
    tell(3.1, answer(A, 5))
    tell(3.1, answer(B, 6))
    tell(4.0, switched(A), ASK)
    tell(60.0, answer(A, 5))
    tell(60.0, UP)
    assert tell.at() == (SERVING, B)


def test_split_brain() -> None:
    """A Sentinel cut off with the old master names it until it is healed."""
    tell = serving()
    tell(2.2, ODOWN, HOLDING, WatchRole(A))
    tell(3.4, switched(B), Verify(B))
    tell(3.4, answer(B, 6))
    tell(3.5, Verified(B), SwitchTo(B), RELEASE)
    tell(3.6, UP)
    for moment in range(4, 60):
        tell(moment, answer(A, 5))
        tell(moment, DOWN if moment % 2 else UP, *([ASK] if moment % 2 else []))
        tell(moment, answer(A, 5))
        tell(moment, TICK)
    tell(60.0, switched(B))
    assert tell.machine.master == B


def test_a_restart_before_anybody_notices() -> None:
    tell = serving()
    tell(1.0, DOWN, ASK)
    tell(1.0, answer(A, 5))
    assert tell.at() == (LOST, A)
    tell(1.2, NotMaster(A, None), ASK)
    tell(1.3, REBOOT)
    tell(1.4, UP)
    assert tell.at() == (SERVING, A)


def test_a_restart_during_a_failover() -> None:
    """The master is back, and watched again: it is still about to be replaced."""
    tell = serving()
    tell(1.0, DOWN, ASK)
    tell(1.1, BEGUN, HOLDING)
    tell(1.3, REBOOT)
    tell(1.4, UP, WatchRole(A))
    tell(1.5, NotMaster(A, B), Verify(B), ASK)
    tell(1.6, Verified(B), SwitchTo(B), RELEASE)


def test_a_master_that_was_only_thought_to_be_down() -> None:
    tell = serving()
    tell(1.0, SDOWN)
    tell(1.1, ODOWN, HOLDING, WatchRole(A))
    tell(1.1, ODOWN)
    tell(2.0, BACK, RELEASE)
    assert tell.at() == (SERVING, A)


def test_a_master_that_loads_its_data() -> None:
    """It follows nobody. As long as the link is there, it serves."""
    tell = serving()
    tell(1.0, NotMaster(A, None), ASK)
    tell(1.0, NotMaster(A, A), ASK)
    assert tell.at() == (SERVING, A)


def test_a_new_address_with_the_old_epoch() -> None:
    """The race of a Sentinel's two answers: to be believed in only when the master is lost."""
    tell = serving()
    tell(1.0, answer(B, 5))
    assert tell.at() == (SERVING, A)
    tell(1.1, DOWN, ASK)
    tell(1.2, answer(B, 5), HOLDING, Verify(B))
    tell(1.3, answer(B, 6))
    tell(1.4, Verified(B), SwitchTo(B), RELEASE)


def test_a_leader_whose_words_come_late() -> None:
    """We know of B from others. Its failover ends with its own announcement."""
    tell = serving()
    tell(2.1, switched(B), HOLDING, Verify(B))
    tell(2.1, Verified(B), SwitchTo(B), RELEASE)
    tell(2.2, UP)
    tell(2.3, BEGUN, HOLDING, WatchRole(B))
    tell(2.3, PromotionAwaited(B))
    tell(2.3, switched(B), RELEASE)
    end(tell, 3.0, B, 6)
