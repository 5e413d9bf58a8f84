"""Shared links: what those are told that wait for one."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from sidecar.proxy.links.errors import Unreachable, unavailable
from tests.harness.process import free_port

from .parts import NOBODY, Parts


async def test_all_links_tell_that_the_breaker_is_open() -> None:
    """Also those whose own attempt has failed before it opened, and those that wait between two."""
    parts = Parts(free_port())
    node = parts.nodes[0]
    first = parts.identities.default.to(node)
    second = parts.identities.get(replace(NOBODY, db=7), own_login=False).to(node)
    first.connecting = second.connecting = True
    first.shared.refuse(unavailable("an older reason"))
    waiting = asyncio.create_task(parts.shared.bring_up(second))
    await asyncio.sleep(0)
    while not node.dialer.given_up:
        node.dialer.outcomes.failure(Unreachable("it is gone"), began=0.0)
    told = b"-UNAVAILABLE it is gone (circuit breaker open); the command was not executed\r\n"
    assert first.shared.refusal == told
    assert await waiting == told
    await parts.close()
