"""The web page with everything on it, every text of it hostile, in a real Chromium.

The endpoint is the real one, in a thread of its own; what it shows is made up here, since a real
sidecar cannot be made to have all of it at once.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from sidecar.admin.answers import Certificate, Topology
from sidecar.admin.server import AdminServer
from sidecar.admin.sources import Sources
from sidecar.policy.breaker import State
from sidecar.policy.warmup import Phase
from sidecar.settings.sections.operations import Admin
from sidecar.telemetry.audit import Record
from sidecar.telemetry.facts import (
    HotKey,
    HotKeys,
    Interruption,
    Replica,
    Sentinel,
    Server,
    Shard,
    SpanKind,
    Trace,
    TraceSpan,
    Why,
)
from sidecar.telemetry.snapshots import DataPlane, Snapshot, WarmStart, Worker
from tests.harness.browser import chromium, watch, why_not
from tests.harness.structs import filled

pytestmark = pytest.mark.skipif(bool(why_not()), reason=f"NO BROWSER: {why_not()}")

EVIL = "<img src=x onerror=window.owned=1><script>window.owned=1</script>\"'&lt;b&gt;"


def _trace(number: int, why: Why, error: str | None) -> Trace:
    return Trace(
        trace_id=f"{number:032x}",
        parent_id=None,
        name=f"GET{EVIL}",
        time=time.time(),
        duration_ms=250.0,
        why=[why],
        error=error,
        key=EVIL,
        spans=[_span("server", 0.0, 250.0), _span("client", 100.0, 125.0)],
    )


def _span(kind: SpanKind, offset: float, duration: float) -> TraceSpan:
    return TraceSpan(span_id="1", name=EVIL, kind=kind, offset_ms=offset, duration_ms=duration)


class Traces:
    """The traces."""

    def __init__(self, traces: list[Trace]) -> None:
        self.traces = traces

    def recent(self, most: int, why: str = "") -> Sequence[Trace]:
        return self.traces[:most]


class Audit:
    """The audit lines."""

    def recent(self, most: int) -> Sequence[Record]:
        return [Record(True, "2026-01-01T00:00:00Z", EVIL, user=EVIL)]


TRACES = Traces([_trace(1, "failed", EVIL), _trace(2, "slow", None), _trace(3, "sampled", None)])
KEY = filled(HotKey, key=EVIL, db=1, user=EVIL, share=0.5, rate=10.0, reads=10.0, hot=True)


async def _topology() -> Topology:
    sentinel = filled(Sentinel, address=EVIL, error=EVIL)
    switch = Interruption(at=time.time() - 60, before=EVIL, after=EVIL, switched=True, seconds=0.5)
    lasting = msgspec.structs.replace(switch, switched=False, seconds=None)
    return Topology(
        upstream=EVIL,
        follows_sentinels=True,
        phase=EVIL,
        master=EVIL,
        up=True,
        switches=1,
        service=EVIL,
        replicas=[Replica(address=EVIL, state=EVIL, lag_bytes=3, lag_s=1)],
        sentinels=[sentinel, sentinel],
        history=[switch, lasting],
        shards=None,
    )


async def _server() -> Server:
    return Server(software=EVIL, version=EVIL, role=EVIL)


def _snapshot() -> Snapshot:
    return Snapshot(
        data_plane=filled(
            DataPlane,
            links={"up": True},
            commands={"bounds": [0.001]},
            breaker={"state": State.OPEN},
            cache={"mode": EVIL, "misses": {EVIL: 3}},
            held={"clients": 4, "bytes": 4096},
            warm=WarmStart(
                state=Phase.LOADING,
                total=10,
                loaded=4,
                failed=1,
                duration=0.5,
                sources={EVIL: 10},
            ),
        ),
        workers=[
            Worker(number=1, pid=10, state="up", since=time.time(), why="", restarts=0),
            Worker(number=2, pid=0, state="starting", since=time.time(), why=EVIL, restarts=3),
        ],
    )


def _certificates() -> Sequence[Certificate]:
    days = {"fine": 90, "soon": 3, "over": -1}
    return [
        Certificate(
            use=f"{name}{EVIL}",
            file=EVIL,
            subject=EVIL,
            not_before=0.0,
            not_after=time.time() + left * 86400,
            seconds_left=left * 86400,
            error=None,
        )
        for name, left in days.items()
    ]


SOURCES = Sources(
    snapshot=_snapshot,
    hot_keys=lambda count: HotKeys(window_s=1.0, keys=[KEY]),
    topology=_topology,
    server=_server,
    certificates=_certificates,
    traces=TRACES,
    audit=Audit(),
)


@contextmanager
def endpoint(sources: Sources) -> Iterator[str]:
    """The endpoint's URL; it runs in a thread with a loop of its own."""
    ready: list[str] = []
    begun, end = threading.Event(), threading.Event()

    async def serve() -> None:
        server = AdminServer(Admin(listen="127.0.0.1:0"), sources)
        await server.start()
        ready.append(server.url)
        begun.set()
        await asyncio.to_thread(end.wait)
        await server.stop()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert begun.wait(10)
    try:
        yield ready[0]
    finally:
        end.set()
        thread.join(10)


