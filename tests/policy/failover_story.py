"""A failover as a transcript: a machine is told one event after the other.

The times in the transcripts are those measured with Valkey 9.1 and Redis 7.0, see
policy/topology.py.
"""

from __future__ import annotations

from sidecar.policy.failover import Failover, Phase
from sidecar.policy.failover_words import (
    Command,
    Observed,
    SwitchTo,
    Verified,
    Verify,
    WatchRole,
)
from sidecar.policy.topology import (
    Address,
    ReplicasChanged,
)
from tests.policy.failover_steps import (
    BACK,
    BEGUN,
    HOLD,
    HOLDING,
    RELEASE,
    SERVING,
    TICK,
    UP,
    A,
    answer,
    step,
    switched,
)


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
