"""Open files run out: links are made all the same, and clients are told what is wrong."""

from __future__ import annotations

import resource
import socket
from contextlib import ExitStack

import pytest

from tests.harness.admin import get, is_ready, metric
from tests.harness.failover import news
from tests.harness.process import free_port, wait_until
from tests.harness.servers import Server, Sidecar
from tests.harness.wire import Wire

LIMIT = 256
TOO_MANY = b"-ERR max number of clients reached\r\n"


class Limited(Sidecar):
    """May have few files open."""

    files = LIMIT

    def argv(self) -> list[str]:
        """The command line."""
        return ["sh", "-c", f'ulimit -n {self.files} && exec "$@"', "sh", *super().argv()]


class Roomy(Limited):
    """May have as many files open as is usual."""

    files = 1024


@pytest.mark.one_worker("each worker has descriptors of its own")
def test_clients_up_to_the_limit(plain_server: Server) -> None:
    """The last descriptors are for links: with as many clients as there may be, a client gets a
    link of its own and another database; one more client is told, and takes nobody's place."""
    settings: dict[str, str | int | float] = {"upstream.pool_spare": 0}
    with Limited(plain_server.url, settings=settings) as sidecar, ExitStack() as stack:
        (warning,) = news(sidecar, "open files limit too low")
        assert warning["limit"] == LIMIT
        inside: list[Wire] = []
        for _ in range(LIMIT):
            wire = stack.enter_context(Wire(sidecar.port, deadline=20))
            if (said := wire.cmd("PING")) == TOO_MANY:
                assert wire.read_to_end() == b""
                break
            assert said == b"+PONG\r\n"
            inside.append(wire)
        assert LIMIT / 2 < len(inside) < LIMIT - 10
        assert inside[0].cmd("SELECT", "3") == b"+OK\r\n"
        assert inside[1].cmd("BLPOP", "q", "0.01") == b"*-1\r\n"
        assert inside[-1].cmd("SET", "k", "v") == b"+OK\r\n"
        with Wire(sidecar.port) as another:
            assert another.cmd("PING") == TOO_MANY
        inside.pop().close()

        def let_in() -> bool:
            with Wire(sidecar.port) as another:
                return another.cmd("PING") == b"+PONG\r\n"

        wait_until(let_in, "there is room again")


@pytest.mark.one_worker("each worker has descriptors of its own")
def test_no_descriptor_is_left(plain_server: Server) -> None:
    """Links have taken the last ones: a client is told instead of left in the queue for ever, those
    inside are served, and one that needs a link is told as well."""
    settings: dict[str, str | int | float] = {"upstream.pool_spare": 0, "upstream.wait": 0.3}
    with Limited(plain_server.url, settings=settings) as sidecar, ExitStack() as stack:
        inside = [stack.enter_context(Wire(sidecar.port, deadline=20)) for _ in range(LIMIT // 2)]
        for wire in inside:
            wire.send_command("BLPOP", "q", "0")
        observer = stack.enter_context(Wire(plain_server.port))

        def all_told() -> bool:
            blocked = b"\r\nblocked_clients:%d\r\n" % (len(inside) - sum(map(_answered, inside)))
            return blocked in observer.cmd("INFO", "clients")

        wait_until(all_told, "each is blocked or told", 20)
        refused = [wire for wire in inside if _answered(wire)]
        assert refused
        assert all(wire.read_reply().startswith(b"-UNAVAILABLE no link") for wire in refused)
        # Those that were refused are still connected, and hold the descriptors below the last.
        with Wire(sidecar.port) as another:
            assert another.cmd("PING") == TOO_MANY
        assert refused[0].cmd("PING") == b"+PONG\r\n"
        assert refused[0].cmd("GET", "k") == b"$-1\r\n"
        assert not news(sidecar, "circuit breaker opened")


def _answered(wire: Wire) -> bool:
    try:
        wire.expect_silence()
    except AssertionError:
        return True
    return False


@pytest.mark.one_worker("of several workers none has the admin port")
def test_idle_connections_of_the_admin_port(plain_server: Server) -> None:
    """However many there are, clients come in, links are made, and the port itself answers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    with (
        Roomy(plain_server.url, admin=f"127.0.0.1:{free_port()}") as sidecar,
        ExitStack() as stack,
    ):
        host, port = sidecar.admin.split(":")
        for _ in range(1500):
            stack.enter_context(socket.create_connection((host, int(port)), timeout=10))
        wires = [stack.enter_context(Wire(sidecar.port, deadline=20)) for _ in range(100)]
        for number, wire in enumerate(wires):
            assert wire.cmd("SET", f"k{number}", "v") == b"+OK\r\n"
        assert wires[0].cmd("BLPOP", "q", "0.01") == b"*-1\r\n", "a link of its own"
        assert get(f"http://{sidecar.admin}/livez") == "ok\n"
        assert is_ready(sidecar)
        assert metric(sidecar, "sidecar_admin_connections") <= 64
        closed = metric(sidecar, 'sidecar_admin_connections_closed_total{reason="limit"}')
        assert closed >= 1500 - 64
        assert not news(sidecar, "accept failed")
