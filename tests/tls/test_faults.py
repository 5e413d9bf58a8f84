"""Real handshakes that fail, and what is said of each: on both sides, with both versions."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

import pytest

from sidecar.tls.faults import OF_CERTIFICATES, REASONS, fault_of
from tests.harness.certificates import Authority, Certificates

from .pairs import Pair, shake

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def reasons(pair: Pair) -> tuple[str, str]:
    """Of the server's end, and of the client's; "" for an end without an error."""
    errors = (pair.server_error, pair.client_error)
    server, client = (fault_of(error).reason if error is not None else "" for error in errors)
    return server, client


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("kind", "reason"),
    [("expired", "expired"), ("stranger", "unknown_ca"), ("wrong_host", "wrong_name")],
)
def test_a_server_that_is_not_accepted(
    certificates: Certificates, version: ssl.TLSVersion, kind: str, reason: str
) -> None:
    client = certificates.client_context()
    client.minimum_version = client.maximum_version = version
    pair = shake(certificates.server_context(getattr(certificates, kind)), client)
    assert reasons(pair) == ("refused", reason)
    assert pair.client_error is not None
    assert fault_of(pair.client_error).words.startswith("the certificate is not accepted: ")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("kind", "reason"),
    [("expired", "expired"), ("stranger", "unknown_ca"), ("", "no_certificate")],
)
def test_a_client_that_is_not_accepted(
    certificates: Certificates, version: ssl.TLSVersion, kind: str, reason: str
) -> None:
    client = certificates.client_context(getattr(certificates, kind) if kind else None)
    client.minimum_version = client.maximum_version = version
    pair = shake(certificates.server_context(client_auth=True), client)
    # TLS 1.2 has no alert for this case.
    told = "refused" if kind or version is ssl.TLSVersion.TLSv1_2 else "wants_certificate"
    assert reasons(pair) == (reason, told)
    assert reason in OF_CERTIFICATES


def test_a_certificate_of_tomorrow(certificates: Certificates, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "early")
    early = certificates.server_context(authority.issue("server", begins=1, days=2))
    client = ssl.create_default_context(cafile=str(authority.cert_file))
    assert reasons(shake(early, client))[1] == "not_yet_valid"


def test_revoked(certificates: Certificates, tmp_path: Path) -> None:
    """A certificate in the list, one that is not, and any once the list is too old."""
    authority = Authority(tmp_path, "lists")
    good, bad = authority.issue("good"), authority.issue("bad")

    def shown(which: str, days: float) -> str:
        client = ssl.create_default_context(cafile=str(authority.cert_file))
        client.load_verify_locations(authority.revoke(bad, days=days))
        client.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
        server = certificates.server_context({"good": good, "bad": bad}[which])
        return reasons(shake(server, client))[1]

    assert [shown("good", 1), shown("bad", 1), shown("good", -1)] == ["", "revoked", "crl"]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_versions(certificates: Certificates) -> None:
    """TLS 1.0 and 1.1, on either side."""
    old, new = certificates.server_context(), certificates.server_context()
    new.minimum_version = ssl.TLSVersion.TLSv1_2
    client = certificates.client_context()
    client.minimum_version = ssl.TLSVersion.TLSv1
    client.maximum_version = ssl.TLSVersion.TLSv1_1
    client.set_ciphers("ALL:@SECLEVEL=0")
    assert reasons(shake(new, client)) == ("version", "version")
    old.minimum_version = ssl.TLSVersion.TLSv1
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    today = certificates.client_context()
    today.minimum_version = ssl.TLSVersion.TLSv1_2  # not every build of Python has it so by itself
    assert reasons(shake(old, today)) == ("version", "version")


def test_no_cipher_in_common(certificates: Certificates) -> None:
    server, client = certificates.server_context(), certificates.client_context()
    for context, cipher in ((server, "AES256"), (client, "AES128")):
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(f"ECDHE-ECDSA-{cipher}-GCM-SHA{384 if '256' in cipher else 256}")
    assert reasons(shake(server, client)) == ("cipher", "refused")


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"*1\r\n$4\r\nPING\r\n", "no_tls"),
        (b"PING\r\n", "no_tls"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "no_tls"),
        (b"\0" * 50, "no_tls"),
        (b"\x16\x03\x01\x00\x40" + b"\xff" * 64, "protocol"),
    ],
)
def test_bytes_that_are_no_tls(certificates: Certificates, sent: bytes, reason: str) -> None:
    incoming = ssl.MemoryBIO()
    layer = certificates.server_context().wrap_bio(incoming, ssl.MemoryBIO(), server_side=True)
    incoming.write(sent)
    with pytest.raises(ssl.SSLError) as raised:
        layer.do_handshake()
    assert fault_of(raised.value).reason == reason


def test_the_network() -> None:
    assert fault_of(TimeoutError()).reason == "timeout"
    assert fault_of(ConnectionResetError()).reason == "closed"
    assert fault_of(ssl.SSLEOFError(8, "EOF occurred")).reason == "closed"
    assert fault_of(ssl.SSLError("of our own making")).reason == "protocol"


def test_every_reason_is_one_of_the_table() -> None:
    text = Path(fault_of.__code__.co_filename).read_text()
    named = set(re.findall(r': "(\w+)",$|_plain\("(\w+)"\)|Fault\("(\w+)"', text, re.MULTILINE))
    assert {next(filter(None, each)) for each in named if any(each)} <= {*REASONS}
    assert set(REASONS) > OF_CERTIFICATES
