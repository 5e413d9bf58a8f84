"""From records to spans (sidecar/telemetry/spans.py), and handing them over (span_export.py)."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator, Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from sidecar.core.observe import trace_records as trace
from sidecar.telemetry import span_export
from sidecar.telemetry.span_export import ExportError, SpanExport
from sidecar.telemetry.spans import NOBODY, Peer, Record, Span, of_command, of_work

CLIENT, SERVER = Peer("10.0.0.9", 4000, "10.0.0.9", 4000), Peer("db", 6379, "10.0.0.1", 6379)
ZERO = 1_000_000_000_000


def record(**what: object) -> Record:
    """A GET, sampled, that took from 100 to 400."""
    usual: dict[str, object] = {
        "command": "get", "why": trace.SAMPLED, "flags": 0, "client": 7, "db": 2, "server": 1,
        "start": 100, "queued": 100, "sent": 130, "end": 400, "request": 20, "reply": 5,
        "error": "", "key": b"", "key_size": 0, "context": b"",
    }  # fmt: skip
    return Record(**{**usual, **what})  # type: ignore[arg-type]


def spans(key: str = "", **what: object) -> Sequence[Span]:
    """The spans of one."""
    return of_command(record(**what), ZERO, CLIENT, SERVER, key).spans


class TestSpans:
    """Which there are, and when."""

    def test_call(self) -> None:
        top, call = spans()
        assert (top.name, top.kind, top.parent_id) == ("GET", "server", 0)
        assert (call.name, call.kind, call.parent_id) == ("GET", "client", top.span_id)
        assert call.trace_id == top.trace_id
        assert (top.start, top.end) == (ZERO + 100_000, ZERO + 400_000)
        assert (call.start, call.end) == (ZERO + 130_000, ZERO + 400_000)

    def test_time_of_sending_is_not_known(self) -> None:
        assert spans(sent=0, queued=120)[1].start == ZERO + 120_000

    def test_hit(self) -> None:
        for queued in (0, 100):
            (top,) = spans(flags=trace.CACHED | trace.LOCAL, queued=queued, sent=0)
            assert top.attributes["sidecar.cache.hit"] is True

    def test_fill(self) -> None:
        flags = trace.CACHED | trace.LOCAL | trace.FILLED | trace.WAITED
        top, fill = spans(flags=flags, queued=0, sent=0)
        assert (fill.name, fill.kind, fill.parent_id) == ("cache fill", "client", top.span_id)
        assert (fill.start, fill.end) == (top.start, top.end)

    def test_held(self) -> None:
        _, held, call = spans(flags=trace.WAITED, queued=300, sent=310)
        assert (held.name, held.kind, held.end) == ("held", "internal", ZERO + 300_000)
        assert call.start == ZERO + 310_000

    def test_refused(self) -> None:
        (top,) = spans(flags=trace.LOCAL, queued=0, sent=0, error="UNAVAILABLE")
        assert top.error == "UNAVAILABLE"

    def test_context(self) -> None:
        top, call = spans(context=bytes([1] * 16 + [2] * 8))
        assert top.trace_id == call.trace_id == int("01" * 16, 16)
        assert (top.parent_id, top.remote_parent) == (int("02" * 8, 16), True)
        assert not call.remote_parent

    def test_work(self) -> None:
        (span,) = of_work("failover", 1, 2, {"sidecar.master": "m"}).spans
        assert (span.kind, span.parent_id, span.attributes) == (
            "internal", 0, {"sidecar.master": "m"},
        )  # fmt: skip


class TestAttributes:
    """OpenTelemetry's names for database calls."""

    def test_of_both(self) -> None:
        for span in spans():
            assert span.attributes["db.system.name"] == "redis"
            assert span.attributes["db.operation.name"] == "GET"
            assert span.attributes["db.namespace"] == "2"
            assert span.attributes["server.address"] == "db"
            assert span.attributes["server.port"] == 6379
            assert "db.query.text" not in span.attributes
            assert "error.type" not in span.attributes

    def test_the_other_ends(self) -> None:
        top, call = spans()
        assert top.attributes["network.peer.address"] == "10.0.0.9"
        assert call.attributes["network.peer.address"] == "10.0.0.1"
        top, _ = of_command(record(), ZERO, NOBODY, NOBODY, "").spans
        assert not [name for name in top.attributes if "address" in name or "port" in name]

    def test_error(self) -> None:
        for span in spans(error="WRONGTYPE"):
            assert span.attributes["db.response.status_code"] == "WRONGTYPE"
            assert span.attributes["error.type"] == "WRONGTYPE"
            assert span.error

    def test_key(self) -> None:
        for span in spans("user:1"):
            assert span.attributes["db.query.text"] == "GET user:1"

    def test_as_plain_values(self) -> None:
        made = of_command(record(why=trace.SLOW | trace.FAILED, error="ERR"), ZERO, CLIENT, SERVER,
                          "k")  # fmt: skip
        shown = made.shown()
        assert list(shown.why) == ["slow", "failed"]
        assert (shown.duration_ms, shown.error, shown.key) == (0.3, "ERR", "k")
        assert (shown.client, shown.server) == ("10.0.0.9:4000", "db:6379")
        assert [span.offset_ms for span in shown.spans] == [0.0, 0.03]


