"""The upstream is paused: all commands wait, what is open comes to its end, and nothing is lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness.admin import api, checks, metric, post
from tests.harness.failover import news
from tests.harness.process import free_port, wait_until
from tests.harness.servers import WORKERS, Server, Sidecar
from tests.harness.wire import Wire

PAUSED = (
    b"-UNAVAILABLE the upstream is paused, and has been for too long (failover.hold); "
    b"the command was not executed\r\n"
)


def beside(server: Server, **settings: str | int | float) -> Sidecar:
    named = {key.replace("__", "."): value for key, value in settings.items()}
    return Sidecar(server.url, admin=f"127.0.0.1:{free_port()}", settings=named)


@pytest.fixture
def sidecar(plain_server: Server) -> Iterator[Sidecar]:
    with beside(plain_server) as sidecar:
        yield sidecar


def pause(sidecar: Sidecar) -> Any:
    status, said = post(sidecar, "/api/pause")
    assert status == 200, said
    return said


def resume(sidecar: Sidecar) -> Any:
    status, said = post(sidecar, "/api/resume")
    assert status == 200, said
    return said


def held(sidecar: Sidecar, clients: int) -> None:
    wait_until(lambda: api(sidecar, "/api/stats")["held"]["clients"] == clients, "it waits")


def test_all_waits_and_goes_on_in_order(sidecar: Sidecar, plain_server: Server) -> None:
    with Wire(sidecar.port) as ann, Wire(sidecar.port) as bob, Wire(plain_server.port) as direct:
        assert pause(sidecar)["quiet"]
        ann.send_command("SET", "k", "1")
        ann.send_command("GET", "k")
        bob.send_command("GET", "k")
        held(sidecar, 2)
        direct.cmd("SET", "k", "0")
        assert direct.cmd("GET", "k") == b"$1\r\n0\r\n"
        assert checks(sidecar)["unpaused"] is False
        assert metric(sidecar, "sidecar_paused") == 1
        health = api(sidecar, "/api/health/redis")
        assert health["reasons"] == ["all commands are held (pause): 2 clients wait"]
        resume(sidecar)
        assert ann.read_replies(2) == [b"+OK\r\n", b"$1\r\n1\r\n"]
        assert bob.read_reply() in (b"$1\r\n0\r\n", b"$1\r\n1\r\n")
        assert checks(sidecar)["unpaused"] is True
        assert metric(sidecar, "sidecar_paused") == 0
    told = news(sidecar, "commands released")
    assert len(told) == WORKERS
    assert {each["reason"] for each in told} == {"pause"}
    assert sum(each["held"] for each in told) == 2
    (entry,) = api(sidecar, "/api/topology")["history"]
    assert not entry["switched"]


def test_what_is_under_way_is_awaited(sidecar: Sidecar) -> None:
    with Wire(sidecar.port) as wire:
        wire.send_command("EVAL", _BUSY, 0)
        wait_until(lambda: api(sidecar, "/api/stats")["unanswered"]["oldest"] > 0, "it is busy")
        found = pause(sidecar)
        assert (found["quiet"], found["waited_s"] > 0) == (True, True)
        assert wire.read_reply() == b"$4\r\ndone\r\n"
        resume(sidecar)


_BUSY = "local n = 0; for i = 1, 3e7 do n = n + i end; return 'done'"


def test_open_transactions_come_to_their_end(sidecar: Sidecar) -> None:
    with Wire(sidecar.port) as multi, Wire(sidecar.port) as watch, Wire(sidecar.port) as other:
        assert multi.cmd("MULTI") == b"+OK\r\n"
        assert watch.cmd("WATCH", "w") == b"+OK\r\n"
        found = pause(sidecar)
        assert (found["quiet"], found["under_way"]["transactions"]) == (False, 2)
        other.send_command("MULTI")
        held(sidecar, 1)
        assert multi.cmd("SET", "k", "v") == b"+QUEUED\r\n"
        assert multi.cmd("EXEC") == b"*1\r\n+OK\r\n"
        assert watch.cmd("GET", "k") == b"$1\r\nv\r\n"
        assert watch.cmd("MULTI") == b"+OK\r\n"
        assert watch.cmd("EXEC") == b"*0\r\n"
        assert pause(sidecar)["quiet"]
        multi.send_command("GET", "k")
        held(sidecar, 2)
        resume(sidecar)
        assert multi.read_reply() == b"$1\r\nv\r\n"
        assert other.read_reply() == b"+OK\r\n"


def test_blocked_clients_and_subscribers_stay(sidecar: Sidecar, plain_server: Server) -> None:
    with Wire(sidecar.port) as blocked, Wire(sidecar.port) as subscriber:
        blocked.send_command("BLPOP", "q", 0)
        subscriber.cmd("SUBSCRIBE", "c")
        wait_until(lambda: api(sidecar, "/api/stats")["links"]["dedicated"] >= 2, "they have links")
        found = pause(sidecar)
        assert (found["quiet"], found["under_way"]["blocked"]) == (True, 1)
        with Wire(plain_server.port) as direct:
            assert direct.cmd("PUBLISH", "c", "m") == b":1\r\n"
        assert subscriber.read_reply() == b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n"
        subscriber.send_command("SUBSCRIBE", "d")
        resume(sidecar)
        assert subscriber.read_reply().startswith(b"*3\r\n$9\r\nsubscribe")
        with Wire(plain_server.port) as direct:
            direct.cmd("RPUSH", "q", "v")
        assert blocked.read_reply() == b"*2\r\n$1\r\nq\r\n$1\r\nv\r\n"


def test_a_large_request_half_sent(sidecar: Sidecar) -> None:
    with Wire(sidecar.port) as wire:
        size = 1 << 20
        wire.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n" % size + b"x" * (size // 2))
        wait_until(lambda: api(sidecar, "/api/stats")["links"]["dedicated"] >= 1, "it has a link")
        found = pause(sidecar)
        assert (found["quiet"], found["under_way"]["streamed"]) == (False, 1)
        wire.send(b"x" * (size // 2) + b"\r\n")
        assert wire.read_reply() == b"+OK\r\n"
        assert pause(sidecar)["quiet"]
        resume(sidecar)


def test_longer_than_failover_hold(plain_server: Server) -> None:
    """What waits gets an error, and so does what comes; nothing of it is executed."""
    with (
        beside(plain_server, failover__hold=0.5) as sidecar,
        Wire(sidecar.port) as ann,
        Wire(sidecar.port) as bob,
    ):
        pause(sidecar)
        begun = time.monotonic()
        assert ann.pipeline([("INCR", "n"), ("GET", "n")]) == [PAUSED, PAUSED]
        assert 0.3 < time.monotonic() - begun < 3
        assert bob.cmd("INCR", "n") == PAUSED
        assert api(sidecar, "/api/health/redis")["reasons"] == [
            "the upstream is paused, and commands get errors: POST /api/resume ends that"
        ]
        resume(sidecar)
        assert bob.cmd("INCR", "n") == b":1\r\n"
        assert 1 <= len(news(sidecar, "held commands refused")) <= WORKERS


@pytest.mark.one_worker("failover.hold_bytes is divided among the workers")
def test_more_than_failover_hold_bytes(plain_server: Server) -> None:
    with (
        beside(plain_server, failover__hold_bytes="64KiB") as sidecar,
        Wire(sidecar.port) as first,
        Wire(sidecar.port) as second,
    ):
        pause(sidecar)
        first.send_command("SET", "k", b"x" * 50_000)
        held(sidecar, 1)
        said = second.cmd("SET", "k", b"x" * 50_000)
        assert said.startswith(b"-UNAVAILABLE the upstream is paused, and too much is waiting")
        resume(sidecar)
        assert first.read_reply() == b"+OK\r\n"


def test_the_end_while_paused(plain_server: Server) -> None:
    """Nobody would let them go on: what waits is refused, and the sidecar ends at once."""
    with beside(plain_server, drain__timeout=30) as sidecar, Wire(sidecar.port) as wire:
        pause(sidecar)
        wire.send_command("INCR", "n")
        held(sidecar, 1)
        os.kill(sidecar.pid, signal.SIGTERM)
        assert wire.read_reply() == PAUSED
        wire.expect_eof()
        wait_until(lambda: not sidecar.running, "it has ended", 10)


def test_nothing_to_resume(sidecar: Sidecar) -> None:
    assert post(sidecar, "/api/resume") == (409, {"error": "the upstream is not paused"})


def test_paused_twice_is_paused(sidecar: Sidecar) -> None:
    pause(sidecar)
    pause(sidecar)
    resume(sidecar)
    with Wire(sidecar.port) as wire:
        assert wire.cmd("PING") == b"+PONG\r\n"


@pytest.mark.parametrize("proto", [2, 3])
def test_session_pooling(plain_server: Server, proto: int) -> None:
    with (
        beside(plain_server, upstream__pooling="session") as sidecar,
        Wire(sidecar.port) as wire,
    ):
        wire.cmd("HELLO", proto)
        assert wire.cmd("SET", "k", "v") == b"+OK\r\n"
        assert pause(sidecar)["quiet"]
        wire.send_command("GET", "k")
        held(sidecar, 1)
        resume(sidecar)
        assert wire.read_reply() == b"$1\r\nv\r\n"


def test_one_that_gives_up_leaves_nothing_behind(sidecar: Sidecar, plain_server: Server) -> None:
    """What it had sent is not executed later."""
    pause(sidecar)
    with Wire(sidecar.port) as wire:
        wire.send_command("SET", "gone", "v")
        held(sidecar, 1)
    held(sidecar, 0)
    resume(sidecar)
    with Wire(sidecar.port) as wire:
        assert wire.cmd("EXISTS", "gone") == b":0\r\n"
