"""A walk over all shards misses no key that is there all the time, however slots move."""

from __future__ import annotations

import random
from bisect import bisect_right

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.policy.scan_cursor import (
    SLOTS,
    ByShard,
    BySlot,
    CursorError,
    Own,
    Read,
    both,
    joined,
    own_of,
)

# Keys are (slot, place in its dictionary).
Keys = dict[int, int]
NOTHING = Own((), frozenset())


class Model:
    """Shards that scan slot by slot, one key at a time. What the sidecar knows of slots may be
    older than what is so, and a slot may be open: then nobody has all of its keys."""

    def __init__(self, keys: Keys, cuts: list[int]) -> None:
        self.keys = keys
        ends = {end for slot in keys for end in (slot, slot + 1)}
        self.begins = sorted({0, *cuts, *ends} - {SLOTS})
        # By the beginning of each stretch of slots.
        self.owners = {begin: sum(begin >= cut for cut in cuts) % 3 for begin in self.begins}
        self.known = dict(self.owners)
        self.open: set[int] = set()
        self.servers = [1, 2, 3]

    def own(self, shard: int) -> Own:
        stretches = zip(self.begins, [*self.begins[1:], SLOTS], strict=True)
        having = [(first, end - 1) for first, end in stretches if self.owners[first] == shard]
        return Own(joined(having), frozenset(self.open))

    def knows(self, slot: int) -> int:
        return self.known[self.begins[bisect_right(self.begins, slot) - 1]]

    def scan(self, shard: int, cursor: int) -> tuple[int, list[tuple[int, int]]]:
        place, slot = divmod(cursor, SLOTS)
        for at in sorted(self.keys):
            if at < slot or self.owners[at] != shard or at in self.open:
                continue
            if place < self.keys[at] or at != slot:
                place = place if at == slot else 0
                return ((place + 1) * SLOTS + at), [(at, place)]
        return 0, []


@settings(deadline=None, max_examples=25)
@given(
    st.dictionaries(st.integers(0, SLOTS - 1), st.integers(1, 3), max_size=8),
    st.lists(st.integers(0, SLOTS - 1), max_size=6),
    st.randoms(use_true_random=False),
)
def test_by_slot(keys: Keys, cuts: list[int], chance: random.Random) -> None:
    model = Model(keys, cuts)
    walk = BySlot(model.knows, lambda shard: model.servers[shard])
    found: set[bytes] = set()
    reads: dict[int, Read] = {}
    cursor = 0
    for turn in range(400):  # from 300 on nothing moves
        step = walk.step(cursor)
        read = reads.get(step.shard)
        if read is None or not read.covers(step) or chance.random() < 0.2:
            answered, got = model.scan(step.shard, step.cursor)
            said = [(slot, b"%d:%d" % (slot, place)) for slot, place in got]
            read = reads[step.shard] = Read(step, answered, model.own(step.shard), said)
        page = walk.after(step, read.answered, read.own)
        found.update(read.within(page))
        cursor = page.cursor
        if not cursor:
            break
        if not page.came_on or turn % 7 == 0:
            model.known = dict(model.owners)
        for slot in keys if turn < 300 else ():
            if chance.random() < 0.05:
                model.owners[slot] = chance.randrange(3)
            if chance.random() < 0.1:
                model.open ^= {slot}
        if turn == 300:
            model.open.clear()
        if turn < 300 and chance.random() < 0.05:
            model.servers[chance.randrange(3)] += 3
    assert cursor == 0
    there = {b"%d:%d" % (slot, place) for slot, size in keys.items() for place in range(size)}
    assert found == there


