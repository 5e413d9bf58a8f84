"""Which certificate a client presents, also one that is refused.

OpenSSL forgets a certificate that it does not accept, and Python offers no look at it before: the
`ssl` module tells of it only through `SSLContext._msg_callback`, which it has for debugging. That
is used here, in contexts that ask clients for certificates and nowhere else. The callback sees
every record, so a connection leaves it behind (`forget_presented`) as soon as its handshake is
over; what stays is a look of OpenSSL at each record, about 0.2 µs. Rejected: verifying in Python,
which would put a second opinion beside OpenSSL's.
"""

from __future__ import annotations

import ssl
from typing import Any
from weakref import WeakKeyDictionary

HANDSHAKE, CERTIFICATE = 22, 11  # the type of a record, and of a message in it
TLS13 = 0x0304

_presented: WeakKeyDictionary[ssl.SSLObject, bytes] = WeakKeyDictionary()
# A context without the callback: OpenSSL's look at a record ends there.
_unwatched = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
_unwatched.verify_mode = ssl.CERT_REQUIRED  # else `getpeercert` would tell nothing


def watch_presented(context: ssl.SSLContext) -> None:
    """Remember the certificates that clients of this context present."""

    def told(
        layer: ssl.SSLObject, direction: str, version: int, content: int, kind: int, data: bytes
    ) -> None:
        if direction != "read" or content != HANDSHAKE or kind != CERTIFICATE:
            return
        if der := first_certificate(data, version):
            _presented[layer] = der

    noting: Any = context  # no stub has the attribute
    noting._msg_callback = told


def presented(layer: ssl.SSLObject) -> bytes:
    """The certificate (DER) that the client of this handshake has presented; empty: none."""
    return _presented.get(layer, b"")


def forget_presented(layer: ssl.SSLObject) -> None:
    """The handshake has ended well: look at no further record of this connection."""
    if layer.context.verify_mode != ssl.CERT_NONE:
        _presented.pop(layer, None)
        layer.context = _unwatched


def first_certificate(message: bytes, version: int) -> bytes:
    """The first certificate (DER) of a Certificate message of this version of TLS; empty: none.

    type (1 byte), length (3), [1.3: length of a context (1), context], length of the list (3),
    length of the first certificate (3), the certificate …
    """
    at = 4 if version < TLS13 else 5 + int.from_bytes(message[4:5], "big")
    begin = at + 6
    length = int.from_bytes(message[at + 3 : begin], "big")
    found = message[begin : begin + length]
    return found if len(found) == length else b""
