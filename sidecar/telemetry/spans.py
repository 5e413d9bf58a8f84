"""Spans of a command, made from its trace record after the command has ended.

    SERVER  GET                      request read ................................ reply there
    INTERNAL  held                   |..... waited for a master or a connection
    CLIENT    cache fill             |..... waited for the near cache to have read the value
    CLIENT    GET                           given to the socket ................. reply there

Names and attributes follow OpenTelemetry's conventions for database calls; attributes that have no
place there begin with `sidecar.`. A span never has a value, and of an error reply it has only the
first word: the rest quotes what the client sent.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from sidecar.core.observe import trace_records as trace
from sidecar.telemetry import facts
from sidecar.telemetry.facts import Attributes, SpanKind, Why


class Record(NamedTuple):
    """What `Traces.take` returns for one command. Times are microseconds of one clock; 0: none."""

    command: str
    why: int
    flags: int
    client: int
    db: int
    server: int
    start: int
    queued: int
    sent: int
    end: int
    request: int
    reply: int
    error: str
    key: bytes
    key_size: int
    context: bytes


class Peer(NamedTuple):
    """The other end of a connection: its name, if it has one, and its network address."""

    address: str
    port: int
    peer: str = ""
    peer_port: int = 0


NOBODY = Peer("", 0)


@dataclass(frozen=True, slots=True)
class Span:
    """One span. Times in nanoseconds since 1970."""

    name: str
    kind: SpanKind
    trace_id: int
    span_id: int
    parent_id: int
    start: int
    end: int
    attributes: Attributes
    error: str = ""
    remote_parent: bool = False


class Command(NamedTuple):
    """What a trace was made from: a command, whose client and server it was, and its key as it
    may be shown."""

    record: Record
    client: Peer
    server: Peer
    key: str


@dataclass(frozen=True, slots=True)
class Trace:
    """The spans of one command, or of something the sidecar did itself; the first is outermost.

    `command` is None for the sidecar's own work.
    """

    why: tuple[Why, ...]
    spans: Sequence[Span]
    command: Command | None = None

    def shown(self) -> facts.Trace:
        """For the admin API."""
        root = self.spans[0]
        shown = facts.Trace(
            trace_id=f"{root.trace_id:032x}",
            parent_id=f"{root.parent_id:016x}" if root.parent_id else None,
            why=self.why,
            name=root.name,
            time=root.start / 1e9,
            duration_ms=(root.end - root.start) / 1e6,
            error=root.error or None,
            spans=[_shown_span(span, root.start) for span in self.spans],
        )
        if self.command is None:
            return msgspec.structs.replace(shown, attributes=root.attributes)
        return msgspec.structs.replace(shown, **_shown_command(self.command))


def new_id(bits: int) -> int:
    """A random id that is not zero."""
    return random.getrandbits(bits) or 1


def of_command(record: Record, zero: int, client: Peer, server: Peer, key: str) -> Trace:
    """The spans of a command.

    `zero` is when the record's clock was 0, in nanoseconds since 1970. `key` is the command's key
    as it may be shown; empty: it is not shown.
    """
    flags = record.flags
    name = record.command.upper()
    start, end = zero + record.start * 1000, zero + record.end * 1000
    queued = zero + record.queued * 1000 if record.queued else end
    trace_id, parent = _ids(record.context)
    outer = _outer(record, name, client, server, key)
    error = record.error
    top = Span(name, "server", trace_id, new_id(64), parent, start, end, outer, error, bool(parent))
    spans = [top]

    def below(
        name: str, kind: SpanKind, start: int, end: int, of: Attributes, error: str = ""
    ) -> None:
        spans.append(Span(name, kind, trace_id, new_id(64), top.span_id, start, end, of, error))

    if flags & trace.FILLED:
        below("cache fill", "client", start, queued, _call(record, name, server, ""))
    elif flags & trace.WAITED:
        below("held", "internal", start, queued, {})
    if record.queued and not flags & trace.CACHED:
        sent = zero + record.sent * 1000 if record.sent else queued
        sent = min(max(sent, queued), end)
        below(name, "client", sent, end, _inner(record, name, server, key), error)
    return Trace(_why(record.why), spans, Command(record, client, server, key))


def of_work(name: str, start: int, end: int, attributes: Attributes, error: str = "") -> Trace:
    """The one span of something that the sidecar did itself. Times as in `Span`."""
    span = Span(name, "internal", new_id(128), new_id(64), 0, start, end, attributes, error)
    return Trace(("internal",), (span,))


def _ids(context: bytes) -> tuple[int, int]:
    """Trace id and parent id: those of the application's trace, or a new trace without parent."""
    if context:
        return int.from_bytes(context[:16], "big"), int.from_bytes(context[16:], "big")
    return new_id(128), 0


def _outer(record: Record, name: str, client: Peer, server: Peer, key: str) -> Attributes:
    return {
        **_call(record, name, server, key),
        **_address("network.peer", client.peer, client.peer_port),
        "sidecar.client.id": record.client,
        "sidecar.cache.hit": bool(record.flags & trace.CACHED),
        "sidecar.request.size": record.request,
        "sidecar.response.size": record.reply,
    }


def _inner(record: Record, name: str, server: Peer, key: str) -> Attributes:
    return {
        **_call(record, name, server, key),
        **_address("network.peer", server.peer, server.peer_port),
        **({"sidecar.resent": True} if record.flags & trace.RESENT else {}),
    }


def _why(bits: int) -> tuple[Why, ...]:
    found: list[Why] = []
    if bits & trace.SAMPLED:
        found.append("sampled")
    if bits & trace.SLOW:
        found.append("slow")
    if bits & trace.FAILED:
        found.append("failed")
    return tuple(found)


def _call(record: Record, name: str, server: Peer, key: str) -> dict[str, str | int | bool]:
    call: dict[str, str | int | bool] = {
        "db.system.name": "redis",
        "db.operation.name": name,
        "db.namespace": str(record.db),
        **_address("server", server.address, server.port),
    }
    if key:
        call["db.query.text"] = f"{name} {key}"
    if record.error:
        call["db.response.status_code"] = record.error
        call["error.type"] = record.error
    return call


def _address(of: str, address: str, port: int) -> dict[str, str | int | bool]:
    if not address:
        return {}
    return {f"{of}.address": address, **({f"{of}.port": port} if port else {})}


def _shown_span(span: Span, start: int) -> facts.TraceSpan:
    return facts.TraceSpan(
        span_id=f"{span.span_id:016x}",
        name=span.name,
        kind=span.kind,
        offset_ms=(span.start - start) / 1e6,
        duration_ms=(span.end - span.start) / 1e6,
    )


def _shown_command(command: Command) -> dict[str, object]:
    record, client, server, key = command
    flags = record.flags
    return {
        "command": record.command,
        "key": key or None,
        "db": record.db,
        "client_id": record.client,
        "client": _text(client.peer, client.peer_port),
        "server": None if flags & trace.LOCAL else _text(server.address, server.port),
        "cached": bool(flags & trace.CACHED),
        "held": bool(flags & trace.WAITED),
        "resent": bool(flags & trace.RESENT),
        "request_bytes": record.request,
        "reply_bytes": record.reply,
    }


def _text(address: str, port: int) -> str | None:
    return f"{address}:{port}" if port else address or None
