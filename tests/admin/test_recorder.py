"""The points of the last minutes: rates of their second, percentiles, and a bound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.admin.recorder import KEPT, Recorder, percentile
from sidecar.telemetry.snapshots import Cache, DataPlane, Latency, Snapshot
from tests.harness.structs import filled

BOUNDS = [0.001, 0.01, 0.1]


def counters(commands: int, counts: list[int], hits: int = 0, errors: int = 0) -> Snapshot:
    served = {
        "calls": {"get": commands},
        "errors": {"string": errors},
        "latency": {"string": Latency(counts=counts, seconds=1.0)},
        "bounds": BOUNDS,
    }
    cache = filled(Cache, hits=hits)
    return Snapshot(data_plane=filled(DataPlane, commands=served, cache=cache))


def test_points_are_rates_of_their_second() -> None:
    recorder = Recorder()
    assert recorder.add(counters(10, [0, 0, 0, 0], hits=5), 100.0, 1.0) is None
    point = recorder.add(counters(40, [0, 20, 0, 0], hits=15), 102.0, 3.0)
    assert point is not None
    assert (point.t, point.commands, point.hits) == (3000, 15.0, 5.0)
    assert point.p50 is not None
    assert 0.001 < point.p50 < 0.01
    assert recorder.latest() == [point]


def test_counters_that_went_back_are_no_rate() -> None:
    recorder = Recorder()
    recorder.add(counters(1000, [500, 0, 0, 0], errors=9), 1.0, 1.0)
    point = recorder.add(counters(3, [2, 0, 0, 0]), 2.0, 2.0)
    assert point is not None
    assert (point.commands, point.errors, point.p99) == (0.0, 0.0, None)


def test_nothing_is_told_while_nothing_serves() -> None:
    recorder = Recorder()
    assert recorder.add(Snapshot(), 1.0, 1.0) is None
    assert recorder.add(Snapshot(), 2.0, 2.0) is None
    assert recorder.latest() == []
    assert recorder.over(10).commands is None


def test_the_course_is_bounded() -> None:
    recorder = Recorder()
    for second in range(KEPT + 50):
        recorder.add(counters(second, [second, 0, 0, 0]), float(second), float(second))
    points = recorder.latest()
    assert len(points) == KEPT
    assert points[-1].t == (KEPT + 49) * 1000
    assert len(recorder.latest(3)) == 3
    assert recorder.over(10).commands == 1.0


@given(st.lists(st.integers(0, 1000), min_size=4, max_size=4), st.floats(0.01, 1))
def test_a_percentile_is_in_its_bucket(counts: list[int], share: float) -> None:
    found = percentile(counts, BOUNDS, share)
    if not sum(counts):
        assert found is None
        return
    assert found is not None
    seen = 0
    for low, high, count in zip([0.0, *BOUNDS], [*BOUNDS, BOUNDS[-1]], counts, strict=True):
        seen += count
        if seen >= share * sum(counts) - 1e-9 and count:
            assert low - 1e-9 <= found <= high + 1e-9
            return
