"""The metrics: each name declared once, read from the data plane's counters at scrape time.

`METRICS` is the table that code, documentation and tests read. `registry` joins it to a
snapshot: a function of the proxy that returns its counters as one flat mapping. Nothing on the
data path calls anything here; a scrape reads the snapshot once and turns it into text.

Snapshot keys that are missing leave their metric out, so that a proxy can grow its counters one
by one. A value is a number, a mapping of label value to number, or, for the histogram, a mapping
of label value to `(counts, sum)`: `counts` has one plain (not cumulative) count for each bound
of `latency_bounds` and a last one for everything above; `sum` is in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

import sidecar

Snapshot = Callable[[], Mapping[str, object]]
"""Returns the data plane's counters; called on the event loop, once for each scrape."""

LabelValues = str | tuple[str, ...]
BOUNDS_KEY = "latency_bounds"


@dataclass(frozen=True, slots=True)
class Declared:
    """One metric: its full name, what it is, and the snapshot key it is read from.

    `label` names the label, empty for none; of several, separated by commas, the values are in a
    tuple. `keys` replaces `key` where the values of the
    label come from several snapshot keys (label value -> key).
    """

    name: str
    type: Literal["counter", "gauge", "histogram", "info"]
    help: str
    key: str = ""
    label: str = ""
    keys: Mapping[str, str] = field(default_factory=dict)

    def value(self, snapshot: Mapping[str, object]) -> object:
        """What `snapshot` says about it: a number or a mapping; None when it says nothing."""
        if not self.keys:
            return snapshot.get(self.key)
        found = {label: snapshot[key] for label, key in self.keys.items() if key in snapshot}
        return found or None


