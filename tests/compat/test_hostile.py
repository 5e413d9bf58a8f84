"""Hostile and broken clients: bounded memory, a live process, other clients unaffected."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.harness.pair import Pair
from tests.harness.process import wait_until
from tests.harness.servers import Sidecar
from tests.harness.wire import Wire, pack

MIB = 1 << 20


@pytest.fixture
def sidecar(valkey_pair: Pair) -> Iterator[Sidecar]:
    """A sidecar that must be alive and serving, with a bystander's view, when the test ends."""
    with Wire(valkey_pair.sidecar.port) as bystander:
        assert bystander.cmd("SET", "bystander", "1") == b"+OK\r\n"
        yield valkey_pair.sidecar
        assert bystander.cmd("GET", "bystander") == b"$1\r\n1\r\n"
        assert valkey_pair.sidecar.running


LENGTHS = ["0", "-1", "-2", "1", "2147483647", "2147483648", "4294967296", "9223372036854775807"]
LENGTHS += ["9223372036854775808", "18446744073709551616", "-9223372036854775809", "1" * 50, "0x10"]
LENGTHS += ["1e5", "--1", "", " 1", "1 ", "\x00", "NaN"]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(
    "form", ["*{}\r\n", "*1\r\n${}\r\n", "*2\r\n$4\r\nECHO\r\n${}\r\n", "*{}\r\n$4\r\nPING\r\n"]
)
def test_lengths(sidecar: Sidecar, length: str, form: str) -> None:
    """No length, however absurd, takes memory or the process."""
    before = sidecar.rss()
    with Wire(sidecar.port) as wire:
        wire.send(form.format(length).encode())
        wire.half_close()
        wire.read_to_end()
    assert sidecar.rss() - before < 32 * MIB


@pytest.mark.parametrize("count", [1_000_000, 2_147_483_647])
def test_announced_arguments_take_no_memory(sidecar: Sidecar, count: int) -> None:
    """Fifty clients that announce a huge request and send nothing of it."""
    before = sidecar.rss()
    with ExitStack() as stack:
        for _ in range(50):
            wire = stack.enter_context(Wire(sidecar.port))
            wire.send(b"*%d\r\n$3\r\nDEL\r\n$536870912\r\n" % count)
            assert Wire.answers(sidecar.port)
        assert sidecar.rss() - before < 64 * MIB


@pytest.mark.parametrize(
    "data",
    [
        b"*1\r\n" * 20_000,
        b"*0\r\n" * 50_000,
        b"\r\n" * 50_000,
        b"*1\r\n$0\r\n\r\n" * 5_000,
        b"$" * 60_000 + b"\r\n",
        b"(" * 60_000 + b"\r\n",
        b'"' * 30_001 + b"\r\n",
        b"'" * 30_001 + b"\r\n",
        b"\\" * 60_000 + b"\r\n",
        b"a " * 30_000 + b"\r\n",
        bytes(range(256)) * 400,
        b"\x00" * 100_000,
        b"\xff" * 100_000,
        b"+OK\r\n" * 10_000,
        b"%1\r\n" * 10_000,
        b"|1\r\n" * 10_000,
        b">2\r\n" * 10_000,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=lambda data: f"{data[:8]!r}-{len(data)}",
)
def test_nonsense(sidecar: Sidecar, data: bytes) -> None:
    """Deep nesting, floods of nothing, other protocols: answered or hung up on, never a hang."""
    before = sidecar.rss()
    with Wire(sidecar.port) as wire:
        try:
            wire.send(data)
            wire.half_close()
        except OSError:
            return  # hung up on in the middle of it
        wire.read_to_end()
    assert sidecar.rss() - before < 64 * MIB


def test_flood_of_tiny_errors(sidecar: Sidecar) -> None:
    """20,000 unknown commands give 20,000 errors in order."""
    with Wire(sidecar.port) as wire:
        wire.send(b"".join(pack(f"NOSUCH{n}") for n in range(20_000)))
        for number in range(20_000):
            assert b"'NOSUCH%d'" % number in wire.read_reply()


def test_slow_loris(sidecar: Sidecar) -> None:
    """Two hundred clients that send one byte of a request in turn; others are served at once."""
    data = pack("SET", "loris", "value")
    with ExitStack() as stack:
        crowd = [stack.enter_context(Wire(sidecar.port)) for _ in range(200)]
        fast = stack.enter_context(Wire(sidecar.port))
        for index in range(len(data)):
            for wire in crowd:
                wire.send(data[index : index + 1])
            assert fast.cmd("ECHO", index) == pack(index)[4:]
        for wire in crowd:
            assert wire.read_reply() == b"+OK\r\n"


def test_thousand_connections_opened_and_dropped(sidecar: Sidecar) -> None:
    """In every manner of going; no descriptor stays behind."""
    Wire.answers(sidecar.port)
    before = sidecar.descriptors()
    for number in range(1000):
        wire = Wire(sidecar.port)
        if number % 3 == 1:
            wire.send(pack("PING"))
        elif number % 3 == 2:
            wire.send(b"*2\r\n$4\r\nECHO\r\n$100\r\nx")
        if number % 2:
            wire.reset()
        else:
            wire.close()
    wait_until(lambda: sidecar.descriptors() <= before + 5, "descriptors given back")


def test_thousand_connections_at_once(sidecar: Sidecar) -> None:
    """They all work, and leave nothing behind."""
    before = sidecar.descriptors()
    with ExitStack() as stack:
        crowd = [stack.enter_context(Wire(sidecar.port)) for _ in range(900)]
        for turn in range(2):
            for number, wire in enumerate(crowd):
                wire.send(pack("ECHO", f"{turn}.{number}"))
            for number, wire in enumerate(crowd):
                assert wire.read_reply() == pack(f"{turn}.{number}")[4:]
    wait_until(lambda: sidecar.descriptors() <= before + 5, "descriptors given back")
