"""`sidecar certs check`: what it says of real servers, each with something else that is wrong."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness.certificates import Certificates, make_certificates
from tests.harness.faults import TlsTerminator
from tests.harness.process import free_port
from tests.harness.servers import Server, redis7


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def check(where: int | str, *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error. A number is a port of localhost."""
    server = f"localhost:{where}" if isinstance(where, int) else where
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "certs", "check", server, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@contextmanager
def tls_port(server: Server, context: ssl.SSLContext) -> Iterator[int]:
    with TlsTerminator(server.port, context) as terminator:
        yield terminator.port


def test_all_is_well(plain_server: Server, certificates: Certificates) -> None:
    with tls_port(plain_server, certificates.server_context()) as port:
        code, out, err = check(port, "--ca-file", str(certificates.ca))
        assert (code, err) == (0, "")
        assert "TLSv1.3, TLS_AES_256_GCM_SHA384; speaks Redis (PING: PONG)" in out
        assert "names        DNS:localhost, IP:127.0.0.1, IP:::1" in out
        assert out.endswith(f"ok: localhost:{port} speaks TLS, and its certificate is accepted\n")


@pytest.mark.parametrize(
    ("kind", "words", "shown"),
    [
        ("expired", "certificate has expired; renew it there", "(has ended 24 hours ago)"),
        ("stranger", "give the certificate of its CA with --ca-file", "issuer       OU=Testing CA"),
        ("wrong_host", "Hostname mismatch", "names        DNS:elsewhere.example, IP:192.0.2.1"),
    ],
)
def test_a_certificate_that_is_not_accepted(
    plain_server: Server, certificates: Certificates, kind: str, words: str, shown: str
) -> None:
    """It is named all the same."""
    context = certificates.server_context(getattr(certificates, kind))
    with tls_port(plain_server, context) as port:
        code, out, err = check(port, "--ca-file", str(certificates.ca))
        assert code == 1
        assert words in err
        assert err.count("\n") == 1
        assert shown in out


def test_another_name_can_be_expected(plain_server: Server, certificates: Certificates) -> None:
    with tls_port(plain_server, certificates.server_context(certificates.wrong_host)) as port:
        named = ("--server-name", "elsewhere.example")
        assert check(port, "--ca-file", str(certificates.ca), *named)[0] == 0


@pytest.mark.redis
def test_a_server_that_wants_a_certificate(certificates: Certificates) -> None:
    with redis7(tls=certificates.server_files(client_auth=True)) as server:
        assert server.tls_port is not None
        known = ("--ca-file", str(certificates.ca))
        code, _, err = check(server.tls_port, *known)
        assert code == 1
        assert "wants a client certificate" in err
        assert "--cert-file and --key-file" in err
        mine = ("--cert-file", str(certificates.client.cert))
        mine += ("--key-file", str(certificates.client.key))
        assert check(server.tls_port, *known, *mine)[0] == 0


def test_no_tls_there(plain_server: Server) -> None:
    """A server that waits for a line of an inline command says nothing: it is asked plainly."""
    code, _, err = check(plain_server.port)
    assert code == 1
    assert "there is no TLS there; it speaks Redis (PING: PONG): write redis://" in err


def test_something_else_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = int(other.getsockname()[1])
        other.listen(0)
        code, _, err = check(f"127.0.0.1:{port}")
        assert code == 1
        assert "the peer took too long" in err


def test_nobody_there() -> None:
    port = free_port()
    code, _, err = check(f"127.0.0.1:{port}")
    assert (code, err) == (
        1,
        f"sidecar: 127.0.0.1:{port}: nobody listens there (connection refused)\n",
    )


def test_wrong_arguments(tmp_path: Path) -> None:
    code, _, err = check("localhost")
    assert (code, "port" in err) == (2, True)
    code, _, err = check(1, "--ca-file", str(tmp_path / "none"))
    assert code == 2
    assert "cannot load upstream.tls.ca_file" in err


def test_with_the_settings_of_a_file(
    plain_server: Server, certificates: Certificates, tmp_path: Path
) -> None:
    """`[upstream.tls]` of a configuration file, so that it is the sidecar's own connection."""
    with tls_port(plain_server, certificates.server_context()) as port:
        file = tmp_path / "sidecar.toml"
        file.write_text(
            f'[upstream]\nurl = "rediss://localhost:{port}"\n'
            f'[upstream.tls]\nca_file = "{certificates.ca}"\n'
        )
        assert check(port, "-c", str(file))[0] == 0
        assert check(port)[0] == 1