@pytest.fixture
def address() -> Iterator[str]:
    """The URL of an endpoint that shows all there is."""
    with endpoint(SOURCES) as url:
        yield url


def test_every_text_is_text(address: str) -> None:
    with chromium() as browser:
        page = browser.new_page()
        page.set_default_timeout(15_000)
        wrong = watch(page)
        page.goto(address)
        panels = {
            "#keys": "hot",
            "#topology": "behind",
            "#timeline": "switched",
            "#cache": "Evictions",
            "#links": "Breaker",
            "#warm": "Loaded",
            "#workers": "1 of 2 serve clients",
            "#certificates": "expired",
            "#traces": "failed",
            "#audit": "user=",
            "#reasons": "the circuit breaker is open",
        }
        for panel, words in panels.items():
            page.locator(panel).filter(has_text=words).wait_for()
            assert EVIL in page.locator(panel).inner_text() or panel in ("#reasons", "#links")
        page.wait_for_timeout(1500)  # further events, drawn over the first
        assert page.evaluate("window.owned") is None
        assert page.locator("main img, main script, main b img").count() == 0
        assert page.locator("script").count() == 1
        _look_at_the_waterfall(page)
        assert page.locator("#certificates .tag[data-state=bad]").inner_text() == "expired"
        assert page.locator("#warm [role=progressbar]").get_attribute("aria-valuenow") == "50"
        states = page.locator("#workers .node").all_inner_texts()
        assert ["started again 3 times" in each for each in states] == [False, True]
        assert page.locator("#n-held").inner_text() == "4"
        assert page.locator("#n-breaker").inner_text() == "open"
        assert page.locator("#timeline .track i.open").count() == 1
        page.close()
        assert wrong == []


async def _shards() -> Topology:
    """A cluster: what is lost comes first, then what is late; the third has one slot in a range."""
    lost = filled(Shard, number=0, primary=None, state="lost", held_clients=2, ranges=[(0, 99)])
    late = filled(Shard, number=1, primary=EVIL, state="late", silent_s=0.75, slots=1)
    well = filled(
        Shard,
        number=2,
        primary=EVIL,
        state="up",
        slots=16283,
        ranges=[(100, 100), (101, 16382)],
        replicas=[Replica(address=EVIL, state=EVIL, lag_bytes=None, lag_s=None)],
    )
    switch = Interruption(
        at=time.time() - 60, before=EVIL, after=EVIL, switched=True, seconds=0.5, shard=2
    )
    return msgspec.structs.replace(
        await _topology(), shards=[well, late, lost], history=[switch], sentinels=[]
    )


