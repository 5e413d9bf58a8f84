"""`sidecar certs check HOST:PORT`: connects as the sidecar does to its upstream, and says in words
what is wrong with TLS there.

What a handshake leaves unsaid is asked of further connections, on which nothing is sent but PING:
one that accepts any certificate, to see which one the server has; one without TLS, to see whether
the server speaks Redis there.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from sidecar.policy.expiry import words
from sidecar.settings.sections.upstream import UpstreamTls
from sidecar.tls import pem
from sidecar.tls.contexts import upstream_context
from sidecar.tls.faults import fault_of

WITHIN = 5.0  # seconds for each step
REFUSAL = 0.5  # seconds for a server to refuse us after the handshake
PING = b"*1\r\n$4\r\nPING\r\n"

# What to do about a fault, by its reason.
_ADVICE = {
    "expired": "renew it there",
    "not_yet_valid": "wait, or set the clocks right",
    "unknown_ca": "give the certificate of its CA with --ca-file (upstream.tls.ca_file)",
    "wrong_name": "connect by a name that it has, or give one with --server-name "
    "(upstream.tls.server_name)",
    "revoked": "the server needs another one",
    "crl": "renew the file of --crl-file (upstream.tls.crl_file)",
    "wants_certificate": "give one with --cert-file and --key-file (upstream.tls.cert_file)",
    "refused": "if it wants a client certificate, give one that it accepts with --cert-file and "
    "--key-file",
    "version": "the server must offer TLS 1.2 or newer",
    "cipher": "the server must offer a cipher of TLS 1.2 or newer",
}


@dataclass(frozen=True)
class Found:
    """What `check` has found: `problem` in words, empty if all is well, and `lines` to read."""

    problem: str
    lines: list[str]


def check(host: str, port: int, tls: UpstreamTls) -> Found:
    """Connect to a server. Raises ssl.SSLError if a file of `tls` cannot be loaded."""
    context = upstream_context(tls)
    name = tls.server_name or host
    try:
        lines, der = _converse(host, port, context, name)
    except OSError as error:
        return _explained(host, port, name, error)
    return Found("", [*lines, *_described(der)])


def _converse(host: str, port: int, context: ssl.SSLContext, name: str) -> tuple[list[str], bytes]:
    """What there is to say of a connection, and the server's certificate. Raises OSError. With TLS
    1.3 a server that refuses us says so after the handshake: that is awaited, then one reply."""
    with (
        socket.create_connection((host, port), WITHIN) as sock,
        context.wrap_socket(sock, server_hostname=name) as layer,
    ):
        # What is sent to a server that has already refused us makes the kernel drop its reason.
        layer.settimeout(REFUSAL)
        with suppress(TimeoutError):
            if not layer.recv(1):
                raise ConnectionResetError
        layer.settimeout(WITHIN)
        layer.sendall(PING)
        said = layer.recv(64)
        if not said:
            raise ConnectionResetError
        cipher = layer.cipher()
        lines = [f"{layer.version()}, {cipher[0] if cipher else 'no cipher'}; {_speaks(said)}"]
        return lines, layer.getpeercert(True) or b""


def _speaks(said: bytes) -> str:
    if said.startswith((b"+PONG", b"-")):
        code = said[1:].split(None, 1)[0].decode("latin-1")
        return f"speaks Redis (PING: {code})"
    return "does not speak Redis"


def _explained(host: str, port: int, name: str, error: OSError) -> Found:
    if isinstance(error, socket.gaierror):
        return Found(f"no address for {host}: {error.strerror}", [])
    if isinstance(error, ConnectionRefusedError):
        return Found("nobody listens there (connection refused)", [])
    fault = fault_of(error)
    lines: list[str] = []
    if fault.reason in ("no_tls", "timeout", "closed") and (plain := _speaks_plainly(host, port)):
        return Found(f"there is no TLS there; it {plain}: write redis:// instead of rediss://", [])
    if isinstance(error, ssl.SSLCertVerificationError):
        lines = list(_described(_certificate(host, port, name)))
    advice = _ADVICE.get(fault.reason, "")
    return Found(f"{fault.words}; {advice}" if advice else fault.words, lines)


def _speaks_plainly(host: str, port: int) -> str:
    """What answers PING without TLS; empty: nothing that is Redis."""
    try:
        with socket.create_connection((host, port), WITHIN) as sock:
            sock.sendall(PING)
            said = _speaks(sock.recv(64))
    except OSError:
        return ""
    return said if said.startswith("speaks") else ""


def _certificate(host: str, port: int, name: str) -> bytes:
    """The server's certificate (DER), whatever is wrong with it; empty: it cannot be had."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), WITHIN) as sock,
            context.wrap_socket(sock, server_hostname=name) as layer,
        ):
            return layer.getpeercert(True) or b""
    except OSError:
        return b""


def _described(der: bytes) -> Iterator[str]:
    if not der:
        return
    shown = pem.description(der)
    yield f"certificate  {shown.subject}"
    yield f"names        {', '.join(shown.names) or 'none'}"
    yield f"issuer       {shown.issuer}"
    state = words(shown.begins, shown.ends, time.time())
    yield f"valid        {shown.span}{f' ({state})' if state else ''}"
    yield f"sha256       {shown.fingerprint}"
