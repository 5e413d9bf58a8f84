"""TLS contexts from settings, and TLS handshakes on plain non-blocking sockets.

The data path drives `SSLObject`s over memory buffers itself (see reactor.pyx), so a handshake
here ends with the triple (SSLObject, incoming, outgoing) that goes with the socket.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

from sidecar.settings.schema import ListenTls, UpstreamTls

Layer = tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
CHUNK = 16384


def server_context(settings: ListenTls) -> ssl.SSLContext:
    """The context for clients. ssl.SSLError or OSError when a file is missing or bad."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = VERSIONS[settings.min_version]
    _load_chain(context, settings.cert_file, settings.key_file, "listen.tls")
    if settings.ca_file:
        _load_ca(context, settings.ca_file, "listen.tls.ca_file")
    context.verify_mode = {
        "none": ssl.CERT_NONE,
        "optional": ssl.CERT_OPTIONAL,
        "required": ssl.CERT_REQUIRED,
    }[settings.client_auth]
    return context


def client_context(settings: UpstreamTls) -> ssl.SSLContext:
    """The context for upstream connections."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = VERSIONS[settings.min_version]
    context.check_hostname = settings.verify == "full"
    context.verify_mode = ssl.CERT_NONE if settings.verify == "none" else ssl.CERT_REQUIRED
    if settings.ca_file:
        _load_ca(context, settings.ca_file, "upstream.tls.ca_file")
    elif settings.verify != "none":
        context.load_default_certs()
    if settings.cert_file:
        _load_chain(context, settings.cert_file, settings.key_file, "upstream.tls")
    return context


def _load_chain(context: ssl.SSLContext, cert: str, key: str, section: str) -> None:
    try:
        context.load_cert_chain(cert, key or None)
    except (OSError, ssl.SSLError) as error:
        files = f"{section}.cert_file {cert!r} and {section}.key_file {key or cert!r}"
        raise ssl.SSLError(f"cannot load {files}: {error}") from error


def _load_ca(context: ssl.SSLContext, path: str, key: str) -> None:
    try:
        context.load_verify_locations(path)
    except (OSError, ssl.SSLError) as error:
        raise ssl.SSLError(f"cannot load {key} {path!r}: {error}") from error


def expiry(path: str) -> float:
    """When the first certificate in a PEM file, the one that is shown to peers, ends: Unix time."""
    from cryptography import x509  # half the start's time, and only needed with TLS

    certificate = x509.load_pem_x509_certificates(Path(path).read_bytes())[0]
    return certificate.not_valid_after_utc.timestamp()


class Resumption:
    """The latest TLS session with one server: connections that come back resume it."""

    def __init__(self) -> None:
        self.session: ssl.SSLSession | None = None

    def keep(self, layer: ssl.SSLObject) -> None:
        """Remember the session of an established connection; tickets come with the first reply."""
        self.session = layer.session or self.session


async def handshake(
    sock: socket.socket,
    context: ssl.SSLContext,
    *,
    server_side: bool,
    server_name: str = "",
    resumption: Resumption | None = None,
) -> Layer:
    """Do a TLS handshake on a connected non-blocking socket.

    Raises ssl.SSLError (certificates, versions), ConnectionError (the peer hung up).
    The caller sets a deadline and closes the socket after an error.
    """
    loop = asyncio.get_running_loop()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    layer = context.wrap_bio(
        incoming,
        outgoing,
        server_side=server_side,
        server_hostname=server_name or None,
        session=resumption.session if resumption is not None else None,
    )
    while True:
        try:
            layer.do_handshake()
        except ssl.SSLWantReadError:
            await _send(loop, sock, outgoing)
            data = await loop.sock_recv(sock, CHUNK)
            if not data:
                raise ConnectionResetError("the peer hung up during the TLS handshake") from None
            incoming.write(data)
        except ssl.SSLError:
            # The alert tells the peer why.
            await _send(loop, sock, outgoing)
            raise
        else:
            await _send(loop, sock, outgoing)
            return layer, incoming, outgoing


async def _send(loop: asyncio.AbstractEventLoop, sock: socket.socket, out: ssl.MemoryBIO) -> None:
    if out.pending:
        await loop.sock_sendall(sock, out.read())
