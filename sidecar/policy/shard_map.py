"""The shards of a cluster under numbers that stay, and when to ask for them again. Pure.

A number means one shard for as long as the process lives: the shard whose primary was a member of
it before. A number that has gone does not come back, so that nothing late (a link, a reply, a
figure) is taken for another shard's.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sidecar.policy.shards import SLOTS, Member, Shard, View

NOBODY = 65535
MOST_SHARDS = 1024  # at one time; servers are made for a thousand nodes
MOST_NUMBERS = 65_000

Reason = Literal["start", "moved", "unknown", "down", "lost", "poll"]


@dataclass(frozen=True)
class Changes:
    """What a view has changed.

    `switched`: another server is to be used for this shard now, or the same one at another
    address, or one is to be used again. `lost`: none is to be used for now. `gone`: there is no
    such shard any more. `moved`: slots that have another owner, or none.
    """

    added: tuple[tuple[int, Member], ...] = ()
    switched: tuple[tuple[int, Member], ...] = ()
    lost: tuple[int, ...] = ()
    gone: tuple[int, ...] = ()
    moved: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything is new."""
        return bool(self.added or self.switched or self.lost or self.gone or self.moved)


@dataclass
class Known:
    """A shard by its number."""

    primary: Member | None
    members: tuple[Member, ...]
    slots: tuple[tuple[int, int], ...] = ()

    @property
    def announced(self) -> tuple[str, ...]:
        """How redirections call its members; the primary first."""
        return tuple(member.announced for member in self.members)


@dataclass
class ShardMap:
    """The shards in use. `slots` has the number of each slot's shard, NOBODY for none."""

    shards: dict[int, Known] = field(default_factory=dict)
    slots: array[int] = field(default_factory=lambda: array("H", [NOBODY]) * SLOTS)
    view: View | None = None
    numbers: int = 0
    """How many have been given."""
    uncovered: int = SLOTS
    """How many slots nobody has."""

    def take(self, view: View) -> Changes:
        """This is how the cluster is now. Raises ValueError, and changes nothing, if it is too
        large."""
        # What has neither a slot nor a primary is a server that was replaced and is dead.
        alive = [shard for shard in view.shards if shard.primary or shard.slots]
        numbered = self._matched(alive)
        members = {member.id for known in self.shards.values() for member in known.members}
        # One without slots that was a member has just been replaced, and is told so in a moment.
        new = [
            shard
            for shard in alive
            if id(shard) not in numbered
            and shard.primary is not None
            and (shard.slots or shard.primary.id not in members)
        ]
        if len(numbered) + len(new) > MOST_SHARDS:
            raise ValueError(f"{len(numbered) + len(new)} shards; {MOST_SHARDS} are the most")
        if self.numbers + len(new) > MOST_NUMBERS:
            raise ValueError(f"{MOST_NUMBERS} shards have come and gone; restart the sidecar")
        for shard in new:
            numbered[id(shard)] = self.numbers
            self.numbers += 1
        now = {
            numbered[id(shard)]: Known(shard.primary, shard.members, shard.slots)
            for shard in alive
            if id(shard) in numbered
        }
        before, self.shards, self.view = self.shards, now, view
        return _compared(before, now, self._place())

    def number_at(self, announced: str) -> int:
        """The shard with a member that redirections call so; NOBODY if there is none. Primaries go
        first."""
        found = NOBODY
        for number, shard in self.shards.items():
            if shard.primary and shard.primary.announced == announced:
                return number
            if announced in shard.announced:
                found = number
        return found

    @property
    def covered(self) -> int:
        """How many slots have an owner that can be used."""
        usable = [shard for shard in self.shards.values() if shard.primary]
        return sum(last - first + 1 for shard in usable for first, last in shard.slots)

    def _matched(self, shards: Sequence[Shard]) -> dict[int, int]:
        """The numbers of those that are known, by the `id` of the object.

        A shard is found by its primary, then by who was a member before. Those with slots go
        first: where a primary has just been replaced, it may still be listed as one, without.
        """
        found: dict[int, int] = {}
        primaries = {known.primary.id: n for n, known in self.shards.items() if known.primary}
        members = {member.id: n for n, known in self.shards.items() for member in known.members}
        free = set(self.shards)
        for having in (True, False):
            some = [shard for shard in shards if bool(shard.slots) == having]
            for numbers in (primaries, members):
                for shard in some:
                    # One without a primary is told by any member.
                    names = (shard.primary,) if shard.primary else shard.replicas
                    number = next((n for m in names if (n := numbers.get(m.id)) in free), None)
                    if number is not None and id(shard) not in found:
                        found[id(shard)] = number
                        free.discard(number)
        return found

    def _place(self) -> tuple[int, ...]:
        """Write down who has each slot; which have changed."""
        slots = array("H", [NOBODY]) * SLOTS
        for number, known in self.shards.items():
            for first, last in known.slots:
                slots[first : last + 1] = array("H", [number]) * (last - first + 1)
        before, self.slots = self.slots, slots
        if before == slots:
            return ()
        self.uncovered = slots.count(NOBODY)
        return tuple(slot for slot in range(SLOTS) if before[slot] != slots[slot])


