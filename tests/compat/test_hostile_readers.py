"""Clients that do not read: what is kept for them stays bounded, and others are served."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from tests.harness.farm import Farm
from tests.harness.process import wait_until
from tests.harness.servers import Sidecar
from tests.harness.wire import DeadlineError, Wire, pack

MIB = 1 << 20
OUTPUT_MAX = 16 * MIB


@pytest.fixture(scope="module")
def narrow(farm: Farm) -> Iterator[Sidecar]:
    """A sidecar with little memory: one client may have a sixteenth of it waiting, 64 MiB."""
    settings = {"limits.client_output_pause": MIB, "limits.memory": 1024 * MIB}
    with Sidecar(farm.server("valkey").url, settings=settings) as sidecar:
        yield sidecar


def test_reader_that_never_reads(narrow: Sidecar) -> None:
    """A client asks for 2 GB and reads none of it: memory stays bounded, others are served."""
    with Wire(narrow.port) as fast, Wire(narrow.port, receive_buffer=4096) as stuck:
        assert fast.cmd("SET", "big", b"x" * MIB) == b"+OK\r\n"
        before = narrow.rss()
        stuck.send(pack("GET", "big") * 2000)
        for number in range(300):
            assert fast.cmd("ECHO", number) == pack(number)[4:]
            assert fast.cmd("STRLEN", "big") == b":1048576\r\n"
            assert narrow.rss() - before < 128 * MIB
    wait_until(lambda: narrow.rss() - before < 128 * MIB, "memory given back")


def test_many_readers_that_never_read(narrow: Sidecar) -> None:
    """Forty of them at once."""
    with ExitStack() as stack:
        fast = stack.enter_context(Wire(narrow.port))
        assert fast.cmd("SET", "big", b"x" * MIB) == b"+OK\r\n"
        before = narrow.rss()
        for _ in range(40):
            stuck = stack.enter_context(Wire(narrow.port, receive_buffer=4096))
            stuck.send(pack("GET", "big") * 20)
        for number in range(200):
            assert fast.cmd("ECHO", number) == pack(number)[4:]
        assert narrow.rss() - before < 40 * OUTPUT_MAX


def test_subscriber_that_never_reads(narrow: Sidecar) -> None:
    """Messages for a subscriber who does not read are bounded, too; publishers go on."""
    with Wire(narrow.port) as publisher, Wire(narrow.port, receive_buffer=4096) as stuck:
        assert stuck.cmd("SUBSCRIBE", "c").startswith(b"*3")
        before = narrow.rss()
        for _ in range(300):
            assert publisher.cmd("PUBLISH", "c", b"x" * MIB).startswith(b":")
        assert narrow.rss() - before < 128 * MIB
        assert publisher.cmd("PING") == b"+PONG\r\n"


def test_writer_that_never_reads(narrow: Sidecar) -> None:
    """A client that only writes is stopped or closed before it fills the memory."""
    data = pack("ECHO", b"x" * 10_000) * 100
    with Wire(narrow.port, receive_buffer=4096, deadline=1.0) as stuck, Wire(narrow.port) as fast:
        before = narrow.rss()
        with suppress(OSError, DeadlineError):
            for _ in range(400):
                stuck.send(data)
        assert fast.cmd("PING") == b"+PONG\r\n"
        assert narrow.rss() - before < 128 * MIB
