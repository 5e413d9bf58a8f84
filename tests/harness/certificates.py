"""Certificates made on the spot, by trustme.

`make_certificates(folder)` writes a CA and what it signed: a server, a client, and the bad ones
(expired, another host's name, another CA's). `Authority` signs others.
"""

from __future__ import annotations

import datetime
import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from .servers import TlsFiles

HERE = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Pem:
    """A certificate and its key, as files."""

    cert: Path
    key: Path

    @property
    def bundle(self) -> Path:
        """Both in one file, as HAProxy wants it."""
        return self.cert.with_suffix(".pem")


@dataclass(frozen=True)
class Certificates:
    """One CA and what it signed; `stranger` is signed by another CA."""

    ca: Path
    other_ca: Path
    server: Pem
    client: Pem
    expired: Pem
    wrong_host: Pem
    stranger: Pem

    def server_context(
        self, pem: Pem | None = None, *, client_auth: bool = False
    ) -> ssl.SSLContext:
        """For a listener that shows `pem` (the good server certificate by default)."""
        pem = pem or self.server
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem.cert, pem.key)
        context.load_verify_locations(self.ca)
        context.verify_mode = ssl.CERT_REQUIRED if client_auth else ssl.CERT_NONE
        return context

    def client_context(self, pem: Pem | None = None) -> ssl.SSLContext:
        """For a client that trusts the CA and shows `pem`, if given."""
        context = ssl.create_default_context(cafile=str(self.ca))
        if pem is not None:
            context.load_cert_chain(pem.cert, pem.key)
        return context

    def server_files(self, *, client_auth: bool = False) -> TlsFiles:
        """For `redis7(tls=...)`."""
        return TlsFiles(self.server.cert, self.server.key, self.ca, client_auth=client_auth)


class Authority:
    """A CA that lives in memory and writes what it signs."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.cert_file = folder / f"{name}.crt"
        self._ca = trustme.CA(organization_name=f"test {name}")
        self._ca.cert_pem.write_to_path(self.cert_file)

    def issue(self, name: str, *hosts: str, days: float = 30, begins: float = -30) -> Pem:
        """Sign a certificate of these hosts (this one), valid for so many days, and write it.

        A negative number of days: it has expired so long ago. It `begins` in so many days, a
        negative number before now.
        """
        now = datetime.datetime.now(datetime.UTC)
        leaf = self._ca.issue_cert(
            *(hosts or HERE),
            common_name=name,
            not_before=now + datetime.timedelta(days=begins),
            not_after=now + datetime.timedelta(days=days),
        )
        pem = Pem(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        pem.cert.write_bytes(leaf.cert_chain_pems[0].bytes())
        for path, content in (
            (pem.key, leaf.private_key_pem),
            (pem.bundle, leaf.private_key_and_cert_chain_pem),
        ):
            path.touch(mode=0o600)
            path.write_bytes(content.bytes())
        return pem

    def issue_uri(self, name: str, uri: str) -> Pem:
        """Sign a certificate whose alternative name is a URI, as SPIFFE has it, and write it."""
        ca = x509.load_pem_x509_certificate(self._ca.cert_pem.bytes())
        ca_key = load_pem_private_key(self._ca.private_key_pem.bytes(), None)
        assert isinstance(ca_key, EllipticCurvePrivateKey)
        key, now = generate_private_key(SECP256R1()), datetime.datetime.now(datetime.UTC)
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(ca.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=30))
            .add_extension(names, critical=True)
            .sign(ca_key, SHA256())
        )
        pem = Pem(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        pem.cert.write_bytes(made.public_bytes(Encoding.PEM))
        pem.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return pem

    def client_context(self, pem: Pem | None = None) -> ssl.SSLContext:
        """For a client that trusts this CA and shows `pem`, if given."""
        context = ssl.create_default_context(cafile=str(self.cert_file))
        if pem is not None:
            context.load_cert_chain(pem.cert, pem.key)
        return context

    def revoke(self, *revoked: Pem, days: float = 30) -> Path:
        """Write the list of revoked certificates, to be renewed in so many days; in place of the
        one before, as a whole."""
        now = datetime.datetime.now(datetime.UTC)
        ca = x509.load_pem_x509_certificate(self._ca.cert_pem.bytes())
        listed = x509.CertificateRevocationListBuilder(ca.subject).last_update(
            now - datetime.timedelta(days=40)
        )
        listed = listed.next_update(now + datetime.timedelta(days=days))
        for pem in revoked:
            number = x509.load_pem_x509_certificate(pem.cert.read_bytes()).serial_number
            listed = listed.add_revoked_certificate(
                x509.RevokedCertificateBuilder().serial_number(number).revocation_date(now).build()
            )
        key = load_pem_private_key(self._ca.private_key_pem.bytes(), None)
        assert isinstance(key, EllipticCurvePrivateKey)
        crl = listed.sign(key, SHA256())
        path = self.cert_file.with_suffix(".crl")
        fresh = path.with_suffix(".new")
        fresh.write_bytes(crl.public_bytes(Encoding.PEM))
        return fresh.replace(path)


def make_certificates(folder: Path) -> Certificates:
    """Write one of each kind into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    ca, other = Authority(folder, "ca"), Authority(folder, "other-ca")
    return Certificates(
        ca=ca.cert_file,
        other_ca=other.cert_file,
        server=ca.issue("server"),
        client=ca.issue("client"),
        expired=ca.issue("expired", days=-1),
        wrong_host=ca.issue("wrong-host", "elsewhere.example", "192.0.2.1"),
        stranger=other.issue("stranger"),
    )
