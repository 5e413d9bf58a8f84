"""Certificates made on the spot, and a TLS terminator in front of a plain server.

`make_certificates(folder)` writes a CA and what it signed: a server, a client, and the bad ones
(expired, another host's name, another CA's). `TlsTerminator` gives a server without TLS (Valkey of
the wheel) a TLS port, so that upstream TLS is testable with packages from PyPI alone.
"""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .accepting import Accepting
from .servers import TlsFiles

_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Pem:
    """A certificate and its key, as files."""

    cert: Path
    key: Path


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
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"test {name}")])
        builder = _builder(self._name, self._name, self._key, -1, 30)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        cert = builder.sign(self._key, hashes.SHA256())
        self.cert_file.write_bytes(cert.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        name: str,
        *,
        hosts: tuple[str, ...] = ("localhost",),
        addresses: tuple[str, ...] = ("127.0.0.1", "::1"),
        client: bool = False,
        days: tuple[int, int] = (-1, 30),
    ) -> Pem:
        """Sign a certificate, valid from and until so many days from now, and write it."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names: list[x509.GeneralName] = [x509.DNSName(host) for host in hosts]
        names += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        builder = _builder(subject, self._name, key, *days)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), False)
        cert = builder.sign(self._key, hashes.SHA256())
        pem = Pem(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        pem.cert.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        pem.key.touch(mode=0o600)
        pem.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return pem


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, start: int, end: int
) -> x509.CertificateBuilder:
    """What every certificate has."""
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + start * _DAY)
        .not_valid_after(now + end * _DAY)
    )


def make_certificates(folder: Path) -> Certificates:
    """Write one of each kind into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    ca, other = Authority(folder, "ca"), Authority(folder, "other-ca")
    return Certificates(
        ca=ca.cert_file,
        other_ca=other.cert_file,
        server=ca.issue("server"),
        client=ca.issue("client", client=True),
        expired=ca.issue("expired", days=(-30, -1)),
        wrong_host=ca.issue("wrong-host", hosts=("elsewhere.example",), addresses=("192.0.2.1",)),
        stranger=other.issue("stranger"),
    )


class TlsTerminator(Accepting):
    """A TLS port in front of a plain port, in a thread with an event loop of its own.

    `handshakes` counts connections whose handshake ended well on this side (TLS 1.3 lets a client
    refuse the certificate after that), `passed` the bytes that came through.
    """

    def __init__(self, target: int, context: ssl.SSLContext, port: int | None = None) -> None:
        self.target = target
        self.handshakes = 0
        self.passed = 0
        super().__init__(port, context)

    @property
    def url(self) -> str:
        """The terminator as an upstream URL; the good certificate names this host."""
        return f"rediss://localhost:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on."""
        self.handshakes += 1
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        try:
            ends = (self._pump(reader, back), self._pump(there, writer))
            tasks = [asyncio.ensure_future(end) for end in ends]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            writer.close()
            back.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One direction, to its end. TLS has no half-close here: one end ends both."""
        try:
            while data := await reader.read(64 * 1024):
                self.passed += len(data)
                writer.write(data)
                await writer.drain()
        except OSError:
            return