class Stuck(SpanExporter):
    """Takes nothing until it is told to."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.result = SpanExportResult.SUCCESS
        self.got: list[ReadableSpan] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.go.wait(20)
        self.got += spans
        return self.result

    def shutdown(self) -> None:
        """Nothing to do."""


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stuck]:
    """What spans are given to, in the place of OTLP."""
    exporter = Stuck()
    interval = sys.getswitchinterval()
    monkeypatch.setattr(span_export, "_otlp", lambda endpoint: exporter)
    yield exporter
    exporter.go.set()
    sys.setswitchinterval(interval)


class TestExport:
    """Handing spans over: never waits, and everything is accounted for."""

    async def test_sent(self, stuck: Stuck) -> None:
        export = SpanExport("http://nowhere", "name", "1")
        stuck.go.set()
        export.give(spans(error="ERR"))
        await export.close(10.0)
        top, call = stuck.got
        assert call.parent is not None
        assert top.context is not None
        assert call.parent.span_id == top.context.span_id
        assert top.resource.attributes["service.name"] == "name"
        assert not top.status.is_ok
        assert (export.exported, export.dropped) == (2, {"queue": 0, "export": 0})

    async def test_full(self, stuck: Stuck) -> None:
        export = SpanExport("http://nowhere", "name", "1")
        given = sum(export.give(spans()) for _ in range(span_export.QUEUE))
        assert given == span_export.QUEUE // 2
        assert export.dropped == {"queue": span_export.QUEUE, "export": 0}
        stuck.go.set()
        await export.close(20.0)
        assert export.exported == len(stuck.got) == span_export.QUEUE

    async def test_failed(self, stuck: Stuck) -> None:
        export = SpanExport("http://nowhere", "name", "1")
        stuck.result = SpanExportResult.FAILURE
        stuck.go.set()
        export.give(spans())
        await export.close(10.0)
        assert (export.exported, export.dropped) == (0, {"queue": 0, "export": 2})

    async def test_closing_does_not_wait_for_ever(self, stuck: Stuck) -> None:
        export = SpanExport("http://nowhere", "name", "1")
        export.give(spans())
        await export.close(0.01)
        assert not stuck.got

    async def test_lines_of_the_libraries(
        self, stuck: Stuck, capsys: pytest.CaptureFixture[str]
    ) -> None:
        export = SpanExport("http://nowhere", "name", "1")
        for _ in range(100):
            logging.getLogger("opentelemetry.exporter.any").error("cannot send")
        assert capsys.readouterr().out.count("cannot send") == 1
        stuck.go.set()
        await export.close(10.0)
        assert logging.getLogger("opentelemetry").propagate

    def test_without_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        name = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ExportError, match=r"pip install '\.\[otlp\]'"):
            SpanExport("http://nowhere", "name", "1")
