"""What the admin endpoint shows and does, as narrow contracts that the composition root fills in.

Everything has a default that shows nothing or refuses, so the endpoint runs without any of it, and
parts can be joined one by one. All are called on the event loop and must not block it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Facts = Mapping[str, Any]
"""Plain values only: they become JSON as they are."""


class RefusedError(Exception):
    """An action is not possible now, or not allowed; the message is for who asked."""


class Traces(Protocol):
    """Who keeps the latest traces."""

    def recent(self, most: int, why: str = "") -> Sequence[Facts]:
        """The latest traces, or those of one kind, the newest first, at most so many. Each is

        `trace_id` (hexadecimal), `name` (the command, or what the sidecar did), `time` (seconds
        since 1970), `duration_ms`, `why` (a list of `slow`, `failed`, `sampled`, `internal`),
        `error` (text or None), `spans`: the outermost first, each with `span_id`, `name`, `kind`,
        `offset_ms` and `duration_ms`; and further plain values about the whole.
        """


class Audit(Protocol):
    """Who keeps the tail of the audit stream."""

    def recent(self, most: int) -> Sequence[Facts]:
        """The latest lines, the newest first, at most so many. Each has `time` (ISO
        8601), `event`, and further plain values."""


class Later:
    """Audit lines of a part that comes later, or never: `source` is who has them."""

    def __init__(self) -> None:
        self.source: Audit | None = None

    def recent(self, most: int) -> Sequence[Facts]:
        return self.source.recent(most) if self.source is not None else ()


class NoTraces:
    """Nobody keeps any."""

    def recent(self, most: int, why: str = "") -> Sequence[Facts]:
        return ()


async def _no_facts() -> Facts:
    return {}


async def _refuse() -> Facts:
    raise RefusedError("not possible here")


@dataclass(frozen=True)
class Sources:
    """What is shown."""

    ready: Callable[[], Mapping[str, bool]] = dict
    """The readiness checks by name; ready means that all are true."""
    snapshot: Callable[[], Mapping[str, object]] = dict
    """The data plane's counters; see sidecar.telemetry.metrics."""
    hot_keys: Callable[[int], Facts] = lambda count: {"window_s": 0.0, "keys": []}
    """The hottest keys, hottest first, at most so many."""
    topology: Callable[[], Awaitable[Facts]] = _no_facts
    """Where the master, its replicas and the Sentinels are, and what has happened to them."""
    server: Callable[[], Awaitable[Facts]] = _no_facts
    """What the server says of itself; `error` when it says nothing."""
    certificates: Callable[[], Sequence[Facts]] = tuple
    """The certificates in use: `use`, `file`, `subject`, `not_after`, `seconds_left`, `error`."""
    config: Callable[[], Facts] = dict
    """The settings by path, without secrets."""
    traces: Traces = field(default_factory=NoTraces)
    audit: Audit = field(default_factory=Later)


@dataclass(frozen=True)
class Actions:
    """What can be asked for by POST. Each says what it did, or raises RefusedError."""

    drain: Callable[[], Awaitable[Facts]] = _refuse
    flush_cache: Callable[[], Awaitable[Facts]] = _refuse
    reload: Callable[[], Awaitable[Facts]] = _refuse
    failover: Callable[[], Awaitable[Facts]] = _refuse
