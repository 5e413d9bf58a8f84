"""Counters and gauges of a sidecar at one moment: one frozen struct per part, `Snapshot` for all.

The parts make these structs; metrics and the admin endpoint read them. They are declared here, in
a layer below both, so that neither side needs to know the other. A part that does not run is None.
What the admin API shows as it is (keys, topology, traces) is in facts.py.

Counters are totals since the start. Times are seconds, points in time are seconds since 1970.

Each figure says with its type how those of several workers become one; combining.py does it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, NamedTuple

import msgspec

from sidecar.policy import breaker
from sidecar.policy.warmup import Phase


class Frozen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all structs share: immutable, named arguments only, closed JSON schemas."""


def _over_workers(how: str) -> msgspec.Meta:
    """How the figures of several workers become one: a word that combining.py knows."""
    return msgspec.Meta(extra={"over workers": how})


ADDED = _over_workers("added")  # a counter: what workers have counted that are gone stays in it
COMMON = _over_workers("common")  # a counter of what happens to all of them at once: the greatest
SUM = _over_workers("sum")  # a gauge: of the workers that are there
MOST = _over_workers("most")
LEAST = _over_workers("least")
ALL = _over_workers("all")
SAME = _over_workers("same")  # every worker's is the same
WORST = _over_workers("worst")
NEWEST = _over_workers("newest")

Counter = Annotated[int, ADDED]
Counters = Annotated[Mapping[str, int], ADDED]
Gauge = Annotated[int, SUM]


class Clients(Frozen, frozen=True):
    """The connections of clients. `closed` is by reason, `tls_failures` are the handshakes that
    failed, by reason; bytes are counted before encryption. `logins` are those that the sidecar has
    judged, by result."""

    connected: Gauge
    accepted: Counter
    rejected: Counter
    closed: Counters
    received_bytes: Counter
    sent_bytes: Counter
    protocol_errors: Counter
    tls_failures: Counters = {}
    logins: Counters = {}


class Links(Frozen, frozen=True):
    """The connections to the upstream. Bytes are counted before encryption. `tls_failures` are the
    handshakes that failed, by reason."""

    up: Annotated[bool, ALL]
    shared: Gauge
    dedicated: Gauge
    idle: Gauge
    reconnects: Counter
    received_bytes: Counter
    sent_bytes: Counter
    tls_failures: Counters = {}


class Latency(Frozen, frozen=True):
    """The latencies of one command family: a count for each bound and one above all; their sum."""

    counts: Annotated[Sequence[int], ADDED]
    seconds: Annotated[float, ADDED]


class Commands(Frozen, frozen=True):
    """The commands served. `calls` is by command, `errors` and `latency` are by family.

    `bounds` are the upper bounds of the latency buckets. `local_errors` are the error replies that
    the sidecar made; `uncertain` commands may or may not have been executed; `unaudited` ones came
    too fast for the audit stream.
    """

    calls: Counters
    errors: Counters
    latency: Mapping[str, Latency]
    bounds: Annotated[Sequence[float], SAME]
    local_errors: Counter
    uncertain: Counter
    unaudited: Counter


class Held(Frozen, frozen=True):
    """The requests that wait for a master, a connection, or the end of a pause. `reason` says why
    all commands wait: "pause", "switch", or both; empty: they do not. `refused`: a pause has lasted
    for too long, so commands get errors."""

    clients: Gauge
    bytes: Gauge
    reason: Annotated[str, MOST]
    refused: Annotated[bool, MOST]


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


def waiting(requests: int) -> str:
    """How many requests wait, as the end of `Unanswered.why`."""
    return "1 command waits" if requests == 1 else f"{requests} commands wait"


class Breaker(Frozen, frozen=True):
    """The circuit breaker. `opened` is how often it has opened."""

    state: Annotated[breaker.State, WORST]
    opened: Annotated[int, COMMON]


class Cache(Frozen, frozen=True):
    """The near cache. `proof_age` is that of the user who is worst off, of those with clients; 0
    without any. None: the server is too old for the cache."""

    mode: Annotated[str, SAME]
    entries: Gauge
    bytes: Gauge
    limit_bytes: Gauge
    hits: Counter
    observed_hits: Counter
    misses: Counters
    proof_waits: Counter
    checks: Counters
    fills: Counter
    stored: Counter
    evictions: Counter
    expirations: Counter
    invalidations_own: Counter
    invalidations_server: Counter
    flushes: Counter
    touched: Counter
    connections_lost: Counter
    proof_age: Annotated[float | None, MOST]


HotKeyLabels = tuple[str, str, str]
"""User, database, key."""


class HotKeyCounts(Frozen, frozen=True):
    """Hot-key detection. `shares` and `rates` are of the hottest keys; None if not asked for."""

    hot: Annotated[int, MOST]
    samples: Counter
    top_share: Annotated[float, MOST]
    shares: Annotated[Mapping[HotKeyLabels, float] | None, MOST] = None
    rates: Annotated[Mapping[HotKeyLabels, float] | None, SUM] = None


