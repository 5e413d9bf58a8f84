"""Replies of nodes become views, or are refused; several views become one."""

from __future__ import annotations

import time
from copy import deepcopy
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.shards import (
    SLOTS,
    Address,
    Reading,
    Shard,
    View,
    agreed,
    view_of_shards,
    view_of_slots,
)

from .shard_views import ASKED, LAST, node, shard, shards_reply, slots_reply, view

TWO = view(shard((0, 99), "a", "a1"), shard([(100, 199), (300, LAST)], "b", "b1", "b2"))


def first_node(**fields: Any) -> list[Any]:
    """A reply to CLUSTER SHARDS with one node, whose fields are changed so (None: without)."""
    reply = shards_reply(view(shard((0, LAST), "a")), resp3=True)
    reply[0][b"nodes"][0] |= {name.replace("_", "-").encode(): v for name, v in fields.items()}
    return reply


# One view


@pytest.mark.parametrize("resp3", [False, True])
def test_shards(resp3: bool) -> None:
    assert view_of_shards(shards_reply(TWO, resp3=resp3), ASKED) == TWO


def test_slots() -> None:
    assert view_of_slots(slots_reply(TWO), ASKED) == TWO


def test_slots_of_an_old_server() -> None:
    """Redis before 4 has no ids; before 7 there is nothing behind them."""
    found = view_of_slots([[0, 1, [b"h", 1]], [2, 3, [b"h", 2, b"id"]]], ASKED)
    assert [each.primary.id for each in found.shards if each.primary] == ["h:1", "id"]


@pytest.mark.parametrize("health", [b"fail", b"loading"])
def test_a_primary_that_is_not_well_is_not_used(health: bytes) -> None:
    found = view_of_shards(first_node(health=health), ASKED).shards[0]
    assert (found.primary, [m.id for m in found.replicas]) == (None, ["a"])


def test_two_primaries_of_one_shard_are_no_view() -> None:
    """The old one is back and has not been told yet; dead, it is only a member."""
    reply = shards_reply(view(shard((0, LAST), "new", "old")), resp3=True)
    reply[0][b"nodes"][1] |= {b"role": b"master"}
    with pytest.raises(ValueError, match="new and old are primaries of one shard"):
        view_of_shards(reply, ASKED)
    reply[0][b"nodes"][1] |= {b"health": b"fail"}
    assert view_of_shards(reply, ASKED) == view(shard((0, LAST), "new", "old"))


@pytest.mark.parametrize(
    ("fields", "address", "announced"),
    [
        ({"endpoint": b"h"}, ("h", 6379), "h:6379"),
        ({"endpoint": b"fd00::1"}, ("fd00::1", 6379), "fd00::1:6379"),
        ({"endpoint": None}, ("asked", 6379), ":6379"),
        ({"endpoint": b""}, ("asked", 6379), ":6379"),
        ({"endpoint": b"?"}, ("10.0.0.1", 6379), "?:6379"),
        ({"endpoint": b"?", "ip": b""}, ("asked", 6379), "?:6379"),
    ],
)
def test_preferred_endpoints(fields: dict[str, Any], address: Address, announced: str) -> None:
    found = view_of_shards(first_node(**fields), ASKED).shards[0].primary
    assert found is not None
    assert (found.address, found.announced) == (address, announced)
    assert found.id == "a"


def test_slots_name_endpoints_alike() -> None:
    more = [b"ip", b"10.0.0.7", b"hostname", b"h"]
    reply = [[0, 1, [None, 1, b"a", more]], [2, 3, [b"?", 2, b"b", more]], [4, 5, [b"", 3, b"c"]]]
    primaries = [each.primary for each in view_of_slots(reply, ASKED).shards]
    assert [p.address for p in primaries if p] == [("asked", 1), ("10.0.0.7", 2), ("asked", 3)]
    assert [p.announced for p in primaries if p] == [":1", "?:2", ":3"]


def test_ports_for_tls() -> None:
    """A node without one is not there for us."""
    assert view_of_shards(first_node(tls_port=6390), ASKED) == view(shard((0, LAST), "a"))
    found = view_of_shards(first_node(tls_port=6390), ASKED, Reading(tls=True)).shards[0].primary
    assert found is not None
    assert found.address == ("a", 6390)
    assert view_of_shards(first_node(), ASKED, Reading(tls=True)).shards[0].members == ()


