"""What holds of every state of the failover machine, and of every step it takes.

`step` feeds one event to a machine and looks at all that can be said of any step; the tests feed
it events of every kind. Times in seconds.
"""

from __future__ import annotations

from dataclasses import replace

from sidecar.policy.failover import (
    CLOSING,
    VERIFY_FOR,
    Failover,
    Phase,
)
from sidecar.policy.failover_words import (
    AskSentinels,
    Command,
    HoldWrites,
    LinkDown,
    LinkUp,
    Observed,
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
