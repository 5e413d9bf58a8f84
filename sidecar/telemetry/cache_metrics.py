"""The metrics of what is kept about keys: near cache, hot keys, warm start.

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
        "Reads that would have been answered from it (cache.mode = observe).",
        lambda c: c.observed_hits,
    ),
    _cache.counter(
        "sidecar_cache_misses_total",
        "Reads of keys to be cached that were not answered at once, by reason.",
        lambda c: c.misses,
        "reason",
    ),
    _cache.counter(
        "sidecar_cache_proof_waits_total",
        "Reads that waited for the proof that all changes are here that a client was told of.",
        lambda c: c.proof_waits,
    ),
    _cache.counter(
        "sidecar_cache_checks_total",
        "Answers from the near cache compared with the server's (cache.check).",
        lambda c: c.checks,
        "result",
    ),
    _cache.counter("sidecar_cache_fills_total", "Values asked for.", lambda c: c.fills),
    _cache.counter("sidecar_cache_stored_total", "Values read and kept.", lambda c: c.stored),
    _cache.counter(
        "sidecar_cache_evictions_total",
        "Values let go because cache.memory was used up.",
        lambda c: c.evictions,
    ),
    _cache.counter(
        "sidecar_cache_expirations_total", "Values whose time was over.", lambda c: c.expirations
    ),
    _cache.counter(
        "sidecar_cache_invalidations_total",
        "Values dropped: for a command that went through this sidecar, or by the server.",
        lambda c: {"own": c.invalidations_own, "server": c.invalidations_server},
        "cause",
    ),
    _cache.counter(
        "sidecar_cache_flushes_total", "Times everything was dropped at once.", lambda c: c.flushes
    ),
    _cache.counter(
        "sidecar_cache_connections_lost_total",
        "Tracked connections that were lost, and all that had been read on them with it.",
        lambda c: c.connections_lost,
    ),
    _cache.gauge("sidecar_cache_entries", "Values that are here.", lambda c: c.entries),
    _cache.gauge("sidecar_cache_bytes", "Memory they take.", lambda c: c.bytes),
    _cache.gauge("sidecar_cache_limit_bytes", "Memory they may take.", lambda c: c.limit_bytes),
    _cache.gauge(
        "sidecar_cache_proof_age_seconds",
        "Time since invalidations were last known to arrive, of the user that is worst off.",
        lambda c: c.proof_age,
    ),
)
HOT_KEYS = (
    _hot_keys.gauge("sidecar_hot_keys", "Keys that are hot now.", lambda h: h.hot),
    _hot_keys.counter(
        "sidecar_hot_key_samples_total",
        "Keys looked at to find the hot ones.",
        lambda h: h.samples,
    ),
    _hot_keys.gauge(
        "sidecar_hot_key_top_share",
        "Share of the traffic that the hottest key has.",
        lambda h: h.top_share,
    ),
    _hot_keys.gauge(
        "sidecar_hot_key_share",
        "Share of the traffic that each of the hottest keys has (hotkeys.metrics, off by default).",
        lambda h: h.shares,
        "user,db,key",
    ),
    _hot_keys.gauge(
        "sidecar_hot_key_rate",
        "Commands on each of them, a second.",
        lambda h: h.rates,
        "user,db,key",
    ),
)
WARM_START = (
    _warm.gauge(
        "sidecar_warmup_state",
        "1 for the state the warm start is in.",
        lambda w: {phase.value: int(phase is w.state) for phase in Phase},
        "state",
    ),
    _warm.gauge(
        "sidecar_warmup_keys",
        "Entries of the warm start: found, and of those loaded and failed so far.",
        lambda w: {"found": w.total, "loaded": w.loaded, "failed": w.failed},
        "state",
    ),
    _warm.gauge(
        "sidecar_warmup_duration_seconds",
        "How long the warm start has taken, so far or altogether.",
        lambda w: w.duration,
    ),
)