METRICS: tuple[Declared, ...] = (
    Declared(
        "sidecar_build_info", "info", "Always 1; the label names the version.", label="version"
    ),
    Declared("sidecar_client_connections", "gauge", "Clients connected now.", key="clients_active"),
    Declared(
        "sidecar_client_connections_accepted_total",
        "counter",
        "Clients accepted.",
        key="clients_total",
    ),
    Declared(
        "sidecar_client_connections_rejected_total",
        "counter",
        "Clients refused because listen.max_clients were connected.",
        key="clients_rejected",
    ),
    Declared(
        "sidecar_client_connections_closed_total",
        "counter",
        "Clients whose connection ended, by reason.",
        key="clients_closed",
        label="reason",
    ),
    Declared(
        "sidecar_client_receive_bytes_total",
        "counter",
        "Bytes received from clients, before encryption.",
        key="client_bytes_in",
    ),
    Declared(
        "sidecar_client_transmit_bytes_total",
        "counter",
        "Bytes sent to clients, before encryption.",
        key="client_bytes_out",
    ),
    Declared(
        "sidecar_upstream_up", "gauge", "1 while the upstream is reachable.", key="upstream_up"
    ),
    Declared(
        "sidecar_upstream_links",
        "gauge",
        "Connections to the upstream: shared, dedicated to one client, or idle in the pool.",
        label="kind",
        keys={"shared": "links_shared", "dedicated": "links_dedicated", "idle": "links_idle"},
    ),
    Declared(
        "sidecar_upstream_reconnects_total",
        "counter",
        "Shared connections to the upstream that had to be made again.",
        key="reconnects",
    ),
    Declared(
        "sidecar_upstream_receive_bytes_total",
        "counter",
        "Bytes received from the upstream, before encryption.",
        key="upstream_bytes_in",
    ),
    Declared(
        "sidecar_upstream_transmit_bytes_total",
        "counter",
        "Bytes sent to the upstream, before encryption.",
        key="upstream_bytes_out",
    ),
    Declared(
        "sidecar_commands_total",
        "counter",
        "Commands served by the upstream, by name; names it does not list count as unknown.",
        key="commands",
        label="command",
    ),
    Declared(
        "sidecar_command_errors_total",
        "counter",
        "Error replies of the upstream, by command family.",
        key="replies_error",
        label="family",
    ),
    Declared(
        "sidecar_command_duration_seconds",
        "histogram",
        "Time from receiving a command to having its reply, by command family.",
        key="latency",
        label="family",
    ),
    Declared(
        "sidecar_local_errors_total",
        "counter",
        "Error replies made by the sidecar itself, such as for an upstream that is down.",
        key="errors_local",
    ),
    Declared(
        "sidecar_protocol_errors_total",
        "counter",
        "Clients that sent something that is not the Redis protocol.",
        key="protocol_errors",
    ),
    Declared(
        "sidecar_uncertain_total",
        "counter",
        "Commands that may or may not have been executed when a connection was lost.",
        key="uncertain",
    ),
    Declared(
        "sidecar_held_clients",
        "gauge",
        "Clients whose requests wait for a master.",
        key="held_clients",
    ),
    Declared(
        "sidecar_held_bytes",
        "gauge",
        "Bytes of requests that wait for a master.",
        key="held_bytes",
    ),
    Declared(
        "sidecar_breaker_state",
        "gauge",
        "1 for the state the circuit breaker is in.",
        key="breaker",
        label="state",
    ),
    Declared(
        "sidecar_breaker_opened_total",
        "counter",
        "Times the circuit breaker has opened.",
        key="breaker_opened",
    ),
    Declared(
        "sidecar_master_switches_total",
        "counter",
        "Times the sidecar went over to another master.",
        key="switches",
    ),
    Declared(
        "sidecar_interruption_seconds",
        "gauge",
        "How long the latest interruption of the upstream was.",
        key="last_interruption",
    ),
    Declared(
        "sidecar_master_switch_timestamp_seconds",
        "gauge",
        "When the sidecar last went over to another master, as Unix time.",
        key="last_switch",
    ),
    Declared(
        "sidecar_sentinels",
        "gauge",
        "Sentinels of the upstream: known, and of those connected.",
        label="state",
        keys={"known": "sentinels_known", "connected": "sentinels_connected"},
    ),
    Declared(
        "sidecar_replicas", "gauge", "Replicas that the Sentinels know.", key="replicas_known"
    ),
    Declared(
        "sidecar_cache_hits_total",
        "counter",
        "Reads answered from the near cache.",
        key="cache_hits",
    ),
    Declared(
        "sidecar_cache_observed_hits_total",
        "counter",
        "Reads that would have been answered from it (cache.mode = observe).",
        key="cache_observed_hits",
    ),
    Declared(
        "sidecar_cache_misses_total",
        "counter",
        "Reads of keys to be cached that were not answered at once, by reason.",
        key="cache_misses",
        label="reason",
    ),
    Declared(
        "sidecar_cache_checks_total",
        "counter",
        "Answers from the near cache compared with the server's (cache.check).",
        key="cache_checks",
        label="result",
    ),
    Declared("sidecar_cache_fills_total", "counter", "Values asked for.", key="cache_fills"),
    Declared("sidecar_cache_stored_total", "counter", "Values read and kept.", key="cache_stored"),
    Declared(
        "sidecar_cache_evictions_total",
        "counter",
        "Values let go because cache.memory was used up.",
        key="cache_evicted",
    ),
    Declared(
        "sidecar_cache_expirations_total",
        "counter",
        "Values whose time was over.",
        key="cache_expired",
    ),
    Declared(
        "sidecar_cache_invalidations_total",
        "counter",
        "Values dropped: for a command that went through this sidecar, or by the server.",
        label="cause",
        keys={"own": "cache_invalidated_here", "server": "cache_invalidated_pushed"},
    ),
    Declared(
        "sidecar_cache_flushes_total",
        "counter",
        "Times everything was dropped at once.",
        key="cache_flushed",
    ),
    Declared(
        "sidecar_cache_connections_lost_total",
        "counter",
        "Tracked connections that were lost, and all that had been read on them with it.",
        key="cache_generations_lost",
    ),
    Declared("sidecar_cache_entries", "gauge", "Values that are here.", key="cache_entries"),
    Declared("sidecar_cache_bytes", "gauge", "Memory they take.", key="cache_bytes"),
    Declared("sidecar_cache_limit_bytes", "gauge", "Memory they may take.", key="cache_budget"),
    Declared(
        "sidecar_cache_proof_age_seconds",
        "gauge",
        "Time since invalidations were last known to arrive, of the user that is worst off.",
        key="cache_proof_age",
    ),
    Declared("sidecar_hot_keys", "gauge", "Keys that are hot now.", key="hotkeys_hot"),
    Declared(
        "sidecar_hot_key_samples_total",
        "counter",
        "Keys looked at to find the hot ones.",
        key="hotkeys_sampled",
    ),
    Declared(
        "sidecar_hot_key_top_share",
        "gauge",
        "Share of the traffic that the hottest key has.",
        key="hotkeys_top_share",
    ),
    Declared(
        "sidecar_hot_key_share",
        "gauge",
        "Share of the traffic that each of the hottest keys has (hotkeys.metrics, off by default).",
        key="hotkeys_shares",
        label="user,db,key",
    ),
    Declared(
        "sidecar_hot_key_rate",
        "gauge",
        "Commands on each of them, a second.",
        key="hotkeys_rates",
        label="user,db,key",
    ),
    Declared(
        "sidecar_warmup_state",
        "gauge",
        "1 for the state the warm start is in.",
        key="warm_state",
        label="state",
    ),
    Declared(
        "sidecar_warmup_keys",
        "gauge",
        "Entries of the warm start: found, and of those loaded and failed so far.",
        label="state",
        keys={"found": "warm_total", "loaded": "warm_loaded", "failed": "warm_failed"},
    ),
    Declared(
        "sidecar_warmup_duration_seconds",
        "gauge",
        "How long the warm start has taken, so far or altogether.",
        key="warm_duration",
    ),
    Declared(
        "sidecar_tls_certificate_expiry_timestamp_seconds",
        "gauge",
        "When a certificate in use ends, as Unix time: the listener's, or the one shown upstream.",
        key="certificates",
        label="certificate",
    ),
    Declared(
        "sidecar_event_loop_lag_seconds",
        "gauge",
        "Longest time within the last 30 to 60 seconds that the event loop was late.",
        key="loop_lag",
    ),
    Declared(
        "sidecar_log_lines_total",
        "counter",
        "Lines written, by stream: log or audit.",
        key="log_lines",
        label="stream",
    ),
    Declared(
        "sidecar_log_dropped_total",
        "counter",
        "Lines dropped because whoever reads them is too slow, by stream.",
        key="log_dropped",
        label="stream",
    ),
    Declared(
        "sidecar_log_suppressed_total",
        "counter",
        "Lines left out because the same event had been told often enough.",
        key="log_suppressed",
    ),
    Declared(
        "sidecar_traced_commands_total",
        "counter",
        "Commands traced: because they were sampled, slow or failed (maybe more than one).",
        key="traces_commands",
        label="why",
    ),
    Declared(
        "sidecar_untraced_commands_total",
        "counter",
        "Commands that were sampled, slow or failed, and not traced: too many in that second.",
        key="traces_unrecorded",
    ),
    Declared(
        "sidecar_spans_exported_total",
        "counter",
        "Spans that the collector has taken.",
        key="traces_spans_exported",
    ),
    Declared(
        "sidecar_spans_dropped_total",
        "counter",
        "Spans that were not sent: the queue was full, or the collector did not take them.",
        key="traces_spans_dropped",
        label="reason",
    ),
)


