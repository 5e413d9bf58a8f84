"""The trace an application wants its commands in, handed over as a client name.

RESP has no headers. `CLIENT SETNAME tp:<traceparent>` carries what an HTTP header of that name
would (W3C Trace Context), and does no harm where there is no sidecar: any server takes the name.

    tp:00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
       version  trace id                    span id       flags, 1: sampled
"""

from __future__ import annotations

import re
from typing import NamedTuple

PREFIX = b"tp:"

_FORM = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class TraceContext(NamedTuple):
    """Where commands belong: 16 bytes of trace id, 8 of the span above them."""

    trace_id: bytes
    span_id: bytes
    sampled: bool


def of_name(name: bytes) -> TraceContext | None:
    """What a client name says; None when it is an ordinary name, or not well-formed."""
    return parse(name[len(PREFIX) :]) if name.startswith(PREFIX) else None


def parse(text: bytes) -> TraceContext | None:
    """A traceparent, or None. What later versions put behind the flags is ignored."""
    match = _FORM.fullmatch(text)
    if match is None:
        return None
    version, trace, span, flags, rest = match.groups()
    if version == b"ff" or (version == b"00" and rest is not None):
        return None
    trace_id, span_id = bytes.fromhex(trace.decode()), bytes.fromhex(span.decode())
    if not any(trace_id) or not any(span_id):
        return None
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & 1))
