"""Which node is the master, and what to do while that changes. A pure state machine.

Events go in (what Sentinels say, what links show, the time), commands come out, in the order in
which they are to be done. Nothing here connects, waits or reads a clock; sidecar.proxy.master
does what is decided here, and the links verify `ROLE` once more for themselves, so a wrong
decision costs time and never sends a command to a node that does not say it is the master.

Phases, for one upstream:

    SEARCHING    no master has been verified yet
    SERVING      the master's link is up
    LOST         it is not: requests wait for it, or for another master
    SWITCHING    another master is named: it is being verified, then links change over

Beside the phase, writes are held back (`held`) from the first sign that the Sentinels are about
to replace the master, since whatever it still acknowledges would be lost with it. The end of
that is the switch, an abort, the master's return, or a deadline.

Whom to believe. An answer (MasterNamed, not switched) carries the configuration epoch: older
than the newest known is a Sentinel that has been cut off, and is ignored. An announcement
(+switch-master) has no epoch. It counts at once, unless it names a master that was left before:
that may be a late Sentinel, so it takes an answer with a newer epoch to go back there. A master
that says itself whom it follows is believed, since it has given up being the master.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from sidecar.policy.topology import (
    Address,
    Event,
    FailoverAborted,
    FailoverBegun,
    MasterDown,
    MasterNamed,
    MasterUp,
    PromotionAwaited,
    PromotionSeen,
)

# A coordinated failover ends with the Sentinels closing all connections of the new master, too: for
# this long writes are kept from being in flight then.
CLOSING = 0.1

# An announced master that can't be verified for this long: the links go over to it all the same,
# and wait there. The old one may not get another write, and its reads grow stale.
VERIFY_FOR = 1.0


class Phase(Enum):
    """See the module's head."""

    SEARCHING = "searching"
    SERVING = "serving"
    LOST = "lost"
    SWITCHING = "switching"


# What links and probes show.


@dataclass(frozen=True)
class LinkUp:
    """The default identity's link is up, on the present master, which has said that it is one."""


@dataclass(frozen=True)
class LinkDown:
    """It is not, or the server said that it did not execute a command (READONLY, LOADING)."""


@dataclass(frozen=True)
class Verified:
    """This node says that it is the master."""

    address: Address


@dataclass(frozen=True)
class NotMaster:
    """This node says that it is not the master, and perhaps whom it follows."""

    address: Address
    follows: Address | None


@dataclass(frozen=True)
class Tick:
    """Time passes."""


Observed = Event | LinkUp | LinkDown | Verified | NotMaster | Tick


# What is to be done.


@dataclass(frozen=True)
class Verify:
    """Ask this node for its role until it is the master, in place of any other being asked."""

    address: Address
    eager: bool = False


@dataclass(frozen=True)
class WatchRole:
    """Until writes are released: ask the master for its role, and say so when it is none."""

    address: Address


@dataclass(frozen=True)
class StopVerifying:
    """The candidate is none any more."""


@dataclass(frozen=True)
class HoldWrites:
    """Keep back what may change data."""


@dataclass(frozen=True)
class ReleaseWrites:
    """Let writes go on."""


@dataclass(frozen=True)
class SwitchTo:
    """This is the master now: close every link to the old one, connect to it."""

    address: Address


@dataclass(frozen=True)
class AskSentinels:
    """Ask all Sentinels for the master now."""


Command = Verify | WatchRole | StopVerifying | HoldWrites | ReleaseWrites | SwitchTo | AskSentinels