class WarmStart(Frozen, frozen=True):
    """The warm start. `total` entries were found; `sources` is their number by source."""

    state: Annotated[Phase, WORST]
    total: Gauge
    loaded: Gauge
    failed: Gauge
    duration: Annotated[float, MOST]
    sources: Annotated[Mapping[str, int], SUM]


class Exemplar(NamedTuple):
    """The newest trace in one bucket of a latency histogram."""

    trace_id: str
    span_id: str
    seconds: float
    time: float


class Tracing(Frozen, frozen=True):
    """Traced commands by reason, spans by what became of them, exemplars by family and bucket."""

    commands: Counters
    untraced: Counter
    spans_exported: Counter
    spans_dropped: Counters
    exemplars: Annotated[Mapping[str, Mapping[int, Exemplar]], NEWEST]


class Failover(Frozen, frozen=True):
    """Changes of the master. The latest switch and interruption are None before the first."""

    switches: Annotated[int, COMMON]
    last_switch: Annotated[float | None, MOST]
    last_interruption: Annotated[float | None, MOST]


class Cluster(Frozen, frozen=True):
    """A cluster behind: its shards; those without a primary, those that are `lost` (they have none,
    or cannot be connected) and those with replies overdue; slots that nobody has; the slots of the
    shard that has most, and of the one that has least of those that have any.

    `switches` of shards to another primary; slots that `moved` to another shard, or to none;
    redirections by kind (moved, asked, refused for now), clients whose requests wait because of
    them, and how often a subscriber has been given another link.
    """

    shards: Annotated[int, MOST]
    without_primary: Annotated[int, MOST]
    lost: Annotated[int, MOST]
    overdue: Annotated[int, MOST]
    uncovered: Annotated[int, MOST]
    most_slots: Annotated[int, MOST]
    least_slots: Annotated[int, LEAST]
    switches: Annotated[int, COMMON]
    moved: Annotated[int, COMMON]
    redirections: Counters
    waiting: Gauge
    resubscriptions: Counter


RefusalLabels = tuple[str, str]
"""Identity, reason."""


class Restrictions(Frozen, frozen=True):
    """What policies and limits have refused, and the commands that had to wait for their time, by
    identity; the clients that wait for any limit."""

    refused: Annotated[Mapping[RefusalLabels, int], ADDED]
    delayed: Counters
    waiting: Gauge


class DataPlane(Frozen, frozen=True):
    """The data plane. `certificates` are the ends of those in use, by use, `certificates_begin`
    the times from which they are valid."""

    clients: Clients
    links: Links
    commands: Commands
    unanswered: Annotated[Unanswered, WORST]
    held: Held
    breaker: Breaker
    cache: Cache | None = None
    hot_keys: HotKeyCounts | None = None
    warm: WarmStart | None = None
    tracing: Tracing | None = None
    failover: Failover | None = None
    cluster: Cluster | None = None
    restrictions: Restrictions | None = None
    certificates: Annotated[Mapping[str, float], LEAST] = {}
    certificates_begin: Annotated[Mapping[str, float], LEAST] = {}


class Lines(Frozen, frozen=True):
    """The lines of one stream; dropped are those that its reader was too slow for."""

    written: Counter
    dropped: Counter


class Process(Frozen, frozen=True):
    """The process: how late its event loop was, its tasks, and its lines by stream (log, audit).

    `suppressed` lines were left out because their event had been logged often enough.
    """

    loop_lag: Annotated[float, MOST]
    loop_tasks: Gauge
    lines: Mapping[str, Lines]
    suppressed: Counter


class SentinelCounts(Frozen, frozen=True):
    """Sentinels known and connected; the replicas that they know, None if none has told; TLS
    handshakes with them that failed, by reason."""

    known: Annotated[int, MOST]
    connected: Annotated[int, LEAST]
    replicas: Annotated[int | None, MOST]
    tls_failures: Counters = {}


class AdminPort(Frozen, frozen=True):
    """The admin port: its connections, and those that it has closed by reason (limit, slow, idle);
    live streams; requests that were refused, by reason (token, role, host, site); TLS handshakes
    that failed, by reason."""

    connections: Gauge
    closed: Counters
    streams: Gauge
    streams_opened: Counter
    refused: Counters
    tls_failures: Counters = {}


WorkerState = Literal["up", "silent", "starting"]
WORKER_STATES: Sequence[str] = ("up", "silent", "starting")


class Worker(Frozen, frozen=True):
    """One of several workers. `silent`: it does not answer; `starting`: not yet, or again, because
    it has ended. `why` says that in words, `since` when it began."""

    number: int
    pid: int
    state: WorkerState
    since: float
    why: str
    restarts: int


class Snapshot(Frozen, frozen=True):
    """All counters and gauges. `data_plane` is None while no clients are served, `workers` where
    there is a single process."""

    process: Process | None = None
    data_plane: DataPlane | None = None
    sentinels: SentinelCounts | None = None
    admin: AdminPort | None = None
    workers: Annotated[Sequence[Worker] | None, SAME] = None