class SnapshotCollector(Collector):
    """Turns one snapshot into the metrics of `METRICS`."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def describe(self) -> Iterator[Metric]:
        """The names alone, so that registering does not take a snapshot."""
        for declared in METRICS:
            yield Metric(declared.name.removesuffix("_total"), declared.help, "unknown")

    def collect(self) -> Iterator[Metric]:
        """Called by prometheus_client for each scrape."""
        snapshot = self._snapshot()
        for declared in METRICS:
            if declared.type == "info":
                build = {sidecar.__version__: 1}
                yield from _simple(GaugeMetricFamily, declared, build)
                continue
            value = declared.value(snapshot)
            if value is None:
                continue
            if declared.type == "histogram":
                bounds = cast(Sequence[float], snapshot.get(BOUNDS_KEY, ()))
                yield _histogram(declared, value, bounds)
            else:
                family = CounterMetricFamily if declared.type == "counter" else GaugeMetricFamily
                yield from _simple(family, declared, value)


def _simple(
    family: type[CounterMetricFamily] | type[GaugeMetricFamily], declared: Declared, value: object
) -> Iterator[Metric]:
    if not declared.label:
        yield family(declared.name, declared.help, value=float(cast(float, value)))
        return
    metric = family(declared.name, declared.help, labels=declared.label.split(","))
    for label, number in cast(Mapping[LabelValues, float], value).items():
        metric.add_metric([label] if isinstance(label, str) else label, float(number))
    yield metric


def _histogram(declared: Declared, value: object, bounds: Sequence[float]) -> Metric:
    metric = HistogramMetricFamily(declared.name, declared.help, labels=[declared.label])
    limits = [*(repr(float(bound)) for bound in bounds), "+Inf"]
    for label, (counts, total) in cast(Mapping[str, tuple[Sequence[int], float]], value).items():
        cumulative = 0
        buckets = []
        for index, limit in enumerate(limits):
            cumulative += counts[index] if index < len(counts) else 0
            buckets.append((limit, float(cumulative)))
        metric.add_metric([label], buckets=buckets, sum_value=total)
    return metric


def registry(snapshot: Snapshot) -> CollectorRegistry:
    """A private registry with the sidecar's metrics and those of its process."""
    made = CollectorRegistry(auto_describe=False)
    made.register(SnapshotCollector(snapshot))
    ProcessCollector(registry=made)
    return made
