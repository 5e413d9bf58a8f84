"""The course of the last minutes: one point a second, made from the data plane's counters.

Rates and percentiles are those of one second, so a page that opens late, or comes back, shows the
same as one that was there all the time; there are no counters in a point that could be reset.
A point costs one snapshot: about a ten-thousandth of a second, once in a second.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, cast

from sidecar.telemetry.metrics import BOUNDS_KEY

KEPT = 900
PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p999": 0.999}

Snapshot = Mapping[str, object]

# point field -> counter it is the rate of
_RATES = {
    "hits": "cache_hits",
    "local_errors": "errors_local",
    "uncertain": "uncertain",
    "bytes_in": "client_bytes_in",
    "bytes_out": "client_bytes_out",
}
_LEVELS = {
    "clients": "clients_active",
    "held": "held_clients",
    "held_bytes": "held_bytes",
    "cache_bytes": "cache_bytes",
    "cache_entries": "cache_entries",
}


class Recorder:
    """Keeps KEPT points. `add` is called once a second."""

    def __init__(self) -> None:
        self._points: deque[Mapping[str, Any]] = deque(maxlen=KEPT)
        self._before: Snapshot = {}
        self._at: float | None = None

    def add(self, snapshot: Snapshot, now: float, wall: float) -> Mapping[str, Any] | None:
        """One more snapshot; its point, None for the first. `now` is monotonic.

        A snapshot without the data plane's counters is that of a sidecar that does not serve.
        """
        if BOUNDS_KEY not in snapshot:
            self._at = None
            return None
        before, at = self._before, self._at
        self._before, self._at = snapshot, now
        if at is None or now <= at:
            return None
        point = _point(before, snapshot, now - at) | {"t": round(wall * 1000)}
        self._points.append(point)
        return point

    def latest(self, most: int = KEPT) -> Sequence[Mapping[str, Any]]:
        """The latest points, the oldest first."""
        skip = max(0, len(self._points) - most)
        return list(islice(self._points, skip, None))

    def over(self, seconds: int) -> Mapping[str, Any]:
        """The mean of the last points: commands and errors a second, hit ratio, percentiles."""
        points = self.latest(seconds)
        if not points:
            return dict.fromkeys(("commands", "errors", "hit_ratio", *PERCENTILES))
        hits = sum(point["hits"] for point in points)
        reads = hits + sum(point["misses"] for point in points)
        worst = {
            name: max((p[name] for p in points if p[name] is not None), default=None)
            for name in PERCENTILES
        }
        return {
            "commands": _rounded(sum(point["commands"] for point in points) / len(points)),
            "errors": _rounded(sum(point["errors"] for point in points) / len(points)),
            "hit_ratio": round(hits / reads, 4) if reads else None,
            **worst,
        }


def _point(before: Snapshot, after: Snapshot, seconds: float) -> dict[str, Any]:
    def rate(key: str) -> float:
        # Never below zero: what counts by label may lose a label.
        return _rounded(max(0.0, total(after, key) - total(before, key)) / seconds)

    point: dict[str, Any] = {name: rate(key) for name, key in _RATES.items()}
    point["commands"] = rate("commands")
    point["misses"] = rate("cache_misses")
    point["errors"] = _rounded(rate("replies_error") + point["local_errors"])
    for name, key in _LEVELS.items():
        point[name] = total(after, key)
    bounds = cast(Sequence[float], after.get(BOUNDS_KEY, ()))
    counts = [
        max(0, b - a) for a, b in zip(_counts(before, bounds), _counts(after, bounds), strict=True)
    ]
    for name, share in PERCENTILES.items():
        point[name] = percentile(counts, bounds, share)
    return point


def total(snapshot: Snapshot, key: str) -> float:
    """A counter, or the sum of one with a label; 0 when there is none."""
    value = snapshot.get(key, 0)
    if isinstance(value, Mapping):
        return float(sum(value.values()))
    return float(cast(float, value))


def _counts(snapshot: Snapshot, bounds: Sequence[float]) -> list[int]:
    """All families' latencies in one histogram."""
    families = cast(Mapping[str, tuple[Sequence[int], float]], snapshot.get("latency", {})).values()
    columns = [counts for counts, _ in families]
    return [sum(column) for column in zip(*columns, strict=True)] or [0] * (len(bounds) + 1)


def percentile(counts: Sequence[int], bounds: Sequence[float], share: float) -> float | None:
    """The latency in seconds that this share of all is not above; None when there are none.

    Inside its bucket it is interpolated. What is above all bounds counts as the last of them.
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


def _rounded(rate: float) -> float:
    return round(rate, 1)
