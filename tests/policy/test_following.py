"""Which address of a name is the master: transcripts, and any sequence of events.

A transcript says what comes in, at which second, and what is ordered.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.policy.failover_words import HoldWrites, LinkUp, ReleaseWrites, SwitchTo
from sidecar.policy.following import (
    CUT,
    GRACE,
    LEFT,
    MOVE_WITHIN,
    Following,
    addresses_of,
)
from sidecar.policy.following_words import (
    Answered,
    Command,
    Follow,
    LinkDown,
    MadeReplica,
    Moving,
    Observed,
    Phase,
    Resolved,
    Retry,
    Role,
    Silence,
    Tick,
    Wait,
)
from sidecar.policy.topology import Address

A, B, C = ("10.0.0.1", 6379), ("10.0.0.2", 6379), ("10.0.0.3", 6379)
WAIT, HOLD = 2.0, 10.0
LOST, DEMOTED = LinkDown(False, False), LinkDown(True, False)
TICK = Tick(0.0)
FOLLOW = Follow(True)
AS_IT_IS = Follow(False)


def says(address: Address, role: Role) -> Answered:
    return Answered(address, role)


def served(*addresses: Address) -> Following:
    """A machine whose links lead to the first of these, the master."""
    machine = Following(WAIT, HOLD)
    machine.on(Resolved(addresses), 0.0)
    machine.on(says(addresses[0], Role.MASTER), 0.0)
    machine.on(LinkUp(), 0.0)
    assert machine.phase is Phase.SERVING
    return machine


def told(machine: Following, *events: Observed, at: float = 1.0) -> list[Command]:
    """What is ordered in answer to all of these."""
    return [command for event in events for command in machine.on(event, at)]


# The start


def test_a_master_is_followed_at_once() -> None:
    machine = Following(WAIT, HOLD)
    assert told(machine, Resolved((A, B))) == []
    assert told(machine, says(B, Role.MASTER)) == [FOLLOW, SwitchTo(B)]
    assert machine.settled
    assert told(machine, LinkUp()) == []
    assert machine.phase is Phase.SERVING
    assert machine.to_ask() == ()


def test_a_replica_from_the_start_is_served_as_it_is() -> None:
    machine = Following(WAIT, HOLD)
    assert told(machine, Resolved((A,)), says(A, Role.REPLICA)) == [AS_IT_IS, SwitchTo(A)]
    assert told(machine, LinkUp(), DEMOTED, LOST, LinkUp()) == []
    assert machine.to_ask() == (A,), "it may be made a master"
    assert told(machine, says(A, Role.MASTER)) == [FOLLOW]


def test_replicas_are_passed_over_while_another_answers_as_master() -> None:
    machine = Following(WAIT, HOLD)
    assert told(machine, Resolved((A, B, C)), says(A, Role.REPLICA), says(B, Role.REPLICA)) == []
    assert not machine.settled
    assert told(machine, says(C, Role.MASTER)) == [FOLLOW, SwitchTo(C)]


@pytest.mark.parametrize("silent", [None, Role.NONE, Role.LOADING])
def test_who_does_not_answer_is_waited_for_a_moment(silent: Role | None) -> None:
    machine = Following(WAIT, HOLD)
    events = [Resolved((A, B)), says(A, Role.REPLICA)]
    assert told(machine, *events, *([says(B, silent)] if silent else [])) == []
    assert told(machine, TICK, at=1.0 + GRACE) == [AS_IT_IS, SwitchTo(A)]


def test_nobody_answers() -> None:
    machine = Following(WAIT, HOLD)
    assert told(machine, Resolved((A, B)), says(A, Role.NONE)) == []
    assert not machine.settled
    assert told(machine, says(B, Role.NONE)) == []
    assert machine.settled
    assert told(machine, TICK, at=1.0 + GRACE) == []
    assert machine.pace == "slow"
    assert told(machine, says(B, Role.MASTER), at=90.0) == [FOLLOW, SwitchTo(B)]


def test_a_server_that_does_not_tell_is_taken_for_a_master() -> None:
    machine = Following(WAIT, HOLD)
    assert told(machine, Resolved((A,)), says(A, Role.UNTOLD)) == [FOLLOW, SwitchTo(A)]


# The master is lost


def test_a_link_that_was_only_cut() -> None:
    machine = served(A)
    assert told(machine, LOST) == []
    assert machine.to_ask() == (), "nobody is asked at once"
    assert told(machine, LinkUp()) == []
    assert machine.phase is Phase.SERVING


def test_it_comes_back() -> None:
    machine = served(A)
    assert told(machine, LOST) == []
    assert told(machine, TICK, at=1.0 + CUT) == []
    assert machine.to_ask() == (A,)
    assert told(machine, says(A, Role.NONE), at=1.2) == []
    assert told(machine, says(A, Role.LOADING), at=1.3) == [Wait(HOLD)]
    assert told(machine, says(A, Role.MASTER), at=1.4) == [FOLLOW, Retry()]
    assert told(machine, LinkUp(), at=1.4) == [Wait(WAIT)]
    assert machine.phase is Phase.SERVING


def test_the_first_answer_after_a_loss_skips_no_pause() -> None:
    """A server that cuts at every request is not dialled as fast as it answers."""
    machine = served(A)
    told(machine, LOST, Tick(0.0))
    told(machine, TICK, at=1.0 + CUT)
    assert told(machine, says(A, Role.MASTER), says(A, Role.MASTER), at=1.2) == []


def test_the_name_moves_after_it_has_closed() -> None:
    machine = served(A)
    told(machine, LOST)
    told(machine, TICK, says(A, Role.NONE), at=1.1)
    assert told(machine, Resolved((B,)), at=2.9) == []
    assert machine.to_ask() == (B,)
    assert told(machine, says(B, Role.REPLICA), at=2.9) == [Wait(HOLD)]
    assert told(machine, says(B, Role.MASTER), at=5.0) == [FOLLOW, SwitchTo(B)]
    assert told(machine, says(C, Role.MASTER), at=5.0) == [], "the link to B is about to come up"
    assert told(machine, LinkUp(), at=5.0) == [Wait(WAIT)]


def test_the_chosen_one_is_lost_before_its_link_is_up() -> None:
    machine = served(A)
    told(machine, LOST)
    told(machine, TICK, Resolved((B, C)), says(B, Role.MASTER), at=1.1)
    assert told(machine, says(B, Role.NONE), says(C, Role.MASTER), at=1.3) == [FOLLOW, SwitchTo(C)]


def test_nobody_comes_in_time() -> None:
    machine = served(A)
    told(machine, LOST)
    assert told(machine, TICK, says(A, Role.NONE), at=1.0 + WAIT) == []
    assert (machine.pace, machine.to_ask()) == ("slow", ()), "its links try it by themselves"
    assert told(machine, LinkUp(), at=50.0) == []
    assert machine.phase is Phase.SERVING


def test_it_answers_readonly() -> None:
    """Writes are held, and whoever says that it is the master gets them."""
    machine = served(A, B)
    assert told(machine, DEMOTED) == [Wait(HOLD), HoldWrites()]
    assert machine.to_ask() == (A, B)
    assert told(machine, LinkUp(), says(A, Role.REPLICA)) == []
    assert told(machine, says(B, Role.MASTER)) == [FOLLOW, SwitchTo(B)]
    assert told(machine, LinkUp()) == [Wait(WAIT), ReleaseWrites()]


@pytest.mark.parametrize("up", [True, False])
def test_it_gives_up_its_role_and_nobody_takes_it(up: bool) -> None:
    machine = served(A)
    told(machine, LinkDown(True, up), says(A, Role.REPLICA))
    assert told(machine, TICK, at=1.0 + HOLD - 0.1) == []
    expected = [AS_IT_IS, Wait(WAIT), Retry(), ReleaseWrites()]
    assert told(machine, TICK, at=1.0 + HOLD) == expected
    assert machine.phase is Phase.AS_IT_IS


def test_a_replica_answers_after_the_hold() -> None:
    machine = served(A)
    told(machine, LOST)
    told(machine, TICK, at=1.0 + HOLD)
    told(machine, Resolved((B,)), says(B, Role.REPLICA), at=20.0)
    assert told(machine, TICK, at=20.1) == [AS_IT_IS, Wait(WAIT), SwitchTo(B)]


def test_made_a_replica_on_purpose() -> None:
    """A client has sent REPLICAOF: it gets READONLY at once, as the server says it."""
    machine = served(A)
    told(machine, MadeReplica())
    assert told(machine, DEMOTED) == [AS_IT_IS, Retry()]
    assert told(machine, LinkUp(), says(A, Role.REPLICA)) == []
    assert told(machine, says(A, Role.MASTER), at=9.0) == [FOLLOW]


def test_an_untold_role_that_answers_readonly() -> None:
    """It may be the master again, or never was: nobody can tell, so the wait is short."""
    machine = Following(WAIT, HOLD)
    told(machine, Resolved((A,)), says(A, Role.UNTOLD), LinkUp(), at=0.0)
    told(machine, DEMOTED, LinkUp(), says(A, Role.UNTOLD))
    assert machine.phase is Phase.LOST
    commands = told(machine, TICK, at=1.0 + GRACE)
    assert commands == [AS_IT_IS, Wait(WAIT), Retry(), ReleaseWrites()]
    assert told(machine, Resolved((B,)), says(B, Role.UNTOLD)) == [FOLLOW, SwitchTo(B)]


def test_silence() -> None:
    """Nothing changes until another address says that it is the master."""
    machine = served(A)
    assert told(machine, Silence(True)) == []
    assert (machine.pace, machine.to_ask()) == ("fast", (A,))
    assert told(machine, says(A, Role.MASTER), says(A, Role.NONE), says(B, Role.REPLICA)) == []
    assert told(machine, Silence(False)) == []
    assert machine.to_ask() == ()
    told(machine, Silence(True), Resolved((B,)))
    assert told(machine, says(B, Role.MASTER)) == [FOLLOW, SwitchTo(B)]


# The name moves on while its master is there


def test_a_planned_move() -> None:
    """What is under way is waited for, so no write is uncertain."""
    machine = served(A)
    assert told(machine, Resolved((B,))) == []
    assert machine.to_ask() == (B,)
    assert told(machine, says(B, Role.REPLICA)) == []
    assert told(machine, says(B, Role.MASTER)) == [HoldWrites()]
    assert told(machine, Tick(0.2), at=1.1) == []
    assert told(machine, Tick(0.05), at=1.2) == [FOLLOW, SwitchTo(B)]
    assert told(machine, LinkUp(), at=1.3) == [ReleaseWrites()]


def test_a_planned_move_waits_within_bounds() -> None:
    machine = served(A)
    told(machine, Resolved((B,)), says(B, Role.MASTER))
    assert told(machine, Tick(5.0), at=1.0 + MOVE_WITHIN) == [FOLLOW, SwitchTo(B)]


def test_a_record_more_is_no_move() -> None:
    machine = served(A)
    assert told(machine, Resolved((B, A)), says(B, Role.MASTER)) == []


# The server announces that it goes away


def test_it_names_another_address() -> None:
    """Which has the links once it says that it is the master; old records do not lead back."""
    machine = served(A)
    assert told(machine, Moving((B,), 20.0)) == []
    assert machine.to_ask() == (A, B)
    assert told(machine, says(B, Role.LOADING), says(A, Role.MASTER)) == []
    assert told(machine, says(B, Role.MASTER)) == [HoldWrites()]
    assert told(machine, Tick(0.0), at=1.1) == [FOLLOW, SwitchTo(B)]
    assert told(machine, LinkUp(), Resolved((A,)), at=1.2) == [ReleaseWrites()]
    assert told(machine, says(A, Role.MASTER), at=1.3) == []
    assert machine.to_ask() == (B,), "the name does not list it yet"
    assert told(machine, Resolved((B,)), at=3.0) == []
    assert machine.to_ask() == ()


def test_records_count_again_in_the_end() -> None:
    machine = served(A)
    told(machine, Moving((B,), 20.0), says(B, Role.MASTER), TICK, LinkUp())
    told(machine, TICK, at=2.0)
    told(machine, LinkUp(), at=2.0)
    assert machine.address == B
    assert told(machine, Resolved((A,)), says(A, Role.MASTER), at=80.9) == []
    told(machine, TICK, at=1.0 + 20.0 + LEFT)
    assert told(machine, says(A, Role.MASTER), at=81.1) == [HoldWrites()]


def moved_to_b() -> Following:
    """A machine that an announcement has led from A to B, and whose name still lists A."""
    machine = served(A)
    told(machine, Moving((B,), 2.0), says(B, Role.MASTER))
    told(machine, TICK, LinkUp(), Resolved((A,)), at=1.1)
    assert machine.address == B
    assert machine.phase is Phase.SERVING
    return machine


def test_who_went_away_is_asked_again_once_the_other_is_gone() -> None:
    machine = moved_to_b()
    told(machine, LOST, at=5.0)
    told(machine, TICK, at=5.1)
    assert machine.to_ask() == (B,)
    assert told(machine, says(B, Role.NONE), at=5.2) == []
    assert machine.to_ask() == (A, B)
    assert told(machine, says(A, Role.MASTER), at=5.3) == [FOLLOW, SwitchTo(A)]
    told(machine, LinkUp(), at=5.4)
    assert machine.phase is Phase.SERVING
    assert machine.to_ask() == ()


def test_it_goes_back_to_where_the_name_leads() -> None:
    machine = moved_to_b()
    told(machine, Moving((), 2.0), at=5.0)
    assert machine.to_ask() == (B,)
    told(machine, TICK, at=6.0)
    assert machine.to_ask() == (A, B)
    assert told(machine, says(A, Role.MASTER), at=6.1) == [HoldWrites()]
    assert told(machine, TICK, at=6.2) == [FOLLOW, SwitchTo(A)]
    assert told(machine, LinkUp(), at=6.3) == [ReleaseWrites()]


def test_it_goes_before_the_other_is_ready() -> None:
    machine = served(A)
    told(machine, Moving((B,), 20.0), LOST)
    told(machine, TICK, at=1.1)
    assert machine.to_ask() == (A, B)
    assert told(machine, says(A, Role.NONE), says(B, Role.MASTER), at=1.2) == [FOLLOW, SwitchTo(B)]


def test_the_other_is_never_ready() -> None:
    """The present one serves for as long as it is there."""
    machine = served(A)
    told(machine, Moving((B,), 20.0))
    assert told(machine, says(B, Role.NONE), TICK, at=30.0) == []
    assert told(machine, LOST, at=30.0) == []
    told(machine, TICK, at=30.1)
    assert told(machine, says(A, Role.NONE), says(A, Role.MASTER), at=30.2) == [FOLLOW, Retry()]


def test_it_names_nobody() -> None:
    """Half of the time is left for what the name leads to."""
    machine = served(A)
    assert told(machine, Moving((), 20.0), TICK, at=1.0) == []
    assert told(machine, TICK, at=10.9) == []
    assert told(machine, TICK, at=11.0) == [HoldWrites()]
    assert told(machine, TICK, at=11.1) == [FOLLOW, SwitchTo(A)]
    assert told(machine, LinkUp(), at=11.2) == [ReleaseWrites()]


def test_it_names_nobody_and_the_name_has_others() -> None:
    machine = served(A, B)
    told(machine, Moving((), 20.0), TICK, at=1.0)
    assert told(machine, TICK, at=11.0) == []
    assert machine.to_ask() == (A, B)
    assert told(machine, says(B, Role.MASTER), at=11.1) == [HoldWrites()]


@pytest.mark.parametrize("event", [Moving((A,), 5.0), Moving((B,), 5.0)])
def test_an_announcement_that_is_no_news(event: Moving) -> None:
    """It names itself; or was heard before, or while there is no master."""
    machine = served(A)
    told(machine, Moving((B,), 20.0))
    until = dict(machine.leaving)
    assert told(machine, event) == []
    assert machine.leaving == until
    assert told(served(A), LOST, event) == []


def test_addresses_of() -> None:
    found = [
        (2, 1, 6, "", A),
        (2, 1, 6, "", B),
        (10, 1, 6, "", ("::1", 6379, 0, 0)),
        (2, 1, 6, "", A),
    ]
    assert addresses_of(found) == (A, B, ("::1", 6379))


# Whatever happens

_ADDRESSES = st.lists(st.sampled_from([A, B, C]), min_size=1, max_size=3, unique=True).map(tuple)
_EVENTS: st.SearchStrategy[Observed] = st.one_of(
    st.builds(Resolved, _ADDRESSES),
    st.builds(Answered, st.sampled_from([A, B, C]), st.sampled_from(Role)),
    st.just(LinkUp()),
    st.builds(LinkDown, st.booleans(), st.booleans()),
    st.builds(Silence, st.booleans()),
    st.just(MadeReplica()),
    st.builds(Moving, st.lists(st.sampled_from([A, B, C]), max_size=2).map(tuple), st.just(2.0)),
    st.builds(Tick, st.sampled_from([0.0, 0.3, 5.0])),
)
_STEPS = st.lists(st.tuples(st.sampled_from([0.0, 0.06, 0.5, 3.0]), _EVENTS), max_size=60)


@settings(deadline=None)
@given(_STEPS)
def test_any_sequence(steps: list[tuple[float, Observed]]) -> None:
    """Links go to a master, or are told to be content with less; and no write is held for ever."""
    machine, now = Following(WAIT, HOLD), 0.0
    held = masters = False
    for pause, event in steps:
        now += pause
        for command in machine.on(event, now):
            if isinstance(command, Follow):
                masters = command.masters
            elif isinstance(command, SwitchTo):
                role = machine.answers.get(command.address)
                assert not masters or role in (Role.MASTER, Role.UNTOLD)
                assert command.address == machine.address
            elif isinstance(command, HoldWrites | ReleaseWrites):
                assert held != isinstance(command, HoldWrites)
                held = not held
        assert held == machine.held
        assert masters == (machine.phase in (Phase.SERVING, Phase.LOST))
        if machine.phase is Phase.SERVING:
            assert machine.address is not None
    for later in (now, now + MOVE_WITHIN, now + HOLD, now + 2 * HOLD):
        machine.on(TICK, later)
    assert not machine.held or machine.phase is Phase.LOST
    if machine.phase is Phase.LOST:
        machine.on(TICK, now + 4 * HOLD)
        assert not machine.held
