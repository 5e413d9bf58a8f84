"""Listeners: who the process knows for itself when it gives its ports to another one."""

from __future__ import annotations

import asyncio
import socket

import pytest

from sidecar.proxy.descriptors import Descriptors, raise_limit
from sidecar.proxy.listener import Listener
from sidecar.proxy.listening import How, knock, knocker, listen
from sidecar.settings.sections.clients import Listen
from sidecar.settings.urls import parse_listen

TIMES = 100


@pytest.fixture(params=["127.0.0.1", "[::1]", "0.0.0.0", "[::]"])
def endpoint(request: pytest.FixtureRequest) -> str:
    return f"redis://{request.param}:0"


async def test_a_process_knows_its_own_knock(endpoint: str) -> None:
    """Also if the loop accepts it before `knock` returns: it is never taken for a client."""
    clients: list[socket.socket] = []
    listener = Listener(
        Listen(urls=(endpoint,)),
        lambda sock, layer, address: clients.append(sock),
        lambda: None,
        lambda: 0,
        Descriptors(raise_limit()),
        lambda reason, who, address: None,
        shared=True,
    )
    listener.open()
    listener.begin()
    try:
        (mine,) = listener._shared()
        for _ in range(TIMES):
            assert await listener._comes_here(mine)
    finally:
        listener.close()
    assert clients == []


async def test_a_knock_that_another_process_takes(endpoint: str) -> None:
    """The accepted address is the one that was known before."""
    (ours,) = listen(parse_listen(endpoint), How(16, 0o600, True))
    with ours.sock, knocker(ours.sock) as client:
        before = client.getsockname()
        assert await knock(client, ours.sock)
        accepted, address = ours.sock.accept()
        accepted.close()
        assert address == before


async def test_nobody_is_there() -> None:
    (ours,) = listen(parse_listen("redis://127.0.0.1:0"), How(16, 0o600))
    with knocker(ours.sock) as client:
        gone = ours.sock.dup()
        ours.sock.shutdown(socket.SHUT_RDWR)
        with gone:
            assert not await asyncio.wait_for(knock(client, gone), 10)
    ours.close()
