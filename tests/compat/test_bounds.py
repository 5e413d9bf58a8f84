"""A server that is gone without a word: everybody is told within the bounds that are set."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.harness.faults import FaultProxy
from tests.harness.process import wait_until
from tests.harness.servers import Server, Sidecar
from tests.harness.swallowing import Swallows
from tests.harness.wire import Wire

WAIT = 1.0
# What a loaded machine adds. One attempt to connect may take 5 s, as it ships.
SLACK = 1.0
COMMANDS = ["GET k", "SET k v", "BLPOP q 1", "AUTH secret", "SELECT 3", "WAIT 0 0", "OBJECT x k"]


@pytest.fixture
def gone(plain_server: Server) -> Iterator[Sidecar]:
    """A sidecar whose server's host has just gone: its port swallows what is sent to it."""
    with FaultProxy(plain_server.port) as proxy, Sidecar(proxy.url) as sidecar:
        with Wire(sidecar.port) as client:
            assert client.cmd("SET", "k", "v") == b"+OK\r\n"
        proxy.refuse()
        with Swallows(proxy.port):
            proxy.cut()
            wait_until(lambda: proxy.connections == 0, "the links are lost")
            yield sidecar


def _told(client: Wire, line: str) -> float:
    """Seconds until the error came."""
    begun = time.monotonic()
    reply = client.cmd(*line.split(), deadline=10)
    took = time.monotonic() - begun
    assert reply.startswith(b"-UNAVAILABLE upstream 127.0.0.1:"), reply
    assert reply.endswith(b"the command was not executed\r\n")
    return took


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_waits_as_long_as_it_is_to(gone: Sidecar, line: str) -> None:
    """For `upstream.wait`, and no longer because an attempt takes longer; later ones not at all
    once the sidecar knows."""
    with Wire(gone.port) as client:
        assert _told(client, line) < WAIT + SLACK
        assert _told(client, line) < WAIT + SLACK


@pytest.mark.parametrize("line", COMMANDS)
def test_a_server_that_refuses_connections(plain_server: Server, line: str) -> None:
    """The same where each attempt fails at once."""
    with FaultProxy(plain_server.port) as proxy, Sidecar(proxy.url) as sidecar:
        proxy.refuse()
        proxy.cut()
        wait_until(lambda: proxy.connections == 0, "the links are lost")
        with Wire(sidecar.port) as client:
            assert _told(client, line) < WAIT + SLACK


def test_starting_ends_in_time() -> None:
    """`upstream.start_timeout` bounds the attempt under way, too."""
    with Swallows() as server:
        begun = time.monotonic()
        settings: dict[str, str | int | float] = {
            "upstream.start_timeout": 1.5,
            "upstream.connect_timeout": 60,
        }
        with Sidecar(server.url, settings=settings, ready=False) as sidecar:
            wait_until(lambda: not sidecar.running, "it gives up", 20)
            assert time.monotonic() - begun < 20
            assert "did not answer within 1.5 s; check upstream.url" in sidecar.log()


def test_starting_without_it(plain_server: Server) -> None:
    """With `upstream.start = "wait"` clients are told in time, and served once it is there."""
    settings: dict[str, str | int | float] = {
        "upstream.start": "wait",
        "upstream.start_timeout": 0.5,
        "upstream.connect_timeout": 1,
    }
    with Swallows() as server, Sidecar(server.url, settings=settings, ready=False) as sidecar:
        wait_until(lambda: Wire(sidecar.port).close() or True, "it listens", 10, (OSError,))
        with Wire(sidecar.port) as client:
            assert _told(client, "GET k") < WAIT + SLACK
            server.close()
            with FaultProxy(plain_server.port, server.port):
                wait_until(lambda: client.cmd("GET", "k") == b"$-1\r\n", "service", 10)
