"""How a metric is declared: its name, its help, and how its value is read from a `Snapshot`.

`metrics.py` is the table of all metrics, `exposition.py` renders it. A metric belongs to a `Part`
of the snapshot; while that part is not there, or its value is None, the metric is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from sidecar.telemetry.snapshots import DataPlane, Exemplar, Latency, Snapshot

LabelValues = str | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Histogram:
    """A histogram: latencies by label value, the upper bounds of their buckets, and exemplars by
    label value and index of the bucket."""

    bounds: Sequence[float]
    series: Mapping[str, Latency]
    exemplars: Mapping[str, Mapping[int, Exemplar]] = field(default_factory=dict)


Pairs = Mapping[tuple[str, str], float]
Labelled = Mapping[str, float] | Pairs | Mapping[tuple[str, str, str], float]
Value = float | Labelled | Histogram

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Declared:
    """One metric. `label` names its label, empty for none; several are separated by commas, and
    their values are tuples."""

    name: str
    type: Literal["counter", "gauge", "histogram", "info"]
    help: str
    label: str
    read: Callable[[Snapshot], Value | None]


class Part(Generic[T]):
    """Declares the metrics of one part; `find` returns the part, or None while it is not there."""

    def __init__(self, find: Callable[[Snapshot], T | None]) -> None:
        self._find = find

    def counter(
        self, name: str, help: str, read: Callable[[T], float | Labelled | None], label: str = ""
    ) -> Declared:
        """A total since the start; the name ends with `_total`."""
        return Declared(name, "counter", help, label, self._reader(read))

    def gauge(
        self, name: str, help: str, read: Callable[[T], float | Labelled | None], label: str = ""
    ) -> Declared:
        """What is now."""
        return Declared(name, "gauge", help, label, self._reader(read))

    def histogram(
        self, name: str, help: str, read: Callable[[T], Histogram], label: str
    ) -> Declared:
        """Latencies, with one label."""
        return Declared(name, "histogram", help, label, self._reader(read))

    def _reader(self, read: Callable[[T], Value | None]) -> Callable[[Snapshot], Value | None]:
        def value(snapshot: Snapshot) -> Value | None:
            part = self._find(snapshot)
            return None if part is None else read(part)

        return value


def of_data_plane(find: Callable[[DataPlane], T | None]) -> Part[T]:
    """A part that lies in the data plane's part."""
    return Part(lambda s: None if s.data_plane is None else find(s.data_plane))
