"""Sends spans to a collector, with OTLP over HTTP, from a thread of its own.

The thread is OpenTelemetry's BatchSpanProcessor. This module adds what it does not do: spans that
are not sent are counted, whatever the reason; the libraries' log lines, one for each batch while a
collector is down, become one a minute. Handing over a span never waits: if QUEUE spans are not sent
yet, further ones are dropped.

Batches are small, because encoding one holds the interpreter's lock while traffic waits. For the
same reason the interpreter switches threads more often than by default.

Needs the extra `otlp`. The exporter itself reads OTEL_EXPORTER_OTLP_HEADERS,
OTEL_EXPORTER_OTLP_CERTIFICATE and so on, for headers, certificates and compression.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import structlog
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from sidecar.telemetry.spans import Span

log = structlog.get_logger()

QUEUE = 2048
BATCH = 64
EVERY_MS = 1000
TIMEOUT = 5.0  # of one export, its repetitions included
SWITCH_INTERVAL = 0.0005
SAY_EVERY = 60.0
LIBRARY = "opentelemetry"

_KINDS = {"server": SpanKind.SERVER, "client": SpanKind.CLIENT, "internal": SpanKind.INTERNAL}
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_OK = Status()
_ERROR = Status(StatusCode.ERROR)


class ExportError(Exception):
    """Spans cannot be sent with these settings; the message is one line."""


class SpanExport:
    """Sends spans to one collector, until `close`."""

    def __init__(self, endpoint: str, service: str, version: str) -> None:
        """Raises ExportError."""
        self._resource = Resource.create(
            {
                "service.name": service,
                "service.version": version,
                "service.instance.id": str(uuid.uuid4()),
            }
        )
        self._scope = InstrumentationScope("redis-sidecar", version)
        self._given = 0
        self._full = 0
        self._quiet = _Quiet()
        self._exporter = _Counting(_otlp(endpoint))
        self._processor = BatchSpanProcessor(
            self._exporter,
            max_queue_size=QUEUE,
            schedule_delay_millis=EVERY_MS,
            max_export_batch_size=BATCH,
        )
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL))

    def give(self, spans: Sequence[Span]) -> bool:
        """Queue the spans of one trace; False if too many are queued already."""
        waiting = self._given - self._exporter.sent - self._exporter.failed
        if waiting + len(spans) > QUEUE:
            self._full += len(spans)
            return False
        self._given += len(spans)
        for span in spans:
            self._processor.on_end(self._readable(span))
        return True

    @property
    def exported(self) -> int:
        """Spans that the collector has taken."""
        return self._exporter.sent

    @property
    def dropped(self) -> Mapping[str, int]:
        """Spans that were not sent, by reason: a full queue, or a failed export."""
        return {"queue": self._full, "export": self._exporter.failed}

    async def close(self, within: float) -> None:
        """Send what is left, for at most so many seconds; after that the thread ends by itself."""
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        shutdown: Callable[[], None] = self._processor.shutdown

        def end() -> None:
            shutdown()
            with suppress(RuntimeError):  # the loop may be closed by now
                loop.call_soon_threadsafe(done.set)

        threading.Thread(target=end, daemon=True, name="last spans").start()
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await done.wait()
        self._quiet.remove()

    def _readable(self, span: Span) -> ReadableSpan:
        parent = None
        if span.parent_id:
            parent = SpanContext(span.trace_id, span.parent_id, span.remote_parent, _SAMPLED)
        return ReadableSpan(
            span.name,
            SpanContext(span.trace_id, span.span_id, False, _SAMPLED),
            parent,
            self._resource,
            span.attributes,
            kind=_KINDS[span.kind],
            status=_ERROR if span.error else _OK,
            start_time=span.start,
            end_time=span.end,
            instrumentation_scope=self._scope,
        )


def _otlp(endpoint: str) -> SpanExporter:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise ExportError(
            "tracing.endpoint needs OpenTelemetry's exporter: run pip install '.[otlp]' in the"
            " sidecar's checkout"
        ) from error
    return OTLPSpanExporter(endpoint, timeout=TIMEOUT)


class _Counting(SpanExporter):
    """Counts spans that were sent or not. Only the exporting thread writes its numbers."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner
        self.sent = 0
        self.failed = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = SpanExportResult.FAILURE
        try:
            result = self._inner.export(spans)
        finally:
            if result is SpanExportResult.SUCCESS:
                self.sent += len(spans)
            else:
                self.failed += len(spans)
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()


class _Quiet(logging.Handler):
    """Takes the libraries' log lines, and logs the first of each minute in our form."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._library = logging.getLogger(LIBRARY)
        self._library.addHandler(self)
        self._library.propagate = False
        self._said = float("-inf")
        self._unsaid = 0

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if now - self._said < SAY_EVERY:
            self._unsaid += 1
            return
        self._said = now
        unsaid, self._unsaid = self._unsaid, 0
        log.warning("span export failed", reason=record.getMessage()[:300], unsaid=unsaid)

    def remove(self) -> None:
        """Let the libraries' lines go where they would go otherwise."""
        self._library.removeHandler(self)
        self._library.propagate = True
