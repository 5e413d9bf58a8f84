"""A walk over all shards misses no key that is there all the time, however slots move."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.policy.scan_cursor import SLOTS, ByShard, BySlot, CursorError

# Keys are (slot, place in its dictionary).
Keys = dict[int, int]


class Model:
    """Shards that scan slot by slot, one key at a time."""

    def __init__(self, keys: Keys, owners: list[int]) -> None:
        self.keys = keys
        self.owners = owners

    def scan(self, shard: int, cursor: int) -> tuple[int, list[tuple[int, int]]]:
        place, slot = divmod(cursor, SLOTS)
        for at in range(slot, SLOTS):
            if self.owners[at] == shard and place < self.keys.get(at, 0):
                return ((place + 1) * SLOTS + at), [(at, place)]
            place = 0
        return 0, []


@settings(deadline=None, max_examples=15)
@given(
    st.dictionaries(st.integers(0, SLOTS - 1), st.integers(1, 3), max_size=8),
    st.lists(st.integers(0, SLOTS - 1), max_size=6),
    st.randoms(use_true_random=False),
)
def test_by_slot(keys: Keys, cuts: list[int], chance: random.Random) -> None:
    owners = [sum(slot >= cut for cut in cuts) % 3 for slot in range(SLOTS)]
    model = Model(keys, owners)
    walk = BySlot(lambda slot: owners[slot])
    found: set[tuple[int, int]] = set()
    cursor = 0
    for _ in range(2000):
        step = walk.step(cursor)
        answered, got = model.scan(step.shard, step.cursor)
        found.update(got)
        cursor = walk.after(step, answered)
        if not cursor:
            break
        for slot in keys:
            if chance.random() < 0.02:
                owners[slot] = chance.randrange(3)
    assert cursor == 0
    assert found == {(slot, place) for slot, size in keys.items() for place in range(size)}


def test_by_slot_waits_for_an_owner() -> None:
    with pytest.raises(CursorError):
        BySlot(lambda slot: None).step(0)


def test_by_shard() -> None:
    walk = ByShard((0, 2, 5), 7)
    cursor, seen = 0, []
    for answered in (8, 0, 3, 0, 0):
        step = walk.step(cursor)
        seen.append((step.shard, step.cursor))
        cursor = walk.after(step, answered)
    assert seen == [(0, 0), (0, 8), (2, 0), (2, 3), (5, 0)]
    assert cursor == 0


def test_by_shard_ends_when_slots_move() -> None:
    cursor = ByShard((0, 1), 7).after(ByShard((0, 1), 7).step(0), 8)
    with pytest.raises(CursorError, match="moved"):
        ByShard((0, 1), 8).step(cursor)


def test_a_cursor_that_is_none() -> None:
    with pytest.raises(CursorError):
        ByShard((0, 1), 7).step(99 << 10 | 8)


def test_a_cursor_that_is_too_large() -> None:
    walk = BySlot(lambda slot: 0)
    with pytest.raises(CursorError):
        walk.after(walk.step(0), 1 << 62)
