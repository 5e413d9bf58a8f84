"""Of several addresses the first that connects is used, whatever the others do."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from sidecar.proxy.links.errors import Unreachable
from sidecar.proxy.links.racing import Address, first_to_connect, interleaved, resolve
from sidecar.proxy.links.target import connect
from tests.harness.process import free_port
from tests.harness.servers import Server
from tests.harness.swallowing import Swallows

from .parts import target

V4, V6 = socket.AF_INET, socket.AF_INET6


def address(port: int, host: str = "127.0.0.1") -> Address:
    return (V6 if ":" in host else V4, socket.SOCK_STREAM, 0, "", (host, port))


@pytest.fixture
def dead() -> Iterator[Swallows]:
    with Swallows() as dead:
        yield dead


@pytest.fixture
def live6() -> Iterator[int]:
    """A port of ::1 that takes connections."""
    with socket.create_server(("::1", 0), family=V6) as listening:
        yield listening.getsockname()[1]


def test_families_take_turns() -> None:
    four, six = [address(n) for n in range(3)], [address(n, "::1") for n in range(2)]
    assert interleaved([*four, *six]) == [four[0], six[0], four[1], six[1], four[2]]
    assert interleaved([*six, *four])[:3] == [six[0], four[0], six[1]]
    assert interleaved([]) == []


async def test_a_dead_address_is_passed_over(dead: Swallows, plain_server: Server) -> None:
    """Long before the time to connect is over."""
    began = time.monotonic()
    sock = await first_to_connect([address(dead.port), address(plain_server.port)], 5.0)
    assert time.monotonic() - began < 2.5
    assert sock.getpeername()[1] == plain_server.port
    sock.close()


async def test_the_other_family(dead: Swallows, live6: int) -> None:
    sock = await first_to_connect([address(dead.port), address(live6, "::1")], 2.0)
    assert sock.family == V6
    sock.close()


async def test_an_address_that_refuses_costs_no_time(plain_server: Server) -> None:
    began = time.monotonic()
    sock = await first_to_connect([address(free_port()), address(plain_server.port)], 60.0)
    assert time.monotonic() - began < 0.25
    sock.close()


async def test_all_of_them_refuse() -> None:
    with pytest.raises(ConnectionRefusedError):
        await first_to_connect([address(free_port()), address(free_port())], 2.0)
    with pytest.raises(OSError, match="no address"):
        await first_to_connect([], 2.0)


async def test_given_up_it_leaves_nothing_behind(dead: Swallows) -> None:
    """Sockets of attempts that nobody waits for any more are closed (a warning would fail it)."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await first_to_connect([address(dead.port)] * 4, 0.4)
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1


async def test_a_name_of_the_upstream(dead: Swallows, plain_server: Server) -> None:
    """The target's resolver is asked for each connection; the second address is used in time."""
    asked: list[str] = []

    async def both(host: str, port: int) -> Sequence[Address]:
        asked.append(host)
        return [address(dead.port), address(plain_server.port)]

    where = replace(target(dead.port), resolve=both, connect_timeout=0.5)
    for _ in range(2):
        sock, _ = await connect(where)
        assert sock.getpeername()[1] == plain_server.port
        sock.close()
    assert asked == ["127.0.0.1"] * 2


async def test_a_resolver_that_hangs() -> None:
    async def hangs(host: str, port: int) -> Sequence[Address]:
        await asyncio.Event().wait()
        return []

    where = replace(target(1), resolve=hangs, connect_timeout=0.2)
    with pytest.raises(Unreachable, match="did not answer within"):
        await connect(where)


async def test_the_system_knows_loopback() -> None:
    assert {where[4][0] for where in await resolve("localhost", 1)} <= {"127.0.0.1", "::1"}
