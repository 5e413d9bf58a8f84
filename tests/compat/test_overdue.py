"""A server that does not answer: told within seconds, on whatever link the commands wait."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.harness.admin import api, metric
from tests.harness.process import free_port, wait_until
from tests.harness.servers import WORKERS, Server, Sidecar
from tests.harness.wire import Wire, pack

# Seconds within which a warning, and a failure, must be told; and what a busy machine may add.
AMBER, RED, SLACK = 1.0, 3.0, 0.7


def status(sidecar: Sidecar, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://{sidecar.admin}{path}") as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def health(sidecar: Sidecar) -> dict[str, Any]:
    said: dict[str, Any] = api(sidecar, "/api/stats")["unanswered"]
    return said


@contextmanager
def frozen(server: Server) -> Iterator[float]:
    """The server is stopped, and goes on at the end; the time at which it was stopped."""
    server.pause()
    try:
        yield time.monotonic()
    finally:
        server.resume()


@pytest.fixture
def sidecar(plain_server: Server, request: pytest.FixtureRequest) -> Iterator[Sidecar]:
    settings = {"upstream.pooling": getattr(request, "param", "shared")}
    admin = f"127.0.0.1:{free_port()}"
    with Sidecar(plain_server.url, settings=settings, admin=admin) as sidecar:
        yield sidecar


def tells(sidecar: Sidecar, since: float, state: str) -> float:
    """Seconds until the sidecar tells that state."""
    wait_until(lambda: health(sidecar)["state"] == state, f"it tells {state}", 6.0, every=0.02)
    return time.monotonic() - since


def resp3(wire: Wire) -> None:
    wire.cmd("HELLO", 3)


def db_1(wire: Wire) -> None:
    wire.cmd("SELECT", 1)


def plain(wire: Wire) -> None:
    pass


def in_multi(wire: Wire) -> None:
    wire.cmd("WATCH", "k")


@pytest.mark.parametrize(
    ("sidecar", "before", "request_"),
    [
        ("shared", plain, ("SET", "k", "v")),
        ("shared", resp3, ("SET", "k", "v")),
        ("shared", db_1, ("SET", "k", "v")),
        ("shared", in_multi, ("GET", "k")),
        ("shared", plain, ("BRPOP", "queue", "0")),
        ("session", plain, ("SET", "k", "v")),
        ("session", db_1, ("GET", "k")),
        ("session", plain, ("BRPOP", "queue", "0")),
    ],
    indirect=["sidecar"],
)
def test_a_frozen_server_is_told(
    sidecar: Sidecar,
    plain_server: Server,
    before: Callable[[Wire], None],
    request_: tuple[str, ...],
) -> None:
    blocks = request_[0] == "BRPOP"
    with ExitStack() as clients:
        wires = [clients.enter_context(Wire(sidecar.port)) for _ in range(3)]
        for wire in wires:
            assert wire.cmd("PING") == b"+PONG\r\n"
            before(wire)
        if blocks:
            for wire in wires:
                wire.send(pack(*request_))
            until = time.monotonic() + 1.5
            wait_until(lambda: time.monotonic() > until, "they wait")
            assert health(sidecar)["state"] == "ok", "a command that blocks is not overdue"
            assert status(sidecar, "/readyz") == 200
        assert metric(sidecar, "sidecar_upstream_up") == 1
        assert metric(sidecar, "sidecar_upstream_silence_seconds") == 0
        with frozen(plain_server) as since:
            if not blocks:
                for wire in wires:
                    wire.send(pack(*request_))
            assert tells(sidecar, since, "late") < AMBER + SLACK
            assert status(sidecar, "/readyz") == 200
            assert tells(sidecar, since, "overdue") < RED + SLACK
            assert status(sidecar, "/readyz") == 503
            assert metric(sidecar, "sidecar_upstream_up") == 0
            assert metric(sidecar, "sidecar_upstream_silence_seconds") > 2
            oldest = metric(sidecar, "sidecar_upstream_oldest_request_seconds")
            assert 2 < oldest < time.monotonic() - since
            assert status(sidecar, "/api/health/redis") == 503
            said = health(sidecar)
            assert said["why"].startswith("the server has not answered for ")
            assert said["why"].endswith("; 3 commands wait")
            assert abs(said["since"] - (time.time() - (time.monotonic() - since))) < AMBER + SLACK
        wait_until(lambda: health(sidecar)["state"] == "ok", "it is over")
        assert status(sidecar, "/readyz") == 200
        log = sidecar.log()
        assert 1 <= log.count('"event":"upstream overdue"') <= WORKERS
        assert 1 <= log.count('"event":"upstream answers again"') <= WORKERS


def test_a_script_that_runs_long_is_told_as_such(sidecar: Sidecar, plain_server: Server) -> None:
    with Wire(sidecar.port) as wire, Wire(plain_server.port) as direct:
        assert direct.cmd("CONFIG", "SET", "busy-reply-threshold", "100") == b"+OK\r\n"
        wire.send(pack("EVAL", "while true do end", "0"))
        try:
            wait_until(lambda: health(sidecar)["state"] == "overdue", "it is told", 6.0)
            wait_until(lambda: "busy with a script" in health(sidecar)["why"], "as what it is")
        finally:
            direct.cmd("SCRIPT", "KILL")
            direct.cmd("CONFIG", "SET", "busy-reply-threshold", "5000")
        wait_until(lambda: health(sidecar)["state"] == "ok", "it is over")


def test_a_pause_is_told_as_such(sidecar: Sidecar, plain_server: Server) -> None:
    """Reads go on, so the server answers; writes are late all the same."""
    with Wire(sidecar.port) as wire, Wire(plain_server.port) as direct:
        assert wire.cmd("SET", "k", "v") == b"+OK\r\n"
        assert direct.cmd("CLIENT", "PAUSE", "20000", "WRITE") == b"+OK\r\n"
        wire.send(pack("SET", "k", "w"))
        wait_until(lambda: health(sidecar)["state"] == "overdue", "it is told", 6.0)
        assert health(sidecar)["why"].startswith("the server answers, but has held commands back")
        assert direct.cmd("CLIENT", "UNPAUSE") == b"+OK\r\n"
        wait_until(lambda: health(sidecar)["state"] == "ok", "it is over")


def test_a_lost_link_of_another_identity_is_told(sidecar: Sidecar, plain_server: Server) -> None:
    """The sidecar's own link is up. That of db 3 is lost, and the server has no room."""
    with Wire(sidecar.port) as wire, Wire(plain_server.port) as direct:
        wire.cmd("SELECT", 3)
        assert wire.cmd("SET", "k", "v") == b"+OK\r\n"
        # What the server had is set again: it is less than 10,000 where few files may be open.
        before = direct.cmd("CONFIG", "GET", "maxclients").split(b"\r\n")[4]
        assert direct.cmd("CONFIG", "SET", "maxclients", "2") == b"+OK\r\n"
        try:
            for line in direct.call("CLIENT", "LIST").splitlines():
                if " db=3 " in line:
                    direct.cmd("CLIENT", "KILL", "ID", line.split()[0].partition("=")[2])
            wire.send(pack("SET", "k", "v"))
            wait_until(lambda: health(sidecar)["state"] == "overdue", "it is told", 6.0)
            assert "the link of user default, db 3, has been lost" in health(sidecar)["why"]
            assert status(sidecar, "/readyz") == 503
        finally:
            assert direct.cmd("CONFIG", "SET", "maxclients", before) == b"+OK\r\n"
        wait_until(lambda: status(sidecar, "/readyz") == 200, "it is over", 10.0)


def test_a_reader_that_does_not_read_is_not_overdue(sidecar: Sidecar, plain_server: Server) -> None:
    """Its link is stopped by its own slowness, and the server owes it nothing."""
    with Wire(sidecar.port) as wire, Wire(sidecar.port) as other:
        assert wire.cmd("SET", "big", b"x" * (8 << 20)) == b"+OK\r\n"
        wire.send(pack("GET", "big") * 8)
        until = time.monotonic() + RED + 0.5
        seen = set()

        def over() -> bool:
            seen.add(health(sidecar)["state"])
            assert other.cmd("PING") == b"+PONG\r\n"
            return time.monotonic() > until

        wait_until(over, "time has passed", 10.0)
        assert "overdue" not in seen
