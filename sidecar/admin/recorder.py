"""The last minutes: one point a second, made from the data plane's counters.

A point has the rates and percentiles of one second and no counters: nothing in it can be reset, and
a page that is opened late shows the same as one that was open all the time. A point costs one
snapshot: about a ten-thousandth of a second, once in a second.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from sidecar.admin.figures import Point, Recent, answered, failed
from sidecar.telemetry.snapshots import Commands, DataPlane, Snapshot

KEPT = 900

_NO_POINTS = Recent(
    commands=None, errors=None, hit_ratio=None, p50=None, p95=None, p99=None, p999=None
)


class Recorder:
    """Keeps KEPT points. `add` is called once a second."""

    def __init__(self) -> None:
        self._points: deque[Point] = deque(maxlen=KEPT)
        self._before: tuple[_Totals, float] | None = None

    def add(self, snapshot: Snapshot, now: float, wall: float) -> Point | None:
        """Take one more snapshot; returns its point, None for the first. `now` is monotonic.

        While no clients are served there is no point.
        """
        plane, before = snapshot.data_plane, self._before
        if plane is None:
            self._before = None
            return None
        totals = _totals(plane)
        self._before = totals, now
        if before is None or now <= before[1]:
            return None
        point = _point(plane, before[0], totals, now - before[1], round(wall * 1000))
        self._points.append(point)
        return point

    def latest(self, most: int = KEPT) -> Sequence[Point]:
        """The latest points, the oldest first."""
        skip = max(0, len(self._points) - most)
        return list(islice(self._points, skip, None))

    def over(self, seconds: int) -> Recent:
        """The mean of the last points; each percentile is that of the worst point."""
        points = self.latest(seconds)
        if not points:
            return _NO_POINTS
        hits = sum(point.hits for point in points)
        reads = hits + sum(point.misses for point in points)
        return Recent(
            commands=_rounded(sum(point.commands for point in points) / len(points)),
            errors=_rounded(sum(point.errors for point in points) / len(points)),
            hit_ratio=round(hits / reads, 4) if reads else None,
            p50=_worst(point.p50 for point in points),
            p95=_worst(point.p95 for point in points),
            p99=_worst(point.p99 for point in points),
            p999=_worst(point.p999 for point in points),
        )


class _Totals(NamedTuple):
    """The counters that rates are made from. `latencies` is the histogram of all
    families but that of blocking commands, which take as long as their clients asked."""

    commands: int
    hits: int
    misses: int
    errors: int
    local_errors: int
    uncertain: int
    bytes_in: int
    bytes_out: int
    redirections: int
    latencies: Sequence[int]


def _totals(plane: DataPlane) -> _Totals:
    commands, cache = plane.commands, plane.cache
    return _Totals(
        commands=answered(commands),
        hits=cache.hits if cache is not None else 0,
        misses=sum(cache.misses.values()) if cache is not None else 0,
        errors=failed(commands),
        local_errors=commands.local_errors,
        uncertain=commands.uncertain,
        bytes_in=plane.clients.received_bytes,
        bytes_out=plane.clients.sent_bytes,
        redirections=sum(plane.cluster.redirections.values()) if plane.cluster is not None else 0,
        latencies=_latencies(commands),
    )


def _latencies(commands: Commands) -> Sequence[int]:
    families = [each for name, each in commands.latency.items() if name != "blocking"]
    columns = zip(*(family.counts for family in families), strict=True)
    return [sum(column) for column in columns] or [0] * (len(commands.bounds) + 1)


def _point(plane: DataPlane, before: _Totals, after: _Totals, seconds: float, time: int) -> Point:
    def rate(old: int, new: int) -> float:
        # Never below zero: what counts by label may lose a label.
        return _rounded(max(0.0, new - old) / seconds)

    bounds = plane.commands.bounds
    latencies = zip(before.latencies, after.latencies, strict=True)
    counts = [max(0, new - old) for old, new in latencies]
    return Point(
        t=time,
        commands=rate(before.commands, after.commands),
        hits=rate(before.hits, after.hits),
        misses=rate(before.misses, after.misses),
        errors=rate(before.errors, after.errors),
        local_errors=rate(before.local_errors, after.local_errors),
        uncertain=rate(before.uncertain, after.uncertain),
        bytes_in=rate(before.bytes_in, after.bytes_in),
        bytes_out=rate(before.bytes_out, after.bytes_out),
        clients=plane.clients.connected,
        held=plane.held.clients,
        held_bytes=plane.held.bytes,
        cache_bytes=plane.cache.bytes if plane.cache is not None else 0,
        cache_entries=plane.cache.entries if plane.cache is not None else 0,
        redirections=rate(before.redirections, after.redirections),
        p50=percentile(counts, bounds, 0.5),
        p95=percentile(counts, bounds, 0.95),
        p99=percentile(counts, bounds, 0.99),
        p999=percentile(counts, bounds, 0.999),
    )


def percentile(counts: Sequence[int], bounds: Sequence[float], share: float) -> float | None:
    """The percentile of a histogram of latencies, in seconds; None if the histogram is empty.

    Interpolated within its bucket. Latencies above all bounds count as the last bound.
    """
    everything = sum(counts)
    if not everything:
        return None
    wanted, seen, low = share * everything, 0, 0.0
    for count, high in zip(counts, bounds, strict=False):
        if seen + count >= wanted and count:
            return round(low + (high - low) * (wanted - seen) / count, 9)
        seen, low = seen + count, high
    return bounds[-1]


def _worst(latencies: Iterable[float | None]) -> float | None:
    return max((each for each in latencies if each is not None), default=None)


def _rounded(rate: float) -> float:
    return round(rate, 1)
