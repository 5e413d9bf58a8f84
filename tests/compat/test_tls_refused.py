"""TLS handshakes that fail, at the real sidecar, with clients that others have written: each is
refused, counted with its reason, and logged with the peer and its certificate."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.harness.admin import api, metrics
from tests.harness.certificates import Authority, Certificates, Pem, make_certificates
from tests.harness.failover import news
from tests.harness.farm import Farm
from tests.harness.faults import TlsTerminator
from tests.harness.process import free_port, wait_until
from tests.harness.servers import Server, Sidecar, redis7
from tests.harness.tls_clients import HAVE_OPENSSL, redis_cli, s_client
from tests.harness.wire import Wire, pack

needs_openssl = pytest.mark.skipif(not HAVE_OPENSSL, reason="no openssl program")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def mutual(
    farm: Farm, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sidecar]:
    """A sidecar that wants certificates, with an audit stream."""
    settings = {
        "listen.tls.cert_file": str(certificates.server.cert),
        "listen.tls.key_file": str(certificates.server.key),
        "listen.tls.ca_file": str(certificates.ca),
        "listen.tls.client_auth": "required",
        "audit.file": str(tmp_path_factory.mktemp("audit") / "audit.log"),
    }
    tls = certificates.client_context(certificates.client)
    admin = f"127.0.0.1:{free_port()}"
    upstream = farm.server("valkey").url
    with Sidecar(upstream, settings=settings, tls=tls, admin=admin) as sidecar:
        yield sidecar


class Failures:
    """What a sidecar counts and logs of failed handshakes, from here on."""

    def __init__(self, sidecar: Sidecar, side: str = "listen") -> None:
        self._sidecar, self._side = sidecar, side
        self._before = self._counted()
        self._log = len(sidecar.log())

    def _counted(self) -> dict[str, float]:
        name = f'sidecar_tls_handshake_failures_total{{side="{self._side}",reason="'
        return {
            key.removeprefix(name).removesuffix('"}'): value
            for key, value in metrics(self._sidecar).items()
            if key.startswith(name)
        }

    def new(self) -> dict[str, float]:
        """How many more there are, by reason."""
        now = self._counted()
        return {
            reason: count - self._before.get(reason, 0)
            for reason, count in now.items()
            if count != self._before.get(reason, 0)
        }

    def logged(self, reason: str) -> dict[str, str]:
        """The first line about one of this reason."""

        def found() -> list[dict[str, str]]:
            lines = news(self._sidecar, "TLS handshake failed", self._log)
            return [line for line in lines if line["reason"] == reason]

        return dict(wait_until(found, f"{reason} in the log", 10)[0])

    def expect(self, reason: str) -> dict[str, str]:
        """One more of this reason and no other; its line."""
        wait_until(lambda: self.new() == {reason: 1}, f"{reason} is counted", 10)
        line = self.logged(reason)
        assert line["side"] == self._side
        return line


def audited(sidecar: Sidecar, **facts: object) -> dict[str, str]:
    """The record of the audit stream about a certificate with these facts."""
    path = Path(str(sidecar.settings["audit.file"]))

    def found() -> list[dict[str, str]]:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return [r for r in lines if {"event": "certificate", **facts}.items() <= r.items()]

    return dict(wait_until(found, f"a record of {facts}", 10)[0])


@needs_openssl
@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_old_versions(mutual: Sidecar, version: str) -> None:
    failures = Failures(mutual)
    said = s_client(mutual.port, version, "-cipher", "ALL:@SECLEVEL=0")
    assert "protocol version" in said
    line = failures.expect("version")
    assert line["peer"].startswith("127.0.0.1:")
    assert line["error"] == "no TLS version that both sides speak"


@needs_openssl
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize(
    ("kind", "reason"),
    [("", "no_certificate"), ("stranger", "unknown_ca"), ("expired", "expired")],
)
def test_certificates_of_clients(
    mutual: Sidecar, certificates: Certificates, version: str, kind: str, reason: str
) -> None:
    """Of OpenSSL's client, in both versions; log and audit say whose certificate it was."""
    failures = Failures(mutual)
    pem: Pem | None = getattr(certificates, kind) if kind else None
    mine = ["-cert", str(pem.cert), "-key", str(pem.key)] if pem is not None else []
    said = s_client(mutual.port, version, *mine, sent=b"PING\r\n")
    assert "PONG" not in said
    line = failures.expect(reason)
    record = audited(mutual, result=reason, address=line["peer"])
    if pem is None:
        assert "certificate" not in line
        assert "detail" not in record
    else:
        assert f"CN={kind}" in line["certificate"]
        assert record["detail"] == line["certificate"]


