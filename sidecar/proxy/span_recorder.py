"""Makes spans of the trace records of the core (core/observe/trace_records.pyx).

Each tick takes the new records, turns them into traces, keeps the latest for the admin API
(`recent`), gives them to the exporter, if there is one, and logs slow commands. Work of the sidecar
itself, such as a failover or a warm start, becomes a span through `record_work`.
"""

from __future__ import annotations

import hashlib
import random
import socket
import time
from collections import deque
from collections.abc import Callable

import structlog

from sidecar.core.observe.trace_records import LOCAL, Traces
from sidecar.core.stats import bucket_of
from sidecar.policy import trace_context
from sidecar.proxy.io.client import Client
from sidecar.proxy.io.plane import Plane
from sidecar.proxy.io.upstream import Upstream
from sidecar.proxy.links.identity import Identity
from sidecar.proxy.links.target import Target
from sidecar.proxy.nearcache.hot_keys import shown
from sidecar.proxy.slow_commands import SlowCommands
from sidecar.settings.sections.operations import Tracing as Settings
from sidecar.telemetry import facts, snapshots, spans
from sidecar.telemetry.facts import Attributes
from sidecar.telemetry.snapshots import Exemplar
from sidecar.telemetry.span_export import SpanExport
from sidecar.telemetry.spans import NOBODY, Peer, Record, Trace

log = structlog.get_logger()

# The share of the records that sampled commands leave to slow and failed ones.
RESERVE = 0.25
NEVER = 0xFFFF_FFFF
# Servers with a number of their own; those seen later share one.
SERVERS = 1000
LAST_WORDS = 2.0  # seconds to export the last spans at the end


