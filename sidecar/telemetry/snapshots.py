"""Counters and gauges of a sidecar at one moment: one frozen struct per part, `Snapshot` for all.

The parts make these structs; metrics and the admin endpoint read them. They are declared here, in
a layer below both, so that neither side needs to know the other. A part that does not run is None.
What the admin API shows as it is (keys, topology, traces) is in facts.py.

Counters are totals since the start. Times are seconds, points in time are seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from sidecar.policy import breaker
from sidecar.policy.warmup import Phase


class Frozen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all structs share: immutable, named arguments only, closed JSON schemas."""


class Clients(Frozen, frozen=True):
    """The connections of clients. `closed` is by reason; bytes are counted before encryption."""

    connected: int
    accepted: int
    rejected: int
    closed: Mapping[str, int]
    received_bytes: int
    sent_bytes: int
    protocol_errors: int


class Links(Frozen, frozen=True):
    """The connections to the upstream. Bytes are counted before encryption."""

    up: bool
    shared: int
    dedicated: int
    idle: int
    reconnects: int
    received_bytes: int
    sent_bytes: int


class Latency(Frozen, frozen=True):
    """The latencies of one command family: a count for each bound and one above all; their sum."""

    counts: Sequence[int]
    seconds: float


class Commands(Frozen, frozen=True):
    """The commands served. `calls` is by command, `errors` and `latency` are by family.

    `bounds` are the upper bounds of the latency buckets. `local_errors` are the error replies that
    the sidecar made; `uncertain` commands may or may not have been executed; `unaudited` ones came
    too fast for the audit stream.
    """

    calls: Mapping[str, int]
    errors: Mapping[str, int]
    latency: Mapping[str, Latency]
    bounds: Sequence[float]
    local_errors: int
    uncertain: int
    unaudited: int


class Held(Frozen, frozen=True):
    """The requests that wait for a master, a connection, or the end of a pause. `reason` says why
    all commands wait: "pause", "switch", or both; empty: they do not. `refused`: a pause has lasted
    for too long, so commands get errors."""

    clients: int
    bytes: int
    reason: str
    refused: bool


Due = Literal["ok", "late", "overdue"]


class Unanswered(Frozen, frozen=True):
    """Replies that the server owes, whatever link they are on.

    `oldest` is the age of the oldest request that it should have answered. For `silent` seconds
    nothing has come where something was due, and `requests` wait for it: `why` says that in words,
    `since` from when (0: nothing waits). `overdue` means that the upstream is down.
    """

    oldest: float
    silent: float
    requests: int
    state: Due
    why: str
    since: float


class Breaker(Frozen, frozen=True):
    """The circuit breaker. `opened` is how often it has opened."""

    state: breaker.State
    opened: int


class Cache(Frozen, frozen=True):
    """The near cache. `proof_age` is that of the user who is worst off, of those with clients; 0
    without any. None: the server is too old for the cache."""

    mode: str
    entries: int
    bytes: int
    limit_bytes: int
    hits: int
    observed_hits: int
    misses: Mapping[str, int]
    proof_waits: int
    checks: Mapping[str, int]
    fills: int
    stored: int
    evictions: int
    expirations: int
    invalidations_own: int
    invalidations_server: int
    flushes: int
    touched: int
    connections_lost: int
    proof_age: float | None


HotKeyLabels = tuple[str, str, str]
"""User, database, key."""


class HotKeyCounts(Frozen, frozen=True):
    """Hot-key detection. `shares` and `rates` are of the hottest keys; None if not asked for."""

    hot: int
    samples: int
    top_share: float
    shares: Mapping[HotKeyLabels, float] | None = None
    rates: Mapping[HotKeyLabels, float] | None = None


class WarmStart(Frozen, frozen=True):
    """The warm start. `total` entries were found; `sources` is their number by source."""

    state: Phase
    total: int
    loaded: int
    failed: int
    duration: float
    sources: Mapping[str, int]


class Exemplar(NamedTuple):
    """The newest trace in one bucket of a latency histogram."""

    trace_id: str
    span_id: str
    seconds: float
    time: float


class Tracing(Frozen, frozen=True):
    """Traced commands by reason, spans by what became of them, exemplars by family and bucket."""

    commands: Mapping[str, int]
    untraced: int
    spans_exported: int
    spans_dropped: Mapping[str, int]
    exemplars: Mapping[str, Mapping[int, Exemplar]]


class Failover(Frozen, frozen=True):
    """Changes of the master. The latest switch and interruption are None before the first."""

    switches: int
    last_switch: float | None
    last_interruption: float | None


class DataPlane(Frozen, frozen=True):
    """The data plane. `certificates` are those in use, by use, with the time when each ends."""

    clients: Clients
    links: Links
    commands: Commands
    unanswered: Unanswered
    held: Held
    breaker: Breaker
    cache: Cache | None = None
    hot_keys: HotKeyCounts | None = None
    warm: WarmStart | None = None
    tracing: Tracing | None = None
    failover: Failover | None = None
    certificates: Mapping[str, float] = {}


class Lines(Frozen, frozen=True):
    """The lines of one stream; dropped are those that its reader was too slow for."""

    written: int
    dropped: int


class Process(Frozen, frozen=True):
    """The process: how late its event loop was, and its lines by stream (log, audit).

    `suppressed` lines were left out because their event had been logged often enough.
    """

    loop_lag: float
    lines: Mapping[str, Lines]
    suppressed: int


class SentinelCounts(Frozen, frozen=True):
    """Sentinels known and connected; the replicas that they know, None if none has told."""

    known: int
    connected: int
    replicas: int | None


class Snapshot(Frozen, frozen=True):
    """All counters and gauges. `data_plane` is None while no clients are served."""

    process: Process | None = None
    data_plane: DataPlane | None = None
    sentinels: SentinelCounts | None = None
