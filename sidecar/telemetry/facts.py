"""Facts about the parts of a sidecar: hot keys, the upstream, the server, Sentinels, traces.

The data plane and the discovery make these structs, and the admin API shows them: field names are
the names in its JSON, and its JSON schemas are generated from the structs, docstrings included.
Counters and gauges are in snapshots.py.

Times are seconds unless the name says otherwise, points in time are seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import UNSET, UnsetType

from sidecar.telemetry.snapshots import Frozen

# Hot keys


class HotKey(Frozen, frozen=True):
    """One key of the ranking. Rates are per second; binary keys are shown as redis-cli does.
    `slot` is that of a cluster, null without one, and for keys of 512 bytes and more."""

    key: str
    db: int
    user: str
    share: float
    rate: float
    reads: float
    writes: float
    hot: bool
    cached: bool
    slot: int | None = None


class HotKeys(Frozen, frozen=True):
    """The hottest keys, the hottest first, within a window of `window_s` seconds."""

    window_s: float
    keys: Sequence[HotKey]


# The upstream


class Interruption(Frozen, frozen=True):
    """A time in which requests could not be passed on; `switched` if the master changed in it.

    `before` and `after` are addresses. `seconds` is null while it lasts. `shard` is the number of
    the cluster's shard that it concerns, null where the upstream is no cluster.
    """

    at: float
    before: str
    after: str
    switched: bool
    seconds: float | None
    shard: int | None = None


class Replica(Frozen, frozen=True):
    """A replica and how far it is behind; null is unknown. `state` is online if all is well."""

    address: str
    state: str
    lag_bytes: int | None
    lag_s: int | None


ShardState = Literal["up", "idle", "connecting", "late", "overdue", "lost"]


class Shard(Frozen, frozen=True):
    """A shard of a cluster, by the sidecar's number for it. `primary` is an address, null while
    there is none; `replicas` are all other servers of it. `slots` are counted, `ranges` have the
    first and the last slot of each range.

    `state` is idle while nobody has needed a link to it; connecting; late and overdue if it owes
    replies and is silent; lost if it has no primary or cannot be connected. `silent_s`: for so many
    seconds. `up`: the sidecar has a link that works. `replies_due` are those of shared links;
    `held_clients` wait for this shard.
    """

    number: int
    primary: str | None
    replicas: Sequence[Replica]
    slots: int
    ranges: Sequence[tuple[int, int]]
    up: bool
    state: ShardState
    silent_s: float
    replies_due: int
    held_clients: int


class Upstream(Frozen, frozen=True):
    """Where the data plane sends commands, and its interruptions, the newest first. `shards` are
    those of a cluster, null where the upstream is none."""

    upstream: str
    follows_sentinels: bool
    phase: str | None
    master: str | None
    up: bool
    switches: int
    history: Sequence[Interruption]
    shards: Sequence[Shard] | None


class UnderWay(Frozen, frozen=True):
    """The links on which something is under way: replies are due; a transaction, or WATCH, is open;
    the rest of a large request is to come; a pinned client has asked something; a command
    blocks."""

    replies: int = 0
    transactions: int = 0
    streamed: int = 0
    pinned: int = 0
    blocked: int = 0

    @property
    def quiet(self) -> bool:
        """Whether there is nothing but commands that block."""
        return not (self.replies or self.transactions or self.streamed or self.pinned)


class ComparedServer(Frozen, frozen=True):
    """A server that clients leave, or go to; null where the sidecar's user may not ask. `keys` by
    number of the database; `error` says why something is missing."""

    address: str
    run_id: str | None = None
    software: str | None = None
    version: str | None = None
    role: str | None = None
    keys: Mapping[int, int] = {}
    modules: Sequence[str] = ()
    used_memory: int | None = None
    maxmemory: int | None = None
    maxmemory_policy: str | None = None
    notify_keyspace_events: str | None = None
    error: str | None = None


class Server(Frozen, frozen=True):
    """What the server says about itself; `error` if it says nothing."""

    software: str | None = None
    version: str | None = None
    role: str | None = None
    master_link: str | None = None
    uptime_s: int | None = None
    used_memory: int | None = None
    maxmemory: int | None = None
    connected_replicas: int | None = None
    ops_per_second: int | None = None
    evicted_keys: int | None = None
    replicas: Sequence[Replica] = ()
    info_s: float | None = None
    error: str | None = None


class Sentinel(Frozen, frozen=True):
    """One Sentinel, and the master that it names. `error` is empty if nothing is wrong."""

    address: str
    configured: bool
    connected: bool
    error: str
    master: str | None
    epoch: int | None


class Sentinels(Frozen, frozen=True):
    """All Sentinels of a service; master, epoch, quorum and replicas of the newest epoch told."""

    service: str
    master: str | None
    epoch: int | None
    quorum: int | None
    replicas: int | None
    sentinels: Sequence[Sentinel]


class SentinelReplica(Frozen, frozen=True):
    """A replica as one Sentinel sees it.

    `flags` are the words of the Sentinel (`slave`, `s_down`, `disconnected` …). `link` is the
    state of the replication, `ok` or `err`, down for `link_down` seconds. `offset` in the
    replication stream (bytes) is from the replica's INFO of `age` seconds ago. None: unknown.
    """

    address: str
    flags: Sequence[str]
    link: str
    link_down: float
    offset: int | None
    age: float | None


# Traces

Why = Literal["sampled", "slow", "failed", "internal"]
SpanKind = Literal["server", "client", "internal"]
Attributes = Mapping[str, str | int | bool]


class TraceSpan(Frozen, frozen=True):
    """One step; `offset_ms` is counted from the start of the trace."""

    span_id: str
    name: str
    kind: SpanKind
    offset_ms: float
    duration_ms: float


class Trace(Frozen, frozen=True):
    """The trace of one command, or of something that the sidecar did itself (why: internal).

    The outermost span is the first. The fields from `command` on are those of commands,
    `attributes` those of the sidecar's own work.
    """

    trace_id: str
    parent_id: str | None
    why: Sequence[Why]
    name: str
    time: float
    duration_ms: float
    error: str | None
    spans: Sequence[TraceSpan]
    command: str | UnsetType = UNSET
    key: str | UnsetType | None = UNSET
    db: int | UnsetType = UNSET
    client_id: int | UnsetType = UNSET
    client: str | UnsetType | None = UNSET
    server: str | UnsetType | None = UNSET
    cached: bool | UnsetType = UNSET
    held: bool | UnsetType = UNSET
    resent: bool | UnsetType = UNSET
    request_bytes: int | UnsetType = UNSET
    reply_bytes: int | UnsetType = UNSET
    attributes: Attributes | UnsetType = UNSET