@pytest.mark.redis
def test_redis_cli(mutual: Sidecar, certificates: Certificates) -> None:
    failures = Failures(mutual)
    ca, mine = certificates.ca, certificates.client
    assert redis_cli(mutual.port, ca, mine, "PING") == "PONG\n"
    assert failures.new() == {}
    assert "PONG" not in redis_cli(mutual.port, ca, certificates.stranger, "PING")
    failures.expect("unknown_ca")
    failures = Failures(mutual)
    assert "Could not connect" in redis_cli(mutual.port, certificates.other_ca, mine, "PING")
    wait_until(lambda: set(failures.new()) == {"refused"}, "counted, for each of its tries", 10)
    line = failures.logged("refused")
    assert line["error"].startswith("the peer does not accept our certificate")


def test_redis_py(plain_server: Server, certificates: Certificates) -> None:
    """A certificate for another name: it is the client that refuses, and tells us so."""
    pem = certificates.wrong_host
    settings = {"listen.tls.cert_file": str(pem.cert), "listen.tls.key_file": str(pem.key)}
    tls = certificates.client_context()
    tls.check_hostname = False
    admin = f"127.0.0.1:{free_port()}"
    with Sidecar(plain_server.url, settings=settings, tls=tls, admin=admin) as sidecar:
        failures = Failures(sidecar)
        url = f"rediss://localhost:{sidecar.port}?ssl_ca_certs={certificates.ca}"
        with redis.Redis.from_url(f"{url}&ssl_check_hostname=false") as client:
            assert client.ping()
        assert failures.new() == {}
        with (
            redis.Redis.from_url(f"{url}&ssl_check_hostname=true") as client,
            pytest.raises(redis.ConnectionError, match="not valid for 'localhost'"),
        ):
            client.ping()
        new = failures.new
        wait_until(lambda: set(new()) == {"refused"}, "it is counted, for each of its tries", 10)


def test_plain_bytes_and_hanging_up(mutual: Sidecar) -> None:
    """Plain Redis is an error in the log; whoever only looks whether the port is open is not."""
    failures = Failures(mutual)
    with Wire(mutual.port) as plain:
        plain.send(pack("PING"))
        assert b"PONG" not in plain.read_to_end()
    failures.expect("no_tls")
    failures = Failures(mutual)
    socket.create_connection(("127.0.0.1", mutual.port)).close()
    wait_until(lambda: failures.new() == {"closed": 1}, "it is counted", 10)
    assert not [e for e in news(mutual, "TLS handshake failed") if e["reason"] == "closed"]


def test_who_was_accepted(mutual: Sidecar, certificates: Certificates) -> None:
    """The audit stream has the identity, with the client's id and address."""
    with Wire(mutual.port, tls=certificates.client_context(certificates.client)) as wire:
        number = int(wire.cmd("CLIENT", "ID")[1:])
        record = audited(mutual, result="accepted", client=number)
    assert "CN=client" in record["detail"]
    assert "DNS:localhost" in record["detail"]
    assert record["address"].startswith("127.0.0.1:")


def test_the_log_is_limited_and_the_counter_is_not(mutual: Sidecar) -> None:
    failures = Failures(mutual)
    before = len(news(mutual, "TLS handshake failed"))
    for _ in range(60):
        with Wire(mutual.port) as plain:
            plain.send(b"no TLS at all\r\n")
            plain.read_to_end()
    wait_until(lambda: failures.new() == {"no_tls": 60}, "all are counted", 20)
    assert len(news(mutual, "TLS handshake failed")) - before < 45


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("expired", "expired"), ("wrong_host", "wrong_name"), ("stranger", "unknown_ca")],
)
def test_upstream(plain_server: Server, certificates: Certificates, kind: str, reason: str) -> None:
    """The server's certificate is not accepted."""
    pem: Pem = getattr(certificates, kind)
    with (
        TlsTerminator(plain_server.port, certificates.server_context(pem)) as terminator,
        _beside(terminator.url, certificates) as sidecar,
    ):
        _upstream_fails(sidecar, reason, f"localhost:{terminator.port}")


