"""The cursor of a SCAN over all shards of a cluster, and where it goes on. Pure.

Servers that keep a dictionary for each slot scan slot by slot, and their cursors begin with the
slot in the lowest bits. There the walk is by slots: each is read at its owner, whoever that is when
its turn comes, so a key that is there all the time is found however slots move. A slot that moves
while it is being read is read again from its beginning at its new owner. SCAN may return a key
twice; it may miss none.

    cursor of the client    the server's cursor (whose low bits are the slot), shard

Cursors of older servers tell nothing of slots: there the walk is shard by shard, and cannot be
continued once a slot has moved (`Moved`).

    cursor of the client    the server's cursor, shard, generation of the slots
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

SLOTS = 16384
_SHARD_BITS = 10
_GENERATION_BITS = 10
_LARGEST = (1 << 64) - 1

MOVED = "slots have moved since this SCAN began, so it cannot be continued; begin again with 0"
TOO_LARGE = "the server's cursor is too large to be passed on"
INVALID = "invalid cursor"
NOBODY = "Hash slot not served"


class CursorError(Exception):
    """The scan cannot go on; the message says why."""


@dataclass(frozen=True, slots=True)
class Step:
    """Ask this shard to scan from this cursor of its own."""

    shard: int
    cursor: int


Owner = Callable[[int], "int | None"]


@dataclass(frozen=True)
class BySlot:
    """The walk slot by slot. `owner` says who has a slot."""

    owner: Owner

    def step(self, cursor: int) -> Step:
        """Where the client's cursor goes on. Raises CursorError."""
        server, shard = cursor >> _SHARD_BITS, cursor & ((1 << _SHARD_BITS) - 1)
        slot = server % SLOTS
        owner = self._owner(slot)
        if owner & ((1 << _SHARD_BITS) - 1) != shard:
            server = slot  # from its beginning, at whoever has it by now
        return Step(owner, server)

    def after(self, step: Step, answered: int) -> int:
        """The client's cursor once the shard has answered with this cursor; 0: it is over."""
        slot = step.cursor % SLOTS
        last = slot
        while last + 1 < SLOTS and self.owner(last + 1) == step.shard:
            last += 1
        if answered and slot <= answered % SLOTS <= last:
            return _packed(answered, step.shard)
        if last + 1 == SLOTS:
            return 0
        return _packed(last + 1, self._owner(last + 1))

    def _owner(self, slot: int) -> int:
        owner = self.owner(slot)
        if owner is None:
            raise CursorError(NOBODY)
        return owner


@dataclass(frozen=True)
class ByShard:
    """The walk shard by shard, which `shards` has in order. `generation` changes with the slots."""

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
        found = [each for each in self.shards if each & ((1 << _SHARD_BITS) - 1) == shard]
        if not found:
            raise CursorError(INVALID)
        return Step(found[0], server)

    def after(self, step: Step, answered: int) -> int:
        """The client's cursor once the shard has answered with this cursor; 0: it is over."""
        shard = step.shard
        if not answered:
            later = [each for each in self.shards if each > shard]
            if not later:
                return 0
            shard = later[0]
        packed = _packed(answered, shard) << _GENERATION_BITS | self._generation
        if packed > _LARGEST:
            raise CursorError(TOO_LARGE)
        return packed

    @property
    def _generation(self) -> int:
        # Never 0, so that no cursor but the last is 0.
        return self.generation % ((1 << _GENERATION_BITS) - 1) + 1


def _packed(server: int, shard: int) -> int:
    packed = server << _SHARD_BITS | shard & ((1 << _SHARD_BITS) - 1)
    if packed > _LARGEST:
        raise CursorError(TOO_LARGE)
    return packed
