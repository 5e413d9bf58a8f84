"""Which of a name's addresses is the master, for an upstream that is one address. A pure state
machine.

A managed service, or a Service of Kubernetes, is one name. When its master is replaced, the name
gets another address, or one of its addresses becomes the master, and nobody announces it. What
tells are the links (lost, or answered READONLY), the servers' own answers about their role, and the
name's records. Events go in, commands come out, in the order in which they are to be done. Nothing
here connects, resolves or reads a clock; sidecar.proxy.following does what is decided here.

Phases:

    SEARCHING   nobody has been asked yet, or nobody has answered
    SERVING     the links lead to a server that says it is the master (or does not tell)
    LOST        they do not: requests wait, and every address of the name is asked for its role
    AS_IT_IS    no address says it is the master: one that answers is served as it is, READONLY
                errors included, and the others are asked now and then

Whom to believe. The name says where to look, never who the master is: what a server says of itself
counts, and no time to live does. While the present master is there and says so, a record that has
changed means a planned move: writes are held until those under way are answered, then the links go
over. A server that refuses to tell its role (by ACL, or since it is a proxy) is taken for a master
until it answers READONLY, if no server of the name has ever told its role.

A server may announce that it goes away. Then the links go over before it does, as in a planned
move: to the address that it names, once that one says it is the master; or, where it names none, to
what the name leads to after half of the time.

From AS_IT_IS there is a way back: an upstream that was a replica from the start, on purpose, stays
one for as long as no address says it is the master. It is also where LOST ends after `hold`
seconds, if somebody answers: whoever waited then gets what the server says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from sidecar.policy.failover_words import HoldWrites, LinkUp, ReleaseWrites, SwitchTo
from sidecar.policy.following_words import (
    Answered,
    Command,
    Follow,
    LinkDown,
    MadeReplica,
    Moving,
    Observed,
    Pace,
    Phase,
    Resolved,
    Retry,
    Role,
    Silence,
    Tick,
    Wait,
)
from sidecar.policy.topology import Address

# Seconds. An address that has not answered for so long after the start is not waited for. As long
# waits a READONLY from a server that never said it was a master.
GRACE = 1.0
# A planned move waits so long for the replies under way.
MOVE_WITHIN = 1.0
# A REPLICAOF that a client sent has shown its effect by then.
ON_PURPOSE = 3.0
# A link that was only cut is back by then; before that nobody is asked.
CUT = 0.05
# An address whose server has announced that it goes away is not chosen again for so long after the
# announced moment: records of the name that still list it are old. Unless the one in its place is
# gone as well, or a later announcement says to go where the name leads.
LEFT = 60.0

_ANSWERING = (Role.REPLICA, Role.LOADING, Role.UNTOLD)


@dataclass
class Following:
    """The state of one upstream. Times in seconds of one monotonic clock.

    `wait`: how long requests wait for a server that is gone, and `hold`: for a master, once a
    server has said that it is none (any more). `address`: where the links lead, None before the
    first answer. `since`: since when there is no master. `refused`: who has answered READONLY on a
    link since it was last known to be the master. `proven`: a server has said that it is the
    master. `over`: the wait is over, and nobody answers. `announced`: addresses beside the name's,
    that servers have named, and until when they count; `leaving`: those whose servers go away, and
    until when they are not chosen again. `moves_at`: when the links are to be made anew.
    """

    wait: float
    hold: float
    phase: Phase = Phase.SEARCHING
    address: Address | None = None
    addresses: tuple[Address, ...] = ()
    answers: dict[Address, Role] = field(default_factory=dict)
    link_up: bool = False
    held: bool = False
    since: float | None = None
    refused: set[Address] = field(default_factory=set)
    proven: bool = False
    doubted: bool = False
    searching: bool = False
    waits_for_master: bool = False
    over: bool = False
    moving: Address | None = None
    held_at: float = 0.0
    purpose: float = 0.0
    announced: dict[Address, float] = field(default_factory=dict)
    leaving: dict[Address, float] = field(default_factory=dict)
    moves_at: float | None = None

    def on(self, event: Observed, now: float) -> list[Command]:
        """Take in one event. The commands are to be done in order."""
        return _TABLE[type(event)](self, event, now)

    @property
    def patience(self) -> float:
        """How long requests wait now."""
        return self.hold if self.waits_for_master else self.wait

    # What the search is to do

    @property
    def pace(self) -> Pace:
        """How often to resolve and to ask."""
        if self.phase is Phase.SERVING:
            return "fast" if self.doubted else "slow"
        if self.phase is Phase.AS_IT_IS:
            return "slow" if self.link_up else "fast"
        return "slow" if self.over else "fast"

    def to_ask(self) -> tuple[Address, ...]:
        """The addresses that are to be asked for their role."""
        if self.phase is Phase.LOST:
            if not self.searching:
                return ()
            # Its links try the present one by themselves.
            return tuple(a for a in self._candidates if not (self.over and a == self.address))
        if self.phase is not Phase.SERVING or self.doubted or self._to_leave:
            return self._candidates
        return ()

    @property
    def _candidates(self) -> tuple[Address, ...]:
        """The addresses that the links may lead to."""
        every = tuple(dict.fromkeys((*self.addresses, *self.announced)))
        found = tuple(a for a in every if a == self.address or a not in self.leaving)
        alone = all(address == self.address for address in found)
        gone = self.phase is Phase.LOST and self._silent(self.address)
        return every if alone and gone else found

    @property
    def _to_leave(self) -> bool:
        """Whether a master elsewhere is to be followed although the present one serves."""
        mine = self.address
        return mine is not None and (mine in self.leaving or mine not in self.addresses)

    @property
    def settled(self) -> bool:
        """Whether it is known where the links are to lead, or that nobody can tell."""
        if self.phase is not Phase.SEARCHING or self.over:
            return True
        answers = [self.answers.get(address) for address in self.addresses]
        return bool(answers) and all(answer is Role.NONE for answer in answers)

    # What names and servers say

    def _resolved(self, event: Resolved, now: float) -> list[Command]:
        self.addresses = event.addresses
        for address in [*self.answers]:
            if address not in self._candidates and address != self.address:
                del self.answers[address]
        if self.moving is not None and self.moving not in self._candidates:
            return self._stay()
        return self._settle(now) if self.phase is Phase.SEARCHING else []

    def _answered(self, event: Answered, now: float) -> list[Command]:
        address, role = event.address, event.role
        before = self.answers.get(address)
        self.answers[address] = role
        if role is Role.MASTER:
            self.proven = True
        match self.phase:
            case Phase.SEARCHING:
                return self._serve(address) if role is Role.MASTER else self._settle(now)
            case Phase.LOST:
                return self._answered_while_lost(address, role, before)
            case Phase.AS_IT_IS:
                return self._answered_as_it_is(address, role)
        return self._answered_while_served(address, role, now)

    def _answered_while_lost(
        self, address: Address, role: Role, before: Role | None
    ) -> list[Command]:
        if not self._may_serve(address, role):
            return self._wait_for_master() if role in (Role.REPLICA, Role.LOADING) else []
        mine = self.address
        if address == mine and not self.link_up:
            # The first answer since the loss is no news: the links are about to try.
            return [] if before is None or self._may_serve(mine, before) else self._serve(address)
        if address != mine and self._may_serve(mine, self.answers.get(mine or ("", 0))):
            return []  # it has been chosen, and its link is about to come up
        return self._serve(address)

    def _wait_for_master(self) -> list[Command]:
        """Somebody answers who is no master: there will be one."""
        if self.waits_for_master:
            return []
        self.waits_for_master = True
        return [Wait(self.patience)]

    def _may_serve(self, address: Address | None, role: Role | None) -> bool:
        left = address in self.leaving and address != self.address
        if left and address not in self._candidates:
            return False
        if role is Role.UNTOLD:
            return not self.proven and address not in self.refused
        return role is Role.MASTER

    def _answered_as_it_is(self, address: Address, role: Role) -> list[Command]:
        if role is Role.MASTER:
            return self._serve(address)
        if role is Role.NONE or address == self.address:
            return []
        gone = self.address not in self.addresses
        if role is Role.UNTOLD and gone:
            return self._serve(address)
        if gone or (not self.link_up and self._silent(self.address)):
            return self._switch(address)
        return []

    def _silent(self, address: Address | None) -> bool:
        return address is None or self.answers.get(address) is Role.NONE

    def _answered_while_served(self, address: Address, role: Role, now: float) -> list[Command]:
        if address == self.address:
            return self._demoted(address, now) if role is Role.REPLICA else []
        if not self._may_serve(address, role):
            return self._stay() if address == self.moving else []
        if self.doubted:
            return self._serve(address)
        if self.moving is None and self._to_leave:
            self.moving = address
            return self._hold(now)
        return []

    def _goes_away(self, event: Moving, now: float) -> list[Command]:
        """The present server announces it. Elsewhere, or twice, it is no news."""
        mine = self.address
        if mine is None or mine in self.leaving or self.phase is not Phase.SERVING:
            return []
        others = [address for address in event.addresses if address != mine]
        until = now + event.within + LEFT
        for address in others:
            self.leaving.pop(address, None)
            self.announced[address] = until
        if others:
            self.leaving[mine] = until
        else:
            self.moves_at = now + event.within / 2
        return []

    def _renew(self, now: float) -> list[Command]:
        """The announced moment is near, and no address was named: leave for another one of the
        name, or make the links anew if it has no other."""
        self.moves_at = None
        mine = self.address
        if mine is None or self.phase is not Phase.SERVING or self.moving is not None:
            return []
        for address in self.addresses:
            self.leaving.pop(address, None)  # the name leads there now
        if any(address != mine for address in self._candidates):
            self.leaving[mine] = now + LEFT
            return []
        self.moving = mine
        return self._hold(now)

    def _stay(self) -> list[Command]:
        """The planned move does not come about."""
        self.moving = None
        return self._release()

    def _settle(self, now: float) -> list[Command]:
        """Choose at the start, once all have answered, or as many as will."""
        if self.since is None:
            self.since = now
        answers = {address: self.answers.get(address) for address in self.addresses}
        told = [role for role in answers.values() if role is not None]
        waits = len(told) < len(answers) or Role.LOADING in told or Role.NONE in told
        if not answers or (waits and now - self.since < GRACE):
            return []
        for role in (Role.UNTOLD, Role.REPLICA, Role.LOADING):
            for address, said in answers.items():
                if said is role:
                    serve = self._serve if role is Role.UNTOLD else self._serve_as_it_is
                    return serve(address)
        self.over = True
        return []

    # What links show

    def _link_up(self, event: LinkUp, now: float) -> list[Command]:
        self.link_up = True
        if self.phase is not Phase.LOST or self.address in self.refused:
            return []
        return self._served()

    def _link_down(self, event: LinkDown, now: float) -> list[Command]:
        self.link_up = event.own_up
        if event.not_master and self.address is not None:
            return self._demoted(self.address, now)
        if self.phase is Phase.SERVING and not event.own_up:
            self._lose(now)
        return []

    def _demoted(self, address: Address, now: float) -> list[Command]:
        """The server at this address has said that it does not execute writes."""
        if address != self.address or self.phase in (Phase.SEARCHING, Phase.AS_IT_IS):
            return []
        self.refused.add(address)
        if now < self.purpose:
            return self._serve_as_it_is(address)
        self._lose(now)
        self.answers.pop(address, None)  # asked before that
        self.searching = True
        return [*self._wait_for_master(), *self._hold(now)]

    def _lose(self, now: float) -> None:
        if self.phase is not Phase.LOST:
            self.answers.clear()
            self.searching = False
        self.phase = Phase.LOST
        self.moving = None
        self.doubted = False
        if self.since is None:
            self.since = now

    def _silence(self, event: Silence, now: float) -> list[Command]:
        self.doubted = event.silent and self.phase is Phase.SERVING
        return []

    def _made_replica(self, event: MadeReplica, now: float) -> list[Command]:
        self.purpose = now + ON_PURPOSE
        return []

    # Time

    def _tick(self, event: Tick, now: float) -> list[Command]:
        self._expire(now)
        if self.phase is Phase.SEARCHING:
            return self._settle(now)
        if self.moves_at is not None and now >= self.moves_at:
            return self._renew(now)
        if self.moving is not None:
            held_for = now - self.held_at
            quiet = event.oldest < held_for
            return self._move(self.moving) if quiet or held_for >= MOVE_WITHIN else []
        if self.phase is not Phase.LOST:
            return []
        if self.since is None:
            self.since = now  # another server was chosen, whose link is not up yet
        lost_for = now - self.since
        self.searching = self.searching or lost_for >= CUT
        patience = self.patience if self.proven else min(self.patience, GRACE)
        return self._give_up() if lost_for >= patience else []

    def _expire(self, now: float) -> None:
        for known in (self.announced, self.leaving):
            for address in [address for address, until in known.items() if now >= until]:
                del known[address]

    def _give_up(self) -> list[Command]:
        """No master was found in time: serve somebody who answers, if anybody does."""
        answering = [each for each in self._candidates if self.answers.get(each) in _ANSWERING]
        if self.address is not None and (self.link_up or self.address in answering):
            return self._serve_as_it_is(self.address)
        if answering:
            return self._serve_as_it_is(answering[0])
        self.over = True
        return self._release()

    # Changes of state

    def _serve(self, address: Address) -> list[Command]:
        """This is the master; its links are still to come up, unless they are."""
        self.refused.discard(address)
        self.moving = None
        self.over = self.doubted = False
        follow: list[Command] = [Follow(True)]
        if address == self.address and self.link_up:
            return [*follow, *self._served()]
        self.phase = Phase.LOST
        return [*follow, *(self._switch(address) if address != self.address else [Retry()])]

    def _move(self, address: Address) -> list[Command]:
        """The planned move: whoever is there, the links are new ones."""
        if address == self.address:
            self.link_up = False
            self.phase = Phase.LOST
            self.moving = None
            return [Follow(True), SwitchTo(address)]
        return self._serve(address)

    def _served(self) -> list[Command]:
        self.phase = Phase.SERVING
        self.since = None
        self.over = self.searching = False
        return [*self._wait_no_longer(), *self._release()]

    def _wait_no_longer(self) -> list[Command]:
        if not self.waits_for_master:
            return []
        self.waits_for_master = False
        return [Wait(self.patience)]

    def _serve_as_it_is(self, address: Address) -> list[Command]:
        self.phase = Phase.AS_IT_IS
        self.since = self.moving = None
        self.over = self.doubted = False
        commands: list[Command] = [Follow(False), *self._wait_no_longer()]
        commands += self._switch(address) if address != self.address else [Retry()]
        return [*commands, *self._release()]

    def _switch(self, address: Address) -> list[Command]:
        self.address = address
        self.leaving.pop(address, None)
        self.link_up = False
        return [SwitchTo(address)]

    def _hold(self, now: float) -> list[Command]:
        if self.held:
            return []
        self.held = True
        self.held_at = now
        return [HoldWrites()]

    def _release(self) -> list[Command]:
        if not self.held:
            return []
        self.held = False
        return [ReleaseWrites()]


_TABLE: dict[type, Callable[[Following, Any, float], list[Command]]] = {
    Resolved: Following._resolved,
    Answered: Following._answered,
    LinkUp: Following._link_up,
    LinkDown: Following._link_down,
    Silence: Following._silence,
    MadeReplica: Following._made_replica,
    Tick: Following._tick,
    Moving: Following._goes_away,
}


def addresses_of(found: Iterable[tuple[Any, ...]]) -> tuple[Address, ...]:
    """The addresses in what getaddrinfo has found, each once, in its order."""
    return tuple(dict.fromkeys((info[4][0], info[4][1]) for info in found))
