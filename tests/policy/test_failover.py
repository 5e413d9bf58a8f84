"""Who is the master, and what is done meanwhile.

Three views: every state with every event; the sequences that real Sentinels produce, as
transcripts; and a small world in which anything may come late, twice or never. The times in the
transcripts are those measured with Valkey 9.1 and Redis 7.0, see policy/topology.py.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sidecar.policy.failover import (
    CLOSING,
    VERIFY_FOR,
    AskSentinels,
    Command,
    Failover,
    HoldWrites,
    LinkDown,
    LinkUp,
    NotMaster,
    Observed,
    Phase,
    ReleaseWrites,
    StopVerifying,
    SwitchTo,
    Tick,
    Verified,
    Verify,
    WatchRole,
)
from sidecar.policy.topology import (
    Address,
    FailoverAborted,
    FailoverBegun,
    MasterDown,
    MasterNamed,
    MasterUp,
    PromotionAwaited,
    PromotionSeen,
    ReplicasChanged,
    SentinelFound,
)

HOLD = 10.0
A, B, C = NODES = (("10.0.0.1", 6379), ("10.0.0.2", 6379), ("10.0.0.3", 6379))
SEARCHING, SERVING, LOST, SWITCHING = Phase
HOLDING, RELEASE, STOP, ASK = HoldWrites(), ReleaseWrites(), StopVerifying(), AskSentinels()
BEGUN, ABORTED, UP, DOWN, TICK = FailoverBegun(), FailoverAborted(), LinkUp(), LinkDown(), Tick()
ODOWN, SDOWN = MasterDown("objective"), MasterDown("subjective")
BACK, REBOOT = MasterUp(rebooted=False), MasterUp(rebooted=True)


def switched(address: Address) -> MasterNamed:
    """+switch-master."""
    return MasterNamed(address, switched=True)


def answer(address: Address, epoch: int | None) -> MasterNamed:
    """What a Sentinel says when it is asked."""
    return MasterNamed(address, switched=False, epoch=epoch)


# What holds of every state, and of every step


def flaws(m: Failover) -> list[str]:
    """What is wrong with a state; nothing is with one that may come about."""
    switching = m.phase is SWITCHING
    rules = {
        "held has a deadline": m.held == (m.deadline is not None),
        "switching has a candidate": switching == (m.candidate is not None),
        "switching holds": m.held or not switching,
        "only a candidate is announced": switching or not m.announced,
        "a failover holds": m.held or not m.begun,
        "closing holds": m.held or not m.closing,
        "closing is no failover": not (m.closing and (m.begun or switching)),
        "serving has a link": m.link_up or m.phase is not SERVING,
        "lost has none": not m.link_up or m.phase in (SERVING, SWITCHING),
        "searching has no master": m.phase is not SEARCHING or m.master is None,
        "others have one": m.phase in (SEARCHING, SWITCHING) or m.master is not None,
        "a link is to a master": m.master is not None or not m.link_up,
        "the candidate is another": m.candidate is None or m.candidate != m.master,
        "the master is not left": m.master not in m.left,
        "an epoch names somebody": (m.named is None) == (m.epoch < 0),
    }
    return [name for name, holds in rules.items() if not holds]


def step(m: Failover, event: Observed, now: float) -> list[Command]:
    """Take in one event, and look at all that can be said of any."""
    before = replace(m, left=set(m.left))
    commands = m.on(event, now)
    assert flaws(m) == []
    assert [c for c in commands if c != ASK] == changes(before, m, event)
    assert ASK not in commands[:-1]
    look_at_switch(before, m, event, now)
    look_at_release(before, m, event, now)
    look_at_deadline(before, m, now)
    look_at_belief(before, m, event, commands)
    if isinstance(event, ReplicasChanged | SentinelFound):
        assert (m, commands) == (before, [])
    return commands


def changes(before: Failover, m: Failover, event: Observed) -> list[Command]:
    """The commands, in order, that a change of state stands for."""
    expected: list[Command] = []
    if m.master is not None and m.master != before.master:
        expected.append(SwitchTo(m.master))
    elif before.phase is SWITCHING is not m.phase:
        expected.append(STOP)
    if m.held != before.held:
        expected.append(HOLDING if m.held else RELEASE)
    anew = not before.held or before.phase is not SERVING
    if m.held and m.phase is SERVING and anew and m.master is not None:
        expected.append(WatchRole(m.master))
    if m.candidate is not None and m.candidate != before.candidate:
        expected.append(Verify(m.candidate, eager=isinstance(event, PromotionAwaited)))
    return expected


def is_due(m: Failover, event: Observed, now: float) -> bool:
    """Whether time is up."""
    return event == TICK and m.deadline is not None and now >= m.deadline


def look_at_switch(before: Failover, m: Failover, event: Observed, now: float) -> None:
    """It takes the candidate's own word, or time in which an announced one says nothing."""
    if m.master != before.master:
        assert m.master == before.candidate
        assert (m.phase, m.link_up) == (LOST, False)
        unheard = before.announced and is_due(before, event, now)
        assert event == Verified(before.candidate or A) or unheard


