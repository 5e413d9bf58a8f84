"""What the admin endpoint shows and does, as narrow contracts.

`Sources` and `Actions` are what the HTTP side calls; every one has a default that shows nothing or
refuses, so the endpoint runs without any of them. parts.py makes them from the running parts of
the sidecar. All are called on the event loop and must not block it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Never, Protocol

from sidecar.admin.answers import (
    Certificate,
    Draining,
    FailoverBegun,
    Flushed,
    Paused,
    Reloaded,
    Resumed,
    SettingShown,
    Switched,
    Topology,
)
from sidecar.admin.bodies import SwitchTo
from sidecar.telemetry.audit import Record
from sidecar.telemetry.facts import HotKeys, Server, Trace
from sidecar.telemetry.snapshots import Snapshot


class RefusedError(Exception):
    """An action is not possible now, or not allowed; the message is for the caller."""


class Traces(Protocol):
    """Whoever keeps the latest traces."""

    def recent(self, most: int, why: str = "") -> Sequence[Trace]:
        """At most so many of the latest traces, or of those of one kind, the newest first."""


class AuditTail(Protocol):
    """Whoever keeps the end of the audit stream."""

    def recent(self, most: int) -> Sequence[Record]:
        """At most so many of the latest lines, the newest first."""


class NoTraces:
    """No traces are kept."""

    def recent(self, most: int, why: str = "") -> Sequence[Trace]:
        return ()


class NoAudit:
    """There is no audit stream."""

    def recent(self, most: int) -> Sequence[Record]:
        return ()


NOWHERE = Topology(
    upstream="",
    follows_sentinels=False,
    phase=None,
    master=None,
    up=False,
    switches=0,
    history=(),
    shards=None,
    replicas=(),
    sentinels=(),
)
"""The topology while no clients are served."""


async def _no_topology() -> Topology:
    return NOWHERE


async def _no_server() -> Server:
    return Server()


async def _nothing(what: str) -> None:
    """All of it is known here."""


async def _refuse() -> Never:
    raise RefusedError("not available")


async def _refuse_switch(to: SwitchTo) -> Never:
    raise RefusedError("not available")


@dataclass(frozen=True)
class Sources:
    """What is shown."""

    ready: Callable[[], Mapping[str, bool]] = dict
    """The readiness checks by name; the sidecar is ready if all of them are true."""
    snapshot: Callable[[], Snapshot] = Snapshot
    """Counters and gauges."""
    hot_keys: Callable[[int], HotKeys] = lambda count: HotKeys(window_s=0.0, keys=())
    """The hottest keys, hottest first, at most so many."""
    topology: Callable[[], Awaitable[Topology]] = _no_topology
    """Where the master, its replicas and the Sentinels are, and what has happened to them."""
    server: Callable[[], Awaitable[Server]] = _no_server
    """What the server says about itself."""
    certificates: Callable[[], Sequence[Certificate]] = tuple
    """The certificates in use."""
    config: Callable[[], Mapping[str, SettingShown]] = dict
    """The settings by path, without secrets."""
    traces: Traces = field(default_factory=NoTraces)
    audit: AuditTail = field(default_factory=NoAudit)
    refresh: Callable[[str], Awaitable[None]] = _nothing
    """Has what is about to be shown brought up to date, where it comes from other processes:
    "figures" (what is ready, counters and gauges), "hot keys", "traces" or "traces:…" of one kind,
    "audit". Returns soon."""
    each: Callable[[], Mapping[str, Snapshot]] = dict
    """Counters and gauges of each worker by its number; empty where there is a single process."""
    processes: Callable[[], Mapping[str, int]] = dict
    """The process ids of the workers, by number."""


@dataclass(frozen=True)
class Actions:
    """What POST requests do. Each returns what it did, or raises RefusedError."""

    drain: Callable[[], Awaitable[Draining]] = _refuse
    flush_cache: Callable[[], Awaitable[Flushed]] = _refuse
    reload: Callable[[], Awaitable[Reloaded]] = _refuse
    failover: Callable[[], Awaitable[FailoverBegun]] = _refuse
    pause: Callable[[], Awaitable[Paused]] = _refuse
    resume: Callable[[], Awaitable[Resumed]] = _refuse
    switch: Callable[[SwitchTo], Awaitable[Switched]] = _refuse_switch
