"""Metrics that are read off the surroundings: certificates, Sentinels, warm start, the hot key."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import time
from pathlib import Path

import pytest
from cryptography import x509
from prometheus_client.parser import text_string_to_metric_families

from tests.harness.admin import api, scrape
from tests.harness.alerting import MISSING, WITHOUT
from tests.harness.certificates import Authority
from tests.harness.process import free_port, wait_until
from tests.harness.sentinels import Cluster
from tests.harness.servers import WORKERS, Server, Sidecar
from tests.harness.wire import Wire, pack


def metrics(sidecar: Sidecar) -> dict[str, float]:
    """Samples by name, with the value of their only label after a colon."""
    return {
        ":".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(scrape(sidecar))
        for sample in family.samples
    }


def test_certificates(plain_server: Server, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    pem, other = authority.issue("server"), authority.issue("other", days=9)
    context = ssl.create_default_context(cafile=str(authority.cert_file))
    live = tmp_path / "live.crt"
    key = tmp_path / "live.key"
    live.write_bytes(pem.cert.read_bytes())
    key.write_bytes(pem.key.read_bytes())
    settings = {"listen.tls.cert_file": str(live), "listen.tls.key_file": str(key)}
    admin = f"127.0.0.1:{free_port()}"
    name = "sidecar_tls_certificate_expiry_timestamp_seconds:listen"
    with Sidecar(plain_server.url, settings=settings, tls=context, admin=admin) as sidecar:
        shown = x509.load_pem_x509_certificate(pem.cert.read_bytes()).not_valid_after_utc
        assert metrics(sidecar)[name] == shown.timestamp()
        assert "sidecar_tls_certificate_expiry_timestamp_seconds:upstream" not in metrics(sidecar)
        live.write_bytes(other.cert.read_bytes())  # without its key
        os.kill(sidecar.pid, signal.SIGHUP)
        wait_until(lambda: "certificate reload failed" in sidecar.log(), "refused")
        assert metrics(sidecar)[name] == shown.timestamp()
        key.write_bytes(other.key.read_bytes())
        os.kill(sidecar.pid, signal.SIGHUP)
        wait_until(lambda: metrics(sidecar)[name] < shown.timestamp(), "the new one is shown")


def test_hot_keys_by_name(plain_server: Server) -> None:
    """No more than asked for, and whatever bytes they are."""
    admin = f"127.0.0.1:{free_port()}"
    settings = {"hotkeys.metrics": 2}
    with (
        Sidecar(plain_server.url, settings=settings, admin=admin) as sidecar,
        Wire(sidecar.port) as wire,
    ):
        wire.cmd("SELECT", 3)

        def named() -> list[str]:
            for key, times in ((b'"\n\xff', 300), (b"second", 200), (b"third", 10)):
                wire.send(pack("GET", key) * times)
                wire.read_replies(times)
            return [name for name in metrics(sidecar) if name.startswith("sidecar_hot_key_share")]

        name = "sidecar_hot_key_share:default:3:"
        expected = [name + r"\"\n\xff", name + "second"]
        wait_until(lambda: named() == expected, "the two hottest, hottest first")
        rate = expected[0].replace("share", "rate")
        wait_until(lambda: named() and metrics(sidecar)[rate] > 0, "a rate")


@pytest.mark.parametrize(
    ("request_", "family"),
    [
        (("BRPOP", "q", "0.3"), "blocking"),
        (("BLMOVE", "q", "p", "LEFT", "LEFT", "0.3"), "blocking"),
        (("XREAD", "BLOCK", "300", "STREAMS", "s", "$"), "blocking"),
        (("XREADGROUP", "GROUP", "g", "c", "BLOCK", "300", "STREAMS", "s", ">"), "blocking"),
        (("WAIT", "1", "300"), "blocking"),
        (("XREAD", "STREAMS", "s", "0"), "stream"),
        (("LPUSH", "q", "1"), "list"),
        (("EVAL", "return 1", "0"), "scripting"),
    ],
)
def test_time_that_was_asked_for_is_no_latency(
    plain_server: Server, request_: tuple[str, ...], family: str
) -> None:
    admin = f"127.0.0.1:{free_port()}"
    with Sidecar(plain_server.url, admin=admin) as sidecar, Wire(sidecar.port) as wire:
        wire.cmd("XGROUP", "CREATE", "s", "g", "$", "MKSTREAM")
        name = f"sidecar_command_duration_seconds_count:{family}"
        before = metrics(sidecar).get(name, 0)
        wire.cmd(*request_)
        assert metrics(sidecar).get(name, 0) == before + 1
        points = api(sidecar, "/api/stats?count=60")["points"]
        wait_until(
            lambda: len(api(sidecar, "/api/stats?count=60")["points"]) > len(points) + 1, "a point"
        )
        slowest = [point["p999"] or 0 for point in api(sidecar, "/api/stats?count=60")["points"]]
        assert max(slowest) < 0.25


def test_errors_are_no_more_than_commands(plain_server: Server) -> None:
    """Also those that the sidecar makes itself."""
    admin = f"127.0.0.1:{free_port()}"
    settings = {"upstream.wait": 0.1}
    with (
        Sidecar(plain_server.url, admin=admin, settings=settings) as sidecar,
        Wire(sidecar.port) as wire,
    ):
        wire.cmd("SET", "k", "text")
        wait_until(lambda: api(sidecar, "/api/stats")["points"], "a point")
        plain_server.kill()
        try:
            for _ in range(50):
                assert wire.cmd("GET", "k")[:1] == b"-"
            wait_until(
                lambda: api(sidecar, "/api/stats?count=60")["last_minute"]["errors"], "a point"
            )
        finally:
            plain_server.start()
        said = api(sidecar, "/api/stats?count=60")
        assert said["totals"]["errors"] >= 50
        assert said["totals"]["commands"] >= said["totals"]["errors"]
        for point in said["points"]:
            assert point["errors"] <= point["commands"] + 0.1, point


def test_the_hottest_key_and_the_loop(plain_server: Server) -> None:
    admin = f"127.0.0.1:{free_port()}"
    with Sidecar(plain_server.url, admin=admin) as sidecar, Wire(sidecar.port) as wire:
        for number in range(400):
            wire.cmd("SET", "hot" if number % 4 else f"cold{number}", "v")
        wait_until(lambda: 0.6 < metrics(sidecar)["sidecar_hot_key_top_share"] <= 1.0, "its share")
        sidecar.pause()
        until = time.monotonic() + 0.6
        wait_until(lambda: time.monotonic() > until, "it has been stopped for a while")
        sidecar.resume()
        wait_until(lambda: metrics(sidecar)["sidecar_event_loop_lag_seconds"] > 0.3, "lag")
        assert metrics(sidecar)["sidecar_log_lines_total:log"] >= 1


def test_sentinels_and_switches() -> None:
    with Cluster() as cluster:
        admin = f"127.0.0.1:{free_port()}"
        with Sidecar(cluster.url, admin=admin) as sidecar:

            def known() -> bool:
                now = metrics(sidecar)
                return now["sidecar_sentinels:connected"] == now["sidecar_sentinels:known"] == 3

            wait_until(known, "all Sentinels")
            assert metrics(sidecar)["sidecar_replicas"] >= 1


def test_warm_start(plain_server: Server, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("a\nb\n")
    with Wire(plain_server.port) as wire:
        assert wire.cmd("MSET", "a", "1", "b", "2") == b"+OK\r\n"
    admin = f"127.0.0.1:{free_port()}"
    settings = {"warm.key_file": str(keys)}
    with Sidecar(plain_server.url, settings=settings, admin=admin) as sidecar:
        wait_until(lambda: metrics(sidecar).get("sidecar_warmup_state:done") == 1.0, "warm")
        now = metrics(sidecar)
        assert now["sidecar_warmup_keys:found"] == 2 * WORKERS
        loaded = now["sidecar_warmup_keys:loaded"]
        assert loaded + now["sidecar_warmup_keys:failed"] == 2 * WORKERS
        assert now["sidecar_warmup_duration_seconds"] < 5.0


@pytest.mark.skipif(bool(MISSING), reason=WITHOUT)
def test_names_and_texts_are_clean(plain_server: Server) -> None:
    admin = f"127.0.0.1:{free_port()}"
    with Sidecar(plain_server.url, admin=admin) as sidecar:
        text = scrape(sidecar)
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
