"""The certificate that a client presents, whether it is accepted or not."""

from __future__ import annotations

import ssl

import pytest

from sidecar.tls.pem import identity
from sidecar.tls.presented import (
    first_certificate,
    forget_presented,
    presented,
    watch_presented,
)
from tests.harness.certificates import Certificates

from .pairs import shake


@pytest.fixture
def watched(certificates: Certificates) -> ssl.SSLContext:
    context = certificates.server_context(client_auth=True)
    watch_presented(context)
    return context


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("kind", ["client", "stranger", "expired"])
def test_who_it_was(
    certificates: Certificates, watched: ssl.SSLContext, version: ssl.TLSVersion, kind: str
) -> None:
    pem = getattr(certificates, kind)
    client = certificates.client_context(pem)
    client.minimum_version = client.maximum_version = version
    pair = shake(watched, client)
    assert (pair.server_error is None) == (kind == "client")
    der = presented(pair.server)
    assert der == ssl.PEM_cert_to_DER_cert(pem.cert.read_text())
    assert f"CN={pem.cert.stem}" in identity(der)


def test_no_certificate(certificates: Certificates, watched: ssl.SSLContext) -> None:
    assert presented(shake(watched, certificates.client_context()).server) == b""


def test_a_connection_is_not_watched_for_ever(
    certificates: Certificates, watched: ssl.SSLContext
) -> None:
    """After the handshake it has a context without the callback, and works as before."""
    pair = shake(watched, certificates.client_context(certificates.client))
    forget_presented(pair.server)
    assert presented(pair.server) == b""
    assert pair.server.context is not watched
    assert pair.server.getpeercert()
    pair.server.write(b"x")


def test_an_unwatched_connection_keeps_its_context(certificates: Certificates) -> None:
    plain = certificates.server_context()
    pair = shake(plain, certificates.client_context())
    forget_presented(pair.server)
    assert pair.server.context is plain


@pytest.mark.parametrize("version", [0x0303, 0x0304])
def test_broken_messages_have_no_certificate(version: int) -> None:
    """A client sends what it likes; every beginning of a good message, too."""
    body = b"\0\0\x05" + b"\0\0\x02" + b"ab"
    message = b"\x0b\0\0\x08" + (b"\0" if version > 0x0303 else b"") + body
    assert first_certificate(message, version) == b"ab"
    for end in range(len(message)):
        assert first_certificate(message[:end], version) == b""
    assert first_certificate(b"\x0b\0\0\x04\xff", version) == b""
