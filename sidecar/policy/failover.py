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
(+switch-master) has no epoch. It counts at once, unless it names a master that was left before,
or comes while another one is announced: that may be a late Sentinel, so it takes an answer with
a newer epoch to go there. Each Sentinel is asked when it has announced something: an answer that
is outdated shows that the announcement was late. A master that no answer has named, and that is
lost for long, gives way to the one that the newest epoch names, if that one says it is the master.
A master that says itself whom it follows is believed, since it has given up being the master.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from sidecar.policy.failover_words import (
    AskSentinels,
    Command,
    HoldWrites,
    LinkDown,
    LinkUp,
    NotMaster,
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


@dataclass
class Failover:
    """The state of one upstream. Times in seconds of one monotonic clock.

    `early`: go to the chosen replica as soon as it is promoted, before the announcement.
    `hold`: longest time writes are held back for a failover that does not come about.

    `announced`: the candidate is certain, a failover that is given up does not take it back.
    `epoch`: the newest known, and `named` whom the first answer with it named.
    `patience`: until then a master that is lost is waited for, though the newest epoch may name
    another.
    `begun`: a failover is under way. `coordinated`: the old master has, or may have, given up its
    role by itself. `closing`: writes are held for what follows a coordinated failover only.
    `left`: those who were master, or announced, and are not any more.
    """

    early: bool
    hold: float
    phase: Phase = Phase.SEARCHING
    master: Address | None = None
    candidate: Address | None = None
    announced: bool = False
    link_up: bool = False
    epoch: int = -1
    named: Address | None = None
    patience: float = 0.0
    held: bool = False
    begun: bool = False
    coordinated: bool = False
    closing: bool = False
    deadline: float | None = None
    left: set[Address] = field(default_factory=set)

    def on(self, event: Observed, now: float) -> list[Command]:
        """Take in one event. The commands are to be done in order."""
        handle = _TABLE.get(type(event))
        return [] if handle is None else handle(self, event, now)

    # What Sentinels say

    def _named(self, event: MasterNamed, now: float) -> list[Command]:
        address, newer = event.address, False
        if event.epoch is not None:
            if event.epoch < self.epoch:
                return self._outdated(address, now)
            newer = event.epoch > self.epoch
            if newer:
                self.epoch, self.named = event.epoch, address
        if address == self.master:
            return self._master_named(event, newer, now)
        if address == self.candidate:
            if event.switched or newer:
                self._announced(now)
            return []
        if newer or self._counts(event):
            return self._switching(address, now, announced=True)
        if event.switched:
            return [AskSentinels()]
        if address == self.named and self.phase is Phase.LOST and now >= self.patience:
            # No answer has named the present master, and it can't be reached. It was announced
            # late, or promoted by a Sentinel that told nobody.
            commands = self._switching(address, now, announced=False)
            self.deadline = now + VERIFY_FOR
            return commands
        return []

    def _counts(self, event: MasterNamed) -> bool:
        """Whether another master is to be believed in without a newer epoch."""
        if event.address in self.left:
            return False
        if event.epoch is None:
            return not self.announced
        # A Sentinel that has just learnt of another master may tell it with the old epoch.
        return self.phase in (Phase.SEARCHING, Phase.LOST)

    def _outdated(self, address: Address, now: float) -> list[Command]:
        late = self.announced and address == self.candidate and address != self.named
        return self._drop(now) if late and not self.coordinated else []

    def _master_named(self, event: MasterNamed, newer: bool, now: float) -> list[Command]:
        if self.phase is Phase.SWITCHING:
            # Elected after the candidate, which is not what the master itself says, though.
            return self._drop(now) if newer and not self.coordinated else []
        if event.switched and self.held:
            return self._release()
        return []

    def _announced(self, now: float) -> None:
        if not self.announced:
            self.announced = True
            self.deadline = now + VERIFY_FOR

    def _switching(
        self, address: Address, now: float, *, announced: bool, eager: bool = False
    ) -> list[Command]:
        if self.announced and self.candidate is not None:
            self.left.add(self.candidate)
        self.candidate = address
        self.announced = self.coordinated = False
        self.phase = Phase.SWITCHING
        commands = self._hold(now)
        if announced:
            self._announced(now)
        return [*commands, Verify(address, eager)]

    def _failover_begun(self, event: FailoverBegun, now: float) -> list[Command]:
        self.begun = True
        return self._hold(now)

    def _promotion(self, event: PromotionAwaited, now: float) -> list[Command]:
        if event.replica == self.master:
            return []  # late: the switch to it was seen by other means
        self.begun = True
        if not self.early or event.replica == self.candidate or self.announced:
            return self._hold(now)
        return self._switching(event.replica, now, announced=False, eager=True)

    def _promotion_seen(self, event: PromotionSeen, now: float) -> list[Command]:
        if not self.coordinated or event.replica != self.master or self.held:
            return []
        self.coordinated = False
        commands = self._hold(now)
        self.closing = True
        self.deadline = now + CLOSING
        return commands

    def _aborted(self, event: FailoverAborted, now: float) -> list[Command]:
        if self.phase is Phase.SWITCHING and self.announced:
            return []
        return self._give_up()

    def _down(self, event: MasterDown, now: float) -> list[Command]:
        # Before a quorum agrees it may be that one Sentinel's own network.
        return self._hold(now) if event.kind == "objective" else []

    def _up(self, event: MasterUp, now: float) -> list[Command]:
        if self.begun or self.closing or self.phase is Phase.SWITCHING:
            return []
        return self._release()

    # What links and probes show

    def _link_up(self, event: LinkUp, now: float) -> list[Command]:
        self.link_up = True
        if self.phase is not Phase.LOST:
            return []
        self.phase = Phase.SERVING
        if self.closing:
            return self._release()
        return self._watch() if self.held else []

    def _link_down(self, event: LinkDown, now: float) -> list[Command]:
        if self.link_up:
            self.link_up = False
            self.patience = now + self.hold
        if self.phase is Phase.SERVING:
            self.phase = Phase.LOST
        return [AskSentinels()]

    def _verified(self, event: Verified, now: float) -> list[Command]:
        if event.address != self.candidate or self.phase is not Phase.SWITCHING:
            return []
        if self.link_up and not self.announced:
            # The old master is there, and may have given up its role without our seeing it.
            self.coordinated = True
        return self._switch(now + self.hold)

    def _not_master(self, event: NotMaster, now: float) -> list[Command]:
        if event.address != self.master:
            return []
        if self.phase is Phase.SWITCHING:
            self.coordinated = self.coordinated or event.follows == self.candidate
            return []
        if event.follows is None or event.follows == self.master:
            return [AskSentinels()]  # it loads: the links show when that costs them something
        commands = self._switching(event.follows, now, announced=True)
        self.coordinated = True
        return [*commands, AskSentinels()]

    def _tick(self, event: Tick, now: float) -> list[Command]:
        if self.deadline is None or now < self.deadline:
            return []
        if self.phase is Phase.SWITCHING and self.announced:
            # By its own word the old one is no master: the Sentinels will take a second to know.
            patience = now + self.hold if self.coordinated else now
            return [*self._switch(patience), AskSentinels()]
        return [*self._give_up(), AskSentinels()]

    # Changes of state

    def _hold(self, now: float) -> list[Command]:
        if self.closing:  # what is held for a moment is held for a failover now
            self.closing = False
            self.deadline = None
        if self.deadline is None:
            self.deadline = now + self.hold
        if self.held:
            return []
        self.held = True
        return [HoldWrites(), *self._watch()]

    def _watch(self) -> list[Command]:
        # In a coordinated failover the master gives up its role by itself, a second before the
        # Sentinels announce it.
        if self.phase is not Phase.SERVING or self.master is None:
            return []
        return [WatchRole(self.master)]

    def _release(self) -> list[Command]:
        self.deadline = None
        self.begun = self.closing = False
        if not self.held:
            return []
        self.held = False
        return [ReleaseWrites()]

    def _give_up(self) -> list[Command]:
        """The failover does not come about: all is as it was."""
        return [*self._stay(), *self._release()]

    def _drop(self, now: float) -> list[Command]:
        """The candidate was master before the present one: only a failover goes on holding."""
        if not self.begun:
            return self._give_up()
        self.deadline = now + self.hold
        return [*self._stay(), *self._watch()]

    def _stay(self) -> list[Command]:
        if self.phase is not Phase.SWITCHING:
            return []
        self.candidate = None
        self.announced = self.coordinated = False
        self.phase = Phase.SERVING if self.link_up else Phase.LOST
        if self.master is None:
            self.phase = Phase.SEARCHING
        return [StopVerifying()]

    def _switch(self, patience: float) -> list[Command]:
        assert self.candidate is not None
        if self.master is not None:
            self.left.add(self.master)
        self.master, self.candidate = self.candidate, None
        self.left.discard(self.master)
        self.patience = patience
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
