"""The fault proxy: every fault does what it says, and nothing else."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from tests.harness.errors import GONE, DeadlineError
from tests.harness.faults import OTHERS, TRACKED, FaultProxy, tracking_proxy
from tests.harness.process import wait_until
from tests.harness.resp import pack
from tests.harness.servers import Server
from tests.harness.wire import Wire

PONG = b"+PONG\r\n"
SHORT = 0.15


@pytest.fixture
def proxy(plain_server: Server) -> Iterator[FaultProxy]:
    with FaultProxy(plain_server.port) as proxy:
        yield proxy


@pytest.fixture
def wire(proxy: FaultProxy) -> Iterator[Wire]:
    with Wire(proxy.port) as wire:
        assert wire.cmd("PING") == PONG
        yield wire


def silent(wire: Wire, *command: str) -> None:
    """No reply comes for a while."""
    wire.send_command(*command)
    with pytest.raises(DeadlineError):
        wire.read_reply(SHORT)


def test_bytes_pass_in_both_directions(proxy: FaultProxy, wire: Wire) -> None:
    body = bytes(range(256)) * 20_000
    assert wire.cmd("SET", "k", body) == b"+OK\r\n"
    assert wire.cmd("GET", "k") == pack(body)[4:]
    assert proxy.passed > 2 * len(body)
    assert (proxy.accepted, proxy.connections, proxy.cuts) == (1, 1, 0)


@pytest.mark.parametrize("both", [True, False])
def test_a_delay_is_added_once_for_each_direction(
    proxy: FaultProxy, wire: Wire, both: bool
) -> None:
    (proxy if both else proxy.to_client).delay = 0.1
    begin = time.monotonic()
    assert wire.pipeline([("PING",)] * 50) == [PONG] * 50
    least = 0.2 if both else 0.1
    assert least <= time.monotonic() - begin < least + 0.3


def test_slices_change_nothing(proxy: FaultProxy, wire: Wire) -> None:
    proxy.slice = 3
    assert wire.cmd("ECHO", "x" * 5000) == pack("x" * 5000)[4:]


def test_a_rate_slows_and_makes_the_sender_wait(proxy: FaultProxy, wire: Wire) -> None:
    proxy.to_server.rate = 2e6
    begin = time.monotonic()
    assert wire.cmd("SET", "k", b"x" * 1_000_000) == b"+OK\r\n"
    assert 0.4 <= time.monotonic() - begin < 2


@pytest.mark.parametrize("direction", ["to_server", "to_client"])
def test_what_is_stalled_goes_on_in_its_order(
    proxy: FaultProxy, wire: Wire, direction: str
) -> None:
    proxy.group().hold(direction)
    silent(wire, "ECHO", "one")
    wire.send_command("ECHO", "two")
    getattr(proxy, direction).stall = False
    assert wire.read_replies(2) == [b"$3\r\none\r\n", b"$3\r\ntwo\r\n"]


def test_a_stalled_direction_is_felt_by_the_sender(proxy: FaultProxy, wire: Wire) -> None:
    proxy.to_server.stall = True
    wire.deadline = SHORT
    with pytest.raises(TimeoutError):
        wire.send(b"x" * (64 << 20))


def test_a_blackhole_forgets(proxy: FaultProxy, wire: Wire) -> None:
    proxy.to_client.blackhole = True
    silent(wire, "ECHO", "lost")
    proxy.heal()
    assert wire.cmd("ECHO", "seen") == b"$4\r\nseen\r\n"


def test_healing_lets_delayed_bytes_go_at_once(proxy: FaultProxy, wire: Wire) -> None:
    proxy.delay = 60
    silent(wire, "PING")
    proxy.heal()
    assert wire.read_reply() == PONG


def test_a_cut_resets_everybody(proxy: FaultProxy, wire: Wire) -> None:
    proxy.cut()
    with pytest.raises(GONE):
        wire.cmd("PING")
    wait_until(lambda: proxy.connections == 0, "nobody is left")
    with Wire(proxy.port) as again:
        assert again.cmd("PING") == PONG


def test_a_cut_after_so_many_bytes(proxy: FaultProxy, wire: Wire) -> None:
    proxy.to_client.cut_after = 4
    wire.send_command("PING")
    assert wire.read_to_end() in (b"+PON", b"")  # a reset may take what was sent before it
    assert proxy.cuts == 1


def test_an_end_before_some_bytes(proxy: FaultProxy, wire: Wire) -> None:
    proxy.to_server.end_before = pack("GET", "k")
    assert wire.cmd("PING") == PONG
    wire.send_command("GET", "k")
    wire.expect_eof()


def test_a_stall_before_some_bytes(proxy: FaultProxy, wire: Wire) -> None:
    proxy.to_server.stall_before = pack("ECHO", "two")
    wire.send(pack("ECHO", "one") + pack("ECHO", "two"))
    assert wire.read_reply() == b"$3\r\none\r\n"
    with pytest.raises(DeadlineError):
        wire.read_reply(SHORT)
    proxy.group().open()
    assert wire.read_reply() == b"$3\r\ntwo\r\n"


@pytest.mark.parametrize("towards", ["client", "server"])
def test_half_closed(proxy: FaultProxy, wire: Wire, towards: str) -> None:
    """The client sees the end; or the server does, and ends as well."""
    proxy.half_close(towards=towards)
    wire.expect_eof()


def test_a_half_closed_client_gets_its_replies(wire: Wire) -> None:
    wire.send(pack("ECHO", "x" * 100_000) * 20)
    wire.half_close()
    assert len(wire.read_to_end()) == 20 * len(pack("x" * 100_000)[4:])


def test_refused_and_back(proxy: FaultProxy, wire: Wire) -> None:
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        Wire(proxy.port)
    assert wire.cmd("PING") == PONG
    proxy.heal()
    with Wire(proxy.port) as again:
        assert again.cmd("PING") == PONG


def test_nobody_behind() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with FaultProxy(closed.getsockname()[1]) as proxy, pytest.raises(GONE):
            Wire.answers(proxy.port)


def test_severed(proxy: FaultProxy, wire: Wire) -> None:
    """What is under way arrives when the network is back; who connected meanwhile is dropped."""
    proxy.group().severed = True
    silent(wire, "ECHO", "late")
    with Wire(proxy.port) as other:
        silent(other, "PING")
        proxy.heal()
        assert wire.read_reply() == b"$4\r\nlate\r\n"
        with pytest.raises(GONE):
            other.cmd("PING")


def test_rewritten_replies(proxy: FaultProxy, wire: Wire) -> None:
    proxy.rewrite = lambda data: data.replace(b"PONG", b"pong")
    assert wire.cmd("PING") == b"+pong\r\n"


def test_groups_have_faults_of_their_own(plain_server: Server) -> None:
    with (
        tracking_proxy(plain_server.port) as proxy,
        Wire(proxy.port) as tracked,
        Wire(proxy.port) as other,
    ):
        tracked.cmd("HELLO", 3)
        assert tracked.cmd("CLIENT", "TRACKING", "ON") == b"+OK\r\n"
        proxy.group(TRACKED).hold()
        silent(tracked, "PING")
        assert other.cmd("PING") == PONG
        proxy.group(OTHERS).cut()
        proxy.group(TRACKED).open()
        assert tracked.read_reply() == PONG
        with pytest.raises(GONE):
            other.cmd("PING")
