"""Numbers of shards that stay, and when the nodes are asked again: transcripts."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.policy.shard_map import (
    MOST_SHARDS,
    NOBODY,
    Changes,
    Reason,
    Refresh,
    ShardMap,
)
from sidecar.policy.shards import SLOTS, Member, Shard, View

from .shard_views import ASKED, LAST, node, shard, view

HALF = SLOTS // 2
A, B = shard((0, HALF - 1), "a", "a1"), shard((HALF, LAST), "b", "b1")


def started() -> ShardMap:
    known = ShardMap()
    known.take(view(A, B))
    return known


# Numbers


def test_the_first_view() -> None:
    known = ShardMap()
    changes = known.take(view(A, B))
    assert changes.added == ((0, node("a")), (1, node("b")))
    assert changes.moved == tuple(range(SLOTS))
    assert (known.slots[0], known.slots[LAST], known.covered) == (0, 1, SLOTS)
    assert known.shards[1].announced == ("b:6379", "b1:6379")


def test_slots_that_nobody_has_are_counted() -> None:
    known = ShardMap()
    assert known.uncovered == SLOTS
    for views, left in (((A,), SLOTS - HALF), ((A, B), 0), ((A, B), 0), ((B,), HALF)):
        known.take(view(*views))
        assert known.uncovered == known.slots.count(NOBODY) == left


def test_the_same_again_changes_nothing() -> None:
    known = started()
    assert known.take(view(A, B)) == Changes()
    assert known.take(view(B, A)) == Changes()
    assert not known.take(view(A, B))


def test_a_replica_takes_over() -> None:
    known = started()
    changes = known.take(view(shard((0, HALF - 1), "a1", "a"), B))
    assert changes == Changes(switched=((0, node("a1")),))
    assert known.take(view(A, B)) == Changes(switched=((0, node("a")),))


def test_a_primary_that_dies_and_is_replaced() -> None:
    known = started()
    assert known.take(view(shard((0, HALF - 1), "", "a", "a1"), B)) == Changes(lost=(0,))
    assert known.covered == SLOTS - HALF
    assert known.slots[0] == 0
    assert known.take(view(shard((0, HALF - 1), "a1", "a"), B)) == Changes(
        switched=((0, node("a1")),)
    )


def test_a_primary_that_is_back() -> None:
    known = started()
    known.take(view(shard((0, HALF - 1), "", "a", "a1"), B))
    assert known.take(view(A, B)) == Changes(switched=((0, node("a")),))


def test_a_replaced_primary_that_is_still_listed_as_one() -> None:
    """Redis 7.0 lists it as a shard of its own, without slots, alive or dead."""
    known = started()
    for left in (shard(None, "a"), shard(None, "", "a")):
        changes = known.take(view(left, shard((0, HALF - 1), "a1"), B))
        assert changes == (Changes(switched=((0, node("a1")),)) if left.primary else Changes())


def test_a_primary_elsewhere() -> None:
    """The same node at another address."""
    known = started()
    moved = Member("a", ("10.0.0.9", 6379), "10.0.0.9:6379")
    there = Shard(moved, A.replicas, A.slots)
    assert known.take(view(there, B)) == Changes(switched=((0, moved),))


def test_slots_move() -> None:
    known = started()
    changes = known.take(view(shard((3, HALF - 1), "a"), shard([(0, 2), (HALF, LAST)], "b")))
    assert changes == Changes(moved=(0, 1, 2))
    assert list(known.slots[:4]) == [1, 1, 1, 0]


def test_a_shard_comes_and_goes() -> None:
    known = started()
    assert known.take(view(A, B, shard(None, "c"))) == Changes(added=((2, node("c")),))
    known.take(view(shard((1, HALF - 1), "a", "a1"), B, shard((0, 0), "c")))
    assert known.slots[0] == 2
    assert known.take(view(A, B, shard(None, "c"))) == Changes(moved=(0,))
    assert known.take(view(A, B)) == Changes(gone=(2,))
    assert known.take(view(A, B, shard(None, "c"))) == Changes(added=((3, node("c")),))


def test_a_shard_that_gave_all_its_slots_away_stays() -> None:
    known = started()
    changes = known.take(view(shard(None, "a", "a1"), shard((0, LAST), "b", "b1")))
    assert changes == Changes(moved=tuple(range(HALF)))
    assert list(known.shards) == [0, 1]


def test_nobody_to_be_used_from_the_start() -> None:
    """Its slots are nobody's, until it has a primary."""
    known = ShardMap()
    known.take(view(shard((0, HALF - 1), "", "a", "a1"), B))
    assert (known.slots[0], known.slots[LAST], known.covered) == (NOBODY, 0, SLOTS - HALF)
    assert known.take(view(A, B)).added == ((1, node("a")),)


