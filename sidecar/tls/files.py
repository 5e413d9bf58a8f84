"""What is wrong with the certificate files that the settings name, in words: for `sidecar check`.

A sidecar that starts with an expired certificate only warns: others may still accept it, and no
service is worse than that. Before a roll-out it is a fault.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar.settings.schema import Settings
from sidecar.tls import pem

if TYPE_CHECKING:
    from cryptography.x509 import Certificate


def problems(settings: Settings, now: float) -> Iterator[str]:
    """Each reason why a certificate file of `settings` is of no use at `now` (Unix time), as a line
    that begins with the setting."""
    listen, upstream, admin = settings.listen.tls, settings.upstream.tls, settings.admin.tls
    yield from _pair("listen.tls", listen.cert_file, listen.key_file, now)
    yield from _authorities("listen.tls", listen.ca_file, listen.crl_file, now)
    yield from _pair("upstream.tls", upstream.cert_file, upstream.key_file, now)
    yield from _authorities("upstream.tls", upstream.ca_file, upstream.crl_file, now)
    yield from _pair("admin.tls", admin.cert_file, admin.key_file, now)
    yield from _authorities("admin.tls", admin.ca_file, admin.crl_file, now)


def outside(certificate: Certificate, now: float) -> str:
    """Why a certificate is not valid at `now` (Unix time); empty: it is."""
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    moment = datetime.fromtimestamp(now, UTC)
    if moment < begins:
        return f"is not valid before {_at(begins)}"
    return f"has expired at {_at(ends)}" if moment > ends else ""


def broken_link(chain: Sequence[Certificate]) -> str:
    """Where a chain, the leaf first, does not hold together; empty: each is signed by the next."""
    from cryptography.exceptions import InvalidSignature

    for certificate, issuer in pairwise(chain):
        try:
            certificate.verify_directly_issued_by(issuer)
        except (InvalidSignature, ValueError, TypeError):
            return f"{_name(certificate)} is not signed by the next in the file, {_name(issuer)}"
    return ""


def _pair(section: str, cert_file: str, key_file: str, now: float) -> Iterator[str]:
    if not cert_file:
        return
    setting = f"{section}.cert_file: {cert_file!r}"
    try:
        chain = pem.certificates(cert_file)
    except (OSError, ValueError) as error:
        yield f"{setting} {_unreadable(error, 'certificate')}"
        return
    for certificate in chain:
        if why := outside(certificate, now):
            yield f"{setting}: {_name(certificate)} {why}; renew it"
    if why := broken_link(chain):
        yield f"{setting}: {why}; put the issuers behind the certificate, in order"
    yield from _key(section, key_file or cert_file, bool(key_file), chain[0])


def _key(section: str, path: str, own_file: bool, certificate: Certificate) -> Iterator[str]:
    setting = f"{section}.{'key_file' if own_file else 'cert_file'}: {path!r}"
    try:
        key = pem.private_key(path)
        mode = Path(path).stat().st_mode
    except TypeError:
        yield f"{setting}: the key is encrypted; store it without a password, with mode 0600"
        return
    except (OSError, ValueError) as error:
        yield f"{setting} {_unreadable(error, 'private key')}"
        return
    if key.public_key() != certificate.public_key():
        yield f"{setting}: the key is not that of {_name(certificate)}; take the one of that pair"
    if mode & stat.S_IROTH:
        yield f"{setting}: every user of the host can read the key; chmod 600, or 640 with a group"


def _authorities(section: str, ca_file: str, crl_file: str, now: float) -> Iterator[str]:
    known: Sequence[Certificate] = ()
    if ca_file:
        setting = f"{section}.ca_file: {ca_file!r}"
        try:
            known = pem.certificates(ca_file)
        except (OSError, ValueError) as error:
            yield f"{setting} {_unreadable(error, 'certificate')}"
        whys = [outside(certificate, now) for certificate in known]
        if known and all(whys):  # a bundle may have some that are of no use any more
            yield f"{setting}: {_name(known[0])} {whys[0]}; take one that is valid"
    if crl_file:
        yield from _lists(f"{section}.crl_file: {crl_file!r}", crl_file, known, now)


def _lists(
    setting: str, path: str, authorities: Sequence[Certificate], now: float
) -> Iterator[str]:
    try:
        lists = pem.revocation_lists(path)
    except (OSError, ValueError) as error:
        yield f"{setting} {_unreadable(error, 'revocation list')}"
        return
    for each in lists:
        issuer = each.issuer.rfc4514_string()
        ends = each.next_update_utc
        if ends is not None and ends < datetime.fromtimestamp(now, UTC):
            yield f"{setting}: the list of {issuer} was to be renewed at {_at(ends)}; renew it"
        if authorities and not any(
            each.issuer == ca.subject and each.is_signature_valid(ca.public_key())  # type: ignore[arg-type]
            for ca in authorities
        ):
            yield f"{setting}: the list of {issuer} is signed by none of ca_file; take its CA's"


def _unreadable(error: OSError | ValueError, what: str) -> str:
    if isinstance(error, OSError):
        return f"cannot be read: {(error.strerror or str(error)).lower()}"
    return f"has no {what} in it that can be read; write it as PEM"


def _name(certificate: Certificate) -> str:
    return certificate.subject.rfc4514_string() or "the certificate without a subject"


def _at(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
