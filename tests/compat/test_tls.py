"""TLS on either side: the same replies, and no service to who cannot prove what is asked."""

from __future__ import annotations

import ssl

import pytest

from tests.harness.certificates import Certificates, Pem, make_certificates
from tests.harness.faults import TlsTerminator
from tests.harness.pair import pipeline
from tests.harness.process import wait_until
from tests.harness.servers import Server, Sidecar, redis7
from tests.harness.wire import Wire, pack

from .test_pipelines import INLINE, SHORT


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """One CA for the file."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def _transcript(port: int, tls: ssl.SSLContext | None = None) -> list[bytes]:
    """Replies to a mixed transcript, a big value among it."""
    blob = bytes(range(256)) * 8000
    with Wire(port, tls=tls, deadline=10) as wire:
        wire.send(pack("FLUSHALL") + pipeline(SHORT) + INLINE)
        replies = wire.read_replies(len(SHORT) + 4)
        wire.send(pack("SET", "big", blob) + pack("GET", "big") + pack("LPUSH", "q", 1))
        wire.send(pack("BLPOP", "q", 0) + pack("MULTI") + pack("GET", "n") + pack("EXEC"))
        return replies + wire.read_replies(7)


def _listening(certificates: Certificates, server: Server, **settings: str) -> Sidecar:
    """A sidecar that listens with TLS."""
    tls = {
        "listen.tls.cert_file": str(certificates.server.cert),
        "listen.tls.key_file": str(certificates.server.key),
        **settings,
    }
    return Sidecar(server.url, settings=tls, tls=certificates.client_context(certificates.client))


def test_downstream(plain_server: Server, certificates: Certificates) -> None:
    """Clients speak TLS to the sidecar; plain bytes on that port get nowhere."""
    expected = _transcript(plain_server.port)
    with _listening(certificates, plain_server) as sidecar:
        assert _transcript(sidecar.port, certificates.client_context()) == expected
        with Wire(sidecar.port) as plain:
            plain.send(pack("PING"))
            assert b"PONG" not in plain.read_to_end()
        with pytest.raises(ssl.SSLCertVerificationError):
            Wire(sidecar.port, tls=ssl.create_default_context(cafile=str(certificates.other_ca)))
        assert _transcript(sidecar.port, certificates.client_context()) == expected


def test_downstream_wants_certificates(plain_server: Server, certificates: Certificates) -> None:
    """With `client_auth = required` only clients of the CA are served."""
    settings = {
        "listen.tls.client_auth": "required",
        "listen.tls.ca_file": str(certificates.ca),
    }
    with _listening(certificates, plain_server, **settings) as sidecar:
        for pem in (None, certificates.stranger):
            with pytest.raises((OSError, AssertionError)):
                _transcript(sidecar.port, certificates.client_context(pem))
        known = certificates.client_context(certificates.client)
        assert _transcript(sidecar.port, known) == _transcript(plain_server.port)


def _upstream(certificates: Certificates, url: str, **settings: str) -> Sidecar:
    """A sidecar that speaks TLS to its upstream."""
    return Sidecar(url, settings={"upstream.tls.ca_file": str(certificates.ca), **settings})


def test_upstream(plain_server: Server, certificates: Certificates) -> None:
    """The sidecar speaks TLS to a terminator in front of Valkey."""
    expected = _transcript(plain_server.port)
    with (
        TlsTerminator(plain_server.port, certificates.server_context()) as terminator,
        _upstream(certificates, terminator.url) as sidecar,
    ):
        assert _transcript(sidecar.port) == expected
        assert terminator.handshakes > 0


def test_upstream_wants_a_certificate(plain_server: Server, certificates: Certificates) -> None:
    """Mutual TLS towards the upstream."""
    context = certificates.server_context(client_auth=True)
    mine = {
        "upstream.tls.cert_file": str(certificates.client.cert),
        "upstream.tls.key_file": str(certificates.client.key),
    }
    with TlsTerminator(plain_server.port, context) as terminator:
        with _upstream(certificates, terminator.url, **mine) as sidecar:
            assert _transcript(sidecar.port) == _transcript(plain_server.port)
        _expect_refusal(_without_start(certificates, terminator.url))


@pytest.mark.parametrize("kind", ["expired", "wrong_host", "stranger"])
def test_upstream_with_a_bad_certificate(
    plain_server: Server, certificates: Certificates, kind: str
) -> None:
    """An expired certificate, another host's, another CA's: not a byte of a command goes there."""
    pem: Pem = getattr(certificates, kind)
    with TlsTerminator(plain_server.port, certificates.server_context(pem)) as terminator:
        _expect_refusal(_without_start(certificates, terminator.url))
        assert terminator.passed == 0


def _without_start(certificates: Certificates, url: str) -> Sidecar:
    """A sidecar that serves although its upstream cannot be used."""
    settings = {
        "upstream.tls.ca_file": str(certificates.ca),
        "upstream.start": "wait",
        "upstream.wait": 0.2,
    }
    return Sidecar(url, settings=settings)


def _expect_refusal(sidecar: Sidecar) -> None:
    """Every command is answered with an error."""
    with sidecar, Wire(sidecar.port) as wire:
        assert wire.cmd("GET", "k")[:1] == b"-"
        assert wire.cmd("SET", "k", "v")[:1] == b"-"


@pytest.mark.redis
@pytest.mark.parametrize("client_auth", [False, True])
def test_redis_with_its_own_tls(certificates: Certificates, client_auth: bool) -> None:
    """Debian's Redis speaks TLS itself, with OpenSSL's own idea of a close."""
    with redis7(tls=certificates.server_files(client_auth=client_auth)) as server:
        settings = {
            "upstream.tls.cert_file": str(certificates.client.cert),
            "upstream.tls.key_file": str(certificates.client.key),
        }
        with _upstream(certificates, server.tls_url, **settings) as sidecar:
            expected = _transcript(server.port)
            assert _transcript(sidecar.port) == expected


def test_both_sides(plain_server: Server, certificates: Certificates) -> None:
    """TLS in, TLS out."""
    expected = _transcript(plain_server.port)
    with TlsTerminator(plain_server.port, certificates.server_context()) as terminator:
        settings = {
            "listen.tls.cert_file": str(certificates.server.cert),
            "listen.tls.key_file": str(certificates.server.key),
            "upstream.tls.ca_file": str(certificates.ca),
        }
        context = certificates.client_context()
        with Sidecar(terminator.url, settings=settings, tls=context) as sidecar:
            assert _transcript(sidecar.port, context) == expected


def test_a_subscriber_hangs_up(plain_server: Server, certificates: Certificates) -> None:
    """A pinned client that ends, with TLS to the server: TLS has no half-close, so both end."""
    with (
        TlsTerminator(plain_server.port, certificates.server_context()) as terminator,
        _upstream(certificates, terminator.url) as sidecar,
        Wire(sidecar.port) as other,
    ):
        with Wire(sidecar.port) as subscriber:
            assert subscriber.cmd("SUBSCRIBE", "c").endswith(b":1\r\n")
            subscriber.half_close()
            subscriber.expect_eof()
        assert other.cmd("PING") == b"+PONG\r\n"
        assert sidecar.running


def test_a_client_goes_without_reading(plain_server: Server, certificates: Certificates) -> None:
    """Its connection is reset while replies wait to be sent: nothing of it is left."""
    context = certificates.client_context()
    with (
        _listening(certificates, plain_server) as sidecar,
        Wire(sidecar.port, tls=context) as other,
    ):
        other.call("SET", "big", b"x" * 8_000_000)
        for _ in range(5):
            leaving = Wire(sidecar.port, tls=context, receive_buffer=4096)
            leaving.send(pack("GET", "big") * 4)
            leaving.read_until_bytes(1)
            leaving.reset()
        wait_until(lambda: len(other.call("CLIENT", "LIST").splitlines()) == 1, "they are gone")
