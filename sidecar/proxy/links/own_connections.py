"""Which connections at the server are the sidecar's, by the address that the server sees.

For what shows commands by connection (MONITOR). Every connection is the sidecar's own when it is
opened; a link carries clients' commands from some moment on. Holds no socket alive.
"""

from __future__ import annotations

import socket
import time
import weakref
from contextlib import suppress

# Addresses that are remembered, the newest.
MOST = 4096
# Seconds that a closed connection counts: what the server says of it may be on its way.
LINGER = 1.0


class OwnConnections:
    """The sidecar's connections to servers."""

    def __init__(self) -> None:
        self._found: dict[bytes, _Found] = {}

    def opened(self, sock: socket.socket) -> None:
        """A connection of the sidecar's own."""
        self._note(sock, carries=False)

    def carries(self, sock: socket.socket) -> None:
        """From now on clients' commands go down this connection."""
        self._note(sock, carries=True)

    def kind(self, address: bytes) -> str:
        """Whose it is: "own", "link" (it carries clients' commands), or "" for somebody else's."""
        found = self._found.get(address)
        if found is None:
            return ""
        if found.is_over():
            del self._found[address]
            return ""
        return "link" if found.carries else "own"

    def forget_closed(self) -> None:
        """Forget those that have been closed by now."""
        for address, found in list(self._found.items()):
            if found.closed():
                del self._found[address]

    def _note(self, sock: socket.socket, carries: bool) -> None:
        address = address_of(sock)
        if not address:
            return
        self._found.pop(address, None)
        self._found[address] = _Found(sock, carries)
        if len(self._found) > MOST:
            del self._found[next(iter(self._found))]


class _Found:
    def __init__(self, sock: socket.socket, carries: bool) -> None:
        self._sock = weakref.ref(sock)
        self.carries = carries
        self._over_since = 0.0

    def closed(self) -> bool:
        sock = self._sock()
        return sock is None or sock.fileno() < 0

    def is_over(self) -> bool:
        """Whether it has been closed for LINGER seconds, as far as was looked."""
        if not self.closed():
            return False
        now = time.monotonic()
        self._over_since = self._over_since or now
        return now - self._over_since > LINGER


def address_of(sock: socket.socket) -> bytes:
    """This end's address as a server writes it; empty where it has none (unix sockets)."""
    with suppress(OSError):
        if sock.family == socket.AF_INET:
            return "{}:{}".format(*sock.getsockname()).encode()
        if sock.family == socket.AF_INET6:
            host, port = sock.getsockname()[:2]
            return f"[{host}]:{port}".encode()
    return b""
