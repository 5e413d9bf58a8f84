"""The failover machine in a small world in which anything may come late, twice or never."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sidecar.policy.failover import Failover
from sidecar.policy.failover_words import (
    AskSentinels,
    HoldWrites,
    NotMaster,
    Observed,
    ReleaseWrites,
    StopVerifying,
    SwitchTo,
    Verified,
    Verify,
    WatchRole,
)
from sidecar.policy.topology import (
    Address,
    MasterNamed,
    PromotionAwaited,
    PromotionSeen,
)
from tests.policy.failover_steps import (
    ABORTED,
    BACK,
    BEGUN,
    DOWN,
    HOLD,
    NODES,
    ODOWN,
    SERVING,
    TICK,
    UP,
    A,
    B,
    C,
    answer,
    step,
    switched,
)


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
