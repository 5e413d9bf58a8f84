"""A node is led to another server: its links are, and no other node's."""

from __future__ import annotations

import asyncio

from tests.harness.pair import Pair
from tests.harness.servers import Server

from .parts import Parts, target


async def test_only_links_of_that_node(valkey_pair: Pair, plain_server: Server) -> None:
    old, other, new = valkey_pair.direct.port, valkey_pair.behind.port, plain_server.port
    parts = Parts(old, other)
    home, second = parts.nodes
    own = parts.identities.default
    for node in parts.nodes:
        assert await parts.shared.bring_up(own.to(node)) is None
    untouched = own.to(second).shared
    before = untouched.server_id
    seen: list[str] = []
    home.watch(up=lambda: seen.append("up"), down=lambda demoted: seen.append("down"))
    parts.switch.to(home, target(new))
    assert not own.to(home).shared.up
    assert parts.told.distrusted[0] == "the master has changed"
    assert await asyncio.wait_for(parts.shared.bring_up(own.to(home)), 5) is None
    assert own.to(home).shared.target == target(new)
    assert seen == ["up"]
    assert untouched.up
    assert untouched.server_id == before
    await parts.close()


async def test_a_link_that_is_lost_is_connected_again(plain_server: Server) -> None:
    parts = Parts(plain_server.port)
    (node,) = parts.nodes
    links = parts.identities.default.to(node)
    seen: list[str] = []
    node.watch(up=lambda: seen.append("up"))
    node.watch(up=lambda: seen.append("up, the second"), down=lambda demoted: seen.append("down"))
    assert await parts.shared.bring_up(links) is None
    links.shared.break_off("for the test")
    assert await asyncio.wait_for(parts.shared.bring_up(links), 5) is None
    assert seen == ["up", "up, the second", "down", "up", "up, the second"]
    assert parts.shared.reconnects == 1
    assert parts.told.distrusted == ["a connection to the server was lost"]
    await parts.close()
