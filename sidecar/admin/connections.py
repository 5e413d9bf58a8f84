"""The connections of the admin port: at most so many, and none that waits for ever.

A new connection is always accepted. If there are as many as there may be, the one that has been
without a request for the longest makes room; so whoever opens connections and sends nothing keeps
nobody out, and takes no descriptor from the data path. Who is so slow with a request that it is
not whole in time is closed as well.

    accepted ──handshake──► waiting ──whole request──► serving ──answered──► waiting …
         │                     │ too slow, idle, or another one needs the room
         └─────────────────────┴──► closed

Parsing, and the order of requests on a connection, is aiohttp's (`web.RequestHandler`).
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import cast

import msgspec
import structlog
from aiohttp import web

from sidecar.settings.addresses import join_host_port
from sidecar.telemetry.handshakes import Handshakes

log = structlog.get_logger()

# A name may stand for addresses of which this host has only some.
NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
BACKLOG = 128
ACCEPTS_AT_ONCE = 16
LOOK = 1.0  # seconds between two looks at all connections
AGAIN = 0.1  # and before accepting again, after it failed for want of a descriptor
# Seconds: without a further request, a connection is kept for so long. Monitoring that asks once a
# minute keeps its connection.
KEPT = 75.0
# After an answer the rest of a request that nobody wants is read for so long.
LINGERING = 1.0
LINE_MAX = 8190  # bytes of the first line of a request, and of one header
HEADERS_MAX = 64

_encode = msgspec.json.Encoder().encode


class Connection(web.RequestHandler):
    """One connection. `since` is when it began to wait for a request, or for the rest of one that
    has `begun`; `opening` is its task until it is open; `gone` is called at its end."""

    def __init__(
        self,
        server: web.Server,
        loop: asyncio.AbstractEventLoop,
        gone: Callable[[Connection], None],
    ) -> None:
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]
            keepalive_timeout=KEPT,
            lingering_time=LINGERING,
            max_line_size=LINE_MAX,
            max_field_size=LINE_MAX,
            max_headers=HEADERS_MAX,
        )
        self._clock = loop.time
        self._gone = gone
        self._socket: asyncio.Transport | None = None
        self.opening: asyncio.Task[None] | None = None
        self.since = loop.time()
        self.begun = True  # the first request is due at once
        self.serving = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self._socket = cast("asyncio.Transport", transport)  # uvloop's own is no subclass
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """A part of a request has come."""
        if not self.serving and not self.begun:
            self.begun, self.since = True, self._clock()
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """It is closed."""
        super().connection_lost(exc)
        self._gone(self)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is no request, or has met with a fault here, gets an error as all others do, and no
        word of what software this is."""
        if status >= 500:
            log.error("admin request failed", path=request.path, error=repr(exc), exc_info=exc)
        phrase = HTTPStatus(status).phrase
        body = _encode({"error": phrase.lower()})
        if self._socket is not None and request.writer.output_size == 0:
            head = f"HTTP/1.1 {status} {phrase}\r\nContent-Type: application/json\r\n"
            head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            self._socket.write(head.encode() + body)
            self._socket.close()
        return web.Response(status=status)  # it finds the connection closed

    def drop(self) -> None:
        """Close it at once, whatever is still to be sent."""
        if self._socket is not None:
            self._socket.abort()
        elif self.opening is not None:
            self.opening.cancel()


