"""What the workers know becomes what one sidecar knows."""

from __future__ import annotations

from sidecar.admin.answers import Topology
from sidecar.app.whole import TOGETHER, merged_history, merged_topology
from sidecar.telemetry.facts import Interruption
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
