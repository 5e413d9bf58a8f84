"""What is read from PEM files."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from sidecar.tls import pem
from tests.harness.certificates import Authority, Certificates

DAY = 86400


def test_when_certificates_end(certificates: Certificates, tmp_path: Path) -> None:
    """Peers see the first of a chain; the warning is about the one that ends first."""
    chain = tmp_path / "chain.pem"
    good, bad = certificates.server.cert, certificates.expired.cert
    chain.write_bytes(good.read_bytes() + bad.read_bytes())
    assert pem.shown_first(str(chain)) == pem.shown_first(str(good))
    assert pem.first_to_expire(str(chain)) == pem.shown_first(str(bad))
    shown = pem.shown_first(str(good))
    assert shown.begins < time.time() < shown.ends
    assert "CN=server" in shown.subject


def test_revocation_lists(tmp_path: Path) -> None:
    """Several in one file; the one that is to be renewed first counts."""
    one, other = Authority(tmp_path, "one"), Authority(tmp_path, "other")
    both = tmp_path / "both.crl"
    both.write_bytes(one.revoke(days=5).read_bytes() + other.revoke(days=2).read_bytes())
    first = pem.first_list_to_expire(str(both))
    assert first.subject.endswith("O=test other")
    assert first.ends - time.time() == pytest.approx(2 * DAY, abs=60)
    assert len(pem.revocation_lists(str(both))) == 2
    assert pem.has_lists(str(both))
    assert not pem.has_lists(str(one.cert_file))
    with pytest.raises(ValueError, match="no revocation list"):
        pem.revocation_lists(str(one.cert_file))


def test_a_key_beside_its_certificate(certificates: Certificates) -> None:
    """`cert_file` may have the key in it, before or behind the certificates."""
    alone = pem.private_key(str(certificates.server.key))
    together = pem.private_key(str(certificates.server.bundle))
    assert together.public_key() == alone.public_key()
    with pytest.raises(ValueError, match="PEM"):
        pem.private_key(str(certificates.server.cert))


def test_identities(certificates: Certificates) -> None:
    """Subject and names; whatever a client sends is one line, and not longer than LONGEST."""
    from ssl import PEM_cert_to_DER_cert

    der = PEM_cert_to_DER_cert(certificates.server.cert.read_text())
    assert pem.identity(der).endswith("DNS:localhost IP:127.0.0.1 IP:::1")
    assert pem.identity(b"no certificate") == "unreadable"
    assert len(pem.identity(der)) <= pem.LONGEST
    told = pem.description(der)
    assert told.names == ["DNS:localhost", "IP:127.0.0.1", "IP:::1"]
    assert len(told.fingerprint.split(":")) == 32