class SpanRecorder:
    """Makes traces of commands. Raises ExportError if the exporter cannot be made.

    `client_of` returns the client with this id.
    """

    def __init__(
        self,
        plane: Plane,
        settings: Settings,
        client_of: Callable[[int], Client | None],
        version: str,
    ) -> None:
        self._plane = plane
        self._client_of = client_of
        self.settings = settings
        self.export: SpanExport | None = None
        if settings.endpoint:
            self.export = SpanExport(settings.endpoint, settings.service, version)
        self.exemplars: dict[str, dict[int, Exemplar]] = {}
        self._recent: dict[str, deque[Trace]] = {
            why: deque(maxlen=settings.recent) for why in ("sampled", "slow", "failed", "internal")
        }
        self._servers: list[Peer] = [NOBODY]
        self._broken = False
        self._slow = SlowCommands()
        self._traces = Traces(
            plane.table,
            random.getrandbits(64),
            share=settings.sample if settings.endpoint else 0.0,
            failed=settings.failed,
            keys=settings.keys != "none",
        )
        follows = settings.endpoint or settings.context
        self._reserve = RESERVE if follows else 1.0
        self._allowed = 0.0
        self._granted = 0
        self._ticked = time.monotonic()
        self._allow(settings.max_per_second)
        self._use_slow()

    def _use_slow(self) -> None:
        slow = self.settings.slow * 1e6
        self._plane.use_traces(self._traces, min(int(slow), NEVER) if slow else NEVER)

    def use(self, settings: Settings) -> None:
        """Record by these settings from now on; where spans go, and how many traces are kept,
        stays."""
        self.settings = settings
        share = settings.sample if self.export is not None else 0.0
        keys = settings.keys != "none"
        self._traces.use(share=share, failed=settings.failed, keys=keys)
        self._use_slow()

    @staticmethod
    def wanted(settings: Settings) -> bool:
        """Whether traces are exported or shown at all."""
        return bool(settings.endpoint or settings.recent)

    # What the core has to know of clients and links

    def join(self, client: Client, identity: Identity) -> None:
        """A client joined this identity."""
        client.use_db(identity.login.db)

    def named(self, client: Client, name: bytes) -> None:
        """A client set its name, which may carry a trace context for its commands."""
        if self.settings.context:
            context = trace_context.of_name(name)
            if context is None:
                client.join_trace(b"", False)
            else:
                client.join_trace(context.trace_id + context.span_id, context.sampled)

    def attached(self, up: Upstream, target: Target, sock: socket.socket) -> None:
        """A link was connected to this server."""
        endpoint = target.endpoint
        if endpoint.kind == "unix":
            server = Peer(endpoint.path, 0)
        else:
            server = Peer(endpoint.host, endpoint.port, *_ends(sock))
        if server not in self._servers and len(self._servers) < SERVERS:
            self._servers.append(server)
        up.known_as(self._servers.index(server) if server in self._servers else 0)

    # Records become traces

    def tick(self, now: float) -> None:
        """Take the new records and allow more. An error turns tracing off, and nothing else."""
        if self._broken:
            return
        try:
            self._take()
            self._allow_more(now)
            self._slow.tick(now)
        except Exception as error:
            self._broken = True
            self._traces.allow(0)
            log.error("tracing failed", error=repr(error), exc_info=error)

    def _take(self) -> None:
        # Read together, the two clocks are only microseconds apart.
        zero = time.time_ns() - self._plane.clock * 1000
        for taken in self._traces.take():
            record = Record._make(taken)
            key = self._key(record.key, record.key_size)
            trace = spans.of_command(
                record, zero, self._client(record.client), self._servers[record.server], key
            )
            if "slow" in trace.why:
                self._tell_slow(record, trace, key)
            if self._keep(trace):
                self._note_exemplar(record, trace)

    def _allow_more(self, now: float) -> None:
        # At most the records of one second: a burst after a quiet time is not cut.
        limit = self.settings.max_per_second
        spent = self._granted - self._traces.allowed
        self._allow(min(self._allowed - spent + (now - self._ticked) * limit, limit))
        self._ticked = now

    def _allow(self, records: float) -> None:
        self._allowed = max(records, 0.0)
        self._granted = int(self._allowed)
        self._traces.allow(self._granted, int(self._reserve * self.settings.max_per_second))

    def record_work(self, name: str, began: float, attributes: Attributes, error: str = "") -> None:
        """Make a span of work of the sidecar itself, which began at this time.monotonic()."""
        end = time.time_ns()
        start = end - int((time.monotonic() - began) * 1e9)
        self._keep(spans.of_work(name, start, end, attributes, error))

    def _keep(self, trace: Trace) -> bool:
        """Keep a trace for the admin API and give it to the exporter; whether it was accepted."""
        for why in trace.why:
            self._recent[why].append(trace)
        return self.export is not None and self.export.give(trace.spans)

    def _note_exemplar(self, record: Record, trace: Trace) -> None:
        """Remember the newest trace of a bucket of a latency histogram."""
        row = self._plane.table.lookup(record.command.encode())
        if row is None or not record.queued or record.flags & LOCAL:
            return
        took = record.end - record.queued
        root = trace.spans[0]
        ids = f"{root.trace_id:032x}", f"{root.span_id:016x}"
        newest = Exemplar(*ids, seconds=took / 1e6, time=root.end / 1e9)
        self.exemplars.setdefault(row["family"], {})[bucket_of(took)] = newest

    def _client(self, number: int) -> Peer:
        client = self._client_of(number)
        if client is None or not isinstance(client.peer, tuple):
            return NOBODY
        host, port = client.peer[:2]
        return Peer(host, port, host, port)

    def _key(self, key: bytes, size: int) -> str:
        if not size or self.settings.keys == "none":
            return ""
        if self.settings.keys == "hash":
            whole = key if size == len(key) else key + b"%d" % size
            return "#" + hashlib.sha256(whole).hexdigest()[:16]
        return shown(key) + ("…" if size > len(key) else "")

    # For metrics and the admin API

    def recent(self, most: int, why: str = "") -> list[facts.Trace]:
        """The newest traces first: all, or those of one kind."""
        kinds = [why] if why else list(self._recent)
        found = {id(trace): trace for kind in kinds for trace in self._recent.get(kind, ())}
        newest = sorted(found.values(), key=lambda trace: trace.spans[0].end)[::-1]
        return [trace.shown() for trace in newest[:most]]

    def snapshot(self) -> snapshots.Tracing:
        """Counters, and the exemplars of latency histograms."""
        counts, export = self._traces.stats(), self.export
        return snapshots.Tracing(
            commands={why: counts[why] for why in ("sampled", "slow", "failed")},
            untraced=counts["dropped"],
            spans_exported=export.exported if export is not None else 0,
            spans_dropped=export.dropped if export is not None else {"queue": 0, "export": 0},
            exemplars=self.exemplars,
        )

    def _tell_slow(self, record: Record, trace: Trace, key: str) -> None:
        self._slow.add(
            time.monotonic(),
            record.command,
            (record.end - record.start) / 1000,
            client=record.client,
            db=record.db,
            trace_id=f"{trace.spans[0].trace_id:032x}",
            key=key,
            error=record.error,
        )

    async def close(self) -> None:
        """Export what is left."""
        self.tick(time.monotonic())
        if self.export is not None:
            await self.export.close(LAST_WORDS)


def _ends(sock: socket.socket) -> tuple[str, int]:
    try:
        host, port = sock.getpeername()[:2]
    except (OSError, ValueError):
        return "", 0
    return host, port