def _compared(
    before: Mapping[int, Known], now: Mapping[int, Known], moved: tuple[int, ...]
) -> Changes:
    added, switched, lost = [], [], []
    for number, known in now.items():
        old, new = before.get(number), known.primary
        if old is None:
            assert new is not None
            added.append((number, new))
        elif new is None:
            if old.primary is not None:
                lost.append(number)
        elif old.primary is None or (new.id, new.address) != (old.primary.id, old.primary.address):
            switched.append((number, new))
    gone = tuple(sorted(before.keys() - now.keys()))
    return Changes(tuple(added), tuple(switched), tuple(lost), gone, moved)


class Refresh:
    """When to ask the nodes again: one round at a time, and not too often.

    `wanted` says why; what is wanted while a round is under way is asked for by the next one, as
    its answers may be older. Between the beginnings of two rounds are LEAST seconds, and twice as
    many after each round that changed nothing, up to MOST: a node that redirects in a circle makes
    no storm. While a shard is "lost" the pause is SOON: its commands are held until its new primary
    is found. Without any reason there is a round about every `every` seconds.
    """

    SOON = 0.05
    LEAST = 0.1
    MOST = 1.0

    def __init__(self, every: float, now: float) -> None:
        self.every = every
        self.rounds = 0
        self._reasons: set[Reason] = {"start"}
        self._running = False
        self._asked = False  # the round under way is for more than a poll,
        self._lost = False  # and for a shard that has no server
        self._pause = 0.0
        self._began = -math.inf
        self._poll = now + every

    def wanted(self, reason: Reason) -> None:
        """Something tells that the shards have changed."""
        self._reasons.add(reason)

    @property
    def due(self) -> float:
        """When the next round begins; infinity while one is under way."""
        if self._running:
            return math.inf
        return self._began + self._pause if self._reasons else self._poll

    def begin(self, now: float) -> frozenset[Reason] | None:
        """Begin a round, if one is due: its reasons."""
        if now < self.due:
            return None
        reasons = frozenset(self._reasons) or frozenset[Reason]({"poll"})
        self._reasons.clear()
        self._running = True
        self._asked = bool(reasons - {"poll", "start"})
        self._lost = "lost" in reasons
        self._began = now
        self.rounds += 1
        return reasons

    def end(self, now: float, *, changed: bool, chance: float) -> None:
        """The round is over. `chance`, in [0, 1), keeps many sidecars from asking together."""
        self._running = False
        again = self._asked and not changed
        self._pause = min(max(self._pause * 2, self.LEAST), self.MOST) if again else self.LEAST
        if self._lost:
            self._pause = self.SOON
        self._poll = now + self.every * (0.75 + 0.5 * chance)
