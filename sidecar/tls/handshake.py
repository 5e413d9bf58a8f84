"""TLS handshakes.

The data path drives `SSLObject`s over memory buffers itself (see proxy/io/reactor.pyx), so
`handshake` returns the triple (SSLObject, incoming, outgoing) that belongs to the socket.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from sidecar.tls.presented import forget_presented, presented

Layer = tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]

CHUNK = 16384

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
    refused: Callable[[bytes], None] | None = None,
) -> Layer:
    """Do a TLS handshake on a connected non-blocking socket.

    Raises ssl.SSLError (certificates, versions), ConnectionError (the peer hung up). `refused` is
    called before an ssl.SSLError with the certificate (DER) that a client has presented, if any.
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
            if refused is not None and (der := presented(layer)):
                refused(der)
            # The alert tells the peer why. It may be gone by now: the error is the same.
            with suppress(OSError):
                await _send(loop, sock, outgoing)
            raise
        await _send(loop, sock, outgoing)
        if done:
            if server_side:
                forget_presented(layer)
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