def test_too_many() -> None:
    known = started()
    many = view(*(shard((n, n), f"n{n}") for n in range(MOST_SHARDS + 1)))
    with pytest.raises(ValueError, match="1025 shards; 1024 are the most"):
        known.take(many)
    assert known.take(view(A, B)) == Changes()
    known.take(View(ASKED, many.shards[:MOST_SHARDS]))
    assert len(known.shards) == MOST_SHARDS


def test_whose_address() -> None:
    known = started()
    assert [known.number_at(f"{name}:6379") for name in ("a", "b", "b1")] == [0, 1, 1]
    assert known.number_at("c:6379") == NOBODY
    known.take(view(shard((0, HALF - 1), "b1", "a"), shard((HALF, LAST), "b")))
    assert known.number_at("b1:6379") == known.slots[0]


@st.composite
def some_view(draw: st.DrawFn) -> View:
    """Any parts that five nodes may have."""
    nodes = draw(st.permutations(["a", "b", "c", "d", "e"]))
    cut = draw(st.integers(1, SLOTS - 1))
    spans: list[tuple[int, int] | None] = [(0, cut - 1), (cut, LAST), None]
    parts = draw(st.permutations(nodes)), draw(st.integers(1, 3)), draw(st.integers(3, 5))
    order, first, second = parts
    groups = [order[:first], order[first:second], order[second:]]
    dead = draw(st.sampled_from([None, 0, 1]))
    return view(
        *(
            shard(span, *([""] if dead == at else []), *group)
            for at, (span, group) in enumerate(zip(spans, groups, strict=True))
            if group
        )
    )


@settings(max_examples=40)
@given(st.lists(some_view(), min_size=1, max_size=5))
def test_what_is_told_adds_up(views: list[View]) -> None:
    """Who goes by the changes alone knows what the map knows; no number means two shards."""
    known = ShardMap()
    primaries: dict[int, Member | None] = {}
    given_out: set[int] = set()
    slots = [NOBODY] * SLOTS
    for one in views:
        before = {n: {m.id for m in k.members} for n, k in known.shards.items()}
        changes = known.take(one)
        for number in changes.gone:
            del primaries[number]
        for number, member in changes.added:
            assert number not in given_out
            given_out.add(number)
            primaries[number] = member
        for number, member in changes.switched:
            assert member.id in before[number]
            primaries[number] = member
        for number in changes.lost:
            primaries[number] = None
        for slot in changes.moved:
            slots[slot] = known.slots[slot]
        assert slots == list(known.slots)
        assert primaries == {n: k.primary for n, k in known.shards.items()}
        listed = {m.id: each for each in one.shards for m in each.members}
        for number, shard_known in known.shards.items():
            assert shard_known.members == listed[shard_known.members[0].id].members, number


# When to ask


def test_the_first_round_is_at_once() -> None:
    refresh = Refresh(10.0, 100.0)
    assert refresh.begin(100.0) == {"start"}
    assert refresh.due == math.inf
    refresh.end(100.5, changed=True, chance=0.5)
    assert refresh.due == 110.5