@pytest.mark.redis
def test_upstream_wants_a_certificate(certificates: Certificates) -> None:
    """With TLS 1.3 it says so after the handshake."""
    with (
        redis7(tls=certificates.server_files(client_auth=True)) as server,
        _beside(server.tls_url, certificates) as sidecar,
    ):
        _upstream_fails(sidecar, "wants_certificate", f"localhost:{server.tls_port}")
        with Wire(sidecar.port) as wire:
            assert b"the server wants a client certificate" in wire.cmd("GET", "k")


def test_upstream_without_tls(plain_server: Server, certificates: Certificates) -> None:
    url = f"rediss://localhost:{plain_server.port}"
    with _beside(url, certificates) as sidecar, Wire(sidecar.port) as wire:
        assert wire.cmd("GET", "k").startswith(b"-UNAVAILABLE ")


def _beside(url: str, certificates: Certificates) -> Sidecar:
    settings = {
        "upstream.tls.ca_file": str(certificates.ca),
        "upstream.start": "wait",
        "upstream.wait": 0.2,
    }
    return Sidecar(url, settings=settings, admin=f"127.0.0.1:{free_port()}")


def _upstream_fails(sidecar: Sidecar, reason: str, peer: str) -> None:
    name = f'sidecar_tls_handshake_failures_total{{side="upstream",reason="{reason}"}}'
    wait_until(lambda: metrics(sidecar).get(name, 0) > 0, f"{reason} is counted", 10)
    line = next(e for e in news(sidecar, "TLS handshake failed") if e["side"] == "upstream")
    assert (line["reason"], line["peer"]) == (reason, peer)
    with Wire(sidecar.port) as wire:
        assert wire.cmd("GET", "k").startswith(b"-UNAVAILABLE ")


@needs_openssl
def test_a_revoked_client(plain_server: Server, tmp_path: Path) -> None:
    """The list is read again when it changes; who is in it is served no more, others are. A list
    that is too old lets nobody in."""
    authority = Authority(tmp_path, "ca")
    server, good, bad = (authority.issue(name) for name in ("server", "good", "bad"))
    crl = authority.revoke()
    settings = {
        "listen.tls.cert_file": str(server.cert),
        "listen.tls.key_file": str(server.key),
        "listen.tls.ca_file": str(authority.cert_file),
        "listen.tls.client_auth": "required",
        "listen.tls.crl_file": str(crl),
    }
    tls = authority.client_context(good)
    admin = f"127.0.0.1:{free_port()}"
    with Sidecar(plain_server.url, settings=settings, tls=tls, admin=admin) as sidecar:

        def served(pem: Pem) -> bool:
            mine = ("-cert", str(pem.cert), "-key", str(pem.key))
            return "+PONG" in s_client(sidecar.port, *mine, sent=b"PING\r\nQUIT\r\n")

        assert served(good)
        assert served(bad)
        authority.revoke(bad)
        wait_until(lambda: news(sidecar, "certificates reloaded"), "the list is read", 10)
        failures = Failures(sidecar)
        assert not served(bad)
        assert "CN=bad" in failures.expect("revoked")["certificate"]
        assert served(good)
        authority.revoke(bad, days=-1)
        wait_until(lambda: len(news(sidecar, "certificates reloaded")) > 1, "the next is read", 10)
        failures = Failures(sidecar)
        assert not served(good)
        failures.expect("crl")
        health = api(sidecar, "/api/health/redis")
        assert health["status"] == "degraded"
        assert "the revocation list of listen.tls has ended 24 hours ago" in health["reasons"]
        name = 'sidecar_tls_certificate_expiry_timestamp_seconds{certificate="listen-crl"}'
        assert name in metrics(sidecar)
