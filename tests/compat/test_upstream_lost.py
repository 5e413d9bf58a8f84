"""What clients are told when the connection behind the sidecar breaks; docs/compatibility.md."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness.faults import FaultProxy
from tests.harness.process import wait_until
from tests.harness.servers import Server, Sidecar
from tests.harness.wire import Wire, pack

UNCERTAIN = (
    b"-UNCERTAIN the connection to the server was lost before it answered; "
    b"the command may or may not have been executed\r\n"
)
SETTINGS = {"upstream.wait": 1, "upstream.backoff_max": 0.1, "upstream.silence_timeout": 2}


@pytest.fixture
def proxy(plain_server: Server) -> Iterator[FaultProxy]:
    """The way to the server."""
    with FaultProxy(plain_server.port) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[Wire]:
    """A client of a sidecar that goes this way."""
    with Sidecar(proxy.url, settings=SETTINGS) as sidecar, Wire(sidecar.port, deadline=10) as wire:
        assert wire.cmd("SET", "k", "v") == b"+OK\r\n"
        yield wire


def _executed(server: Server, key: str) -> bool:
    with Wire(server.port) as direct:
        return direct.cmd("EXISTS", key) == b":1\r\n"


def test_a_write_under_way(client: Wire, proxy: FaultProxy, plain_server: Server) -> None:
    """It is told to be uncertain, the connection goes on, and it is not done twice."""
    proxy.to_client.blackhole = True
    client.send(pack("INCR", "n"))
    wait_until(lambda: _executed(plain_server, "n"), "the server has done it")
    proxy.cut()
    proxy.heal()
    assert client.read_reply() == UNCERTAIN
    assert client.cmd("GET", "n") == b"$1\r\n1\r\n"


def test_a_read_under_way(client: Wire, proxy: FaultProxy) -> None:
    """It is sent again; the client sees nothing but a delay."""
    proxy.to_client.blackhole = True
    client.send(pack("GET", "k") + pack("STRLEN", "k"))
    client.expect_silence()
    proxy.cut()
    proxy.heal()
    assert client.read_replies(2) == [b"$1\r\nv\r\n", b":1\r\n"]


def test_no_upstream(client: Wire, proxy: FaultProxy, plain_server: Server) -> None:
    """The error says which server, why, and that nothing was done; then service comes back."""
    proxy.refuse()
    proxy.cut()
    wait_until(lambda: proxy.connections == 0, "the link is down")
    reply = client.cmd("SET", "n", "1")
    assert reply.startswith(b"-UNAVAILABLE upstream %s: " % proxy.url.split("//")[1].encode())
    assert reply.endswith(b"; the command was not executed\r\n")
    assert not _executed(plain_server, "n")
    proxy.heal()
    wait_until(lambda: client.cmd("GET", "k") == b"$1\r\nv\r\n", "service again", 10)


def test_silence(client: Wire, proxy: FaultProxy, plain_server: Server) -> None:
    """A link that owes a reply and says nothing is given up, though TCP knows of no fault."""
    proxy.to_client.blackhole = True
    assert client.cmd("INCR", "n") == UNCERTAIN
    proxy.heal()
    proxy.cut()
    wait_until(lambda: client.cmd("GET", "n", deadline=10) == b"$1\r\n1\r\n", "service again", 10)