def test_what_a_shard_has_said_counts_further_on() -> None:
    """For whole slots that it had, up to the one that it has reached; not for what was behind."""
    own = Own([(0, 1), (4, 5), (8, 9)], frozenset({5}))
    walk = BySlot(lambda slot: 0, lambda shard: 1)
    read = Read(walk.step(0), 3 * SLOTS + 8, own, [(8, b"e"), (1, b"a"), (4, b"d"), (4, b"c")])
    covered = [slot for slot in range(12) if read.covers(walk.step(slot << 22))]
    assert covered == [1, 4, 8]
    page = walk.after(walk.step(4 << 22), read.answered, read.own)
    assert (page.first, page.end, read.within(page)) == (4, 5, [b"c", b"d"])
    page = walk.after(walk.step(8 << 22), read.answered, read.own)
    assert (page.end, read.within(page)) == (9, [b"e"])
    assert not read.covers(walk.step(page.cursor)), "the server's own cursor is for the server"


RANGES = st.sets(st.integers(0, 40)).map(lambda slots: joined([(n, n) for n in sorted(slots)]))


@given(RANGES, RANGES)
def test_what_is_so_by_both(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    found = both(Own(one, frozenset({1})), Own(other, frozenset({2})))
    slots = [
        {slot for first, last in each for slot in range(first, last + 1)}
        for each in (one, other, found.ranges)
    ]
    assert slots[0] & slots[1] == slots[2]
    assert sorted(found.ranges) == list(found.ranges)
    assert found.open == {1, 2}


def test_by_slot_waits_for_an_owner() -> None:
    with pytest.raises(CursorError):
        BySlot(lambda slot: None, lambda shard: 1).step(0)


def test_a_slot_that_its_server_has_not_as_a_whole() -> None:
    """It does not count, and is begun anew."""
    walk = BySlot(lambda slot: 0, lambda shard: 1)
    own = Own([(0, 9)], frozenset({5}))
    page = walk.after(walk.step(0), 0, own)
    assert (page.first, page.end, page.came_on) == (0, 5, True)
    page = walk.after(walk.step(page.cursor), 7 * SLOTS + 5, own)
    assert not page.came_on
    assert walk.step(page.cursor).cursor == 5


def test_by_shard() -> None:
    walk = ByShard((0, 2, 5), 7)
    cursor, seen = 0, []
    for answered in (8, 0, 3, 0, 0):
        step = walk.step(cursor)
        seen.append((step.shard, step.cursor))
        cursor = walk.after(step, answered, NOTHING).cursor
    assert seen == [(0, 0), (0, 8), (2, 0), (2, 3), (5, 0)]
    assert cursor == 0


def test_by_shard_ends_when_slots_move() -> None:
    walk = ByShard((0, 1), 7)
    cursor = walk.after(walk.step(0), 8, NOTHING).cursor
    with pytest.raises(CursorError, match="move"):
        ByShard((0, 1), 8).step(cursor)
    with pytest.raises(CursorError, match="move"):
        walk.after(walk.step(0), 8, Own([(0, 9)], frozenset({5})))


def test_a_cursor_that_is_none() -> None:
    with pytest.raises(CursorError):
        ByShard((0, 1), 7).step(99 << 10 | 8)


def test_a_cursor_that_is_too_large() -> None:
    walk = BySlot(lambda slot: 0, lambda shard: 1)
    with pytest.raises(CursorError):
        walk.after(walk.step(0), 1 << 56, Own([(0, SLOTS - 1)], frozenset()))


NODES = """\
aaa 10.0.0.1:1@2 master - 0 0 1 connected 6-16383
bbb 10.0.0.2:1@2 myself,master - 0 0 1 connected 0-3 5 [5->-aaa] [9-<-aaa]
"""


def test_what_a_server_says_of_itself() -> None:
    own = own_of(NODES)
    assert own == Own([(0, 3), (5, 5)], frozenset({5}))
    assert [own.whole(slot) for slot in (0, 3, 4, 5, 9)] == [4, 4, 4, 5, 9]
    assert both(own, Own([(2, 16383)], frozenset({3}))) == Own([(2, 3), (5, 5)], frozenset({3, 5}))
    for text in ("", "aaa 10.0.0.1:1@2 master - 0 0 1 connected 0-16383"):
        with pytest.raises(ValueError, match="own"):
            own_of(text)