def look_at_release(before: Failover, m: Failover, event: Observed, now: float) -> None:
    """Held writes go on for a reason, and never to a master whose successor is known."""
    if not before.held or m.held:
        return
    if m.master != before.master or is_due(before, event, now):
        return
    if before.phase is SWITCHING and event != ABORTED:
        assert refutes(event, before)
        assert not before.begun
        assert not before.coordinated
    else:
        assert {
            FailoverAborted: not before.announced,
            MasterUp: not before.begun and not before.closing,
            MasterNamed: event == switched(before.master or A),
            LinkUp: before.closing and before.phase is LOST,
        }.get(type(event), False)


def refutes(event: Observed, m: Failover) -> bool:
    """Whether an answer shows that the candidate was master before the present one."""
    if not isinstance(event, MasterNamed) or event.epoch is None:
        return False
    if event.address == m.master:
        return event.epoch > m.epoch
    return m.announced and event.address == m.candidate != m.named and event.epoch < m.epoch


def look_at_deadline(before: Failover, m: Failover, now: float) -> None:
    """It is never far, and what is told again and again does not put it off."""
    if m.deadline is None:
        return
    assert m.deadline in (before.deadline, now + HOLD, now + VERIFY_FOR, now + CLOSING)
    if before.held and m.deadline != before.deadline:
        assert (
            m.candidate not in (None, before.candidate)
            or m.announced > before.announced
            or m.closing < before.closing
            or m.phase is not SWITCHING is before.phase
        )


def look_at_belief(before: Failover, m: Failover, event: Observed, commands: list[Command]) -> None:
    """The newest epoch is believed, an older one is not, who was left needs a newer one."""
    assert m.epoch >= before.epoch
    if not isinstance(event, MasterNamed):
        return
    if event.epoch is not None and event.epoch > before.epoch:
        assert event.address in (m.master, m.candidate)
        assert (m.epoch, m.named) == (event.epoch, event.address)
    elif event.epoch is not None and event.epoch < before.epoch:
        assert commands == [] or refutes(event, before)
    elif event.switched and (event.address in before.left or before.announced):
        assert m.candidate == before.candidate
        assert commands == ([] if event.address == m.candidate else [ASK]) or (
            event.address == m.master
        )
    elif event.address in before.left and m.candidate != before.candidate:
        assert before.phase is LOST
        assert event.address == before.named
        assert not m.announced


# Every state, every event


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


# Transcripts


class Story:
    """A machine, told one event after the other: the time, the event, what is to follow."""

    def __init__(self, *, early: bool = False) -> None:
        self.machine = Failover(early, HOLD)

    def __call__(self, now: float, event: Observed, *commands: Command) -> None:
        assert step(self.machine, event, now) == list(commands), self.machine

    def at(self) -> tuple[Phase, Address | None]:
        """Where it has got to."""
        return self.machine.phase, self.machine.master


def serving(master: Address = A, epoch: int = 5, *, early: bool = False) -> Story:
    """At time 0 this master's link is up, and the Sentinels have said its epoch."""
    tell = Story(early=early)
    tell(0, answer(master, None), HOLDING, Verify(master))
    tell(0, Verified(master), SwitchTo(master), RELEASE)
    tell(0, UP)
    for _ in range(3):
        tell(0, answer(master, epoch))
    assert tell.at() == (SERVING, master)
    return tell


def begin(tell: Story, now: float = 1.0) -> None:
    """A Sentinel begins a failover of A while it serves."""
    tell(now, BEGUN, HOLDING, WatchRole(A))
    for moment in (0.02, 0.03, 0.08):
        tell(now + moment, BEGUN)


def end(tell: Story, now: float, master: Address, epoch: int) -> None:
    """What is still said about a switch that has been made: nothing more to do."""
    for _ in range(2):
        tell(now, answer(master, epoch))
        tell(now + 0.1, switched(master))
    tell(now + 0.1, BACK)
    tell(now + 0.2, ReplicasChanged())
    tell(now + HOLD, TICK)
    assert tell.at() == (SERVING, master)
    assert not tell.machine.held


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


# A small world


@dataclass
class Node:
    """A server. One that follows nobody says that it is a master."""

    follows: Address | None = None
    up: bool = True