def test_shards_are_text_and_the_worst_come_first() -> None:
    with endpoint(replace(SOURCES, topology=_shards)) as url, chromium() as browser:
        page = browser.new_page()
        page.set_default_timeout(15_000)
        wrong = watch(page)
        page.goto(url)
        page.locator("#topology .shard").nth(2).wait_for()
        shown = page.locator("#topology .shard").all_inner_texts()
        assert [each.split("\n")[0][:7] for each in shown] == ["Shard 0", "Shard 1", "Shard 2"]
        assert "no primary" in shown[0]
        assert "2 clients wait" in shown[0]
        assert "silent for 750 ms" in shown[1]
        assert "100, 101-16382" in shown[2]
        states = [
            each.get_attribute("data-state") for each in page.locator("#topology .shard").all()
        ]
        assert states == ["bad", "warn", "good"]
        assert page.locator("#topology .slots i[data-state=bad]").count() == 1
        assert page.locator("#topology .below").inner_text().startswith(EVIL)
        assert f"shard 2: {EVIL} → {EVIL}" in page.locator("#timeline li").inner_text()
        assert page.evaluate("window.owned") is None
        assert page.locator("main img, main script, main b img").count() == 0
        page.close()
        assert wrong == []


def _look_at_the_waterfall(page: Any) -> None:
    """Slow and failed ones only; a span lies where its time is; it stays open when drawn anew."""
    assert page.locator("#traces details").count() == 2
    first = page.locator("#traces details", has_text="failed").first
    first.locator("summary").click()
    bar = first.locator(".lane i.client")
    lane = first.locator(".lane").nth(1).bounding_box()
    box = bar.bounding_box()
    assert abs((box["x"] - lane["x"]) / lane["width"] - 0.4) < 0.02
    assert abs(box["width"] / lane["width"] - 0.5) < 0.02
    TRACES.traces.insert(0, _trace(4, "slow", None))
    page.locator("#traces summary", has_text="2 times").wait_for()
    assert page.locator("#traces details").count() == 2, "equal ones are one line"
    assert first.get_attribute("open") is not None


SERIES = """async () => {
  const { Series } = await import('/web/series.js');
  const series = new Series();
  const points = [1000, 2000, 3000, 9000, 10000].map((t) => ({ t, commands: t }));
  series.add(points);
  series.add(points.slice(2).map((point) => ({ ...point })));
  series.add([null]);
  series.mark(5000, 'restart', '');
  series.mark(5000, 'restart', '');
  const seen = {
    times: series.sorted.map((point) => point.t),
    runs: series.runs(0).map((run) => run.map((point) => point.t)),
    late: series.runs(2500).map((run) => run.length),
    marks: series.marks.length,
  };
  series.add([{ t: 10000 + 900 * 1000 }]);
  return { ...seen, kept: series.sorted.map((point) => point.t) };
}"""
FORMAT = """async () => {
  const f = await import('/web/format.js');
  return [
    f.count(null), f.count(0), f.count(12.34), f.count(999), f.count(12345), f.count(2.5e6),
    f.duration(0.00012), f.duration(0.0123), f.duration(75), f.bytes(0), f.bytes(1536),
    f.bytes(null), f.percent(0.5), f.percent(0.99999), f.percent(null), f.span(-1), f.span(7200),
  ];
}"""


def test_what_comes_twice_is_there_once(address: str) -> None:
    """And a gap is a gap: what the charts draw from."""
    with chromium() as browser:
        page = browser.new_page()
        page.goto(address)
        assert page.evaluate(SERIES) == {
            "times": [1000, 2000, 3000, 9000, 10000],
            "runs": [[1000, 2000, 3000], [9000, 10000]],
            "late": [1, 2],
            "marks": 1,
            "kept": [10000, 910000],
        }
        assert page.evaluate(FORMAT) == [
            *("\u2013", "0", "12.3", "999", "12.3k", "2.50M"),
            *("120 µs", "12.3 ms", "75.0 s", "0 B", "1.50 KiB"),
            *("\u2013", "50.0", "100", "\u2013", "over", "2 h"),
        ]
        page.close()


def test_at_phone_width(address: str) -> None:
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 360, "height": 740})
        page.goto(address)
        page.locator("#audit").filter(has_text="user=").wait_for()
        for details in page.locator("#traces summary").all():
            details.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.close()
