"""Why a TLS handshake failed: one word for metrics, and a sentence for people.

OpenSSL's own words say what it was doing ("tlsv1 alert unknown ca"). These say what is wrong, and
with whose certificate.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass

REASONS: Mapping[str, str] = {
    "expired": "the certificate of the peer has expired",
    "not_yet_valid": "the certificate of the peer is not valid yet",
    "wrong_name": "the certificate of the peer is for another name",
    "unknown_ca": "the certificate of the peer is signed by no CA that is known here",
    "revoked": "the certificate of the peer is revoked",
    "crl": "the revocation list of that CA is missing, or too old",
    "certificate": "the certificate of the peer is not accepted",
    "no_certificate": "the client sent no certificate",
    "wants_certificate": "the server wants a client certificate",
    "refused": "the peer does not accept our certificate, or what we offer",
    "version": "no TLS version that both sides speak",
    "cipher": "no cipher that both sides have",
    "no_tls": "the peer does not speak TLS",
    "protocol": "the peer breaks the rules of TLS",
    "timeout": "the peer took too long",
    "closed": "the peer hung up",
}
"""Each reason, and what it means."""

OF_CERTIFICATES = frozenset(
    ("expired", "not_yet_valid", "unknown_ca", "revoked", "crl", "certificate", "no_certificate")
)
"""Those for which the certificate of a client is refused."""

# X509_V_ERR_…: what OpenSSL says of a certificate.
_VERIFY = {
    **dict.fromkeys((2, 18, 19, 20, 21), "unknown_ca"),
    9: "not_yet_valid",
    10: "expired",
    23: "revoked",
    **dict.fromkeys((3, 5, 8, 11, 12, 15, 16, 33, 35, 36, 44, 54), "crl"),
    **dict.fromkeys((62, 63, 64), "wrong_name"),
}
# OpenSSL's reasons, by their beginning or end.
_HERE = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "no_certificate",
    "UNSUPPORTED_PROTOCOL": "version",
    "NO_PROTOCOLS_AVAILABLE": "version",
    "WRONG_SSL_VERSION": "version",
    "NO_SHARED_CIPHER": "cipher",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "cipher",
    "NO_SUITABLE_KEY_SHARE": "cipher",
    "NO_SUITABLE_GROUPS": "cipher",
    "WRONG_VERSION_NUMBER": "no_tls",
    "HTTP_REQUEST": "no_tls",
    "HTTPS_PROXY_REQUEST": "no_tls",
    "UNEXPECTED_EOF_WHILE_READING": "closed",
}
# Alerts: what the peer says of us. A certificate that is refused has an alert of its own for each
# reason, which the text has.
_ALERT = {
    "CERTIFICATE_REQUIRED": "wants_certificate",
    "PROTOCOL_VERSION": "version",
    "INSUFFICIENT_SECURITY": "cipher",
    "UNEXPECTED_MESSAGE": "protocol",
    "DECODE_ERROR": "protocol",
    "DECRYPT_ERROR": "protocol",
    "INTERNAL_ERROR": "protocol",
}
_WORDS = {
    "UNKNOWN_CA": "it knows no CA that has signed ours",
    "CERTIFICATE_EXPIRED": "ours has expired",
    "CERTIFICATE_REVOKED": "ours is revoked",
    "CERTIFICATE_UNKNOWN": "it does not say why",
    "BAD_CERTIFICATE": "ours is not for the name that it asked for, or is broken",
    "UNSUPPORTED_CERTIFICATE": "ours is of a kind that it does not take",
    "HANDSHAKE_FAILURE": "no version, cipher or certificate suits it",
    "ACCESS_DENIED": "ours has no access there",
}


@dataclass(frozen=True)
class Fault:
    """Why a handshake failed: `reason` is one of REASONS, `words` a part of a sentence."""

    reason: str
    words: str


def fault_of(error: OSError) -> Fault:
    """What this error of a handshake, or of the first bytes after it, means."""
    if isinstance(error, TimeoutError):
        return _plain("timeout")
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = _VERIFY.get(error.verify_code, "certificate")
        said = error.verify_message.rstrip(".")
        return Fault(reason, f"the certificate is not accepted: {said}")
    if isinstance(error, ssl.SSLEOFError) or not isinstance(error, ssl.SSLError):
        return _plain("closed")
    said = getattr(error, "reason", None) or ""  # those of OpenSSL have one
    if said in _HERE:
        return _plain(_HERE[said])
    _, is_alert, alert = said.partition("ALERT_")
    if not is_alert:
        return Fault("protocol", f"{REASONS['protocol']} ({_lower(said or str(error))})")
    if alert in _ALERT:
        return Fault(_ALERT[alert], f"{REASONS[_ALERT[alert]]} (it says: {_lower(alert)})")
    words = _WORDS.get(alert, "see what it says")
    return Fault("refused", f"{REASONS['refused']}: {words} (it says: {_lower(alert)})")


def _plain(reason: str) -> Fault:
    return Fault(reason, REASONS[reason])


def _lower(said: str) -> str:
    return said.lower().replace("_", " ")
