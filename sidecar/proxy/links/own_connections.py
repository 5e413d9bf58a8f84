"""Which connections at the server are the sidecar's, by the address that the server sees.

For what shows commands by connection (MONITOR). Every connection is the sidecar's own when it is
opened; a link carries clients' commands from some moment on. Holds no socket alive.
"""

from __future__ import annotations

import socket
import time
import weakref
from collections.abc import Iterable
from contextlib import suppress

# Addresses that are remembered, the newest.
MOST = 4096
# Closed ones are looked for when there are so many, then at twice as many as were left.
SWEPT_FROM = 64
# Seconds that a closed connection counts: what the server says of it may be on its way.
LINGER = 1.0


class OwnConnection:
    """A connection of the sidecar's. `carries`: clients' commands go down it, after those of the
    sidecar's own that are named in `greeting`."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = weakref.ref(sock)
        self.carries = False
        self.greeting: tuple[bytes, ...] = ()
        self._over_since = 0.0

    def is_of(self, sock: socket.socket) -> bool:
        """Whether it is this socket's."""
        return self._sock() is sock

    def closed(self) -> bool:
        """Whether its socket is closed."""
        sock = self._sock()
        return sock is None or sock.fileno() < 0

    def is_over(self) -> bool:
        """Whether it has been closed for LINGER seconds, as far as was looked."""
        if not self.closed():
            return False
        now = time.monotonic()
        self._over_since = self._over_since or now
        return now - self._over_since > LINGER


class OwnConnections:
    """The sidecar's connections to servers."""

    def __init__(self) -> None:
        self._found: dict[bytes, OwnConnection] = {}
        self._sweep_at = SWEPT_FROM

    def opened(self, sock: socket.socket) -> None:
        """A connection of the sidecar's own."""
        self._note(sock)

    def carries(self, sock: socket.socket, greeting: Iterable[bytes] = ()) -> None:
        """From now on clients' commands go down this connection; these, by name, went before."""
        found = self._note(sock)
        if found is not None:
            found.carries, found.greeting = True, tuple(greeting)

    def find(self, address: bytes) -> OwnConnection | None:
        """The connection with this address; None if it is somebody else's."""
        found = self._found.get(address)
        if found is not None and found.is_over():
            del self._found[address]
            return None
        return found

    def carrying(self) -> weakref.WeakSet[OwnConnection]:
        """The connections that carry clients' commands."""
        return weakref.WeakSet(found for found in self._found.values() if found.carries)

    def forget_closed(self) -> None:
        """Forget those that have been closed by now."""
        for address, found in list(self._found.items()):
            if found.closed():
                del self._found[address]

    def _note(self, sock: socket.socket) -> OwnConnection | None:
        address = address_of(sock)
        if not address:
            return None
        found = self._found.pop(address, None)
        if found is None or not found.is_of(sock):
            found = OwnConnection(sock)
        self._found[address] = found  # the newest
        if len(self._found) >= self._sweep_at:
            self._sweep()
        if len(self._found) > MOST:
            del self._found[next(iter(self._found))]
        return found

    def _sweep(self) -> None:
        """Forget those that are over; who is seen closed for the first time is over by the next
        time."""
        for address, found in list(self._found.items()):
            if found.is_over():
                del self._found[address]
        self._sweep_at = max(SWEPT_FROM, 2 * len(self._found))


def address_of(sock: socket.socket) -> bytes:
    """This end's address as a server writes it; empty where it has none (unix sockets)."""
    with suppress(OSError):
        if sock.family == socket.AF_INET:
            return "{}:{}".format(*sock.getsockname()).encode()
        if sock.family == socket.AF_INET6:
            host, port = sock.getsockname()[:2]
            return f"[{host}]:{port}".encode()
    return b""