def test_what_is_announced_may_be_reached_elsewhere() -> None:
    """The host that was asked is one that is reached already."""

    def reached(address: Address) -> Address:
        return f"x-{address[0]}", address[1] + 1

    how = Reading(reached=reached)
    found = view_of_shards(first_node(), ASKED, how).shards[0].primary
    assert found is not None
    assert (found.address, found.announced) == (("x-a", 6380), "a:6379")
    unknown = view_of_shards(first_node(endpoint=None), ASKED, how).shards[0].primary
    assert unknown is not None
    assert unknown.address == ("asked", 6379)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"port": 0}, "a port"),
        ({"port": 65536}, "a port"),
        ({"port": True}, "a port"),
        ({"port": b"6379"}, "a port"),
        ({"endpoint": b"a b"}, "the host"),
        ({"endpoint": b"a\n"}, "the host"),
        ({"endpoint": b"\xff"}, "the host"),
        ({"endpoint": b"x" * 300}, "the host"),
        ({"endpoint": 5}, "the host"),
        ({"id": b""}, "the id"),
        ({"id": None}, "the id"),
        ({"id": b"x" * 65}, "the id"),
    ],
)
def test_bad_nodes(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        view_of_shards(first_node(**fields), ASKED)


@pytest.mark.parametrize(
    ("slots", "says"),
    [
        ([0], "no pairs"),
        ([5, 4], "slots from 5 to 4"),
        ([0, SLOTS], "a slot that is no number from 0 to 16383"),
        ([-1, 5], "a slot"),
        ([0, 5, 5, 6], "slot 5 is listed twice"),
        ([False, 5], "a slot"),
        ([], "no node has any slot"),
        (None, "slots: no list"),
    ],
)
def test_bad_slots(slots: Any, says: str) -> None:
    reply = first_node()
    reply[0][b"slots"] = slots
    with pytest.raises(ValueError, match=says):
        view_of_shards(reply, ASKED)


@pytest.mark.parametrize(
    "reply",
    [None, [], b"x", {}, [[]], [[0]], [[0, 1]], [[0, 1, []]], [[0, 1, [b"h"]]], [{}], [None]],
)
def test_no_view_at_all(reply: Any) -> None:
    for read in (view_of_shards, view_of_slots):
        with pytest.raises(ValueError, match=r"."):
            read(reply, ASKED)


def test_contradictions() -> None:
    overlapping = view(shard((0, 9), "a"), shard((9, 20), "b"))
    twice = view(shard((0, 9), "a"), shard((10, 20), "b", "a"))
    for read in (
        lambda v: view_of_shards(shards_reply(v), ASKED),
        lambda v: view_of_slots(slots_reply(v), ASKED),
    ):
        with pytest.raises(ValueError, match="slot 9 is listed twice"):
            read(overlapping)
        with pytest.raises(ValueError, match="the node a is listed twice"):
            read(twice)


junk = st.recursive(
    st.none() | st.integers(-2, 20_000) | st.binary(max_size=4) | st.booleans(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([b"slots", b"nodes", b"id", b"port"]), inner)
    ),
)


@given(data=st.data())
def test_any_damage_is_a_view_or_a_value_error(data: st.DataObject) -> None:
    """One part of a reply, at any depth, is replaced by anything."""
    resp3 = data.draw(st.booleans())
    reply: Any = data.draw(st.sampled_from([shards_reply(TWO, resp3=resp3), slots_reply(TWO)]))
    read = data.draw(st.sampled_from([view_of_shards, view_of_slots]))
    reply = deepcopy(reply)
    at: Any = [reply]
    key: Any = 0
    for _ in range(data.draw(st.integers(0, 5))):
        inner = at[key]
        if not isinstance(inner, list | dict) or not inner:
            break
        at = inner
        key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
    at[key] = data.draw(junk)
    try:
        found = read(reply, ASKED)
    except ValueError:
        return
    taken = sorted(span for each in found.shards for span in each.slots)
    assert taken
    assert all(0 <= first <= last < SLOTS for first, last in taken)
    assert all(b[0] > a[1] for a, b in pairwise(taken))


# Several views


def owners(found: View) -> dict[int, str]:
    return {
        slot: each.primary.id if each.primary else "-"
        for each in found.shards
        for first, last in each.slots
        for slot in range(first, last + 1)
    }


def test_one_view_is_taken() -> None:
    assert agreed([TWO], view(shard((0, LAST), "x"))) is TWO


def test_one_against_the_others_moves_nothing() -> None:
    alone = view(shard((0, LAST), "a"))
    for views in ([alone, TWO, TWO], [TWO, alone, TWO], [TWO, TWO, alone]):
        assert owners(agreed(views)) == owners(TWO)


def test_most_win_for_each_slot() -> None:
    views = [
        view(shard((0, 9), "a"), shard((10, 19), "b")),
        view(shard((0, 4), "a"), shard((5, 19), "b")),
        view(shard((0, 2), "a"), shard((3, 19), "b")),
    ]
    assert agreed(views).shards == (shard((0, 4), "a"), shard((5, 19), "b"))


