"""Handshakes over real sockets: what both ends get, and what is told of who is refused."""

from __future__ import annotations

import asyncio
import socket
import ssl

import pytest

from sidecar.tls.handshake import Layer, Resumption, handshake
from sidecar.tls.presented import watch_presented
from tests.harness.certificates import Certificates


async def both(
    server: ssl.SSLContext,
    client: ssl.SSLContext,
    told: list[bytes],
    resumption: Resumption | None = None,
) -> list[Layer | BaseException]:
    """Shake hands; what the server's end and the client's have come to."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for sock in (ours, theirs):
            sock.setblocking(False)
        accepting = handshake(ours, server, server_side=True, refused=told.append)
        connecting = handshake(
            theirs, client, server_side=False, server_name="localhost", resumption=resumption
        )
        async with asyncio.timeout(10):
            return list(await asyncio.gather(accepting, connecting, return_exceptions=True))


@pytest.fixture
def mutual(certificates: Certificates) -> ssl.SSLContext:
    context = certificates.server_context(client_auth=True)
    watch_presented(context)
    return context


async def test_a_client_that_is_accepted(
    certificates: Certificates, mutual: ssl.SSLContext
) -> None:
    """Nobody is told, and nothing looks at what the connection does from then on."""
    told: list[bytes] = []
    server, _ = await both(mutual, certificates.client_context(certificates.client), told)
    assert isinstance(server, tuple)
    assert told == []
    assert server[0].context is not mutual
    shown = ssl.PEM_cert_to_DER_cert(certificates.client.cert.read_text())
    assert server[0].getpeercert(binary_form=True) == shown


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_that_is_refused(
    certificates: Certificates, mutual: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    """Its certificate is told, once."""
    told: list[bytes] = []
    client = certificates.client_context(certificates.stranger)
    client.minimum_version = client.maximum_version = version
    server, _ = await both(mutual, client, told)
    assert isinstance(server, ssl.SSLCertVerificationError)
    assert told == [ssl.PEM_cert_to_DER_cert(certificates.stranger.cert.read_text())]


async def test_a_client_without_one(certificates: Certificates, mutual: ssl.SSLContext) -> None:
    told: list[bytes] = []
    server, _ = await both(mutual, certificates.client_context(), told)
    assert isinstance(server, ssl.SSLError)
    assert server.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE"
    assert told == []


async def test_a_session_is_resumed(certificates: Certificates) -> None:
    """With TLS 1.2, where the session is there when the handshake ends."""
    server, client = certificates.server_context(), certificates.client_context()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    resumption = Resumption()
    seen = []
    for _ in range(2):
        _, layer = await both(server, client, [], resumption)
        assert isinstance(layer, tuple)
        resumption.keep(layer[0])
        seen.append(layer[0].session_reused)
    assert seen == [False, True]


async def test_the_peer_hangs_up(certificates: Certificates) -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    ours.setblocking(False)
    with ours, pytest.raises(ConnectionResetError):
        await handshake(ours, certificates.server_context(), server_side=True)
