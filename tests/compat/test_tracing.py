"""Traces, with the real program, real servers and a real OTLP collector (docs/tracing.md)."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.harness.admin import api, metric
from tests.harness.certificates import Certificates, make_certificates
from tests.harness.collector import Collector, Received, needs_collector
from tests.harness.process import free_port, wait_until
from tests.harness.sentinels import Cluster
from tests.harness.servers import WORKERS, Server, Sidecar, valkey
from tests.harness.wire import Wire, pack

from .test_node import node_modules

__all__ = ["node_modules"]

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SLOW_SCRIPT = "local t = os.clock() repeat until os.clock() - t > 0.1 return 1"
SECRET = "do-not-tell"
HASHED = "#" + hashlib.sha256(b"tr:key").hexdigest()[:16]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with valkey() as server:
        yield server


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return make_certificates(tmp_path)


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


def sidecar(upstream: str, **settings: str | float) -> Sidecar:
    """One with these settings of the section `tracing`, and an admin address."""
    return Sidecar(
        upstream,
        settings={f"tracing.{name}": value for name, value in settings.items()},
        admin=f"127.0.0.1:{free_port()}",
    )


def traces(of: Sidecar, query: str = "") -> list[dict[str, Any]]:
    """What /api/traces says."""
    found: list[dict[str, Any]] = api(of, f"/api/traces?{query}")["traces"]
    return found


def wait_for_trace(of: Sidecar, **what: object) -> dict[str, Any]:
    """The newest trace that has these values, as soon as there is one."""
    return wait_until(
        lambda: next((t for t in traces(of) if what.items() <= t.items()), {}), f"a trace {what}"
    )


@needs_collector
def _held(collector: Collector, command: str) -> tuple[Received, Received] | None:
    """The span of such a command that was held, and that of its waiting."""
    spans = collector.spans()
    waits = {span.parent_id: span for span in spans if span.name == "held"}
    above = (span for span in spans if span.name == command and span.span_id in waits)
    return next(((span, waits[span.span_id]) for span in above), None)


class TestSending:
    """Spans arrive."""

    def test_a_command_and_its_call(self, server: Server, collector: Collector) -> None:
        with sidecar(server.url, endpoint=collector.url, sample=1.0) as s, Wire(s.port) as wire:
            wire.cmd("SELECT", 3)
            wire.cmd("SET", "tr:a", SECRET)
            call = collector.wait_for(
                lambda x: x.name == "SET" and x.kind == "CLIENT", "the call of SET"
            )
            top = collector.wait_for(lambda x: x.span_id == call.parent_id, "the span above it")
            assert (top.name, top.kind, top.parent_id) == ("SET", "SERVER", "")
            assert top.trace_id == call.trace_id
            assert top.start <= call.start <= call.end == top.end
            assert abs(top.end / 1e9 - time.time()) < 30
            for span in (top, call):
                found = span.attributes
                assert found["db.system.name"] == "redis"
                assert found["db.operation.name"] == "SET"
                assert found["db.namespace"] == "3"
                assert found["server.address"] == "127.0.0.1"
                assert found["server.port"] == str(server.port)
                assert found["service.name"] == "redis-sidecar"
                assert "db.query.text" not in found
                assert span.status == "UNSET"
            assert top.attributes["network.peer.port"] == wire.address.partition(":")[2]
            assert call.attributes["network.peer.port"] == str(server.port)
            assert SECRET not in collector.log()
            assert "tr:a" not in collector.log()

    def test_an_error(self, server: Server, collector: Collector) -> None:
        with sidecar(server.url, endpoint=collector.url, sample=0.0) as s, Wire(s.port) as wire:
            wire.cmd("SET", "tr:string", "1")
            wire.cmd("HGET", "tr:string", "field")
            wire.cmd("NOSUCHCOMMAND", SECRET)
            top = collector.wait_for(
                lambda x: x.name == "HGET" and x.kind == "SERVER", "the failed HGET"
            )
            assert top.status == "ERROR"
            assert top.attributes["db.response.status_code"] == "WRONGTYPE"
            assert top.attributes["error.type"] == "WRONGTYPE"
            unknown = collector.wait_for(lambda x: x.status == "ERROR" and x.name != "HGET", "ERR")
            assert unknown.attributes["error.type"] == "ERR"
            assert SECRET not in collector.log()

    def test_in_the_trace_of_the_application(self, server: Server, collector: Collector) -> None:
        with (
            sidecar(server.url, endpoint=collector.url, sample=0.0, context="true") as s,
            closing(redis.Redis(port=s.port)) as client,
        ):
            client.client_setname(f"tp:00-{TRACE}-{SPAN}-01")
            client.incr("tr:n")
            top = collector.wait_for(
                lambda x: x.trace_id == TRACE and x.name == "INCRBY", "the span"
            )
            assert (top.kind, top.parent_id) == ("SERVER", SPAN)
            call = collector.wait_for(lambda x: x.parent_id == top.span_id, "the call below it")
            assert (call.kind, call.trace_id) == ("CLIENT", TRACE)

    def test_switching_masters(self, collector: Collector) -> None:
        with Cluster() as cluster, sidecar(cluster.url, endpoint=collector.url, slow=0.02) as s:
            with Wire(s.port) as wire:
                before = cluster.current_master()
                wire.cmd("SET", "tr:f", "1")
                cluster.failover()
                wait_until(
                    lambda: wire.cmd("SET", "tr:f", "2") and cluster.current_master() != before,
                    "another master", 20.0,
                )  # fmt: skip
                wire.cmd("SET", "tr:f", "3")
            top = collector.wait_for(lambda x: x.name == "failover", "the span of the switch", 20.0)
            assert top.kind == "INTERNAL"
            assert top.attributes["sidecar.switches"] == "1"
            assert top.attributes["sidecar.master"].endswith(f":{cluster.current_master()}")
            above, held = wait_until(lambda: _held(collector, "SET"), "a write that was held")
            assert above.trace_id == held.trace_id
            assert above.end - above.start >= held.end - held.start > 20_000_000

    def test_near_cache(self, server: Server, collector: Collector) -> None:
        with (
            Sidecar(
                server.url,
                settings={
                    "tracing.endpoint": collector.url, "tracing.sample": 1.0,
                    "cache.mode": "rules", "cache.rules": "*",
                },
            ) as s,
            Wire(s.port) as wire,
        ):  # fmt: skip
            wire.cmd("SET", "tr:cached", "1")
            wait_until(lambda: any(x.name == "cache fill" for x in _polled(wire, collector)),
                       "a fill", 15.0)  # fmt: skip
            fill = next(x for x in collector.spans() if x.name == "cache fill")
            above = collector.wait_for(lambda x: x.span_id == fill.parent_id, "the GET above it")
            assert (above.name, fill.kind) == ("GET", "CLIENT")
            assert above.attributes["sidecar.cache.hit"] == "true"
            spans = wait_until(
                lambda: [x for x in _polled(wire, collector)
                         if x.attributes.get("sidecar.cache.hit") == "true"
                         and x.span_id != above.span_id], "a hit without a fill", 15.0,
            )  # fmt: skip
            assert not [x for x in collector.spans() if x.parent_id == spans[0].span_id]


def _polled(wire: Wire, collector: Collector) -> list[Received]:
    """What has arrived, after one more GET."""
    wire.cmd("GET", "tr:cached")
    return collector.spans()


class TestLocal:
    """/api/traces, without a collector."""

    def test_slow_and_failed_ones_are_there_by_default(self, server: Server) -> None:
        with sidecar(server.url, slow=0.05) as s, Wire(s.port) as wire:
            wire.cmd("SET", "tr:quick", "1")
            wire.cmd("EVAL", SLOW_SCRIPT, 1, "tr:slow")
            wire.cmd("LPUSH", "tr:quick", SECRET)
            slow = wait_for_trace(s, command="eval", why=["slow"])
            assert 100 <= slow["duration_ms"] < 5000
            assert slow["key"] is None
            assert [span["kind"] for span in slow["spans"]] == ["server", "client"]
            failed = wait_for_trace(s, command="lpush", why=["failed"])
            assert failed["error"] == "WRONGTYPE"
            assert [t["command"] for t in traces(s, "why=slow")] == ["eval"]
            assert len(traces(s, "count=1")) == 1
            assert not [t for t in traces(s) if t["command"] in ("set", "get")]
            assert SECRET not in json.dumps(traces(s))
            assert metric(s, 'sidecar_traced_commands_total{why="failed"}') == 1
            told = wait_until(lambda: "command slow" in s.log() and s.log(), "a line in the log")
            (line,) = [line for line in told.splitlines() if "command slow" in line]
            assert SECRET not in told
            assert "tr:slow" not in line
            assert str(slow["trace_id"]) in line

    @pytest.mark.parametrize(
        ("keys", "shown"), [("none", None), ("plain", "tr:key"), ("hash", HASHED)]
    )
    def test_keys(self, server: Server, keys: str, shown: str | None) -> None:
        with sidecar(server.url, keys=keys) as s, Wire(s.port) as wire:
            wire.cmd("SET", "tr:key", "1")
            wire.cmd("LPUSH", "tr:key", "1")
            assert wait_for_trace(s, command="lpush")["key"] == shown

    @pytest.mark.one_worker("the supervisor, who reads certificates first, makes no spans")
    def test_certificate_reload(self, server: Server, certificates: Certificates) -> None:
        pem = certificates.server
        settings = {"listen.tls.cert_file": str(pem.cert), "listen.tls.key_file": str(pem.key)}
        admin = f"127.0.0.1:{free_port()}"
        with Sidecar(
            server.url, settings=settings, tls=certificates.client_context(), admin=admin
        ) as s:
            os.kill(s.pid, signal.SIGHUP)
            found = wait_for_trace(s, name="certificate reload")
            assert (found["why"], found["error"]) == (["internal"], None)
            key = pem.key.read_bytes()
            pem.key.write_bytes(b"no key")
            os.kill(s.pid, signal.SIGHUP)
            wait_for_trace(s, name="certificate reload", error="SSLError")
            pem.key.write_bytes(key)

    def test_warm_up(self, server: Server, tmp_path: Path) -> None:
        (tmp_path / "keys").write_text("tr:w1\ntr:w2\n")
        with Wire(server.port) as wire:
            wire.cmd("MSET", "tr:w1", "1", "tr:w2", "2")
        settings = {"warm.key_file": str(tmp_path / "keys")}
        with Sidecar(server.url, settings=settings, admin=f"127.0.0.1:{free_port()}") as s:
            found = wait_for_trace(s, name="warm up")
            assert found["attributes"]["sidecar.loaded"] == 2

    def test_off(self, server: Server) -> None:
        with sidecar(server.url, recent=0) as s, Wire(s.port) as wire:
            wire.cmd("NOSUCHCOMMAND")
            assert traces(s) == []

    def test_upstream_that_is_down(self) -> None:
        with valkey() as own, sidecar(own.url) as s, Wire(s.port) as wire:
            wire.cmd("SET", "k", "v")
            own.kill()
            assert wire.cmd("GET", "k", deadline=20.0).startswith(b"-UNAVAILABLE")
            found = wait_for_trace(s, command="get", error="UNAVAILABLE")
            assert found["server"] is None

    @pytest.mark.parametrize("bad", ["count=0", "count=x", "count=99999", "why=x"])
    def test_bad_questions(self, server: Server, bad: str) -> None:
        with sidecar(server.url) as s, pytest.raises(urllib.error.HTTPError, match="400") as caught:
            traces(s, bad)
        caught.value.close()

    @pytest.mark.one_worker("tracing.max_per_second is divided among the workers")
    def test_as_many_as_allowed(self, server: Server) -> None:
        with sidecar(server.url, max_per_second=50) as s, Wire(s.port) as wire:
            began = time.monotonic()
            for _ in range(20):
                wire.send(pack("NOSUCHCOMMAND") * 500)
                wire.read_replies(500)
            most = 50 * (time.monotonic() - began + 2)
            wait_until(lambda: metric(s, "sidecar_untraced_commands_total") > 1000, "most are not")
            traced = metric(s, 'sidecar_traced_commands_total{why="failed"}')
            assert 50 <= traced <= most
            assert traced + metric(s, "sidecar_untraced_commands_total") == 10_000

    def test_context_needs_to_be_allowed(self, server: Server) -> None:
        with sidecar(server.url) as s, Wire(s.port) as wire:
            wire.cmd("CLIENT", "SETNAME", f"tp:00-{TRACE}-{SPAN}-01")
            wire.cmd("NOSUCHCOMMAND")
            assert wait_for_trace(s, error="ERR")["trace_id"] != TRACE

    def test_example_for_redis_py(self, server: Server) -> None:
        with (
            sidecar(server.url, context="true") as s,
            closing(redis.Redis(port=s.port, decode_responses=True)) as client,
        ):
            client.set("tr:before", 1)
            with client.pipeline(transaction=False) as pipe:
                pipe.execute_command("CLIENT", "SETNAME", f"tp:00-{TRACE}-{SPAN}-01")
                pipe.set("tr:in", 1).get("tr:in")
                pipe.execute_command("CLIENT", "SETNAME", "app")
                assert pipe.execute()[1:-1] == [True, "1"]
            client.lpop("tr:after")
            wait_until(lambda: len(traces(s, "why=sampled")) >= 2, "two traces")
            assert [t["command"] for t in traces(s, "why=sampled")] == ["get", "set"]
            assert {t["trace_id"] for t in traces(s, "why=sampled")} == {TRACE}

    def test_example_for_ioredis(self, server: Server, node_modules: Path) -> None:
        with sidecar(server.url, context="true") as s:
            script = node_modules / "tracing.mjs"
            shutil.copy(Path(__file__).parent / "node" / script.name, script)
            argv = ["node", str(script), str(s.port), f"00-{TRACE}-{SPAN}-01"]
            done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
            assert done.returncode == 0, done.stderr
            wait_until(lambda: len(traces(s, "why=sampled")) >= 2, "two traces")
            assert sorted(t["command"] for t in traces(s, "why=sampled")) == ["get", "set"]

    def test_context_ends_with_another_name_and_with_reset(self, server: Server) -> None:
        with sidecar(server.url, context="true") as s, Wire(s.port) as wire:
            for end in (("CLIENT", "SETNAME", "x"), ("RESET",), ("HELLO", "2", "SETNAME", "y")):
                wire.cmd("CLIENT", "SETNAME", f"tp:00-{TRACE}-{SPAN}-01")
                wire.cmd("SET", "tr:ctx", "1")
                wire.cmd(*end)
                wire.cmd("GET", "tr:ctx")
                wire.cmd("NOSUCHCOMMAND")
            wait_until(lambda: len(traces(s, "why=failed")) == 3, "three failed")
            assert all(t["trace_id"] != TRACE for t in traces(s, "why=failed"))
            inside = [t for t in traces(s) if t["trace_id"] == TRACE]
            assert [(t["command"], t["parent_id"]) for t in inside] == [("set", SPAN)] * 3


class TestTrouble:
    """A collector that is down, or hangs, is nobody's problem but the tracer's."""

    @pytest.mark.parametrize("hangs", [False, True])
    def test_traffic_goes_on(self, server: Server, hangs: bool) -> None:
        with socket.socket() as deaf:
            deaf.bind(("127.0.0.1", 0))
            if hangs:
                deaf.listen()
            url = f"http://127.0.0.1:{deaf.getsockname()[1]}/v1/traces"
            with (
                sidecar(server.url, endpoint=url, sample=1.0, max_per_second=2000) as s,
                Wire(s.port) as wire,
            ):
                dropped = 'sidecar_spans_dropped_total{reason="export"}'
                slowest, deadline = 0.0, time.monotonic() + 60
                while not metric(s, dropped):
                    assert time.monotonic() < deadline
                    began = time.monotonic()
                    wire.send(pack("GET", "tr:t") * 100)
                    wire.read_replies(100)
                    slowest = max(slowest, time.monotonic() - began)
                assert slowest < 1
                assert metric(s, "sidecar_spans_exported_total") == 0
                wait_until(lambda: "span export failed" in s.log(), "it is said")
                assert 1 <= s.log().count("span export failed") <= WORKERS
                assert "Traceback" not in s.log()
                wire.close()
                began = time.monotonic()
                assert s.stop() == 0
                assert time.monotonic() - began < 8

    @needs_collector
    def test_the_last_spans_are_sent(self, server: Server) -> None:
        with Collector() as own, sidecar(server.url, endpoint=own.url, sample=1.0) as s:
            with Wire(s.port) as wire:
                wire.cmd("SET", "tr:last", "1")
            assert s.stop() == 0
            own.wait_for(lambda x: x.name == "SET", "the last command")

    @needs_collector
    def test_collector_that_comes_back(self, server: Server) -> None:
        with Collector() as own, sidecar(server.url, endpoint=own.url, sample=1.0) as s:
            own.stop()
            with Wire(s.port) as wire:
                wire.cmd("SET", "tr:back", "1")
                own.start()
                wait_until(
                    lambda: wire.cmd("PING") and metric(s, "sidecar_spans_exported_total"),
                    "spans arrive again", 30.0,
                )  # fmt: skip
