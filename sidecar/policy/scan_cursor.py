"""The cursor of a SCAN over all shards of a cluster, and where it goes on. Pure.

Servers that keep a dictionary for each slot scan slot by slot, and their cursors have the slot in
their lowest bits. There the walk is by slots, in order. A page counts only for the slots that its
server had as a whole when it was asked: it says so itself, in the same breath (`Own`). A slot that
it had not, or of which keys were on their way elsewhere, is read from its beginning at whoever has
it then. So a key that is there all the time is found however slots move, and whichever server takes
over: the place within a slot is for the server that gave it only. SCAN may return a key twice; it
may miss none.

    cursor of the client    the server's cursor (whose low bits are the slot), a mark of the server

A server that is asked scans on over all slots that it has, though others have some in between.
What it has said (`Read`) counts for those further on as well, and it is not asked again: where
slots have been moved about, a server has thousands of short ranges.

Cursors of older servers tell nothing of slots: there the walk is shard by shard, and cannot be
continued once a slot has moved, or another server has taken over.

    cursor of the client    the server's cursor, shard, generation of slots and servers
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

SLOTS = 16384
_MARK_BITS = 22
_SHARD_BITS = 10
_GENERATION_BITS = 10
_LARGEST = (1 << 64) - 1

MOVED = "slots move or have moved since this SCAN began; begin again with 0"
TOO_LARGE = "the server's cursor is too large to be passed on"
INVALID = "invalid cursor"
STUCK = (
    "slot %d is half-way between two shards, or no shard has it, so this SCAN does not come on; "
    "see redis-cli --cluster check"
)
NOBODY = "Hash slot not served"


class CursorError(Exception):
    """The scan cannot go on; the message says why."""


@dataclass(frozen=True)
class Own:
    """What a server says of itself: the ranges of slots that it has, in order, and slots of which
    keys are on their way elsewhere."""

    ranges: Sequence[tuple[int, int]]
    open: frozenset[int]

    def whole(self, slot: int) -> int:
        """One past the last slot from this one on that it has as a whole; the slot itself if it has
        not even that."""
        at = bisect_right(self.ranges, (slot, SLOTS)) - 1
        if at < 0 or not self.ranges[at][0] <= slot <= self.ranges[at][1]:
            return slot
        end = self.ranges[at][1] + 1
        return min((other for other in self.open if slot <= other < end), default=end)


def own_of(nodes: str) -> Own:
    """From a server's reply to CLUSTER NODES. Raises ValueError."""
    for line in nodes.splitlines():
        fields = line.split(" ", 8)
        if len(fields) >= 8 and "myself" in fields[2].split(","):
            return _own_in("".join(fields[8:]))
    raise ValueError("no line of its own")


@lru_cache(maxsize=64)
def _own_in(words: str) -> Own:
    ranges, moving = [], set()
    for word in words.split():
        if "->-" in word:
            moving.add(int(word[1:].partition("-")[0]))
        elif not word.startswith("["):
            first, _, last = word.partition("-")
            ranges.append((int(first), int(last or first)))
    return Own(sorted(ranges), frozenset(moving))


def both(one: Own, other: Own) -> Own:
    """What is so by both."""
    if one == other:
        return one
    ranges = []
    a = b = 0
    while a < len(one.ranges) and b < len(other.ranges):
        (first, last), (begin, end) = one.ranges[a], other.ranges[b]
        if max(first, begin) <= min(last, end):
            ranges.append((max(first, begin), min(last, end)))
        if last < end:
            a += 1
        else:
            b += 1
    return Own(ranges, one.open | other.open)


