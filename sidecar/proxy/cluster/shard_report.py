"""What is known of each shard, for the admin endpoint: who serves it, how its links are, what waits
for it, and when it could not be used.

Looks at the links at each tick, and changes nothing. A shard is judged by all users' links to it;
of dedicated links nothing is known here (proxy/overdue.py sees those).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sidecar.policy.shard_map import Known, ShardMap
from sidecar.proxy.interruptions import KEPT, Interruptions
from sidecar.proxy.io.plane import Plane
from sidecar.proxy.links.identity import Identities, NodeLinks
from sidecar.proxy.overdue import LATE, OVERDUE
from sidecar.telemetry import facts

# States in which nothing is known to be wrong, and those in which commands cannot be passed on.
WELL: frozenset[facts.ShardState] = frozenset({"up", "idle"})
BAD: frozenset[facts.ShardState] = frozenset({"overdue", "lost"})


@dataclass
class _Look:
    """One shard at the latest tick. `silent`: seconds for which it has owed replies, or its link
    has been lost while clients need it."""

    state: facts.ShardState = "idle"
    silent: float = 0.0
    due: int = 0
    interruptions: Interruptions = field(default_factory=Interruptions)


class ShardReport:
    """The shards of `map`, which others change."""

    def __init__(self, map: ShardMap, plane: Plane, identities: Identities) -> None:
        self._map = map
        self._plane = plane
        self._identities = identities
        self._looks: dict[int, _Look] = {}
        self._gone: list[facts.Interruption] = []
        self.switches = 0

    # What happens

    def switched(self, number: int, before: str, after: str) -> None:
        """Another server is this shard's primary now, or the same one is to be used again."""
        if before != after:
            self.switches += 1
            self._look(number).interruptions.switched(time.time(), before, after)

    def gone(self, number: int) -> None:
        """There is no such shard any more."""
        look = self._looks.pop(number, None)
        if look is not None:
            look.interruptions.ended(time.time())
            self._gone = [*look.interruptions.snapshot(number), *self._gone][:KEPT]

    def tick(self, now: float) -> None:
        """Look at all shards. `now` is monotonic."""
        links = self._links()
        for number, known in self._map.shards.items():
            look = self._look(number)
            self._judge(look, known, links.get(number, ()), now)
            if look.state in BAD and look.interruptions.lasting is None:
                look.interruptions.began(time.time() - look.silent, _where(known))
            elif look.state in WELL:
                look.interruptions.ended(time.time())

    def _look(self, number: int) -> _Look:
        return self._looks.setdefault(number, _Look())

    def _links(self) -> Mapping[int, list[NodeLinks]]:
        """The links of all users, by the shard that they lead to."""
        found: dict[int, list[NodeLinks]] = {}
        for links in self._identities.links:
            if links.node.number is not None:
                found.setdefault(links.node.number, []).append(links)
        return found

    @staticmethod
    def _judge(look: _Look, known: Known, all: Sequence[NodeLinks], now: float) -> None:
        look.due = sum(up.outstanding for links in all for up in (links.shared, *links.retired))
        up = any(links.shared.up for links in all)
        missing = max((now - each.connecting_since for each in all if each.connecting), default=0.0)
        needed = max(
            (now - each.connecting_since for each in all if each.connecting and _needed(each)),
            default=0.0,
        )
        look.silent = max([needed, *(_silent(each, now) for each in all)])
        if known.primary is None or (not up and missing >= LATE):
            look.state, look.silent = "lost", max(look.silent, missing)
        elif look.silent >= LATE:
            look.state = "overdue" if look.silent >= OVERDUE else "late"
        else:
            look.state = "up" if up else "connecting" if missing else "idle"

    # What is so

    def count(self, *states: facts.ShardState) -> int:
        """How many shards are in one of these states."""
        return sum(self._look(number).state in states for number in self._map.shards)

    def slots(self) -> Sequence[int]:
        """How many slots each shard has that has any."""
        found = (_slots(known) for known in self._map.shards.values())
        return [each for each in found if each]

    def shards(self) -> list[facts.Shard]:
        """All of them, by their numbers, as they are now."""
        self.tick(time.monotonic())
        held = self._held()
        return [
            self._shard(number, known, held[number])
            for number, known in sorted(self._map.shards.items())
        ]

    def _held(self) -> Counter[int]:
        """The clients that wait for each shard."""
        held = Counter(
            number
            for client in self._plane.held_clients
            if (number := client.wanted_shard) is not None
        )
        for number, links in self._links().items():
            held[number] += sum(len(each.waiting) for each in links)
        return held

    def _shard(self, number: int, known: Known, held: int) -> facts.Shard:
        look = self._look(number)
        return facts.Shard(
            number=number,
            primary=known.primary.announced if known.primary is not None else None,
            replicas=[
                facts.Replica(address=each.announced, state=each.health, lag_bytes=None, lag_s=None)
                for each in known.members
                if each is not known.primary
            ],
            slots=_slots(known),
            ranges=known.slots,
            up=look.state in ("up", "late"),
            state=look.state,
            silent_s=round(look.silent, 3) if look.state in ("late", "overdue", "lost") else 0.0,
            replies_due=look.due,
            held_clients=held,
        )

    def history(self) -> list[facts.Interruption]:
        """The interruptions of all shards, the newest first."""
        found = [
            each
            for number, look in self._looks.items()
            for each in look.interruptions.snapshot(number)
        ]
        return sorted([*found, *self._gone], key=lambda each: each.at, reverse=True)[:KEPT]


def _needed(links: NodeLinks) -> bool:
    """Whether clients wait for the link, or get errors without it."""
    return bool(links.waiting) or (links.shared.refusing and bool(links.identity.clients))


def _silent(links: NodeLinks, now: float) -> float:
    """For how many seconds links have owed replies and been silent."""
    return max(
        (
            now - links.silent[up][1]
            for up in (links.shared, *links.retired)
            if up.up and up.outstanding and up in links.silent
        ),
        default=0.0,
    )


def _slots(known: Known) -> int:
    return sum(last - first + 1 for first, last in known.slots)


def _where(known: Known) -> str:
    """Its primary, or whoever is known of it."""
    return next((each.announced for each in (known.primary, *known.members) if each), "unknown")
