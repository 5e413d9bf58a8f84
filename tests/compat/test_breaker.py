"""The circuit breaker: an upstream that is gone, hangs, or breaks every connection."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness.certificates import make_certificates
from tests.harness.failover import news, times_logged
from tests.harness.faults import FaultProxy, TlsTerminator
from tests.harness.process import wait_until
from tests.harness.servers import WORKERS, Server, Sidecar, valkey
from tests.harness.wire import Wire, pack

DEADLINE = 20.0
AT_ONCE = 0.25
FAILURES = 3
SETTINGS: dict[str, str | int | float] = {
    "upstream.wait": 0.3,
    "upstream.connect_timeout": 0.3,
    "upstream.silence_timeout": 0.5,
    "upstream.backoff_max": 0.1,
    "upstream.pool_spare": 0,
    "breaker.failures": FAILURES,
    "breaker.open_for": 0.2,
    "breaker.open_max": 0.4,
    "cache.mode": "off",
}
BROKEN = b" (circuit breaker open); the command was not executed\r\n"


@pytest.fixture
def proxy(plain_server: Server) -> Iterator[FaultProxy]:
    """The way to the server."""
    with FaultProxy(plain_server.port) as proxy:
        yield proxy


@pytest.fixture
def sidecar(proxy: FaultProxy) -> Iterator[Sidecar]:
    """It goes this way, and has a value to read."""
    with Sidecar(proxy.url, settings=SETTINGS) as sidecar:
        with Wire(sidecar.port) as client:
            assert client.cmd("SET", "k", "v") == b"+OK\r\n"
        yield sidecar


def _opened(sidecar: Sidecar) -> bool:
    """Whether every worker has: each has a breaker of its own."""
    return times_logged(sidecar, "circuit breaker opened") >= 1


def _once(sidecar: Sidecar, event: str) -> bool:
    """Whether this was logged once; each worker has a breaker of its own."""
    return 1 <= len(news(sidecar, event)) <= WORKERS


def _refused(sidecar: Sidecar, *command: str) -> bytes:
    """The error that a new client gets, which must come at once (the machine may hesitate once)."""
    for _ in range(3):
        with Wire(sidecar.port) as client:
            begun = time.monotonic()
            reply = client.cmd(*command)
            took = time.monotonic() - begun
        if took < AT_ONCE:
            break
    assert took < AT_ONCE
    assert reply.startswith(b"-UNAVAILABLE upstream 127.0.0.1:")
    assert reply.endswith(BROKEN)
    return reply


def _recovers(sidecar: Sidecar) -> None:
    """Service comes back by itself, and the log says so, once each."""
    with Wire(sidecar.port) as client:
        served = b"$1\r\nv\r\n"
        wait_until(lambda: client.cmd("GET", "k") == served, "service again", DEADLINE)
        nothing = b"*-1\r\n"
        wait_until(lambda: client.cmd("BLPOP", "q", "0.01") == nothing, "links again", DEADLINE)
    assert _once(sidecar, "circuit breaker opened")
    assert _once(sidecar, "circuit breaker closed")


def test_an_upstream_that_is_gone(sidecar: Sidecar, proxy: FaultProxy) -> None:
    """Commands wait, then the breaker opens: errors at once, naming it and the cause."""
    with Wire(sidecar.port) as client:
        proxy.refuse()
        proxy.cut()
        begun = time.monotonic()
        assert client.cmd("INCR", "n").startswith(b"-UNAVAILABLE ")
        assert time.monotonic() - begun > AT_ONCE
    wait_until(lambda: _opened(sidecar), "the breaker opens")
    for command in (("GET", "k"), ("INCR", "n"), ("BLPOP", "q", "1"), ("AUTH", "x")):
        assert b" 127.0.0.1:%d: " % proxy.port in _refused(sidecar, *command)
    entry = news(sidecar, "circuit breaker opened")[0]
    assert (entry["level"], entry["upstream"]) == ("warning", f"127.0.0.1:{proxy.port}")
    proxy.heal()
    _recovers(sidecar)
    with Wire(sidecar.port) as client:
        assert client.cmd("EXISTS", "n") == b":0\r\n"


@pytest.mark.one_worker("each worker has a breaker of its own, and probes")
def test_an_upstream_that_hangs(sidecar: Sidecar, proxy: FaultProxy) -> None:
    """It accepts and says nothing: nobody waits for that, and few connections are tried."""
    with Wire(sidecar.port) as client:
        proxy.to_client.blackhole = True
        assert client.cmd("INCR", "n").startswith(b"-UNCERTAIN ")
    wait_until(lambda: _opened(sidecar), "the breaker opens")
    before, begun = proxy.accepted, time.monotonic()
    while time.monotonic() - begun < 1.5:
        # Whichever came last: an attempt to connect, or the loss of the link that was there.
        why = _refused(sidecar, "GET", "k")
        assert b"did not reply" in why or b"was silent" in why
        _refused(sidecar, "BLPOP", "q", "1")
    assert proxy.accepted - before <= 5 * WORKERS
    assert proxy.accepted > before, "no probe was sent"
    proxy.heal()
    proxy.cut()
    _recovers(sidecar)


def test_a_crowd_that_wants_links_of_its_own(plain_server: Server, tmp_path: Path) -> None:
    """Few links are made at a time; who waits for a turn gets the error when the breaker opens."""
    certificates = make_certificates(tmp_path)
    settings = SETTINGS | {
        "upstream.tls.ca_file": str(certificates.ca),
        "upstream.wait": 1,
        "upstream.silence_timeout": 10,
    }
    with (
        TlsTerminator(plain_server.port, certificates.server_context()) as terminator,
        FaultProxy(terminator.port) as proxy,
        Sidecar(f"rediss://localhost:{proxy.port}", settings=settings) as sidecar,
        ExitStack() as stack,
    ):
        crowd = [stack.enter_context(Wire(sidecar.port, deadline=DEADLINE)) for _ in range(100)]
        proxy.to_client.blackhole = True
        begun = time.monotonic()
        for client in crowd:
            client.send_command("BLPOP", "q", "1")
        replies = [client.read_reply() for client in crowd]
        assert time.monotonic() - begun < 2.5
        assert all(reply.startswith(b"-UNAVAILABLE ") for reply in replies)
        assert any(reply.endswith(BROKEN) for reply in replies)


def test_an_upstream_that_breaks_every_connection(sidecar: Sidecar, proxy: FaultProxy) -> None:
    """Connections come about and are lost, again and again: reads see a delay, never an error."""
    with Wire(sidecar.port) as client:
        for _ in range(4 * FAILURES):
            before = proxy.accepted
            assert client.cmd("GET", "k") == b"$1\r\nv\r\n"
            proxy.cut()
            wait_until(lambda before=before: proxy.accepted > before, "the next connection")
        assert client.cmd("GET", "k") == b"$1\r\nv\r\n"
    assert len(news(sidecar, "upstream link lost")) > FAILURES
    assert not _opened(sidecar)


def test_a_server_that_cuts_at_every_request(plain_server: Server) -> None:
    """It is tried again with pauses, not as fast as the machine can; the read waits meanwhile."""
    with FaultProxy(plain_server.port) as cutter:
        cutter.to_server.end_before = pack("GET", "k")
        settings = SETTINGS | {"upstream.backoff_max": 1}
        with Sidecar(cutter.url, settings=settings) as sidecar, Wire(sidecar.port) as client:
            assert client.cmd("SET", "k", "v") == b"+OK\r\n"
            begun = time.monotonic()
            client.send(pack("GET", "k"))
            wait_until(lambda: cutter.cuts >= 12, "it is cut again and again", DEADLINE)
            assert time.monotonic() - begun > 0.7
            cutter.to_server.end_before = b""
            assert client.read_reply() == b"$1\r\nv\r\n"
            assert not _opened(sidecar)


KILLERS: dict[str, list[str]] = {
    "CLIENT KILL": ["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"],
    "timeout": ["CONFIG", "SET", "timeout", "1"],
}


@pytest.mark.parametrize("killer", KILLERS)
def test_reads_see_no_error_while_the_server_cuts(killer: str) -> None:
    """An operator kills connections all the time, or the server closes idle ones after a second:
    it accepts the next one at once, so there is no reason to turn anybody away.

    A direct client is cut as well; here reads are sent again. Settings as they ship, and a breaker
    that opens early.
    """
    settings: dict[str, str | int | float] = {"breaker.failures": 2, "cache.mode": "off"}
    with valkey() as server, Sidecar(server.url, settings=settings) as sidecar:
        with Wire(sidecar.port) as client, Wire(server.port) as operator:
            assert client.cmd("SET", "k", "v") == b"+OK\r\n"
            if killer == "timeout":
                assert operator.cmd(*KILLERS[killer]) == b"+OK\r\n"
            for _ in range(6):
                if killer == "timeout":
                    lost = len(news(sidecar, "upstream link lost"))
                    wait_until(
                        lambda lost=lost: len(news(sidecar, "upstream link lost")) > lost,
                        "the server closes the idle link",
                        DEADLINE,
                    )
                else:
                    operator.cmd(*KILLERS[killer])
                    with Wire(sidecar.port) as another:
                        assert another.cmd("GET", "k") == b"$1\r\nv\r\n"
                assert client.cmd("GET", "k", deadline=DEADLINE) == b"$1\r\nv\r\n"
        assert not _opened(sidecar)


def test_it_stays_open_while_nothing_has_changed(sidecar: Sidecar, proxy: FaultProxy) -> None:
    """Failed probes are no news, and do not let requests wait again."""
    proxy.refuse()
    proxy.cut()
    wait_until(lambda: _opened(sidecar), "the breaker opens")
    begun = time.monotonic()
    while time.monotonic() - begun < 1.5:
        _refused(sidecar, "GET", "k")
    assert _once(sidecar, "circuit breaker opened")
    assert _once(sidecar, "upstream down")
    assert not news(sidecar, "circuit breaker closed")
    proxy.heal()
    _recovers(sidecar)


def test_a_login_is_no_probe() -> None:
    """Clients that try to log in all the time, with whatever password, do not keep it open.

    The sidecar itself tries more seldom here, so that they would be first.
    """
    settings = SETTINGS | {"upstream.backoff_min": 1, "upstream.backoff_max": 1}
    with valkey({"requirepass": "secret"}) as server, FaultProxy(server.port) as proxy:
        url = proxy.url.replace("//", "//:secret@")
        with Sidecar(url, settings=settings) as sidecar, Wire(sidecar.port) as client:
            assert client.cmd("SET", "k", "v") == b"+OK\r\n"
            proxy.refuse()
            proxy.cut()
            wait_until(lambda: _opened(sidecar), "the breaker opens", DEADLINE)
            proxy.heal()

            def judged() -> bool:
                client.send(pack("AUTH", "wrong") * 20)
                return all(reply.startswith(b"-WRONGPASS ") for reply in client.read_replies(20))

            wait_until(judged, "the server judges logins again", DEADLINE)
            _recovers(sidecar)


def test_it_can_be_turned_off(proxy: FaultProxy) -> None:
    """`breaker.failures = 0`: errors come at once all the same, and connections are tried."""
    settings = SETTINGS | {"breaker.failures": 0}
    with Sidecar(proxy.url, settings=settings) as sidecar, Wire(sidecar.port) as client:
        assert client.cmd("SET", "k", "v") == b"+OK\r\n"
        proxy.to_client.blackhole = True
        proxy.cut()
        wait_until(lambda: news(sidecar, "upstream down"), "it is given up", DEADLINE)
        before = proxy.accepted
        wait_until(lambda: proxy.accepted > before + 3, "it is tried", DEADLINE)
        reply = client.cmd("GET", "k")
        assert reply.startswith(b"-UNAVAILABLE ")
        assert b"breaker" not in reply
        assert not _opened(sidecar)
        proxy.heal()
        proxy.cut()
        wait_until(lambda: client.cmd("GET", "k") == b"$1\r\nv\r\n", "service again", DEADLINE)
