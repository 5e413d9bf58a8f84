"""Whose a connection is, by the address that the server sees."""

from __future__ import annotations

import socket
import weakref
from collections.abc import Iterator

import pytest

from sidecar.proxy.links import own_connections
from sidecar.proxy.links.own_connections import (
    SWEPT_FROM,
    OwnConnection,
    OwnConnections,
    address_of,
)


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    """A bound socket, so that it has an address."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


def test_own_until_it_carries_commands(sock: socket.socket) -> None:
    own = OwnConnections()
    assert own.find(address_of(sock)) is None
    own.opened(sock)
    found = own.find(address_of(sock))
    assert found is not None
    assert not found.carries
    assert not own.carrying()
    own.carries(sock, [b"HELLO", b"PING"])
    found = own.find(address_of(sock))
    assert found is not None
    assert found.carries
    assert found.greeting == (b"HELLO", b"PING")
    assert list(own.carrying()) == [found]


def test_a_closed_one_counts_for_a_while(
    sock: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the server says of it may be on its way; then the address may be somebody else's."""
    own = OwnConnections()
    own.opened(sock)
    address = address_of(sock)
    sock.close()
    assert own.find(address)
    monkeypatch.setattr(own_connections, "LINGER", -1.0)
    assert own.find(address) is None


def test_the_closed_are_forgotten(sock: socket.socket) -> None:
    own = OwnConnections()
    own.opened(sock)
    address = address_of(sock)
    own.forget_closed()
    assert own.find(address)
    sock.close()
    own.forget_closed()
    assert own.find(address) is None


def test_closed_ones_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Links come and go for weeks, and nobody monitors."""
    monkeypatch.setattr(own_connections, "LINGER", -1.0)
    own = OwnConnections()
    kept: weakref.WeakSet[OwnConnection] = weakref.WeakSet()
    with socket.create_server(("127.0.0.1", 0)) as lasting:
        own.carries(lasting)
        for _ in range(5 * SWEPT_FROM):
            with socket.create_server(("127.0.0.1", 0)) as sock:
                own.carries(sock)
                kept |= own.carrying()
        assert own.find(address_of(lasting))
    assert len(kept) < 2 * SWEPT_FROM


def test_only_the_newest_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_connections, "MOST", 2)
    own = OwnConnections()
    socks = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    for sock in socks:
        own.opened(sock)
    assert [own.find(address_of(sock)) is None for sock in socks] == [True, False, False]
    for sock in socks:
        sock.close()


def test_a_unix_socket_has_no_address() -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        assert address_of(sock) == b""
        OwnConnections().opened(sock)


def test_ipv6_as_servers_write_it() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as sock:
        assert address_of(sock) == b"[::1]:%d" % sock.getsockname()[1]
