"""What the workers know becomes what one sidecar knows."""

from __future__ import annotations

import msgspec

from sidecar.admin.answers import Topology
from sidecar.app.whole import TOGETHER, merged_history, merged_shards, merged_topology
from sidecar.telemetry.facts import Interruption, Shard
from tests.harness.structs import filled


def lost(at: float, seconds: float | None) -> Interruption:
    return Interruption(at=at, before="a", after="a", switched=False, seconds=seconds)


def switch(at: float, seconds: float, after: str) -> Interruption:
    return Interruption(at=at, before="a", after=after, switched=True, seconds=seconds)


def test_what_all_have_noticed_is_one_interruption() -> None:
    assert merged_history([[lost(10, 2.0)], [lost(10.5, 2.0)]]) == [lost(10, 2.5)]
    assert merged_history([[lost(10, 0.25)], [lost(10 + TOGETHER, 0.5)]]) == [lost(10, 1.5)]


def test_it_lasts_while_it_lasts_for_one() -> None:
    assert merged_history([[lost(10, 0.5)], [lost(10, None)]]) == [lost(10, None)]


def test_a_worker_that_has_noticed_nothing_hides_nothing() -> None:
    assert merged_history([[], [lost(10, 0.5)]]) == [lost(10, 0.5)]


def test_two_of_one_worker_stay_two() -> None:
    both = [lost(10.75, 0.5), lost(10, 0.5)]
    assert merged_history([both, []]) == both


def test_those_of_other_times_stay_apart_the_newest_first() -> None:
    assert merged_history([[lost(10, 1.0)], [lost(20, 1.0)]]) == [lost(20, 1.0), lost(10, 1.0)]


def test_a_switch_that_only_one_was_interrupted_by() -> None:
    assert merged_history([[lost(10, 1.0)], [switch(10.5, 1.0, "b")]]) == [switch(10, 1.5, "b")]
    assert merged_history([[switch(10, 1.0, "b")], [lost(10.5, 1.0)]]) == [switch(10, 1.5, "b")]


def test_it_is_up_when_all_are_and_the_one_that_changes_says_so() -> None:
    serving = filled(Topology, phase="serving", up=True, switches=1, master="a")
    changing = filled(Topology, phase="verifying", up=False, switches=2, master="b")
    for said in ([serving, changing], [changing, serving]):
        merged = merged_topology(said)
        assert (merged.phase, merged.up, merged.switches) == ("verifying", False, 2)
    assert merged_topology([serving, serving]).phase == "serving"


def shard(number: int, primary: str, **more: object) -> Shard:
    return filled(Shard, number=number, primary=primary, ranges=[(0, 9)], **more)


def test_a_shard_is_as_the_worker_says_that_is_worst_off() -> None:
    """Workers may number shards differently; what waits at both is added."""
    one = shard(0, "a", state="up", held_clients=1, replies_due=2, up=True)
    other = shard(5, "a", state="overdue", silent_s=3.0, held_clients=2, replies_due=1)
    expected = shard(0, "a", state="overdue", silent_s=3.0, held_clients=3, replies_due=3)
    assert merged_shards([[one], [other]]) == [expected]
    assert merged_shards([[one], [shard(5, "b", state="lost")]]) == [one]
    assert merged_shards([]) is None


def test_interruptions_of_two_shards_stay_two() -> None:
    one = msgspec.structs.replace(lost(10, 2.0), shard=0)
    same = msgspec.structs.replace(lost(10.5, 2.0), shard=3)
    two = msgspec.structs.replace(lost(10.25, 2.0), shard=1, before="b", after="b")
    merged = merged_history([[one, two], [same]])
    assert [(each.before, each.at, each.seconds) for each in merged] == [
        ("b", 10.25, 2.0),
        ("a", 10, 2.5),
    ]