def joined(ranges: Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:
    """Ranges in order, and whole where they touch."""
    found: list[tuple[int, int]] = []
    for first, last in ranges:
        if found and found[-1][1] + 1 == first:
            found[-1] = (found[-1][0], last)
        else:
            found.append((first, last))
    return found


@dataclass(frozen=True, slots=True)
class Step:
    """Ask this shard to scan from this cursor of its own."""

    shard: int
    cursor: int


@dataclass(frozen=True, slots=True)
class Page:
    """What a step has brought: the client's next cursor (0: it is over), the slots that it counts
    for, as first and one past the last, and whether it has brought the walk on at all."""

    cursor: int
    first: int
    end: int

    @property
    def came_on(self) -> bool:
        """Whether any slot, or part of one, is done."""
        return self.end > self.first


class Read:
    """What a shard has said when it was asked to scan: its keys, each with its slot."""

    def __init__(
        self, step: Step, answered: int, own: Own, keys: Sequence[tuple[int, bytes]]
    ) -> None:
        self._first = step.cursor % SLOTS
        self.answered = answered
        self.own = own
        self._last = answered % SLOTS if answered else SLOTS - 1
        self._keys = sorted(keys)

    def covers(self, step: Step) -> bool:
        """Whether this step, to the same shard, need not be asked: it is to begin a slot further on
        that has been read, and that the shard had as a whole."""
        slot = step.cursor
        return self._first < slot <= self._last and self.own.whole(slot) > slot

    def within(self, page: Page) -> list[bytes]:
        """The keys of the slots that a page counts for."""
        begin = bisect_left(self._keys, (page.first, b""))
        end = bisect_left(self._keys, (page.end, b""))
        return [key for _, key in self._keys[begin:end]]


@dataclass(frozen=True)
class BySlot:
    """The walk slot by slot. `owner` says who has a slot, `mark` what tells its server from
    others."""

    owner: Callable[[int], int | None]
    mark: Callable[[int], int]

    def step(self, cursor: int) -> Step:
        """Where the client's cursor goes on. Raises CursorError."""
        server, mark = cursor >> _MARK_BITS, cursor & ((1 << _MARK_BITS) - 1)
        slot = server % SLOTS
        owner = self.owner(slot)
        if owner is None:
            raise CursorError(NOBODY)
        return Step(owner, server if self._marked(owner) == mark else slot)

    def after(self, step: Step, answered: int, own: Own) -> Page:
        """The shard has answered with this cursor, and says that of itself."""
        slot = step.cursor % SLOTS
        end = own.whole(slot)
        if end == slot:
            return Page(_packed(slot, 0) or _packed(slot, 1), slot, slot)
        reached = answered % SLOTS
        if answered and slot <= reached < end:
            return Page(_packed(answered, self._marked(step.shard)), slot, reached + 1)
        return Page(0 if end == SLOTS else _packed(end, 0), slot, end)

    def _marked(self, shard: int) -> int:
        # 0 is nobody's: what begins a slot has none.
        return self.mark(shard) % ((1 << _MARK_BITS) - 1) + 1


@dataclass(frozen=True)
class ByShard:
    """The walk shard by shard, which `shards` has in order. `generation` changes with the slots and
    their servers."""

    shards: tuple[int, ...]
    generation: int

    def step(self, cursor: int) -> Step:
        """Where the client's cursor goes on. Raises CursorError."""
        if cursor == 0:
            return Step(self.shards[0], 0)
        rest, generation = divmod(cursor, 1 << _GENERATION_BITS)
        server, shard = divmod(rest, 1 << _SHARD_BITS)
        if generation != self._generation:
            raise CursorError(MOVED)
        found = [each for each in self.shards if each % (1 << _SHARD_BITS) == shard]
        if not found:
            raise CursorError(INVALID)
        return Step(found[0], server)

    def after(self, step: Step, answered: int, own: Own) -> Page:
        """The shard has answered with this cursor. Raises CursorError."""
        if own.open:
            raise CursorError(MOVED)
        shard = step.shard
        if not answered:
            later = [each for each in self.shards if each > shard]
            if not later:
                return Page(0, 0, SLOTS)
            shard = later[0]
        server = answered << _SHARD_BITS | shard % (1 << _SHARD_BITS)
        packed = server << _GENERATION_BITS | self._generation
        if packed > _LARGEST:
            raise CursorError(TOO_LARGE)
        return Page(packed, 0, SLOTS)

    @property
    def _generation(self) -> int:
        # Never 0, so that no cursor but the last is 0.
        return self.generation % ((1 << _GENERATION_BITS) - 1) + 1


def _packed(server: int, mark: int) -> int:
    packed = server << _MARK_BITS | mark
    if packed > _LARGEST:
        raise CursorError(TOO_LARGE)
    return packed
