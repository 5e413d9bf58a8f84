"""Certificates, revocation lists and keys in PEM files: what is in them, and when it is valid.

Reads files and judges nothing; files.py says what is wrong with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
    from cryptography.x509 import Certificate, CertificateRevocationList

# cryptography is imported where it is used: it takes half of the start time, and only TLS needs it.

# Of an identity in a log line: whoever presents a certificate chooses what it says.
LONGEST = 512

_CRL = b"-----BEGIN X509 CRL-----"


@dataclass(frozen=True)
class Validity:
    """From when to when something is valid (Unix time), and whose it is: a name as in RFC 4514.
    `ends` is infinite for a revocation list that does not say."""

    subject: str
    begins: float
    ends: float


@dataclass(frozen=True)
class Description:
    """What a person wants to know of a certificate. `begins` and `ends` are Unix time, `span` says
    the same in words; `fingerprint` is the SHA-256 of it."""

    subject: str
    names: Sequence[str]
    issuer: str
    begins: float
    ends: float
    span: str
    fingerprint: str


def description(der: bytes) -> Description:
    """Of a certificate (DER). Raises ValueError if it is none."""
    from cryptography import x509

    return _description(x509.load_der_x509_certificate(der))


def descriptions(path: str) -> Sequence[Description]:
    """Of all certificates in a PEM file. Raises OSError, ValueError."""
    return [_description(each) for each in certificates(path)]


def shown_first(path: str) -> Validity:
    """Of the certificate that is shown to peers: the first of a PEM file. Raises OSError, and
    ValueError if the file is not PEM."""
    return _validity(certificates(path)[0])


def first_to_expire(path: str) -> Validity:
    """Of all certificates in a PEM file the one that ends first. Raises OSError, and ValueError if
    the file is not PEM."""
    return min(map(_validity, certificates(path)), key=lambda each: each.ends)


def first_list_to_expire(path: str) -> Validity:
    """Of all revocation lists in a PEM file the one that is to be renewed first. A list without
    such a time never ends. Raises OSError, and ValueError if there is none."""
    return min(list_validities(path), key=lambda each: each.ends)


def has_lists(path: str) -> bool:
    """Whether there are revocation lists in a PEM file. Raises OSError."""
    return _CRL in Path(path).read_bytes()


def list_validities(path: str) -> Sequence[Validity]:
    """Of all revocation lists in a PEM file. Raises OSError, and ValueError if there is none."""
    return [_validity_of_list(each) for each in revocation_lists(path)]


def certificates(path: str) -> Sequence[Certificate]:
    """All certificates of a PEM file. Raises OSError, ValueError."""
    from cryptography import x509

    return x509.load_pem_x509_certificates(Path(path).read_bytes())


def revocation_lists(path: str) -> Sequence[CertificateRevocationList]:
    """All revocation lists of a PEM file, at least one. Raises OSError, ValueError."""
    from cryptography import x509

    pieces = Path(path).read_bytes().split(_CRL)[1:]
    if not pieces:
        raise ValueError("no revocation list")
    return [x509.load_pem_x509_crl(_CRL + piece) for piece in pieces]


def private_key(path: str) -> PrivateKeyTypes:
    """The private key of a PEM file. Raises OSError, ValueError if there is none, and TypeError if
    it is encrypted."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = Path(path).read_bytes()
    # Certificates may stand before it.
    begin = content.find(b"PRIVATE KEY-----")
    begin = content.rfind(b"-----BEGIN", 0, begin) if begin >= 0 else 0
    return load_pem_private_key(content[begin:], None)


def identity(der: bytes) -> str:
    """Whose certificate (DER) this is, in one line of at most LONGEST characters: subject and
    alternative names. Bytes that are no certificate give "unreadable"."""
    from cryptography import x509

    try:
        certificate = x509.load_der_x509_certificate(der)
        words = [certificate.subject.rfc4514_string()]
        words += alternative_names(certificate)
    except ValueError:
        return "unreadable"
    return " ".join(word for word in words if word)[:LONGEST]


def alternative_names(certificate: Certificate) -> Sequence[str]:
    """The subject's alternative names, each with its kind: `DNS:name`, `URI:…`, `IP:…`. Raises
    ValueError for an extension that cannot be read."""
    from cryptography import x509

    kinds: dict[type, str] = {
        x509.DNSName: "DNS",
        x509.UniformResourceIdentifier: "URI",
        x509.IPAddress: "IP",
        x509.RFC822Name: "email",
    }
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    return [f"{kinds[type(each)]}:{each.value}" for each in found.value if type(each) in kinds]


def _description(certificate: Certificate) -> Description:
    from cryptography.hazmat.primitives.hashes import SHA256

    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return Description(
        subject=certificate.subject.rfc4514_string() or "(no subject)",
        names=alternative_names(certificate),
        issuer=certificate.issuer.rfc4514_string(),
        begins=begins.timestamp(),
        ends=ends.timestamp(),
        span=f"{begins:%Y-%m-%d %H:%M} to {ends:%Y-%m-%d %H:%M} UTC",
        fingerprint=certificate.fingerprint(SHA256()).hex(":").upper(),
    )


def _validity(certificate: Certificate) -> Validity:
    return Validity(
        certificate.subject.rfc4514_string(),
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
    )


def _validity_of_list(crl: CertificateRevocationList) -> Validity:
    ends = crl.next_update_utc
    return Validity(
        crl.issuer.rfc4514_string(),
        crl.last_update_utc.timestamp(),
        ends.timestamp() if ends is not None else float("inf"),
    )