@dataclass
class Sentinel:
    """What one knows, and what it has said and we have not heard yet. One that is cut off from
    the others learns nothing, and goes on talking to us."""

    epoch: int
    master: Address
    cut: bool = False
    said: deque[Observed] = field(default_factory=deque)

    def answers(self) -> None:
        """It has been asked."""
        self.said.append(answer(self.master, self.epoch))

    def learns(self, epoch: int, master: Address) -> None:
        """Of another master."""
        self.epoch, self.master = epoch, master
        self.said.append(switched(master))


@dataclass
class Change:
    """A failover under way. Stages: begun, awaited, promoted, seen, announced."""

    leader: Sentinel
    replica: Address
    coordinated: bool
    stage: str = "begun"


WHO = st.integers(0, 2)
NODE = st.sampled_from(NODES)


class World(RuleBasedStateMachine):
    """Three nodes, three Sentinels, and the shell around the machine, all of which may be slow,
    fail and come back. One failover at a time, as Sentinels see to."""

    @initialize(early=st.booleans())
    def starts(self, early: bool) -> None:
        self.now = 0.0
        self.machine = Failover(early, HOLD)
        self.nodes = {A: Node(), B: Node(A), C: Node(A)}
        self.sentinels = [Sentinel(5, A) for _ in range(3)]
        self.truth = (5, A)  # what Sentinels that are not cut off will agree upon
        self.votes = 5
        self.change: Change | None = None
        self.been: set[Address] = set()
        self.target: Address | None = None
        self.verifying: Address | None = None
        self.watching: Address | None = None
        self.link = self.held = False
        self.tell(answer(A, None))

    # The shell

    def tell(self, event: Observed) -> None:
        """Do what follows from it."""
        coordinated = self.machine.coordinated
        for command in step(self.machine, event, self.now):
            match command:
                case HoldWrites():
                    self.held = True
                case ReleaseWrites():
                    self.held, self.watching = False, None
                case Verify(address, _):
                    self.verifying = address
                case StopVerifying():
                    self.verifying = None
                case WatchRole(address):
                    self.watching = address
                case SwitchTo(address):
                    known = self.machine.named == address or coordinated or self.machine.early
                    assert known or address not in self.been, "it went back"
                    self.been.add(address)
                    self.target, self.verifying, self.link = address, None, False
                case AskSentinels():
                    for sentinel in self.sentinels:
                        sentinel.answers()

    def role(self, address: Address) -> Observed | None:
        """What it says when it is asked."""
        node = self.nodes[address]
        if not node.up:
            return None
        return Verified(address) if node.follows is None else NotMaster(address, node.follows)

    @precondition(lambda self: self.verifying)
    @rule()
    def verifies(self) -> None:
        if self.verifying and (event := self.role(self.verifying)):
            self.tell(event)

    @precondition(lambda self: self.watching)
    @rule()
    def watches(self) -> None:
        if self.watching and not isinstance(event := self.role(self.watching), Verified):
            self.watching = None
            if event is not None:
                self.tell(event)

    @precondition(lambda self: self.target and not self.link)
    @rule()
    def connects(self) -> None:
        if self.target and (event := self.role(self.target)):
            self.link = isinstance(event, Verified)
            self.tell(UP if self.link else event)

    @precondition(lambda self: self.link)
    @rule()
    def loses_the_link(self) -> None:
        self.link = False
        self.tell(DOWN)

    @rule(seconds=st.sampled_from([0.01, 0.05, 0.2, 1.0, 3.0, HOLD]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.tell(TICK)

    @rule(who=WHO)
    def hears(self, who: int) -> None:
        sentinel = self.sentinels[who]
        if sentinel.said:
            event = sentinel.said.popleft()
            self.tell(event)
            if isinstance(event, MasterNamed) and event.switched:
                sentinel.answers()

    @rule(who=WHO)
    def hears_all(self, who: int) -> None:
        for _ in range(len(self.sentinels[who].said)):
            self.hears(who)

    @rule()
    def settles(self) -> None:
        """Nothing is slow for once."""
        if self.verifying:
            self.verifies()
        if self.target and not self.link:
            self.connects()

    @rule(who=WHO)
    def polls(self, who: int) -> None:
        self.sentinels[who].answers()

    # The nodes

    @rule(address=NODE)
    def crashes(self, address: Address) -> None:
        self.nodes[address].up = False
        if self.link and self.target == address:
            self.loses_the_link()

    @rule(address=NODE)
    def freezes(self, address: Address) -> None:
        """Nobody closes its connections."""
        self.nodes[address].up = False

    @rule(address=NODE)
    def restarts(self, address: Address) -> None:
        self.nodes[address].up = True

    @rule(address=NODE)
    def is_made_a_replica(self, address: Address) -> None:
        changing = self.change is not None and address == self.change.replica
        if address != self.truth[1] and not changing:
            self.nodes[address].follows = self.truth[1]
            if self.link and self.target == address:  # all its connections are closed then
                self.loses_the_link()

    # The Sentinels

    @rule(who=WHO)
    def is_cut_off(self, who: int) -> None:
        self.sentinels[who].cut = True

    @rule(who=WHO)
    def is_healed(self, who: int) -> None:
        sentinel = self.sentinels[who]
        sentinel.cut = False
        if sentinel.epoch < self.truth[0] and self.change is None:
            sentinel.learns(*self.truth)

    @rule(who=WHO, down=st.booleans())
    def judges(self, who: int, down: bool) -> None:
        self.sentinels[who].said.append(ODOWN if down else BACK)

    @precondition(lambda self: self.change is None)
    @rule(who=WHO, replica=NODE, coordinated=st.booleans())
    def begins(self, who: int, replica: Address, coordinated: bool) -> None:
        leader = self.sentinels[who]
        current = leader.epoch == self.truth[0] and not leader.cut
        if current and self.nodes[replica].up and replica != self.truth[1]:
            self.votes += 1
            self.change = Change(leader, replica, coordinated)
            leader.said.append(BEGUN)

    @precondition(lambda self: self.change)
    @rule()
    def goes_on(self) -> None:
        assert self.change is not None
        change, replica = self.change, self.nodes[self.change.replica]
        match change.stage:
            case "begun":
                change.leader.said.append(PromotionAwaited(change.replica))
                change.stage = "awaited"
            case "awaited" if replica.up:
                replica.follows = None
                if change.coordinated:
                    self.nodes[self.truth[1]].follows = change.replica
                change.stage = "promoted"
            case "promoted" if replica.up:
                self.truth = (self.votes, change.replica)
                change.leader.epoch, change.leader.master = self.truth
                change.leader.said.append(PromotionSeen(change.replica))
                change.stage = "seen"
            case "seen":
                for sentinel in self.sentinels:
                    if sentinel is not change.leader and not sentinel.cut:
                        sentinel.learns(*self.truth)
                change.stage = "announced"
            case "announced":
                change.leader.said.append(switched(change.replica))
                self.change = None

    @precondition(lambda self: self.change is None)
    @rule(who=WHO, replica=NODE, coordinated=st.booleans())
    def fails_over(self, who: int, replica: Address, coordinated: bool) -> None:
        self.begins(who, replica, coordinated)
        while self.change is not None:
            self.goes_on()

    @precondition(lambda self: self.change and self.change.stage in ("begun", "awaited"))
    @rule(silently=st.booleans())
    def is_given_up(self, silently: bool) -> None:
        assert self.change is not None
        if not silently:
            self.change.leader.said.append(ABORTED)
        self.change = None

    @precondition(lambda self: self.change and self.change.stage == "promoted")
    @rule()
    def leader_dies(self) -> None:
        assert self.change is not None
        if not self.change.coordinated:
            self.change = None

    @precondition(lambda self: self.change is None)
    @rule(who=WHO, replica=NODE)
    def leader_dies_with_its_replica(self, who: int, replica: Address) -> None:
        """On one host, as soon as we have followed it there."""
        self.begins(who, replica, False)
        while self.change is not None and self.change.stage != "promoted":
            self.goes_on()
        if self.change is not None:
            self.hears_all(who)
            self.settles()
            self.change = None
            self.crashes(replica)

    # What must hold

    @invariant()
    def the_shell_does_what_the_state_says(self) -> None:
        m = self.machine
        assert (self.held, self.target, self.link) == (m.held, m.master, m.link_up)
        assert self.verifying == m.candidate
        assert self.watching is None or (m.held and self.watching == m.master)

    @invariant()
    def time_alone_releases_writes(self) -> None:
        future = replace(self.machine, left=set(self.machine.left))
        future.on(TICK, self.now + HOLD)
        assert not future.held

    def teardown(self) -> None:
        """When nothing more goes wrong, the master that Sentinels agree upon is served within
        half a minute, even if no other node comes back."""
        if not hasattr(self, "machine"):
            return
        while self.change is not None:
            self.nodes[self.change.replica].up = True
            self.goes_on()
        self.nodes[self.truth[1]] = Node()
        for who, address in enumerate(NODES):
            self.is_healed(who)
            self.is_made_a_replica(address)
        for turn in range(300):
            for who, sentinel in enumerate(self.sentinels):
                if turn % 10 == 0:
                    self.polls(who)
                for _ in range(len(sentinel.said)):
                    self.hears(who)
            if self.verifying:
                self.verifies()
            if self.watching:
                self.watches()
            if self.target and not self.link:
                self.connects()
            self.time_passes(0.1)
        assert (self.machine.phase, self.machine.master) == (SERVING, self.truth[1])
        assert not self.machine.held


TestWorld = World.TestCase
TestWorld.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
