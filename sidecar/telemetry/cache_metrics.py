"""The metrics about keys: near cache, hot keys, warm start.

A part of the table in metrics.py, in the same form.
"""

from __future__ import annotations

from sidecar.policy.warmup import Phase
from sidecar.telemetry.metric_types import of_data_plane

_cache = of_data_plane(lambda p: p.cache)
_hot_keys = of_data_plane(lambda p: p.hot_keys)
_warm = of_data_plane(lambda p: p.warm)

CACHE = (
    _cache.counter(
        "sidecar_cache_hits_total", "Reads answered from the near cache.", lambda c: c.hits
    ),
    _cache.counter(
        "sidecar_cache_observed_hits_total",
        "Reads that the near cache would have answered (cache.mode = observe).",
        lambda c: c.observed_hits,
    ),
    _cache.counter(
        "sidecar_cache_misses_total",
        "Reads of cacheable keys that the near cache did not answer, by reason.",
        lambda c: c.misses,
        "reason",
    ),
    _cache.counter(
        "sidecar_cache_proof_waits_total",
        "Reads that waited for a proof that all changes a client was told of have arrived.",
        lambda c: c.proof_waits,
    ),
    _cache.counter(
        "sidecar_cache_checks_total",
        "Answers of the near cache compared with the server's (cache.check), by result.",
        lambda c: c.checks,
        "result",
    ),
    _cache.counter(
        "sidecar_cache_touched_keys_total",
        "Keys named to the server as in use, where it evicts by use (LRU or LFU).",
        lambda c: c.touched,
    ),
    _cache.counter(
        "sidecar_cache_fills_total", "Reads of values for the near cache.", lambda c: c.fills
    ),
    _cache.counter(
        "sidecar_cache_stored_total", "Values read and kept by the near cache.", lambda c: c.stored
    ),
    _cache.counter(
        "sidecar_cache_evictions_total",
        "Values evicted because cache.memory was full.",
        lambda c: c.evictions,
    ),
    _cache.counter(
        "sidecar_cache_expirations_total", "Values that expired.", lambda c: c.expirations
    ),
    _cache.counter(
        "sidecar_cache_invalidations_total",
        "Values dropped for a command through this sidecar (own) or an invalidation (server).",
        lambda c: {"own": c.invalidations_own, "server": c.invalidations_server},
        "cause",
    ),
    _cache.counter(
        "sidecar_cache_flushes_total", "Times all values were dropped at once.", lambda c: c.flushes
    ),
    _cache.counter(
        "sidecar_cache_connections_lost_total",
        "Tracked links that were lost; all values read on them were dropped.",
        lambda c: c.connections_lost,
    ),
    _cache.gauge("sidecar_cache_entries", "Values in the near cache.", lambda c: c.entries),
    _cache.gauge("sidecar_cache_bytes", "Memory that the near cache uses.", lambda c: c.bytes),
    _cache.gauge(
        "sidecar_cache_limit_bytes",
        "Memory that the near cache may use (cache.memory).",
        lambda c: c.limit_bytes,
    ),
    _cache.gauge(
        "sidecar_cache_proof_age_seconds",
        "Time since the last proof that invalidations arrive; of users with clients, the longest.",
        lambda c: c.proof_age,
    ),
)
HOT_KEYS = (
    _hot_keys.gauge("sidecar_hot_keys", "Keys that are hot now.", lambda h: h.hot),
    _hot_keys.counter(
        "sidecar_hot_key_samples_total",
        "Keys sampled to find hot keys.",
        lambda h: h.samples,
    ),
    _hot_keys.gauge(
        "sidecar_hot_key_top_share",
        "Share of the traffic on the hottest key.",
        lambda h: h.top_share,
    ),
    _hot_keys.gauge(
        "sidecar_hot_key_share",
        "Share of the traffic on each of the hottest keys (hotkeys.metrics, off by default).",
        lambda h: h.shares,
        "user,db,key",
    ),
    _hot_keys.gauge(
        "sidecar_hot_key_rate",
        "Commands per second on each of the hottest keys (hotkeys.metrics).",
        lambda h: h.rates,
        "user,db,key",
    ),
)
WARM_START = (
    _warm.gauge(
        "sidecar_warmup_state",
        "1 for the current state of the warm start, 0 for the others.",
        lambda w: {phase.value: int(phase is w.state) for phase in Phase},
        "state",
    ),
    _warm.gauge(
        "sidecar_warmup_keys",
        "Entries of the warm start: found, loaded so far, failed so far.",
        lambda w: {"found": w.total, "loaded": w.loaded, "failed": w.failed},
        "state",
    ),
    _warm.gauge(
        "sidecar_warmup_duration_seconds",
        "Duration of the warm start, so far or in total.",
        lambda w: w.duration,
    ),
)
