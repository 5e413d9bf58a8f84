"""The upstream connection sliced, delayed, throttled, cut and silent."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness.farm import Farm
from tests.harness.faults import FaultProxy
from tests.harness.pair import pipeline
from tests.harness.process import wait_until
from tests.harness.servers import Server, Sidecar
from tests.harness.wire import Wire, pack

from .test_pipelines import INLINE, SHORT
from .test_transactions import BLOCKS


@pytest.fixture(scope="module")
def _bad(farm: Farm) -> Iterator[tuple[FaultProxy, Sidecar]]:
    """A sidecar whose way to the server is a fault proxy, for the whole file."""
    server = farm.server("valkey")
    with (
        FaultProxy(server.port) as proxy,
        Sidecar(proxy.url, settings={"upstream.backoff_max": 0.1}) as sidecar,
    ):
        yield proxy, sidecar


@pytest.fixture
def bad(_bad: tuple[FaultProxy, Sidecar]) -> Iterator[tuple[FaultProxy, Sidecar]]:
    """The same, healed before and after."""
    proxy, sidecar = _bad
    proxy.heal()
    wait_until(lambda: _works(sidecar.port), "the sidecar works again")
    with Wire(sidecar.port) as wire:
        assert wire.cmd("FLUSHALL") == b"+OK\r\n"
    yield proxy, sidecar
    proxy.heal()


def _works(port: int) -> bool:
    """Whether a command goes through and comes back right."""
    try:
        with Wire(port) as wire:
            return wire.cmd("ECHO", "x") == b"$1\r\nx\r\n"
    except AssertionError:
        return False


def _transcript(port: int) -> list[bytes]:
    """A mixed transcript's replies."""
    lines = [*SHORT, *BLOCKS["plain"], "LPUSH q a b", "BLPOP q 0", "SELECT 3", "GET k", "SELECT 0"]
    lines += ["SUBSCRIBE c", "PING x", "UNSUBSCRIBE c", "DEBUG PROTOCOL map", "GET k"]
    with Wire(port) as wire:
        assert wire.cmd("FLUSHALL") == b"+OK\r\n"
        wire.send(pipeline(lines) + INLINE)
        replies = wire.read_replies(len(lines) + 3)
        assert wire.drain() == []
        return replies


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_sliced(bad: tuple[FaultProxy, Sidecar], plain_server: Server, size: int) -> None:
    """Replies and requests in pieces of a few bytes change nothing."""
    proxy, sidecar = bad
    expected = _transcript(plain_server.port)
    proxy.slice = size
    assert _transcript(sidecar.port) == expected


def test_delayed(bad: tuple[FaultProxy, Sidecar], plain_server: Server) -> None:
    """20 ms each way change nothing."""
    proxy, sidecar = bad
    expected = _transcript(plain_server.port)
    proxy.delay = 0.02
    assert _transcript(sidecar.port) == expected


def test_throttled_upload(bad: tuple[FaultProxy, Sidecar]) -> None:
    """A slow upstream slows the one who sends much, with bounded memory."""
    proxy, sidecar = bad
    before = sidecar.rss()
    proxy.rate = 4e6
    with Wire(sidecar.port, deadline=10) as wire, Wire(sidecar.port, deadline=10) as other:
        wire.send(pack("SET", "k", b"x" * 4_000_000) + pack("STRLEN", "k"))
        assert other.cmd("ECHO", "x") == b"$1\r\nx\r\n"
        assert wire.read_replies(2) == [b"+OK\r\n", b":4000000\r\n"]
    assert sidecar.rss() - before < 64 << 20


def test_cut_with_requests_outstanding(bad: tuple[FaultProxy, Sidecar]) -> None:
    """Everybody gets an error or the end, never silence, never another's reply; then it works."""
    proxy, sidecar = bad
    proxy.to_client.blackhole = True
    wires = [Wire(sidecar.port) for _ in range(10)]
    try:
        for number, wire in enumerate(wires):
            wire.send(pack("ECHO", f"token {number}") * 5)
        proxy.cut()
        proxy.heal()
        for number, wire in enumerate(wires):
            wire.half_close()
            rest = wire.read_to_end()
            for token in (f"token {other}" for other in range(10) if other != number):
                assert token.encode() not in rest
    finally:
        for wire in wires:
            wire.close()
    wait_until(lambda: _works(sidecar.port), "the sidecar works again")


@pytest.mark.parametrize("count", [1, 5, 17, 40, 100, 333])
def test_cut_inside_a_reply(bad: tuple[FaultProxy, Sidecar], count: int) -> None:
    """A reply that broke off is never completed with bytes of another."""
    proxy, sidecar = bad
    body = b"abcdefghij" * 20
    with Wire(sidecar.port) as writer:
        assert writer.cmd("SET", "k", body) == b"+OK\r\n"
    with Wire(sidecar.port) as wire:
        assert wire.cmd("GET", "k") == pack(body)[4:]
        proxy.to_client.cut_after = count
        wire.send(pack("GET", "k") * 3)
        wire.half_close()
        rest = wire.read_to_end()
        whole = pack(body)[4:]
        while rest.startswith(whole):
            rest = rest[len(whole) :]
        assert rest == b"" or rest[:1] == b"-" or whole.startswith(rest)
    wait_until(lambda: _works(sidecar.port), "the sidecar works again")


def test_server_refuses_for_a_while(bad: tuple[FaultProxy, Sidecar]) -> None:
    """No upstream: an error, promptly; when it is back, so is the service, on the same client."""
    proxy, sidecar = bad
    with Wire(sidecar.port) as wire:
        assert wire.cmd("SET", "k", "v") == b"+OK\r\n"
        proxy.refuse()
        proxy.cut()
        wait_until(lambda: proxy.connections == 0, "the link is down")
        reply = wire.cmd("SET", "k", "w", deadline=10)
        assert reply[:1] == b"-"
        proxy.heal()
        wait_until(lambda: wire.cmd("GET", "k", deadline=10) == b"$1\r\nv\r\n", "back", 10)
