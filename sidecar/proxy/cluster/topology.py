"""Keeps what the sidecar knows of its cluster in step with the cluster.

Asks nodes (survey.py) when policy/shard_map.py says so, and applies what they agree on: nodes of
the upstream come, go, and switch to other servers; the slot table of the data path is written anew;
what waits for any of that goes on. What is true of a shard is verified once more by each
connection: its server must say that it is a master.

The home node, on which the sidecar asks for itself, always leads to one of the primaries.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Sequence

import structlog

from sidecar.core.link.scripts import Scripts
from sidecar.core.protocol.slots import SlotTable
from sidecar.policy.shard_map import Changes, Reason, Refresh, ShardMap
from sidecar.policy.shards import Address, Member, agreed
from sidecar.proxy.cluster.shard_report import ShardReport
from sidecar.proxy.cluster.survey import Survey
from sidecar.proxy.io.plane import Plane
from sidecar.proxy.links.errors import ProxyStartError
from sidecar.proxy.links.identity import Identities, NodeLinks
from sidecar.proxy.links.node import Node, Nodes
from sidecar.proxy.links.switch import Switch
from sidecar.proxy.links.target import Target
from sidecar.proxy.tasks import Tasks
from sidecar.telemetry import snapshots

log = structlog.get_logger()

# Nodes that are asked at a time.
ASKED = 3
# Seconds between two rounds at the start, while no node answers.
AGAIN = 0.1


class Topology:
    """The follower of a cluster. `new_node` makes a node with this number that leads to this
    address; `came` and `went` are told of shards; `seeds` are asked when no node is known, or none
    answers. Without a reason nodes are asked `every` so many seconds. `splits`: commands over
    several slots are split."""

    phase = "serving"  # of a failover: each shard has its own, and shows it by its links

    def __init__(
        self,
        plane: Plane,
        nodes: Nodes,
        identities: Identities,
        switch: Switch,
        tasks: Tasks,
        survey: Survey,
        *,
        seeds: Sequence[Address],
        every: float,
        splits: bool,
        target_for: Callable[[Address], Target],
        new_node: Callable[[int, Target], Node],
        known_better: Callable[[], None],
        waiting: Callable[[], int],
        resubscriptions: Callable[[], int],
        connect: Callable[[NodeLinks], None],
        came: Callable[[Node], None],
        went: Callable[[Node], None],
    ) -> None:
        assert nodes.shards is not None
        self._plane = plane
        self._nodes = nodes
        self._shards = nodes.shards
        self._identities = identities
        self._switch = switch
        self._tasks = tasks
        self.survey = survey
        self._seeds = seeds
        self._target_for = target_for
        self._new_node = new_node
        self._known_better = known_better
        self._waiting = waiting
        self._resubscriptions = resubscriptions
        self._connect = connect
        self._came = came
        self._went = went
        self.map = ShardMap()
        self.report = ShardReport(self.map, plane, identities)
        self._moved = 0
        self.slots = SlotTable(splits)
        self._refresh = Refresh(every, time.monotonic())
        self._seen = (0, 0)
        self._told = ""
        self._begun = False
        self.scripts = Scripts(random.getrandbits(64))
        plane.use_slots(self.slots, self.scripts, self._doubted)

    # The interface of a follower

    def tick(self, now: float) -> None:
        """See how the shards are, and begin a round of questions if one is due."""
        self.report.tick(now)
        moved, asked, _, _ = self.slots.redirections
        if (moved, asked) != self._seen:
            self._seen = (moved, asked)
            self.doubt("moved")
        if any(links.connecting for node in self._shards.values() for links in self._to(node)):
            self.doubt("lost")
        if self.map.view is None:
            self.doubt("start")
        if self._begun and self._refresh.due <= now and not self._tasks.closing:
            self._tasks.spawn(self._round())

    def _to(self, node: Node) -> list[NodeLinks]:
        return self._identities.links_to(node)

    def server_ids(self) -> Iterable[tuple[Target, int]]:
        """The ids, on their servers, of the connections that ask."""
        return self.survey.server_ids()

    def stop(self) -> None:
        """Ask nobody any more."""
        self.survey.close()

    # Asking

    async def begin(self, deadline: float, *, wait: bool) -> None:
        """Ask until nodes have answered, or once if it is to `wait` for them: then clients wait,
        too. Raises ProxyStartError at `deadline`, on the monotonic clock."""
        while True:
            await self._round()
            self._begun = wait or self.map.view is not None
            if self._begun:
                return
            if time.monotonic() >= deadline:
                why = "; ".join(self.survey.errors.values()) or self._told
                raise ProxyStartError(f"no node of the cluster has told its shards: {why}")
            await asyncio.sleep(AGAIN)

    def doubt(self, reason: Reason) -> None:
        """Something tells that the shards have changed: ask again soon."""
        self._refresh.wanted(reason)

    def _doubted(self) -> None:
        """Requests wait after a redirection: for a server that is not known, or for a link that
        nobody has needed yet."""
        self.doubt("unknown")
        for identity in self._identities:
            if identity.clients:
                for node in self._shards.values():
                    self._connect(identity.to(node))

    async def _round(self) -> None:
        reasons = self._refresh.begin(time.monotonic())
        if reasons is None:
            return
        changed = False
        try:
            changed = await self._ask()
        finally:
            self._refresh.end(time.monotonic(), changed=changed, chance=random.random())

    async def _ask(self) -> bool:
        """One round: whether anything has changed."""
        known = [shard.primary.address for shard in self.map.shards.values() if shard.primary]
        others = [
            member.address
            for shard in self.map.shards.values()
            for member in shard.members
            if member.address not in known
        ]
        random.shuffle(known)
        random.shuffle(others)
        nodes = [*known[:ASKED], *others[:1]]
        views = await self.survey.ask(nodes or self._seeds)
        if not views and nodes:
            views = await self.survey.ask([*known[ASKED:], *others[1:], *self._seeds])
        self.survey.forget([*known, *others])
        if not views:
            self._complain("; ".join(self.survey.errors.values()))
            return False
        first = self.map.view is None
        try:
            changes = self.map.take(agreed(views, self.map.view))
        except ValueError as error:
            self._complain(str(error))
            return False
        self._told = ""
        self._moved += 0 if first else len(changes.moved)
        self._apply(changes)
        return bool(changes)

    def _complain(self, why: str) -> None:
        if why != self._told:
            self._told = why
            log.warning("cluster topology unknown", error=why)

    # Applying

    def _apply(self, changes: Changes) -> None:
        for number, member in changes.added:
            self._add(number, member)
        for number, member in changes.switched:
            node = self._shards[number]
            log.info("shard switched", shard=number, address=member.announced)
            target = self._target_for(member.address)
            self.report.switched(number, node.dialer.where, target.address)
            self._switch.over(node, target)
        for number in changes.lost:
            self._switch.abandon(self._shards[number])
        if changes:
            self._write()
        for number in changes.gone:
            self._remove(number)
        self._lead_home()
        if changes:
            self._known_better()
            self._plane.retry_redirected(True)

    def _add(self, number: int, member: Member) -> None:
        node = self._shards[number] = self._new_node(number, self._target_for(member.address))
        node.watch(
            up=lambda: self._give_scripts(node),
            down=lambda demoted: self.doubt("lost"),
            not_master=lambda target, error: self.doubt("lost"),
        )
        self._identities.add_node(node)
        self._came(node)
        if self.scripts.size:
            self._connect(self._identities.default.to(node))
        log.info("shard found", shard=number, address=member.announced)

    def _give_scripts(self, node: Node) -> None:
        """The sidecar's own link to a shard has come up: its server may have been started, or may
        have been a replica, and lack them."""
        self._identities.default.to(node).shared.load(self.scripts.loading())

    def _write(self) -> None:
        """Tell the data path who has which slot, and how servers call each other."""
        addresses = []
        for number, known in self.map.shards.items():
            for member in known.members:
                in_use = known.primary is not None and member.id == known.primary.id
                addresses.append((member.announced.encode(), number, in_use))
        self.slots.use_addresses(addresses)
        self.scripts.use_addresses(addresses)
        self.slots.put(self.map.slots)
        if self._shards:
            self._identities.use_any(min(n for n in self._shards if n in self.map.shards))

    def _remove(self, number: int) -> None:
        log.info("shard gone", shard=number)
        self.report.gone(number)
        node = self._shards.pop(number)
        self._went(node)
        self._switch.remove(node)

    def _lead_home(self) -> None:
        """The home node leads to a primary."""
        primaries = [shard.primary for shard in self.map.shards.values() if shard.primary]
        home = self._nodes.home
        now = home.dialer.target
        if primaries and (now is None or not any(_leads(now, each) for each in primaries)):
            self._switch.to(home, self._target_for(primaries[0].address))

    # What is so

    def counts(self) -> snapshots.Cluster:
        """For the metrics."""
        moved, asked, _, refused = self.slots.redirections
        shards, slots = self.map.shards.values(), self.report.slots()
        return snapshots.Cluster(
            shards=len(shards),
            without_primary=sum(shard.primary is None for shard in shards),
            lost=self.report.count("lost"),
            overdue=self.report.count("overdue"),
            most_slots=max(slots, default=0),
            least_slots=min(slots, default=0),
            switches=self.report.switches,
            moved=self._moved,
            uncovered=self.map.uncovered,
            redirections={"moved": moved, "asked": asked, "refused": refused},
            waiting=self._plane.redirected_clients + self._waiting(),
            resubscriptions=self._resubscriptions(),
        )


def _leads(target: Target, member: Member) -> bool:
    return (target.endpoint.host, target.endpoint.port) == member.address
