"""Everything about TLS: contexts from settings, handshakes, and when certificates expire.

All SSL contexts are made here: of the listeners, of the upstream, of the Sentinels and of the
admin endpoint. A context is made completely or not at all: a bad file raises an error that names
the setting.

The data path drives `SSLObject`s over memory buffers itself (see proxy/io/reactor.pyx), so
`handshake` returns the triple (SSLObject, incoming, outgoing) that belongs to the socket.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar.settings.sections.clients import ListenTls
from sidecar.settings.sections.operations import AdminTls
from sidecar.settings.sections.upstream import Sentinel, UpstreamTls

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

Layer = tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
CHUNK = 16384

# Contexts. All of these raise ssl.SSLError or OSError, which name the setting, for a bad file.


def listener_context(settings: ListenTls) -> ssl.SSLContext:
    """The context of `rediss://` listeners."""
    context = _server("listen.tls", settings)
    if settings.ca_file:
        _load_ca(context, settings.ca_file, "listen.tls.ca_file")
    context.verify_mode = {
        "none": ssl.CERT_NONE,
        "optional": ssl.CERT_OPTIONAL,
        "required": ssl.CERT_REQUIRED,
    }[settings.client_auth]
    return context


def upstream_context(settings: UpstreamTls) -> ssl.SSLContext:
    """The context of connections to the upstream."""
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


def sentinel_context(
    settings: Sentinel, upstream: UpstreamTls, upstream_uses_tls: bool
) -> ssl.SSLContext | None:
    """The context of connections to Sentinels, with the files of the upstream; None without TLS."""
    if settings.tls == "on" or (settings.tls == "as-upstream" and upstream_uses_tls):
        return upstream_context(upstream)
    return None


def admin_context(settings: AdminTls) -> ssl.SSLContext | None:
    """The context of the admin endpoint; None without TLS."""
    return _server("admin.tls", settings) if settings.cert_file else None


def reload_admin(context: ssl.SSLContext, settings: AdminTls) -> None:
    """Load the certificate files again into the context in use; bad files leave it as it is."""
    admin_context(settings)  # raises before a bad pair gets half into the context in use
    _load_chain(context, settings.cert_file, settings.key_file, "admin.tls")


def _server(section: str, settings: ListenTls | AdminTls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = VERSIONS[settings.min_version]
    _load_chain(context, settings.cert_file, settings.key_file, section)
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


# Certificates


def expiry(path: str) -> float:
    """When the certificate that is shown to peers, the first of a PEM file, ends (Unix time)."""
    return _certificates(path)[0].not_valid_after_utc.timestamp()


def first_to_expire(path: str) -> tuple[str, float]:
    """Of all certificates in a PEM file the one that ends first: its subject, and its end.

    Raises OSError, and ValueError if the file is not PEM.
    """
    first = min(_certificates(path), key=lambda certificate: certificate.not_valid_after_utc)
    return first.subject.rfc4514_string(), first.not_valid_after_utc.timestamp()


def _certificates(path: str) -> list[Certificate]:
    from cryptography import x509  # here: it takes half of the start time, and only TLS needs it

    return x509.load_pem_x509_certificates(Path(path).read_bytes())


# Handshakes

# Signing and checking signatures takes a millisecond or so: a thousand clients that come back at
# once would hold the loop, and with it all other clients, for a second. OpenSSL calculates without
# the interpreter's lock. One thread, so that the loop always gets its share of the processor.
_calculating = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tls")


class Resumption:
    """The latest TLS session with one server: later connections resume it."""

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
    if server_side:
        incoming.write(await _receive(loop, sock))  # a client speaks first
    layer = context.wrap_bio(
        incoming,
        outgoing,
        server_side=server_side,
        server_hostname=server_name or None,
        session=resumption.session if resumption is not None else None,
    )
    while True:
        try:
            done = await loop.run_in_executor(_calculating, _advance, layer)
        except ssl.SSLError:
            # The alert tells the peer why.
            await _send(loop, sock, outgoing)
            raise
        await _send(loop, sock, outgoing)
        if done:
            return layer, incoming, outgoing
        incoming.write(await _receive(loop, sock))


def _advance(layer: ssl.SSLObject) -> bool:
    """Calculate the next step of a handshake; whether that was the last one."""
    try:
        layer.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


async def _receive(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> bytes:
    data = await loop.sock_recv(sock, CHUNK)
    if not data:
        raise ConnectionResetError("the peer hung up during the TLS handshake")
    return data


async def _send(loop: asyncio.AbstractEventLoop, sock: socket.socket, out: ssl.MemoryBIO) -> None:
    if out.pending:
        await loop.sock_sendall(sock, out.read())
