"""Open files run out: links are made all the same, and clients are told what is wrong."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.harness.failover import news
from tests.harness.process import wait_until
from tests.harness.servers import Server, Sidecar
from tests.harness.wire import Wire

LIMIT = 256
TOO_MANY = b"-ERR max number of clients reached\r\n"


class Limited(Sidecar):
    """May have few files open."""

    def argv(self) -> list[str]:
        """The command line."""
        return ["sh", "-c", f'ulimit -n {LIMIT} && exec "$@"', "sh", *super().argv()]


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
