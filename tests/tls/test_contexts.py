"""TLS contexts: what the settings turn on, and which setting an error names."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from sidecar.settings.sections.clients import ListenTls
from sidecar.settings.sections.operations import AdminTls
from sidecar.settings.sections.upstream import Sentinel, UpstreamTls
from sidecar.tls import contexts
from tests.harness.certificates import Authority, Certificates


def test_a_listener_checks_clients_as_the_settings_say(certificates: Certificates) -> None:
    pem = {"cert_file": str(certificates.server.cert), "key_file": str(certificates.server.key)}
    plain = contexts.listener_context(ListenTls(**pem))
    assert (plain.verify_mode, plain.minimum_version) == (ssl.CERT_NONE, ssl.TLSVersion.TLSv1_2)
    strict = ListenTls(
        **pem, ca_file=str(certificates.ca), client_auth="required", min_version="1.3"
    )
    context = contexts.listener_context(strict)
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
    context = contexts.upstream_context(UpstreamTls(verify=verify))  # type: ignore[arg-type]
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
    assert (contexts.sentinel_context(settings, UpstreamTls(), upstream) is not None) == used


def test_the_admin_endpoint_has_tls_if_it_has_a_certificate(certificates: Certificates) -> None:
    assert contexts.admin_context(AdminTls()) is None
    pem = {"cert_file": str(certificates.server.cert), "key_file": str(certificates.server.key)}
    assert contexts.admin_context(AdminTls(**pem)) is not None


def test_errors_name_the_setting(certificates: Certificates, tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("no certificate")
    with pytest.raises(ssl.SSLError, match=r"cannot load listen\.tls\.cert_file .*bad\.pem"):
        contexts.listener_context(ListenTls(cert_file=str(bad)))
    with pytest.raises(ssl.SSLError, match=r"cannot load upstream\.tls\.ca_file .*bad\.pem"):
        contexts.upstream_context(UpstreamTls(ca_file=str(bad)))
    with pytest.raises(ssl.SSLError, match=r"cannot load admin\.tls\.cert_file .*bad\.pem"):
        contexts.admin_context(AdminTls(cert_file=str(bad)))
    good = str(certificates.server.cert)
    with pytest.raises(ssl.SSLError, match=r"listen\.tls\.ca_file .*bad\.pem"):
        contexts.listener_context(
            ListenTls(cert_file=good, key_file=str(certificates.server.key), ca_file=str(bad))
        )


def test_a_revocation_list_is_looked_at(certificates: Certificates, tmp_path: Path) -> None:
    """Of the leaf only: an intermediate CA's list may be elsewhere. A file without one is a
    mistake, which would leave everybody unchecked."""
    authority = Authority(tmp_path, "lister")
    pem = {"cert_file": str(certificates.server.cert), "key_file": str(certificates.server.key)}
    strict = {**pem, "client_auth": "required", "ca_file": str(authority.cert_file)}
    settings = ListenTls(**strict, crl_file=str(authority.revoke()))  # type: ignore[arg-type]
    flags = contexts.listener_context(settings).verify_flags
    assert flags & ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
    of_upstream = UpstreamTls(ca_file=str(authority.cert_file), crl_file=str(authority.revoke()))
    flags = contexts.upstream_context(of_upstream).verify_flags
    assert flags & ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
    none = UpstreamTls(crl_file=str(authority.cert_file))
    with pytest.raises(ssl.SSLError, match=r"upstream\.tls\.crl_file .*no revocation list"):
        contexts.upstream_context(none)


def test_an_encrypted_key_is_refused_at_once(certificates: Certificates, tmp_path: Path) -> None:
    """OpenSSL would ask for its password at the terminal."""
    key = load_pem_private_key(certificates.server.key.read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    )
    settings = ListenTls(cert_file=str(certificates.server.cert), key_file=str(locked))
    with pytest.raises(ssl.SSLError, match="the key is encrypted"):
        contexts.listener_context(settings)
