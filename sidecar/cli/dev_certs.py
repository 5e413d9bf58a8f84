"""Certificates for development and tests: a CA, a server and a client certificate.

Used by `sidecar certs dev`. Not a certificate authority for production: the CA's key lies
unencrypted beside the certificates, and nothing renews or revokes them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_DAYS = 3650
LEAF_DAYS = 825  # the longest that macOS and iOS accept of a server
DEFAULT_HOSTS = ("localhost", "127.0.0.1", "::1")
FILES = ("ca.crt", "ca.key", "server.crt", "server.key", "client.crt", "client.key")

_BACKDATE = timedelta(minutes=5)  # clocks of containers and hosts differ


def create(
    directory: str | os.PathLike[str],
    hosts: Sequence[str] = (),
    *,
    force: bool = False,
    now: datetime | None = None,
) -> list[Path]:
    """Write the six files of `FILES` into `directory` (made if missing) and return their paths.

    The server's certificate names `DEFAULT_HOSTS` and `hosts` (names or IP addresses). Keys are
    EC P-256, PKCS#8, mode 0600. Raises FileExistsError when one of the files is there already
    and `force` is not set, ValueError for a host that no certificate can name, and OSError when
    the directory cannot be written.
    """
    target = Path(directory)
    names = [_subject_name(host) for host in dict.fromkeys((*DEFAULT_HOSTS, *hosts))]
    present = [name for name in FILES if (target / name).exists()]
    if present and not force:
        raise FileExistsError(f"{target / present[0]} exists; --force replaces it")
    now = now or datetime.now(UTC)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = _name("redis-sidecar development CA")
    ca = _certificate(ca_name, ca_key, ca_name, ca_key, now, CA_DAYS, ca=True)
    contents = {"ca.crt": _pem(ca), "ca.key": _key_pem(ca_key)}
    for role, usage, alternatives in (
        ("server", ExtendedKeyUsageOID.SERVER_AUTH, names),
        ("client", ExtendedKeyUsageOID.CLIENT_AUTH, []),
    ):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(f"redis-sidecar development {role}")
        leaf = _certificate(
            subject, key, ca_name, ca_key, now, LEAF_DAYS, usage=usage, alternatives=alternatives
        )
        contents[f"{role}.crt"] = _pem(leaf)
        contents[f"{role}.key"] = _key_pem(key)
    target.mkdir(parents=True, exist_ok=True)
    return [_write(target / name, contents[name], force) for name in FILES]


def _subject_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        pass
    if not host or any(character in host for character in " /:@"):
        raise ValueError(f"{host!r} is neither a host name nor an IP address")
    try:
        return x509.DNSName(host)
    except ValueError:
        raise ValueError(f"{host!r} is not ASCII; write it in its xn-- form") from None


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _certificate(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    now: datetime,
    days: int,
    *,
    ca: bool = False,
    usage: x509.ObjectIdentifier | None = None,
    alternatives: Sequence[x509.GeneralName] = (),
) -> x509.Certificate:
    """Build and sign; carries all that `VERIFY_X509_STRICT` (default from Python 3.13) asks for."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True)
        .add_extension(_key_usage(ca), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
    )
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _key_usage(ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write(path: Path, content: bytes, force: bool) -> Path:
    """Create `path` with its final mode: a key is never readable by others, even briefly."""
    if force:
        path.unlink(missing_ok=True)
    mode = 0o600 if path.suffix == ".key" else 0o644
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)  # the umask may have taken bits away
        file.write(content)
    return path
