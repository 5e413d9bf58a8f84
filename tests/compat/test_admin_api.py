"""The admin endpoint of a real sidecar: what it says is true, and as its document says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.harness.admin import scrape
from tests.harness.certificates import make_certificates
from tests.harness.load import Load
from tests.harness.process import free_port, wait_until
from tests.harness.sentinels import Cluster
from tests.harness.servers import WORKERS, Server, Sidecar
from tests.harness.wire import Wire

PASSWORD = "pa55-of-the-server"
TOKEN = "token-of-the-admin-port"
PROMTOOL = shutil.which("promtool")


@pytest.fixture
def sidecar(plain_server: Server) -> Iterator[Sidecar]:
    with _sidecar(plain_server.url) as sidecar:
        yield sidecar


def _sidecar(upstream: str, **more: Any) -> Sidecar:
    return Sidecar(upstream, admin=f"127.0.0.1:{free_port()}", **more)


def ask(
    sidecar: Sidecar, path: str, *, post: bool = False, token: str = ""
) -> tuple[int, Mapping[str, Any]]:
    """Status and JSON of one path."""
    request = urllib.request.Request(
        f"http://{sidecar.admin}{path}",
        data=b"{}" if post else None,
        headers={"Content-Type": "application/json", "Authorization": f"Bearer {token}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def get(sidecar: Sidecar, path: str) -> Mapping[str, Any]:
    status, said = ask(sidecar, path)
    assert status == 200, said
    return said


def test_health_and_stats_are_true(sidecar: Sidecar) -> None:
    with Load(sidecar.port, 2):
        wait_until(
            lambda: (get(sidecar, "/api/stats")["last_minute"]["hit_ratio"] or 0) > 0.1,
            "the cache's hits are counted",
            15,
        )
        health = get(sidecar, "/api/health/redis")
    assert (health["status"], health["role"], health["breaker"]) == ("ok", "master", "closed")
    assert health["server"]["software"] == "valkey"
    assert health["server"]["used_memory"] > 1_000_000
    assert 0 < health["latency"]["p50"] <= health["latency"]["p99"] < 5
    assert health["cache"]["entries"] > 0
    stats = get(sidecar, "/api/stats?count=5")
    assert 0 < len(stats["points"]) <= 5
    assert stats["totals"]["commands"] >= stats["cache"]["hits"] > 0
    assert 1 <= stats["links"]["shared"] <= WORKERS, "each worker has one"


def test_down_and_up_again(plain_server: Server) -> None:
    with (
        Server(plain_server.binary, "gone") as server,
        _sidecar(server.url) as sidecar,
        Wire(sidecar.port) as wire,
    ):
        server.kill()
        wait_until(lambda: ask(sidecar, "/api/health/redis")[0] == 503, "it is down")
        said = ask(sidecar, "/api/health/redis")[1]
        assert said["status"] == "down"
        assert "there is no connection to the server" in said["reasons"]
        history = get(sidecar, "/api/topology")["history"]
        assert (history[0]["seconds"], history[0]["switched"]) == (None, False)
        server.start()
        wait_until(lambda: wire.cmd("PING") == b"+PONG\r\n", "it is back", 10)
        wait_until(lambda: ask(sidecar, "/api/health/redis")[0] == 200, "it is up")
        history = get(sidecar, "/api/topology")["history"]
        assert len(history) == 1
        assert 0 < history[0]["seconds"] < 15


def test_emptying_the_cache(sidecar: Sidecar) -> None:
    with Load(sidecar.port, 1):
        wait_until(lambda: get(sidecar, "/api/stats")["cache"]["entries"], "values are kept", 15)
    before = get(sidecar, "/api/stats")["cache"]["entries"]
    assert ask(sidecar, "/api/cache/flush", post=True) == (200, {"dropped": before})
    assert get(sidecar, "/api/stats")["cache"]["entries"] == 0


def test_draining(sidecar: Sidecar) -> None:
    """As SIGTERM: what clients have asked is answered, then it ends with 0."""
    with Wire(sidecar.port) as wire:
        assert wire.cmd("PING") == b"+PONG\r\n"
        status, said = ask(sidecar, "/api/drain", post=True)
        assert (status, said["draining"]) == (200, True)
        wire.expect_eof()
    wait_until(lambda: not sidecar.running, "it ends")
    assert sidecar.returncode == 0


def test_no_secret_is_shown(plain_server: Server) -> None:
    """Neither passwords nor the names they go with, on any path."""
    with Server(plain_server.binary, "locked", settings={"requirepass": PASSWORD}) as server:
        upstream = f"redis://default:{PASSWORD}@127.0.0.1:{server.port}"
        with _sidecar(upstream, env={"SIDECAR_ADMIN__TOKEN": TOKEN}) as sidecar:
            document = ask(sidecar, "/api/openapi.json", token=TOKEN)[1]
            for path, methods in document["paths"].items():
                if "get" in methods and path.startswith("/api") and path != "/api/events":
                    status, said = ask(sidecar, path, token=TOKEN)
                    assert status == 200, path
                    assert PASSWORD not in json.dumps(said)
                    assert TOKEN not in json.dumps(said)
            config = ask(sidecar, "/api/config", token=TOKEN)[1]
            assert config["upstream.url"]["value"] == f"redis://127.0.0.1:{server.port}"
            assert config["admin.token"] == {"value": "***", "default": False}
            log = sidecar.log()
            assert PASSWORD not in log
            assert TOKEN not in log


def test_hotkeys_on_the_command_line(plain_server: Server, tmp_path: Path) -> None:
    """The token comes from where the sidecar has it."""
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    given = {"SIDECAR_ADMIN__TOKEN_FILE": str(file)}
    with _sidecar(plain_server.url, env=given) as sidecar:
        command = [sys.executable, "-m", "sidecar", "hotkeys", "--json", "--admin", sidecar.admin]

        def run(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                command, env={**os.environ, **env}, capture_output=True, text=True, check=False
            )

        assert json.loads(run(given).stdout)["keys"] == []
        without = run({})
        assert (without.returncode, "401" in without.stderr) == (1, True)


def test_a_public_address_needs_a_token(plain_server: Server) -> None:
    with Sidecar(plain_server.url, admin=f"0.0.0.0:{free_port()}", ready=False) as sidecar:
        wait_until(lambda: not sidecar.running, "it ends")
        assert sidecar.returncode == 2
        assert "can be reached from other hosts, and admin.token is empty" in sidecar.log()


def test_failover_and_its_history() -> None:
    with Cluster() as cluster:
        with _sidecar(cluster.url) as sidecar:
            status, said = ask(sidecar, "/api/failover", post=True)
            assert (status, said["error"]) == (409, "not allowed: set admin.failover = true")
        with _sidecar(cluster.url, settings={"admin.failover": "true"}) as sidecar:
            old = f"127.0.0.1:{cluster.master.port}"
            topology = get(sidecar, "/api/topology")
            assert (topology["master"], topology["history"]) == (old, [])
            wait_until(
                lambda: all(s["connected"] for s in get(sidecar, "/api/topology")["sentinels"]),
                "every Sentinel is connected",
            )
            health = get(sidecar, "/api/health/redis")
            assert (health["status"], health["replication"]["replicas"]) == ("ok", 2)
            with Load(sidecar.port, 1) as load:
                begun = time.time()
                status, said = ask(sidecar, "/api/failover", post=True)
                assert (status, list(said)) == (200, ["asked"])
                wait_until(
                    lambda: [h for h in get(sidecar, "/api/topology")["history"] if h["seconds"]],
                    "the switch is told of",
                    20,
                )
                assert load.errors == []
            entry = get(sidecar, "/api/topology")["history"][0]
            new = f"127.0.0.1:{cluster.current_master()}"
            assert (entry["before"], entry["after"], entry["switched"]) == (old, new, True)
            assert begun - 1 < entry["at"] < time.time()
            assert 0 < entry["seconds"] < 5
            assert get(sidecar, "/api/stats")["totals"]["switches"] == 1


def test_certificates(plain_server: Server, tmp_path: Path) -> None:
    made = make_certificates(tmp_path)
    tls = {
        "listen.tls.cert_file": str(made.server.cert),
        "listen.tls.key_file": str(made.server.key),
    }
    with _sidecar(plain_server.url, settings=tls, tls=made.client_context()) as sidecar:
        (shown,) = get(sidecar, "/api/certificates")["certificates"]
        assert shown["use"] == "listen.tls.cert_file"
        assert shown["seconds_left"] > 0
        made.server.cert.write_bytes(made.expired.cert.read_bytes())
        made.server.key.write_bytes(made.expired.key.read_bytes())
        status, said = ask(sidecar, "/api/reload", post=True)
        assert (status, said["reloaded"][0]) == (200, "listen.tls")
        (shown,) = get(sidecar, "/api/certificates")["certificates"]
        assert shown["seconds_left"] < 0
        made.server.cert.write_text("no certificate")
        assert ask(sidecar, "/api/reload", post=True)[0] == 409
        (shown,) = get(sidecar, "/api/certificates")["certificates"]
        assert shown["error"] == "not a PEM certificate"


@pytest.mark.skipif(PROMTOOL is None, reason="NO promtool: apt-get install prometheus")
def test_promtool_has_nothing_to_say(sidecar: Sidecar) -> None:
    with Load(sidecar.port, 1):
        wait_until(lambda: get(sidecar, "/api/stats")["cache"]["hits"], "some traffic", 15)
    text = scrape(sidecar).encode()
    assert PROMTOOL is not None
    said = subprocess.run(
        [PROMTOOL, "check", "metrics"], input=text, capture_output=True, check=False
    )
    assert (said.returncode, said.stdout, said.stderr) == (0, b"", b"")


# The document


@pytest.fixture(scope="module")
def documented() -> Iterator[Sidecar]:
    """One whose actions may be tried at random: /api/drain apart."""
    with _sidecar("embedded://", env={"SIDECAR_ADMIN__TOKEN": TOKEN}) as sidecar:
        yield sidecar


def test_the_document_is_kept_to(documented: Sidecar, tmp_path: Path) -> None:
    """Schemathesis makes requests from the document, good and bad, and judges the answers."""
    schemathesis = pytest.importorskip("schemathesis", reason="NO schemathesis (extra: test)")
    assert schemathesis
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        f"http://{documented.admin}/api/openapi.json",
        "--header",
        f"Authorization: Bearer {TOKEN}",
        "--exclude-path",
        "/api/events",
        "--exclude-path",
        "/api/drain",
        "--max-examples",
        "15",
        "--phases",
        "examples,coverage,fuzzing",
        "--seed",
        "1",
        "--no-color",
        "--workers",
        "1",
    ]
    said = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=100)
    assert said.returncode == 0, said.stdout[-6000:] + said.stderr[-2000:]
    assert documented.running
