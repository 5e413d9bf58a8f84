"""The connections of the admin port: who sends nothing, or sends slowly, keeps nobody out."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from aiohttp import ClientSession

from sidecar.admin.server import AdminServer
from sidecar.settings.sections.operations import Admin, AdminTls
from tests.harness.certificates import make_certificates

MOST = 8
PATIENCE = 0.5
Wires = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def server() -> AsyncIterator[AdminServer]:
    settings = Admin(listen="127.0.0.1:0", max_connections=MOST, request_timeout=PATIENCE)
    server = AdminServer(settings)
    await server.start()
    yield server
    await server.stop()


OPENED: list[asyncio.StreamWriter] = []


@pytest.fixture(autouse=True)
async def closed() -> AsyncIterator[None]:
    """All connections, at the end."""
    yield
    for each in OPENED:
        each.close()
        with suppress(OSError):
            await each.wait_closed()
    OPENED.clear()


async def connect(server: AdminServer) -> Wires:
    host, _, port = server.url.partition("://")[2].rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    OPENED.append(writer)
    return reader, writer


async def ended(wires: Wires) -> bytes:
    """What comes until the connection is closed."""
    async with asyncio.timeout(10):
        with suppress(ConnectionResetError):
            return await wires[0].read()
    return b""


async def live(server: AdminServer) -> int:
    async with ClientSession(server.url) as http, http.get("/livez") as answer:
        return answer.status


async def test_whoever_waits_longest_makes_room(server: AdminServer) -> None:
    wires = [await connect(server) for _ in range(MOST)]
    assert await live(server) == 200
    assert await ended(wires[0]) == b""
    assert server.counts().closed == {"limit": 1, "slow": 0, "idle": 0}


async def test_a_stream_keeps_its_place(server: AdminServer) -> None:
    """It is being served, whatever else is opened; half of all connections may be streams."""
    async with ClientSession(server.url) as http, http.get("/api/events") as stream:
        assert (await stream.content.readline()) == b"event: hello\n"
        for _ in range(3 * MOST):
            await connect(server)
        while await stream.content.readline() != b"event: stats\n":
            pass
        assert await live(server) == 200
        assert server.counts().connections <= MOST
        assert (server.counts().streams, server.counts().streams_opened) == (1, 1)
        streams = [await http.get("/api/events") for _ in range(MOST // 2)]
        assert [each.status for each in streams] == [200] * (MOST // 2 - 1) + [503]
        for each in streams:
            each.close()


@pytest.mark.parametrize("sent", [b"", b"GET /livez HTTP/1.1\r\nHost: loc"])
async def test_a_slow_request_is_given_up(server: AdminServer, sent: bytes) -> None:
    began = time.monotonic()
    wires = await connect(server)
    wires[1].write(sent)
    assert await ended(wires) == b""
    assert time.monotonic() - began >= PATIENCE
    assert server.counts().closed["slow"] == 1
    assert server.counts().connections == 0


async def test_a_connection_that_asked_is_kept(server: AdminServer) -> None:
    """Longer than a request may take; its next request has its own time."""
    reader, writer = await connect(server)
    other = await connect(server)
    for _ in range(2):
        writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        assert (await reader.readuntil(b"ok\n")).endswith(b"ok\n")
        if not other[0].at_eof():
            await ended(other)  # as long as it takes that a slow one is closed
    writer.write(b"GET /livez HTTP/1.1\r\n")
    assert await ended((reader, writer)) == b""
    assert server.counts().closed["slow"] == 2


def distrust(server: AdminServer) -> None:
    """Connect as somebody who does not know the CA, and says so."""
    address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    with (
        socket.create_connection(address, 10) as sock,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        ssl.create_default_context().wrap_socket(sock, server_hostname="localhost")


async def test_a_handshake_that_does_not_go_on(tmp_path_factory: pytest.TempPathFactory) -> None:
    made = make_certificates(tmp_path_factory.mktemp("tls"))
    tls = AdminTls(cert_file=str(made.server.cert), key_file=str(made.server.key))
    server = AdminServer(
        Admin(listen="127.0.0.1:0", max_connections=MOST, request_timeout=PATIENCE, tls=tls)
    )
    await server.start()
    wires = [await connect(server) for _ in range(2 * MOST)]

    async def live_by_tls() -> int:
        async with (
            ClientSession(server.url) as http,
            http.get("/livez", ssl=made.client_context()) as answer,
        ):
            return answer.status

    assert await live_by_tls() == 200
    for each in wires:
        assert await ended(each) == b""
    reader, writer = await connect(server)
    writer.write(b"GET /livez HTTP/1.1\r\n\r\n")
    await ended((reader, writer))
    await asyncio.to_thread(distrust, server)
    assert await live_by_tls() == 200  # so what it has said has been read
    await server.stop()
    found = server.counts().tls_failures
    assert found.keys() == {"timeout", "no_tls", "refused"}
    assert 1 <= found["timeout"] <= MOST


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", b"400 Bad Request"),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", b"400 Bad Request"),
        (b"GET /livez HTTP/1.1\r\nA: " + b"x" * 9000 + b"\r\n\r\n", b"400 Bad Request"),
        (b"GET /livez HTTP/1.1\r\n" + b"A: b\r\n" * 100 + b"\r\n", b"400 Bad Request"),
        (b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", b"200 OK"),
        (b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n", b"404 Not Found"),
        (b"GET /livez HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n", b"403 Forbidden"),
    ],
)
async def test_what_is_too_much_or_no_request(
    server: AdminServer, sent: bytes, status: bytes
) -> None:
    """And no answer tells what software this is."""
    reader, writer = await connect(server)
    writer.write(sent)
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status)
    assert b"server:" not in head.lower()
    assert b"aiohttp" not in head
    assert b"python" not in head.lower()


async def test_limits_change_while_it_runs(server: AdminServer) -> None:
    settings = Admin(listen="127.0.0.1:0", max_connections=2 * MOST, request_timeout=60)
    server.reload(settings)
    for _ in range(2 * MOST - 1):
        await connect(server)
    assert await live(server) == 200
    assert server.counts().closed["limit"] == 0