class Connections:
    """Accepts for `server`, at most `most` connections at a time. A request must be whole, and a
    TLS handshake over, within `patience` seconds. `closed` counts by reason: limit, slow, idle;
    `handshakes` those that fail."""

    def __init__(
        self,
        server: web.Server,
        context: ssl.SSLContext | None,
        most: int,
        patience: float,
        handshakes: Handshakes,
    ) -> None:
        self._server = server
        self.context = context
        self.most = most
        self.patience = patience
        self._handshakes = handshakes
        self.closed: Counter[str] = Counter(limit=0, slow=0, idle=0)
        self._loop = asyncio.get_running_loop()
        self._listeners: list[socket.socket] = []
        self._all: set[Connection] = set()
        self._looking: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._all)

    async def listen(self, host: str, port: int, *, reuse_port: bool) -> int:
        """Listen at all addresses of this host; the port, which the system chooses for 0. Raises
        OSError."""
        found = await self._loop.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        missing: OSError | None = None
        for family, _, _, _, address in dict.fromkeys(found):
            try:
                made = _listener(family, (address[0], port, *address[2:]), reuse_port)
            except OSError as error:
                missing = error
                if error.errno not in NOT_HERE:
                    break
            else:
                self._listeners.append(made)
                port = made.getsockname()[1]
        if missing is not None and (missing.errno not in NOT_HERE or not self._listeners):
            self.stop_listening()
            raise missing
        for each in self._listeners:
            self._loop.add_reader(each.fileno(), self._accept, each)
        self._looking = self._loop.call_later(LOOK, self._look)
        return port

    def use(self, context: ssl.SSLContext | None, most: int, patience: float) -> None:
        """Go by these from now on; open connections stay."""
        self.context, self.most, self.patience = context, most, patience

    def stop_listening(self) -> None:
        """Accept nobody any more; open connections go on."""
        for each in self._listeners:
            self._loop.remove_reader(each.fileno())
            each.close()
        self._listeners.clear()

    def close(self) -> None:
        """Close everything."""
        self.stop_listening()
        if self._looking is not None:
            self._looking.cancel()
        for each in list(self._all):
            each.drop()

    @contextmanager
    def serving(self, connection: object) -> Iterator[None]:
        """While a request of this connection is served, the connection is not closed for others."""
        assert isinstance(connection, Connection)
        connection.serving += 1
        try:
            yield
        finally:
            connection.serving -= 1
            connection.begun, connection.since = False, self._loop.time()

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                sock, peer = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.error("accept failed", listener="admin", error=str(error))
                self._make_room()
                self._loop.remove_reader(listener.fileno())
                self._loop.call_later(AGAIN, self._accept_again, listener)
                return
            if len(self._all) >= self.most and not self._make_room():
                self.closed["limit"] += 1
                sock.close()
                continue
            sock.setblocking(False)
            connection = Connection(self._server, self._loop, self._all.discard)
            self._all.add(connection)
            connection.opening = self._loop.create_task(
                self._open(connection, sock, join_host_port(*peer[:2]))
            )

    def _accept_again(self, listener: socket.socket) -> None:
        if listener.fileno() >= 0:
            self._loop.add_reader(listener.fileno(), self._accept, listener)

    async def _open(self, connection: Connection, sock: socket.socket, peer: str) -> None:
        """Do the TLS handshake with `peer`, if there is TLS."""
        patience = self.patience if self.context is not None else None
        try:
            await self._loop.connect_accepted_socket(
                lambda: connection, sock, ssl=self.context, ssl_handshake_timeout=patience
            )
        except OSError as error:  # ssl.SSLError and TimeoutError are some
            self._failed(connection, peer, error)
            sock.close()
            self._all.discard(connection)
        except BaseException:
            self._failed(connection, peer, None)  # `drop` has ended it, or the end of the server
            sock.close()
            raise

    def _failed(self, connection: Connection, peer: str, error: OSError | None) -> None:
        """Count a failed handshake. The loop's own error for one that takes too long is like that
        of a peer that hangs up."""
        if self.context is None:
            return
        if not isinstance(error, ssl.SSLError):
            late = self._loop.time() - connection.since >= self.patience
            error = TimeoutError() if late else error
        if error is not None:
            self._handshakes.failed(peer, error)

    def _make_room(self) -> bool:
        """Close the connection that has waited for the longest; False if all are serving."""
        waiting = [each for each in self._all if not each.serving]
        if not waiting:
            return False
        longest = min(waiting, key=lambda each: each.since)
        self._drop(longest, "limit")
        return True

    def _drop(self, connection: Connection, why: str) -> None:
        self.closed[why] += 1
        self._all.discard(connection)
        connection.drop()

    def _look(self) -> None:
        """Close those that have waited for too long."""
        now = self._loop.time()
        for each in list(self._all):
            if not each.serving and now - each.since > (self.patience if each.begun else KEPT):
                self._drop(each, "slow" if each.begun else "idle")
        self._looking = self._loop.call_later(LOOK, self._look)


def _listener(family: int, address: tuple[object, ...], reuse_port: bool) -> socket.socket:
    """A listening socket. Raises OSError."""
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.setblocking(False)
        made.bind(address)
        made.listen(BACKLOG)
    except OSError:
        made.close()
        raise
    return made
