"""What the log says of an outage, of slow commands, of hot keys and of a start: neither too little
nor a line for each command."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import ExitStack
from typing import Any

import pytest

from tests.harness.accepting import Accepting
from tests.harness.process import free_port, wait_until
from tests.harness.sentinels import Cluster
from tests.harness.servers import Server, Sidecar, valkey
from tests.harness.wire import Wire, pack


def pause(seconds: float) -> None:
    until = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > until, "time passes")


class Web(Accepting):
    """Answers everything as a web server does."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await reader.read()
        finally:
            writer.close()


def lines(sidecar: Sidecar, event: str = "") -> list[dict[str, Any]]:
    found = [json.loads(line) for line in sidecar.log().splitlines() if line.startswith("{")]
    return [line for line in found if not event or line["event"] == event]


@pytest.mark.one_worker("each worker has links of its own, and logs what becomes of them")
def test_an_outage_has_one_line_at_its_begin_and_one_at_its_end() -> None:
    """However many identities lose their links, and however many commands fail."""
    with valkey() as server, ExitStack() as clients:
        sidecar = clients.enter_context(Sidecar(server.url, settings={"upstream.wait": 0.1}))
        wires = [clients.enter_context(Wire(sidecar.port)) for _ in range(6)]
        for db, wire in enumerate(wires):
            wire.cmd("SELECT", db)
            assert wire.cmd("SET", "k", "v") == b"+OK\r\n"
        server.kill()
        for _ in range(40):
            for wire in wires:
                assert wire.cmd("SET", "k", "v")[:1] == b"-"
        server.start()
        wait_until(lambda: lines(sidecar, "upstream link back"), "it is over", 15.0)
        wait_until(lambda: wires[0].cmd("PING") == b"+PONG\r\n", "it serves")
        assert len(lines(sidecar, "upstream link lost")) == 1
        assert len(lines(sidecar, "upstream down")) == 1
        assert len(lines(sidecar, "near cache emptied")) == 1
        (back,) = lines(sidecar, "upstream link back")
        assert back["links"] >= 6
        assert 200 <= back["errors"] <= 240
        assert back["seconds"] > 0.1
        told = [line["event"] for line in lines(sidecar)]
        assert len(told) < 12, told


def test_slow_commands_have_one_line(plain_server: Server) -> None:
    with Sidecar(plain_server.url, settings={"tracing.slow": 0.01}) as sidecar:
        with Wire(sidecar.port, deadline=20.0) as wire:
            wire.send(pack("DEBUG", "SLEEP", "0.05") * 10)
            wire.read_replies(10)
        wait_until(lambda: lines(sidecar, "command slow"), "it is told")
        wait_until(lambda: lines(sidecar, "slow commands ended"), "the end is told", 20.0)
        assert len(lines(sidecar, "command slow")) == 1
        (ended,) = lines(sidecar, "slow commands ended")
        assert ended["commands"] == 10
        assert ended["by_command"] == {"debug": 10}
        assert ended["worst_ms"] >= 50


@pytest.mark.parametrize("share", [0.0, 0.05])
def test_hot_keys_are_named_if_asked_for_and_if_there_is_traffic(
    plain_server: Server, share: float
) -> None:
    settings = {"hotkeys.log": share} if share else {}
    with Sidecar(plain_server.url, settings=settings) as sidecar, Wire(sidecar.port) as wire:
        until = time.monotonic() + 3.0
        while time.monotonic() < until:  # well below 100 a second
            wire.cmd("SET", "seldom", "v")
            pause(0.05)
        assert not lines(sidecar, "hot key found")
        until = time.monotonic() + 4.0
        while time.monotonic() < until and not lines(sidecar, "hot key found"):
            wire.send(pack("SET", "often", "v") * 200)
            wire.read_replies(200)
        named = [line["key"] for line in lines(sidecar, "hot key found")]
        assert named == (["often"] if share else [])


def test_a_healthy_start_has_no_alarm(plain_server: Server) -> None:
    with Cluster() as cluster:
        for upstream in (plain_server.url, cluster.url):
            with Sidecar(upstream) as sidecar, Wire(sidecar.port) as wire:
                assert wire.cmd("SET", "k", "v") == b"+OK\r\n"
                alarms = [line for line in lines(sidecar) if line["level"] not in ("info", "debug")]
                about_us = [line["event"] for line in alarms]
                assert set(about_us) <= {"open files limit too low"}, "that depends on the machine"


def test_a_wrong_upstream_says_why_at_the_first_attempt() -> None:
    nobody = f"127.0.0.1:{free_port()}"
    reasons = {
        f"redis://{nobody}": "connection refused",
        "redis://no.such.host.invalid:6379": "not known",
    }
    for upstream, why in reasons.items():
        with Sidecar(upstream, ready=False) as sidecar:
            told = wait_until(lambda s=sidecar: lines(s, "upstream unreachable"), "it says why", 20)
            assert sidecar.running, "it goes on trying"
            assert why in told[0]["error"]
            assert "circuit" not in told[0]["error"]


def test_an_upstream_that_is_something_else_is_told_in_words() -> None:
    with (
        Web() as web,
        Sidecar(f"redis://127.0.0.1:{web.port}", ready=False) as sidecar,
    ):
        told = wait_until(lambda: lines(sidecar, "upstream unreachable"), "it says why", 20)
        assert "does not speak the Redis protocol" in told[0]["error"]