def test_one_round_at_a_time() -> None:
    """What is wanted meanwhile is asked for afterwards, once."""
    refresh = Refresh(10.0, 0.0)
    refresh.begin(0.0)
    refresh.wanted("moved")
    refresh.wanted("moved")
    refresh.wanted("down")
    assert refresh.begin(5.0) is None
    refresh.end(5.0, changed=False, chance=0.0)
    assert refresh.begin(5.0) == {"moved", "down"}
    refresh.end(6.0, changed=False, chance=0.0)
    assert refresh.begin(6.0) is None


def test_rounds_that_change_nothing_become_rare() -> None:
    """A second apart at last; the first that changes something ends that."""
    refresh = Refresh(1000.0, 0.0)
    refresh.begin(0.0)
    refresh.end(0.0, changed=True, chance=0.0)
    began = []
    for step in range(10_000):
        now = step / 1000
        refresh.wanted("moved")
        if refresh.begin(now):
            began.append(now)
            refresh.end(now, changed=False, chance=0.0)
    gaps = [b - a for a, b in pairwise([0.0, *began])]
    assert gaps[:6] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0], abs=0.002)
    assert gaps[6:] == pytest.approx([1.0] * 6, abs=0.002)
    refresh.wanted("down")
    assert refresh.begin(11.0)
    refresh.end(11.0, changed=True, chance=0.0)
    refresh.wanted("moved")
    assert refresh.due == 11.1


def test_a_lost_shard_is_asked_for_all_the_time() -> None:
    """However long its failover takes: its commands are held meanwhile."""
    refresh = Refresh(1000.0, 0.0)
    now = 0.0
    for _ in range(100):
        refresh.wanted("lost")
        now = refresh.due if refresh.due > 0 else now
        assert refresh.begin(now)
        refresh.end(now, changed=False, chance=0.0)
        refresh.wanted("lost")
        assert refresh.due == pytest.approx(now + Refresh.SOON)


def test_after_quiet_a_round_is_at_once() -> None:
    refresh = Refresh(5.0, 0.0)
    refresh.begin(0.0)
    refresh.end(0.0, changed=True, chance=0.0)
    refresh.wanted("moved")
    assert refresh.begin(1.0) == {"moved"}


def test_polls_are_spread() -> None:
    refresh = Refresh(10.0, 0.0)
    refresh.begin(0.0)
    for chance, due in [(0.0, 7.5), (0.999, 12.495)]:
        refresh.end(0.0, changed=False, chance=chance)
        assert refresh.due == pytest.approx(due)
    assert refresh.begin(13.0) == {"poll"}
    refresh.end(13.0, changed=False, chance=0.0)
    refresh.wanted("unknown")
    assert refresh.due == 13.1


@given(
    st.lists(
        st.tuples(
            st.floats(0, 3),
            st.none() | st.sampled_from(get_args(Reason)),
            st.booleans(),
            st.booleans(),
            st.floats(0, 0.999),
        )
    )
)
def test_never_too_often_and_nothing_is_forgotten(steps: list[tuple[object, ...]]) -> None:
    refresh, now, last, running = Refresh(2.0, 0.0), 0.0, -math.inf, False
    owed, least = {"start"}, Refresh.LEAST
    for passed, reason, ends, changed, chance in steps:
        assert isinstance(passed, float)
        now += passed
        if reason is not None:
            refresh.wanted(reason)  # type: ignore[arg-type]
            owed.add(str(reason))
        if running and ends:
            refresh.end(now, changed=bool(changed), chance=float(str(chance)))
            running = False
        begun = refresh.begin(now)
        assert not (begun and running)
        if begun:
            assert now - last >= least - 1e-9
            assert begun == (owed or {"poll"})
            least = Refresh.SOON if "lost" in begun else Refresh.LEAST
            owed, last, running = set(), now, True
        elif not running:
            assert refresh.due > now
            assert refresh.due <= max(last + Refresh.MOST, now) if owed else True