def test_among_equals_what_is_in_use_stays() -> None:
    old, new = view(shard((0, 9), "a", "b")), view(shard((0, 9), "b", "a"))
    assert owners(agreed([new, old], old)) == owners(old)
    assert owners(agreed([old, new], new)) == owners(new)
    assert owners(agreed([old, new])) == owners(old)
    assert owners(agreed([old, new], view(shard((0, 9), "c")))) == owners(old)


def test_a_dead_primary_is_dead_if_most_say_so() -> None:
    dead, alive = view(shard((0, 9), "", "a", "b")), view(shard((0, 9), "a", "b"))
    assert agreed([alive, dead, dead], alive).shards == dead.shards
    assert agreed([alive, dead, alive], alive).shards == alive.shards


def test_slots_that_most_do_not_know_are_nobodys() -> None:
    less, more = view(shard((0, 9), "a")), view(shard((0, 19), "a"))
    assert agreed([less, more, less]).shards == less.shards
    assert agreed([less, more, more]).shards == more.shards


def test_primaries_without_slots_need_half_of_the_views() -> None:
    less, more = view(shard((0, LAST), "a")), view(shard((0, LAST), "a"), shard(None, "new"))
    assert agreed([less, more]).shards == more.shards
    assert agreed([less, more, less]).shards == less.shards


def test_no_node_is_in_two_shards() -> None:
    """Views that differ in whose replica a node is."""
    one = view(shard((0, 9), "a", "r"), shard((10, 19), "b"))
    two = view(shard((0, 9), "a"), shard((10, 19), "b", "r"))
    three = view(shard((0, 9), "a"), shard((10, 14), "b"), shard((15, 19), "r"))
    for views in ([one, two], [two, one], [one, three, three], [one, two, three]):
        ids = [member.id for each in agreed(views).shards for member in each.members]
        assert len(ids) == len(set(ids))


@st.composite
def some_view(draw: st.DrawFn) -> View:
    """Any shares of the first slots among a few nodes."""
    cuts = sorted(draw(st.sets(st.integers(1, 40), max_size=6)))
    spans = list(zip([0, *cuts], [c - 1 for c in cuts] + [40], strict=True))
    having: dict[str, list[tuple[int, int]]] = {}
    for span in spans:
        name = draw(st.sampled_from(["a", "b", "c", "d", "", "nobody"]))
        having.setdefault(name, []).append(span)
    having.pop("nobody", None)
    shards = [
        shard(spans, name, *([f"{name}1"] if name else ["a9", "b9"]))
        for name, spans in having.items()
    ]
    return view(*(shards or [shard((0, 3), "a", "a1")]))


@given(st.lists(some_view(), min_size=2, max_size=5), st.none() | some_view())
def test_each_slot_has_what_most_say(views: list[View], in_use: View | None) -> None:
    each = [owners(one) for one in views]
    used = owners(in_use) if in_use else {}
    found = owners(agreed(views, in_use))
    for slot in range(42):
        said = [{"-": ""}.get(o := one.get(slot, ""), o) for one in each]
        top = max(said.count(owner) for owner in said)
        best = [owner for owner in said if said.count(owner) == top]
        held = {"-": ""}.get(h := used.get(slot, ""), h)
        want = held if in_use and held in best and len(set(said)) > 1 else best[0]
        assert {"-": ""}.get(f := found.get(slot, ""), f) == want, slot


# Sizes


def huge(nodes: int, ranges: int) -> View:
    """Shards of two nodes each; slots in so many ranges, dealt out in turn."""
    count = nodes // 2
    width = SLOTS // ranges
    spans: list[list[tuple[int, int]]] = [[] for _ in range(count)]
    for number in range(ranges):
        spans[number % count].append((number * width, (number + 1) * width - 1))
    return View(
        ASKED,
        tuple(
            Shard(node(f"p{n}"), (node(f"r{n}"),), tuple(has)) for n, has in enumerate(spans) if has
        ),
    )


@pytest.mark.parametrize(("nodes", "ranges"), [(1000, 500), (1000, SLOTS)])
def test_huge_replies(nodes: int, ranges: int) -> None:
    """1,000 nodes, and slots in as many pieces as there are. It takes 0.1 to 0.3 s of a processor;
    what compares each with each would take minutes."""
    big = huge(nodes, ranges)
    reply, flat = shards_reply(big), slots_reply(big)
    began = time.process_time()
    found = view_of_shards(reply, ASKED)
    merged = agreed([found, found, found], found)
    by_slots = view_of_slots(flat, ASKED)
    took = time.process_time() - began
    assert owners(found) == owners(big) == owners(merged) == owners(by_slots)
    assert took < 10.0, took
