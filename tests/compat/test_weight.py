"""What one client asks for or leaves unread does not weigh on others."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.harness.farm import Farm
from tests.harness.process import wait_until
from tests.harness.servers import Server, Sidecar, valkey
from tests.harness.wire import Wire, pack

MIB = 1 << 20
BULK = b"$%d\r\n" % MIB + b"x" * MIB + b"\r\n"


@pytest.fixture(params=["off", "rules"])
def sidecar(request: pytest.FixtureRequest, plain_server: Server) -> Iterator[Sidecar]:
    """A sidecar with and without a near cache that holds everything."""
    settings: dict[str, object] = {"cache.mode": request.param}
    if request.param == "rules":
        settings["cache.rules"] = '["*"]'
    with Sidecar(plain_server.url, settings=settings) as sidecar:
        yield sidecar


def test_all_is_written_before_anything_is_read(sidecar: Sidecar) -> None:
    """As many clients do it: a server keeps the replies for them, and so nobody waits for ever."""
    count = 300_000
    with Wire(sidecar.port, deadline=60) as wire:
        assert wire.cmd("SET", "k", "value") == b"+OK\r\n"
        wire.send(pack("GET", "k") * count)
        assert set(wire.read_replies(count)) == {b"$5\r\nvalue\r\n"}
        assert wire.cmd("PING") == b"+PONG\r\n"


def test_a_fast_reader_of_large_replies_gets_them_all(sidecar: Sidecar) -> None:
    before = sidecar.rss()
    with Wire(sidecar.port, deadline=60) as wire:
        assert wire.cmd("SET", "big", b"x" * MIB) == b"+OK\r\n"
        wire.send(pack("GET", "big") * 300 + pack("ECHO", "end"))
        for _ in range(300):
            assert wire.read_reply() == BULK
        assert wire.read_reply() == b"$3\r\nend\r\n"
    assert sidecar.rss() - before < 128 * MIB


def test_readers_that_never_read_do_not_hold_up_a_neighbour(sidecar: Sidecar) -> None:
    with ExitStack() as stack:
        fast = stack.enter_context(Wire(sidecar.port))
        assert fast.cmd("SET", "big", b"x" * MIB) == b"+OK\r\n"
        before = sidecar.rss()
        stuck = [stack.enter_context(Wire(sidecar.port, receive_buffer=4096)) for _ in range(6)]
        for wire in stuck:
            wire.send(pack("GET", "big") * 100)
        for _ in range(300):
            assert fast.cmd("PING") == b"+PONG\r\n"
        assert sidecar.rss() - before < 256 * MIB
        # None of them was closed, and each gets all of it when it reads.
        for wire in stuck:
            for _ in range(100):
                assert wire.read_reply() == BULK


def test_hits_are_given_out_as_room_allows(plain_server: Server) -> None:
    """Thousands of inline requests for a cached value fit into one read of the socket."""
    value = b"y" * 50_000
    settings = {"cache.mode": "rules", "cache.rules": '["*"]'}
    with (
        Sidecar(plain_server.url, settings=settings) as sidecar,
        Wire(sidecar.port, deadline=60) as wire,
    ):
        assert wire.cmd("SET", "k", value) == b"+OK\r\n"
        for _ in range(3):
            assert wire.cmd("GET", "k") == b"$50000\r\n" + value + b"\r\n"
        before = sidecar.rss()
        wire.send(b"GET k\r\n" * 30_000)
        for _ in range(30_000):
            assert wire.read_reply()[:8] == b"$50000\r\n"
            if sidecar.rss() - before > 256 * MIB:
                pytest.fail("everything was built at once")


def test_reads_go_on_while_writes_are_paused(plain_server: Server) -> None:
    """However many clients have writes waiting, and PFCOUNT, which is held back like a write."""
    with Sidecar(plain_server.url) as sidecar, ExitStack() as stack:
        operator = stack.enter_context(Wire(plain_server.port))
        writers = [stack.enter_context(Wire(sidecar.port)) for _ in range(20)]
        reader = stack.enter_context(Wire(sidecar.port, deadline=5))
        assert reader.cmd("SET", "k", "v") == b"+OK\r\n"
        before = _executed(operator, "get")
        assert operator.cmd("CLIENT", "PAUSE", "60000", "WRITE") == b"+OK\r\n"
        for number, wire in enumerate(writers):
            wire.send(pack("PFCOUNT", "h") if number % 2 else pack("INCR", "n"))
        served, end = 0, time.monotonic() + 1.5
        while time.monotonic() < end:
            assert reader.cmd("GET", "k") == b"$1\r\nv\r\n"
            served += 1
        assert operator.cmd("CLIENT", "UNPAUSE") == b"+OK\r\n"
        replies = sorted(wire.read_reply() for wire in writers)
        assert replies == sorted([b":0\r\n"] * 10 + [b":%d\r\n" % n for n in range(1, 11)])
        # Reads that waited behind a held write may have been sent again: a few, not all.
        assert _executed(operator, "get") - before <= served + 2


def test_a_busy_server_is_asked_once(plain_server: Server) -> None:
    """A link that is silent because the server is busy is not held up: nothing is sent again."""
    with Sidecar(plain_server.url) as sidecar, ExitStack() as stack:
        operator = stack.enter_context(Wire(plain_server.port))
        readers = [stack.enter_context(Wire(sidecar.port)) for _ in range(8)]
        assert readers[0].cmd("SET", "k", "v") == b"+OK\r\n"
        before = _executed(operator, "get")
        busy = threading.Thread(target=lambda: operator.cmd("DEBUG", "SLEEP", "1.5"))
        busy.start()
        for wire in readers:
            wire.send(pack("GET", "k"))
        busy.join()
        for wire in readers:
            assert wire.read_reply() == b"$1\r\nv\r\n"
        assert _executed(operator, "get") - before == len(readers)


def _executed(wire: Wire, command: str) -> int:
    """How often the server has executed a command."""
    stats = wire.cmd("INFO", "commandstats").decode()
    line = next((x for x in stats.splitlines() if x.startswith(f"cmdstat_{command}:")), "calls=0,")
    return int(line.split("calls=")[1].split(",")[0])


def test_the_limit_closes_those_who_hold_most(farm: Farm) -> None:
    """`limits.memory` is the last resort: who fills it goes, and others stay."""
    settings = {"limits.memory": "32MiB"}
    with Sidecar(farm.server("valkey").url, settings=settings) as sidecar, ExitStack() as stack:
        fast = stack.enter_context(Wire(sidecar.port))
        assert fast.cmd("SET", "big", b"x" * MIB) == b"+OK\r\n"
        for _ in range(40):
            stuck = stack.enter_context(Wire(sidecar.port, receive_buffer=4096))
            stuck.send(pack("GET", "big") * 16)
        wait_until(lambda: '"reason":"limits.memory"' in sidecar.log(), "a client closed")
        assert fast.cmd("PING") == b"+PONG\r\n"


def test_replies_that_wait_for_replicas_stay_few() -> None:
    """With `min_replicas_ack` the replies behind a write are withheld until replicas have it: not
    so many that they fill the memory, and none of them is lost."""
    with valkey() as master, valkey({"replicaof": f"127.0.0.1 {master.port}"}):
        with Wire(master.port) as direct:
            wait_until(lambda: "state=online" in str(direct.ask("INFO", "replication")), "replica")
        settings = {"failover.min_replicas_ack": 1}
        with Sidecar(master.url, settings=settings) as sidecar, Wire(sidecar.port) as wire:
            assert wire.cmd("SET", "big", b"x" * MIB) == b"+OK\r\n"
            before = sidecar.rss()
            wire.send(pack("SET", "k", "v") + pack("GET", "big") * 300)
            assert wire.read_reply() == b"+OK\r\n"
            for _ in range(300):
                assert wire.read_reply() == BULK
            assert sidecar.rss() - before < 128 * MIB