@dataclass
class Failover:
    """The state of one upstream. Times in seconds of one monotonic clock.

    `early`: go to the chosen replica as soon as it is promoted, before the announcement.
    `hold`: longest time writes are held back for a failover that does not come about.
    """

    early: bool
    hold: float
    phase: Phase = Phase.SEARCHING
    master: Address | None = None
    candidate: Address | None = None
    announced: bool = False
    link_up: bool = False
    epoch: int = -1
    held: bool = False
    begun: bool = False
    coordinated: bool = False
    closing: bool = False
    deadline: float | None = None
    left: dict[Address, int] = field(default_factory=dict)

    def on(self, event: Observed, now: float) -> list[Command]:
        """Take in one event. The commands are to be done in order."""
        handle = _TABLE.get(type(event))
        return [] if handle is None else handle(self, event, now)

    # What Sentinels say

    def _named(self, event: MasterNamed, now: float) -> list[Command]:
        address = event.address
        if event.epoch is not None:
            if event.epoch < self.epoch:
                return []
            newer = event.epoch > self.epoch
            self.epoch = event.epoch
        else:
            newer = address not in self.left
        if address == self.master:
            return self._master_confirmed(event, now)
        if address == self.candidate:
            if event.switched:
                self._announced(now)
            return []
        if self.phase in (Phase.SERVING, Phase.SWITCHING) and not newer:
            # A late Sentinel, or a way back: an answer with its epoch tells.
            return [AskSentinels()] if event.switched else []
        if address in self.left and not newer:
            return [AskSentinels()] if event.switched else []
        return self._switching(address, now, announced=True)

    def _master_confirmed(self, event: MasterNamed, now: float) -> list[Command]:
        if event.switched and self.held and self.phase is not Phase.SWITCHING:
            return self._release()
        return []

    def _announced(self, now: float) -> None:
        if not self.announced:
            self.announced = True
            self.deadline = now + VERIFY_FOR

    def _switching(
        self, address: Address, now: float, *, announced: bool, eager: bool = False
    ) -> list[Command]:
        self.candidate = address
        self.announced = False
        if announced:
            self._announced(now)
        self.phase = Phase.SWITCHING
        return [*self._hold(now), Verify(address, eager)]

    def _failover_begun(self, event: FailoverBegun, now: float) -> list[Command]:
        self.begun = True
        self.coordinated = False
        return self._hold(now)

    def _promotion(self, event: PromotionAwaited, now: float) -> list[Command]:
        self.begun = True
        if not self.early or event.replica in (self.master, self.candidate) or self.announced:
            return self._hold(now)
        return self._switching(event.replica, now, announced=False, eager=True)

    def _promotion_seen(self, event: PromotionSeen, now: float) -> list[Command]:
        if not self.coordinated or event.replica != self.master or self.held:
            return []
        self.coordinated = False
        self.closing = True
        self.deadline = now + CLOSING
        return self._hold(now)

    def _aborted(self, event: FailoverAborted, now: float) -> list[Command]:
        if self.phase is Phase.SWITCHING and self.announced:
            return []
        return self._give_up()

    def _down(self, event: MasterDown, now: float) -> list[Command]:
        # Before a quorum agrees it may be that one Sentinel's own network.
        return self._hold(now) if event.kind == "objective" else []

    def _up(self, event: MasterUp, now: float) -> list[Command]:
        if self.begun or self.phase is Phase.SWITCHING:
            return []
        return self._release()

    # What links and probes show

    def _link_up(self, event: LinkUp, now: float) -> list[Command]:
        self.link_up = True
        if self.phase is Phase.LOST:
            self.phase = Phase.SERVING
            if self.closing:
                return self._release()
        return []

    def _link_down(self, event: LinkDown, now: float) -> list[Command]:
        self.link_up = False
        if self.phase is Phase.SERVING:
            self.phase = Phase.LOST
        return [AskSentinels()]

    def _verified(self, event: Verified, now: float) -> list[Command]:
        if event.address != self.candidate or self.phase is not Phase.SWITCHING:
            return []
        return self._switch()

    def _not_master(self, event: NotMaster, now: float) -> list[Command]:
        if event.address != self.master or self.phase is Phase.SWITCHING:
            return []
        self.phase = Phase.LOST
        if event.follows is None or event.follows == self.master:
            return [AskSentinels()]
        self.coordinated = True
        return [*self._switching(event.follows, now, announced=True), AskSentinels()]

    def _tick(self, event: Tick, now: float) -> list[Command]:
        if self.deadline is None or now < self.deadline:
            return []
        if self.phase is Phase.SWITCHING and self.announced:
            return [*self._switch(), AskSentinels()]
        return [*self._give_up(), AskSentinels()]

    # Changes of state

    def _hold(self, now: float) -> list[Command]:
        if self.held:
            return []
        self.held = True
        if self.deadline is None:
            self.deadline = now + self.hold
        if self.phase is Phase.SERVING and self.master is not None:
            # In a coordinated failover it gives up its role by itself, a second before the
            # Sentinels announce it.
            return [HoldWrites(), WatchRole(self.master)]
        return [HoldWrites()]

    def _release(self) -> list[Command]:
        self.deadline = None
        self.begun = self.closing = False
        if not self.held:
            return []
        self.held = False
        return [ReleaseWrites()]

    def _give_up(self) -> list[Command]:
        """The failover does not come about: all is as it was."""
        commands: list[Command] = []
        if self.phase is Phase.SWITCHING:
            commands.append(StopVerifying())
            self.candidate = None
            self.phase = Phase.SERVING if self.link_up else Phase.LOST
            if self.master is None:
                self.phase = Phase.SEARCHING
        return commands + self._release()

    def _switch(self) -> list[Command]:
        assert self.candidate is not None
        if self.master is not None:
            self.left[self.master] = self.epoch
        self.master, self.candidate = self.candidate, None
        self.left.pop(self.master, None)
        self.announced = self.link_up = False
        self.phase = Phase.LOST
        return [SwitchTo(self.master), *self._release()]


_TABLE: dict[type, Callable[[Failover, Any, float], list[Command]]] = {
    MasterNamed: Failover._named,
    FailoverBegun: Failover._failover_begun,
    PromotionAwaited: Failover._promotion,
    PromotionSeen: Failover._promotion_seen,
    FailoverAborted: Failover._aborted,
    MasterDown: Failover._down,
    MasterUp: Failover._up,
    LinkUp: Failover._link_up,
    LinkDown: Failover._link_down,
    Verified: Failover._verified,
    NotMaster: Failover._not_master,
    Tick: Failover._tick,
}
