"""The table of metrics by way of prometheus_client, which knows the formats by heart.

It is too slow for the sidecar itself (see exposition.py); tests compare with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import cast

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from sidecar.telemetry.metric_types import Declared, Histogram, LabelValues, Value
from sidecar.telemetry.metrics import METRICS
from sidecar.telemetry.snapshots import Snapshot


class SnapshotCollector(Collector):
    """Turns one snapshot into the metrics of `METRICS`."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """Called by prometheus_client for each scrape."""
        snapshot = self._snapshot()
        for declared in METRICS:
            value = declared.read(snapshot)
            if isinstance(value, Histogram):
                yield _histogram(declared, value)
            elif value is not None:
                yield _simple(declared, value)


def _simple(declared: Declared, value: Value) -> Metric:
    family = CounterMetricFamily if declared.type == "counter" else GaugeMetricFamily
    if not declared.label:
        return family(declared.name, declared.help, value=float(cast(float, value)))
    metric = family(declared.name, declared.help, labels=declared.label.split(","))
    for label, number in cast(Mapping[LabelValues, float], value).items():
        metric.add_metric([label] if isinstance(label, str) else label, float(number))
    return metric


def _histogram(declared: Declared, value: Histogram) -> Metric:
    metric = HistogramMetricFamily(declared.name, declared.help, labels=[declared.label])
    limits = [*(repr(float(bound)) for bound in value.bounds), "+Inf"]
    for label, latency in value.series.items():
        cumulative, counts = 0, latency.counts
        buckets = []
        for index, limit in enumerate(limits):
            cumulative += counts[index] if index < len(counts) else 0
            buckets.append((limit, float(cumulative)))
        metric.add_metric([label], buckets=buckets, sum_value=latency.seconds)
    return metric


def registry(snapshot: Callable[[], Snapshot]) -> CollectorRegistry:
    """A registry of its own with the sidecar's metrics."""
    made = CollectorRegistry(auto_describe=False)
    made.register(SnapshotCollector(snapshot))
    return made
