"""The figures of the admin page and of `/api/stats`: what is now, totals, and one point a second.

One struct for each JSON object, as in answers.py, and `gauges`, which makes the figures of now from
a snapshot. Rates are per second; null means that a value is not known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeVar

import msgspec

from sidecar.policy.breaker import State
from sidecar.telemetry.snapshots import (
    Cluster,
    Commands,
    DataPlane,
    Frozen,
    Held,
    Snapshot,
    Unanswered,
    WarmStart,
    Worker,
)

BreakerState = Literal["closed", "open", "half-open", "unknown"]
Shown = TypeVar("Shown", bound=Frozen)

# The last minutes


class Percentiles(Frozen, frozen=True):
    """Latencies in seconds; null if there was no command."""

    p50: float | None
    p95: float | None
    p99: float | None
    p999: float | None


class Point(Percentiles, frozen=True):
    """One second: its rates and levels, and the percentiles of its latencies. `t` is its time in
    milliseconds since 1970, and unique."""

    t: int
    commands: float
    hits: float
    misses: float
    errors: float
    local_errors: float
    uncertain: float
    bytes_in: float
    bytes_out: float
    clients: int
    held: int
    held_bytes: int
    cache_bytes: int
    cache_entries: int
    redirections: float


class Recent(Percentiles, frozen=True):
    """Mean rates of some seconds; each percentile is that of the worst second."""

    commands: float | None
    errors: float | None
    hit_ratio: float | None


# Figures of now


class LinksNow(Frozen, frozen=True):
    """Connections to the upstream, by what they are used for."""

    shared: int
    dedicated: int
    idle: int


class BreakerNow(Frozen, frozen=True):
    """The circuit breaker, and how often it has opened."""

    state: BreakerState
    opened: int


class CacheNow(Frozen, frozen=True, rename={"proof_age": "proof_age_s"}):
    """The near cache; misses by reason."""

    mode: str
    entries: int
    bytes: int
    limit_bytes: int
    hits: int
    misses: Mapping[str, int]
    evictions: int
    proof_age: float | None


class Totals(Frozen, frozen=True):
    """Counted since the start. `refused` are commands and clients, by policies and limits."""

    commands: int
    errors: int
    local_errors: int
    uncertain: int
    refused: int
    clients: int
    rejected: int
    reconnects: int
    switches: int


class Gauges(Frozen, frozen=True):
    """What is now, and totals since the start; `workers` where there are several processes,
    `cluster` where the upstream is one."""

    serving: bool
    clients: int
    links: LinksNow
    unanswered: Unanswered | None
    held: Held
    breaker: BreakerNow
    cache: CacheNow
    totals: Totals
    warm: WarmStart | None
    cluster: Cluster | None
    workers: Sequence[Worker] | None


class Introduction(Frozen, frozen=True):
    """Which run of which sidecar answers: `name` is that of its host and where it listens;
    `instance` is different after each start."""

    instance: str
    name: str
    version: str
    started: float


class Stats(Gauges, frozen=True):
    """Figures of now, totals, and the latest points, the oldest first."""

    instance: str
    name: str
    version: str
    started: float
    uptime_s: float
    last_minute: Recent
    points: Sequence[Point]


# Events of the live stream


class Hello(Introduction, frozen=True):
    """The first event: which run of the sidecar this is, and the points so far."""

    points: Sequence[Point]


class StatsEvent(Gauges, frozen=True):
    """Figures of now, with the point of this second."""

    point: Point | None


class BreakerEvent(Frozen, frozen=True):
    """The circuit breaker has changed its state."""

    state: BreakerState
    before: BreakerState


class SwitchEvent(Frozen, frozen=True):
    """The master has changed, or the upstream is reachable or not."""

    switches: int
    up: bool


# From a snapshot


_BREAKER: Mapping[State, BreakerState] = {
    State.CLOSED: "closed",
    State.OPEN: "open",
    State.HALF_OPEN: "half-open",
}


def breaker_state(snapshot: Snapshot) -> BreakerState:
    """The state of the circuit breaker; `unknown` while no clients are served."""
    return _BREAKER[snapshot.data_plane.breaker.state] if snapshot.data_plane else "unknown"


def switches(snapshot: Snapshot) -> int:
    """How often the sidecar went over to another master, or to another primary of a shard."""
    plane = snapshot.data_plane
    if plane is None:
        return 0
    shards = plane.cluster.switches if plane.cluster is not None else 0
    return shards + (plane.failover.switches if plane.failover is not None else 0)


def answered(commands: Commands) -> int:
    """Commands that got an answer, from whomever: no more can have failed."""
    return sum(commands.calls.values()) + commands.local_errors + commands.uncertain


def failed(commands: Commands) -> int:
    """Commands that were answered with an error, the server's or the sidecar's own."""
    return sum(commands.errors.values()) + commands.local_errors + commands.uncertain


def _refused(plane: DataPlane) -> int:
    return sum(plane.restrictions.refused.values()) if plane.restrictions is not None else 0


def gauges(snapshot: Snapshot) -> Gauges:
    """The figures of now."""
    plane = snapshot.data_plane
    if plane is None:
        return msgspec.structs.replace(_NOT_SERVING, workers=snapshot.workers)
    links, commands = plane.links, plane.commands
    return Gauges(
        serving=True,
        clients=plane.clients.connected,
        links=_part(LinksNow, links),
        unanswered=plane.unanswered,
        held=plane.held,
        breaker=BreakerNow(state=breaker_state(snapshot), opened=plane.breaker.opened),
        cache=_part(CacheNow, plane.cache) if plane.cache is not None else _NO_CACHE,
        totals=Totals(
            commands=answered(commands),
            errors=failed(commands),
            local_errors=commands.local_errors,
            uncertain=commands.uncertain,
            refused=_refused(plane),
            clients=plane.clients.accepted,
            rejected=plane.clients.rejected,
            reconnects=links.reconnects,
            switches=switches(snapshot),
        ),
        warm=plane.warm,
        cluster=plane.cluster,
        workers=snapshot.workers,
    )


def _part(shown: type[Shown], whole: Frozen) -> Shown:
    """Those fields of a part of the snapshot that are shown."""
    return msgspec.convert(whole, shown, from_attributes=True)


_NO_CACHE = CacheNow(
    mode="off",
    entries=0,
    bytes=0,
    limit_bytes=0,
    hits=0,
    misses={},
    evictions=0,
    proof_age=None,
)
_NOT_SERVING = Gauges(
    serving=False,
    clients=0,
    links=LinksNow(shared=0, dedicated=0, idle=0),
    unanswered=None,
    held=Held(clients=0, bytes=0, reason="", refused=False),
    breaker=BreakerNow(state="unknown", opened=0),
    cache=_NO_CACHE,
    totals=Totals(
        commands=0,
        errors=0,
        local_errors=0,
        uncertain=0,
        refused=0,
        clients=0,
        rejected=0,
        reconnects=0,
        switches=0,
    ),
    warm=None,
    cluster=None,
    workers=None,
)
