"""The answers of the admin API that only the admin endpoint makes: one struct for each JSON object.

Field names are the names in the JSON, and the OpenAPI document is generated from these structs,
docstrings included. Figures and the course of the last minutes are in figures.py; facts that other
parts of the sidecar make (keys, topology, traces) are in telemetry/facts.py. Points in time are
seconds since 1970; null means that a value is not known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from msgspec import UNSET, UnsetType

from sidecar.admin.figures import BreakerState, Percentiles
from sidecar.telemetry.facts import (
    ComparedServer,
    Replica,
    Sentinel,
    Trace,
    UnderWay,
    Upstream,
)
from sidecar.telemetry.snapshots import Frozen

Status = Literal["ok", "degraded", "down"]


class Error(Frozen, frozen=True):
    """Why a request was refused."""

    error: str


class ServerHealth(Frozen, frozen=True):
    """What the server says about itself; `error` if it says nothing."""

    software: str | None
    version: str | None
    used_memory: int | None
    maxmemory: int | None
    info_s: float | None
    error: str | None


class CacheHealth(Frozen, frozen=True):
    """The near cache; the hit ratio is that of the last seconds."""

    hit_ratio: float | None
    entries: int
    bytes: int
    limit_bytes: int
    mode: str
    proof_age_s: float | None


class Replication(Frozen, frozen=True):
    """The replicas and how far the slowest of them is behind."""

    replicas: int
    lag_bytes: int | None
    lag_s: int | None


class Health(Frozen, frozen=True):
    """How the Redis behind is doing: one word, the reasons if it is not ok, and the facts."""

    status: Status
    reasons: Sequence[str]
    role: str | None
    server: ServerHealth
    latency: Percentiles
    commands_per_second: float | None
    errors_per_second: float | None
    cache: CacheHealth
    breaker: BreakerState
    held_clients: int
    held_bytes: int
    replication: Replication


# Topology, traces, certificates, settings


class Topology(Upstream, frozen=True):
    """Master, replicas, Sentinels and interruptions.

    `service`, `epoch` and `quorum` are there if the upstream is a Sentinel service.
    """

    replicas: Sequence[Replica]
    sentinels: Sequence[Sentinel]
    service: str | UnsetType = UNSET
    epoch: int | UnsetType | None = UNSET
    quorum: int | UnsetType | None = UNSET


class Traces(Frozen, frozen=True):
    """The latest traces, the newest first."""

    traces: Sequence[Trace]


class Certificate(Frozen, frozen=True):
    """A certificate file of the settings, or a file of revocation lists; `use` is the setting. Of
    several in one file, the one that ends first."""

    use: str
    file: str
    subject: str | None
    not_before: float | None
    not_after: float | None
    seconds_left: int | None
    error: str | None


class Certificates(Frozen, frozen=True):
    """The certificates that the settings name."""

    certificates: Sequence[Certificate]


class SettingShown(Frozen, frozen=True):
    """The value of a setting, without secrets, and whether it is the default."""

    value: Any
    default: bool


# What actions did


class Draining(Frozen, frozen=True):
    """The sidecar ends after at most `timeout_s` seconds."""

    draining: bool
    timeout_s: float


class Flushed(Frozen, frozen=True):
    """How many values the near cache has dropped."""

    dropped: int


class Reloaded(Frozen, frozen=True):
    """The sections of the settings whose certificates were read again; the settings that have
    changed; and those that differ from the ones in use and need a restart, with the reason."""

    reloaded: Sequence[str]
    changed: Sequence[str] = ()
    needs_restart: Sequence[str] = ()
    because: Mapping[str, str] = {}


class Paused(Frozen, frozen=True):
    """Commands are held. `quiet`: nothing is under way at the server but commands that block, of
    which `under_way` has the number too. `held_clients` wait; `waited_s` went by until it was
    quiet."""

    paused: bool
    quiet: bool
    waited_s: float
    held_clients: int
    under_way: UnderWay


class Resumed(Frozen, frozen=True):
    """Commands go on; they were held for `seconds`."""

    paused: bool
    seconds: float


class Switched(Frozen, frozen=True):
    """The server in use before, the one that was asked for, and what may surprise. `switched` is
    false after a dry run. Commands were held for `held_s`; the clients of the links in `ended` were
    closed, with those of subscribers."""

    switched: bool
    before: ComparedServer
    after: ComparedServer
    warnings: Sequence[str]
    held_s: float | None = None
    ended: UnderWay | None = None


class FailoverBegun(Frozen, frozen=True):
    """The Sentinel that began a failover."""

    asked: str
