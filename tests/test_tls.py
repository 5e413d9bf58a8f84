"""TLS contexts: what the settings turn on, and which setting an error names."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from sidecar import tls
from sidecar.settings.sections.clients import ListenTls
from sidecar.settings.sections.operations import AdminTls
from sidecar.settings.sections.upstream import Sentinel, UpstreamTls
from tests.harness.certificates import Certificates, make_certificates


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"))


def test_a_listener_checks_clients_as_the_settings_say(certificates: Certificates) -> None:
    pem = {"cert_file": str(certificates.server.cert), "key_file": str(certificates.server.key)}
    plain = tls.listener_context(ListenTls(**pem))
    assert (plain.verify_mode, plain.minimum_version) == (ssl.CERT_NONE, ssl.TLSVersion.TLSv1_2)
    strict = ListenTls(
        **pem, ca_file=str(certificates.ca), client_auth="required", min_version="1.3"
    )
    context = tls.listener_context(strict)
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.minimum_version == ssl.TLSVersion.TLSv1_3


@pytest.mark.parametrize(
    ("verify", "host", "mode"),
    [
        ("full", True, ssl.CERT_REQUIRED),
        ("ca", False, ssl.CERT_REQUIRED),
        ("none", False, ssl.CERT_NONE),
    ],
)
def test_an_upstream_is_verified_as_the_settings_say(
    verify: str, host: bool, mode: ssl.VerifyMode
) -> None:
    context = tls.upstream_context(UpstreamTls(verify=verify))  # type: ignore[arg-type]
    assert (context.check_hostname, context.verify_mode) == (host, mode)


@pytest.mark.parametrize(
    ("setting", "upstream", "used"),
    [
        ("as-upstream", True, True),
        ("as-upstream", False, False),
        ("on", False, True),
        ("off", True, False),
    ],
)
def test_whether_sentinels_speak_tls(setting: str, upstream: bool, used: bool) -> None:
    settings = Sentinel(tls=setting)  # type: ignore[arg-type]
    assert (tls.sentinel_context(settings, UpstreamTls(), upstream) is not None) == used


def test_the_admin_endpoint_has_tls_if_it_has_a_certificate(certificates: Certificates) -> None:
    assert tls.admin_context(AdminTls()) is None
    pem = {"cert_file": str(certificates.server.cert), "key_file": str(certificates.server.key)}
    assert tls.admin_context(AdminTls(**pem)) is not None


def test_errors_name_the_setting(certificates: Certificates, tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("no certificate")
    with pytest.raises(ssl.SSLError, match=r"cannot load listen\.tls\.cert_file .*bad\.pem"):
        tls.listener_context(ListenTls(cert_file=str(bad)))
    with pytest.raises(ssl.SSLError, match=r"cannot load upstream\.tls\.ca_file .*bad\.pem"):
        tls.upstream_context(UpstreamTls(ca_file=str(bad)))
    with pytest.raises(ssl.SSLError, match=r"cannot load admin\.tls\.cert_file .*bad\.pem"):
        tls.admin_context(AdminTls(cert_file=str(bad)))
    good = str(certificates.server.cert)
    with pytest.raises(ssl.SSLError, match=r"listen\.tls\.ca_file .*bad\.pem"):
        tls.listener_context(
            ListenTls(cert_file=good, key_file=str(certificates.server.key), ca_file=str(bad))
        )


def test_when_certificates_end(certificates: Certificates, tmp_path: Path) -> None:
    """Peers see the first of a chain; the warning is about the one that ends first."""
    chain = tmp_path / "chain.pem"
    chain.write_bytes(
        certificates.server.cert.read_bytes() + certificates.expired.cert.read_bytes()
    )
    assert tls.expiry(str(chain)) == tls.expiry(str(certificates.server.cert))
    _, end = tls.first_to_expire(str(chain))
    assert end == tls.expiry(str(certificates.expired.cert)) < tls.expiry(str(chain))
