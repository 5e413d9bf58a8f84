"""Dialling one server: turns, the breaker, patience, and a target that changes meanwhile."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator

import pytest

from sidecar.proxy.links.dialer import Dialer
from sidecar.proxy.links.errors import Unreachable
from sidecar.proxy.links.room import Room
from tests.harness.process import free_port
from tests.harness.servers import Server

from .parts import DIALING, NOBODY, target


def dialer(port: int) -> Dialer:
    return Dialer(
        target(port), DIALING, Room(lambda: 0, 100), lambda where, error: None, lambda: None
    )


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


async def test_a_connection_is_greeted(plain_server: Server) -> None:
    connection, greeted = await dialer(plain_server.port).open(NOBODY)
    assert greeted.hello is not None
    assert connection.server_id > 0
    connection.close()


async def test_without_a_target_it_says_why() -> None:
    room = Room(lambda: 0, 100)
    unknown = Dialer(None, DIALING, room, lambda where, error: None, lambda: None)
    unknown.unknown_because = "nobody has named one"
    with pytest.raises(Unreachable, match="nobody has named one"):
        await unknown.open(NOBODY)
    assert unknown.where == "unknown"


async def test_what_is_under_way_is_given_up_when_the_server_changes(
    silent: int, plain_server: Server
) -> None:
    """Greeting or waiting for its turn: it does not wait for the old server's silence."""
    switched = dialer(silent)
    opening = [asyncio.create_task(switched.open(NOBODY)) for _ in range(20)]
    await asyncio.sleep(0)
    switched.switch(target(plain_server.port))
    for task in opening:
        with pytest.raises(Unreachable, match=f"the master is 127.0.0.1:{plain_server.port} now"):
            await task
    (await switched.open(NOBODY))[0].close()


async def test_a_connection_to_the_old_server_is_not_given_out(
    plain_server: Server, silent: int
) -> None:
    switched = dialer(plain_server.port)
    connection = await switched.reach()
    switched.switch(target(silent))
    with pytest.raises(Unreachable, match="now, not 127"):
        switched.must_be_current(connection)
    assert connection.sock.fileno() == -1


async def test_failures_open_the_breaker() -> None:
    """From then on nothing is tried: the error says so, and tells the last failure."""
    closed = dialer(free_port())
    for _ in range(DIALING.breaker.failures):
        with pytest.raises(Unreachable, match="connection refused"):
            await closed.open(NOBODY)
    assert not closed.given_up  # no longer than commands wait anyway
    await asyncio.wait_for(_until_given_up(closed), 5)
    with pytest.raises(Unreachable, match=r"connection refused \(circuit breaker open\)"):
        await closed.reach()


async def _until_given_up(closed: Dialer) -> None:
    while not closed.given_up:
        with pytest.raises(Unreachable):
            await closed.open(NOBODY)


async def test_patience_ends() -> None:
    closed = dialer(free_port())
    began = time.monotonic()
    with pytest.raises(Unreachable):
        await closed.reach()
    assert time.monotonic() - began < 10 * DIALING.patience


async def test_pauses_end_where_something_is_to_be_said() -> None:
    waiting = dialer(free_port())
    now = time.monotonic()
    assert waiting.pause(20, now + 0.002) <= 0.002
    assert 0.005 <= waiting.pause(20, now - 1) <= 0.01
