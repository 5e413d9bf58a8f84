"""What is learnt of the server is asked again when it may have changed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest

from sidecar.proxy.learning import POLL, Learning
from sidecar.settings.sections.upstream import Upstream
from sidecar.settings.urls import parse_upstream
from tests.harness.server_stats import all_calls
from tests.harness.servers import Server, valkey
from tests.harness.wire import Wire
from tests.proxy.links.parts import Parts


@pytest.fixture
def server() -> Iterator[Server]:
    with valkey() as server:
        yield server


@dataclass
class World:
    """Learning that has begun, its link up; and what the server has been asked since."""

    learning: Learning
    parts: Parts
    observer: Wire

    def asked(self) -> dict[str, int]:
        calls = all_calls(self.observer)
        assert self.observer.cmd("CONFIG", "RESETSTAT") == b"+OK\r\n"
        return {name: calls.get(name, 0) for name in ("config|get", "command")}

    async def tick(self, ahead: float = 0.0) -> dict[str, int]:
        """Time passes; what the server is asked in consequence."""
        self.learning.tick(time.monotonic() + ahead)
        async with asyncio.timeout(10):
            while self.learning.asking:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        return self.asked()


@pytest.fixture
async def world(server: Server) -> AsyncIterator[World]:
    parts = Parts(server.port)
    own = parts.identities.default.to(parts.nodes[0])

    def nobody(told: object) -> None: ...

    learning = Learning(parts.plane, own, parts.shared, parts.tasks, nobody, nobody)
    with Wire(server.port) as observer:
        world = World(learning, parts, observer)
        world.asked()
        deadline = time.monotonic() + 10
        await learning.begin(Upstream(), parse_upstream(server.url), deadline)
        assert await parts.shared.bring_up(own) is None
        assert world.asked() == {"config|get": 1, "command": 1}
        yield world
    await parts.close()


ONCE = {"config|get": 1, "command": 0}
NEVER = {"config|get": 0, "command": 0}


async def test_the_link_has_come_up(world: World) -> None:
    """Twice, as after all changes; the table is the same, and is not read again."""
    assert await world.tick() == ONCE
    assert await world.tick() == NEVER
    assert await world.tick(2.0) == ONCE
    assert await world.tick(2.0) == NEVER


@pytest.mark.parametrize(
    ("command", "second"),
    [("config", b"set"), ("module", b"load"), ("module", b"loadex"), ("module", b"unload")],
)
async def test_a_client_changes_the_server(world: World, command: str, second: bytes) -> None:
    for _ in range(2):
        await world.tick(2.0)
    world.learning.noted(None, "command", command, second)
    assert await world.tick() == NEVER
    assert await world.tick(0.2) == ONCE
    assert await world.tick(0.2) == NEVER
    assert await world.tick(2.0) == ONCE


async def test_changes_without_end_do_not_put_it_off(world: World) -> None:
    for _ in range(2):
        await world.tick(2.0)
    for _ in range(10):
        world.learning.noted(None, "command", "config", b"set")
    assert await world.tick(0.2) == ONCE


async def test_other_commands_are_no_reason(world: World) -> None:
    for _ in range(2):
        await world.tick(2.0)
    for command, second in (("config", b"get"), ("keys", b"set"), ("module", b"list")):
        world.learning.noted(None, "command", command, second)
    assert await world.tick(2.0) == NEVER


async def test_changes_that_pass_by_another_way(world: World) -> None:
    for _ in range(2):
        await world.tick(2.0)
    assert await world.tick(POLL - 1) == NEVER
    assert await world.tick(POLL + 3) == ONCE


async def test_another_server(world: World, server: Server) -> None:
    """At the same address, after a restart: its commands are read."""
    for _ in range(2):
        await world.tick(2.0)
    world.observer.close()
    server.restart()
    with Wire(server.port) as observer:
        world.observer = observer
        world.asked()
        assert await world.tick(POLL + 3) == {"config|get": 1, "command": 1}
