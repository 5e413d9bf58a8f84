"""Figures of several workers become one: every figure says how, and no counter ever goes down."""

from __future__ import annotations

import msgspec
import pytest

from sidecar.policy.breaker import State
from sidecar.policy.warmup import Phase
from sidecar.telemetry import snapshots
from sidecar.telemetry.combining import combined, fields_of, kept
from sidecar.telemetry.snapshots import (
    Cache,
    Clients,
    Commands,
    DataPlane,
    Exemplar,
    Failover,
    Latency,
    Lines,
    Process,
    Snapshot,
    Tracing,
    Unanswered,
    WarmStart,
)
from tests.harness.structs import filled


def plane(**parts: object) -> Snapshot:
    return Snapshot(data_plane=filled(DataPlane, **parts))


def of(*workers: Snapshot) -> DataPlane:
    """The data plane of these, none of which was started again."""
    whole = combined([(each, None) for each in workers]).data_plane
    assert whole is not None
    return whole


def serving(calls: int, connected: int = 0, switches: int = 0) -> Snapshot:
    return plane(
        clients=filled(Clients, connected=connected, closed={"client": calls}),
        commands=filled(
            Commands,
            calls={"get": calls},
            latency={"string": Latency(counts=[calls, 0], seconds=calls / 2)},
        ),
        failover=filled(Failover, switches=switches),
    )


# What tells of one thing, and is shown as it is.
WHOLE = (snapshots.Worker, Unanswered)
STRUCTS = [
    each
    for each in vars(snapshots).values()
    if isinstance(each, type) and issubclass(each, snapshots.Frozen) and each not in WHOLE
]


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda each: each.__name__)
def test_every_figure_says_how(struct: type[msgspec.Struct]) -> None:
    """Or is a struct of figures, or several of them by label."""
    for name, (how, type_) in fields_of(struct).items():
        inner = getattr(type_, "__args__", (type_,))[-1]
        assert how or issubclass(inner, snapshots.Frozen), name


def test_counters_are_added_and_histograms_merged() -> None:
    whole = of(serving(3, connected=1), serving(4, connected=2))
    assert whole.commands.calls == {"get": 7}
    assert whole.commands.latency["string"] == Latency(counts=[7, 0], seconds=3.5)
    assert (whole.clients.connected, whole.clients.closed) == (3, {"client": 7})


def test_labels_of_any_worker_are_there() -> None:
    one = plane(commands=filled(Commands, calls={"get": 1}, latency={"string": filled(Latency)}))
    other = plane(commands=filled(Commands, calls={"set": 2}, latency={"hash": filled(Latency)}))
    whole = of(one, other)
    assert whole.commands.calls == {"get": 1, "set": 2}
    assert set(whole.commands.latency) == {"string", "hash"}


def test_what_happens_to_all_is_counted_once() -> None:
    assert _switches(of(serving(0, switches=2), serving(0, switches=3))) == 3


def _switches(whole: DataPlane) -> int:
    assert whole.failover is not None
    return whole.failover.switches


def test_no_counter_goes_down_when_a_worker_is_started_again() -> None:
    first, other = serving(10, connected=5, switches=1), serving(4, connected=1, switches=1)
    before = kept(first, None)
    gone = combined([(None, before), (other, None)]).data_plane
    assert gone is not None
    assert (gone.commands.calls, gone.clients.connected) == ({"get": 14}, 1)
    assert gone.commands.latency["string"].counts == [14, 0]
    again = combined([(serving(2, connected=3), before), (other, None)]).data_plane
    assert again is not None
    assert (again.commands.calls, again.clients.connected) == ({"get": 16}, 4)
    assert _switches(again) == 1
    twice = kept(serving(2, switches=1), before)
    third = combined([(serving(1), twice), (other, None)]).data_plane
    assert third is not None
    assert third.commands.calls == {"get": 17}
    assert _switches(third) == 2


def test_a_process_that_ends_before_it_serves_loses_nothing() -> None:
    before = kept(Snapshot(), kept(serving(10), None))
    whole = combined([(serving(1), before)]).data_plane
    assert whole is not None
    assert whole.commands.calls == {"get": 11}


def test_nobody_serves() -> None:
    assert combined([(None, serving(3)), (Snapshot(), None)]).data_plane is None


def test_the_worst_counts() -> None:
    fine = plane(
        links={"up": True},
        breaker={"state": State.CLOSED},
        warm=filled(WarmStart, state=Phase.DONE, total=2),
        certificates={"listener": 30.0},
        unanswered=filled(Unanswered, state="ok", requests=1),
        cache=filled(Cache, proof_age=0.1, mode="hot", hits=1),
    )
    bad = plane(
        links={"up": False},
        breaker={"state": State.OPEN},
        warm=filled(WarmStart, state=Phase.LOADING, total=3),
        certificates={"listener": 20.0, "upstream": 9.0},
        unanswered=filled(
            Unanswered, state="overdue", silent=3.0, why="why; 2 commands wait", requests=2
        ),
        cache=filled(Cache, proof_age=0.4, mode="hot", hits=2),
    )
    for whole in (of(fine, bad), of(bad, fine)):
        assert whole.breaker.state is State.OPEN
        assert not whole.links.up
        assert whole.warm is not None
        assert (whole.warm.state, whole.warm.total) == (Phase.LOADING, 5)
        assert whole.certificates == {"listener": 20.0, "upstream": 9.0}
        assert (whole.unanswered.why, whole.unanswered.requests) == (
            "why; 3 commands wait",
            3,
        )
        assert whole.cache is not None
        assert (whole.cache.proof_age, whole.cache.hits) == (0.4, 3)


def test_a_part_that_one_does_not_have() -> None:
    whole = of(plane(cache=filled(Cache, hits=2)), plane())
    assert whole.cache is not None
    assert whole.cache.hits == 2


def test_the_newest_exemplar() -> None:
    old, new = Exemplar("a", "a", 1.0, 10.0), Exemplar("b", "b", 1.0, 11.0)
    one = plane(tracing=filled(Tracing, exemplars={"string": {3: new}}))
    other = plane(tracing=filled(Tracing, exemplars={"string": {3: old, 4: old}}))
    tracing = of(one, other).tracing
    assert tracing is not None
    assert tracing.exemplars == {"string": {3: new, 4: old}}


def test_the_supervisor_has_lines_of_its_own() -> None:
    def of_process(written: int) -> Snapshot:
        lines = {"log": Lines(written=written, dropped=0)}
        return Snapshot(process=filled(Process, lines=lines, loop_lag=written / 10))

    whole = combined([(of_process(2), of_process(3)), (of_process(4), None)]).process
    assert whole is not None
    assert whole.lines["log"].written == 9
    assert whole.loop_lag == 0.4
