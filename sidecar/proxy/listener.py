"""Listening sockets: accepts clients, does their TLS handshakes, rejects those above the limit.

Hands each ready connection to `welcome` and forgets it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import structlog

from sidecar.proxy.descriptors import Descriptors
from sidecar.proxy.links.target import tune
from sidecar.proxy.listening import (
    How,
    Listening,
    added_and_gone,
    inherited,
    is_made_for,
    knock,
    knocker,
    lead_to,
    lead_to_all,
    listen,
    with_policies,
)
from sidecar.proxy.session.client_list import printable_address
from sidecar.settings.sections.clients import Listen
from sidecar.settings.urls import Endpoint, parse_listen
from sidecar.telemetry.handshakes import Handshakes
from sidecar.tls.handshake import Layer, handshake
from sidecar.tls.pem import identity

log = structlog.get_logger()

TOO_MANY = b"-ERR max number of clients reached\r\n"
TLS_HANDSHAKE_TIMEOUT = 10.0
# Seconds in which connections that were begun before are completed.
HANDING_OVER = 0.2
HAND_OVER_TRIES = 3
# Seconds between two looks of a worker at who gets the connections.
SHARING = 5.0
# In one turn of the loop. Beginning a TLS handshake takes a multiple of what a plain client does.
ACCEPTS_AT_ONCE = 64
TLS_ACCEPTS_AT_ONCE = 8

# Called with the command policy of the listener, too.
Welcome = Callable[[socket.socket, Layer | None, object, str], None]
# Called with the reason, whose certificate it was (empty: unknown), and the address.
Refused = Callable[[str, str, object], None]


class Listener:
    """All listeners. `context` returns the current TLS context, `connected` the number of
    clients. `refused` is told of clients whose TLS handshake failed. `shared`: other workers listen
    on the same ports, whatever the settings say."""

    def __init__(
        self,
        settings: Listen,
        welcome: Welcome,
        context: Callable[[], ssl.SSLContext | None],
        connected: Callable[[], int],
        descriptors: Descriptors,
        refused: Refused,
        shared: bool = False,
    ) -> None:
        self._settings = settings
        self._with_others = shared
        self._giving_way = False
        self._welcome = welcome
        self._context = context
        self._connected = connected
        self._descriptors = descriptors
        self._refused = refused
        self._failing = Handshakes("listen")
        self._loop = asyncio.get_running_loop()
        self._sockets: list[Listening] = []
        self._handshakes: set[asyncio.Task[None]] = set()
        self._knocking: object = None  # the address of this process's own connection, see `knocker`
        self.rejected = 0
        self.stopped = False

    @property
    def urls(self) -> list[str]:
        """The addresses it listens on, with the ports that the system chose."""
        return list(dict.fromkeys(str(each.endpoint) for each in self._sockets))

    @property
    def handshaking(self) -> bool:
        """Whether any TLS handshake is still running."""
        return bool(self._handshakes)

    @property
    def tls_failures(self) -> Mapping[str, int]:
        """How many TLS handshakes have failed, by reason."""
        return self._failing.failures

    def open(self, sockets: Sequence[socket.socket] = ()) -> None:
        """Listen on every configured address, without accepting yet. Raises OSError. `sockets` were
        handed over by whoever started this process, and take the place of new ones."""
        settings = self._settings
        how = self._how(settings)
        endpoints = [parse_listen(url) for url in settings.urls]
        self._sockets += inherited(sockets, endpoints)
        there = [each.endpoint for each in self._sockets]
        for endpoint in endpoints:
            if endpoint not in there:
                self._sockets.extend(listen(endpoint, how))

    def _how(self, settings: Listen) -> How:
        reuse_port = settings.reuse_port or self._with_others
        return How(settings.backlog, int(str(settings.unix_mode), 8), reuse_port)

    def begin(self) -> None:
        """Begin to accept."""
        self._accept_on(self._sockets)

    def _accept_on(self, sockets: Sequence[Listening]) -> None:
        for each in sockets:
            if each.endpoint.kind == "tcp":
                lead_to_all(each.sock)
            self._loop.add_reader(each.sock.fileno(), self._accept, each.sock, each.endpoint)

    def use(self, settings: Listen) -> None:
        """Listen by these settings from now on: new addresses are added, and those that are not in
        them any more are closed; their clients stay. Raises OSError: nothing has changed then."""
        added, gone = added_and_gone(self._settings.urls, settings.urls)
        how = self._how(settings)
        new: list[Listening] = []
        try:
            for endpoint in added:
                new.extend(listen(endpoint, how))
        except OSError:
            for each in new:
                each.close()
            raise
        kept = []
        for each in self._sockets:
            if any(is_made_for(each.endpoint, endpoint) for endpoint in gone):
                self._loop.remove_reader(each.sock.fileno())
                each.close()
            else:
                kept.append(each)
        self._settings = settings
        self._sockets = [*with_policies(kept, settings.urls), *new]
        self._accept_on(self._sockets)

    async def share(self) -> None:
        """Let the system deal out new connections of ports that several workers share, whatever a
        process that has ended since had chosen. Never ends."""
        while True:
            await asyncio.sleep(SHARING)
            if not self._giving_way:
                for each in self._shared():
                    lead_to_all(each.sock)

    async def hand_over(self) -> None:
        """Let the process that shares the ports take the new clients, accept those who have come
        already, and close the listeners."""
        self._giving_way = True
        for _ in range(HAND_OVER_TRIES):
            shared = [each for each in self._shared() if await self._give_way(each)]
            await asyncio.sleep(HANDING_OVER)
            # Somebody who has joined in the meantime may have undone the choice.
            if not any([await self._comes_here(each) for each in shared]):
                break
        for each in list(self._sockets):
            while self._accept(each.sock, each.endpoint):
                pass
        self.stop()

    def _shared(self) -> list[Listening]:
        return [each for each in self._sockets if each.endpoint.kind == "tcp"]

    async def _give_way(self, each: Listening) -> bool:
        """Lead new connections to a socket of another process; False if none shares the port.
        Without this, whoever connects in the moment of closing would be refused. Which number is
        whose nobody tells, so it is tried: one of the first two is another's."""
        for number in (0, 1):
            if not lead_to(each.sock, number):
                return False
            if not await self._comes_here(each):
                return True
        return False

    async def _comes_here(self, each: Listening) -> bool:
        """Whether who connects to this port is accepted by this process."""
        try:
            client = knocker(each.sock)
        except OSError:
            return False
        with client:
            # Set before it connects: while it does, the loop may accept it.
            self._knocking = client.getsockname()
            if await knock(client, each.sock):
                while self._knocking is not None and self._accept(each.sock, each.endpoint):
                    pass
            came, self._knocking = self._knocking is None, None
        return came

    def stop(self) -> None:
        """Close the listeners. Running handshakes go on."""
        self.stopped = True
        for each in self._sockets:
            self._loop.remove_reader(each.sock.fileno())
            each.close()
        self._sockets.clear()

    def close(self) -> None:
        """Close the listeners and end the handshakes."""
        self.stop()
        for task in list(self._handshakes):
            task.cancel()
        self._descriptors.close()

    def _accept(self, listener: socket.socket, endpoint: Endpoint) -> bool:
        """Accept what is waiting; called by the loop. Whether more may be waiting."""
        for _ in range(TLS_ACCEPTS_AT_ONCE if endpoint.tls else ACCEPTS_AT_ONCE):
            try:
                sock, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return False
            except OSError as error:
                self._turn_away(listener, endpoint, error)
                return False
            if address == self._knocking:
                sock.close()
                self._knocking = None
                continue
            sock.setblocking(False)
            tune(sock, self._settings.tcp_keepalive)
            clients = self._connected() + len(self._handshakes)
            if clients >= self._settings.max_clients or not self._descriptors.has_room(sock):
                self._reject(sock, endpoint)
            elif endpoint.tls:
                task = self._loop.create_task(self._accept_tls(sock, address, endpoint.policy))
                self._handshakes.add(task)
                task.add_done_callback(self._handshakes.discard)
            else:
                self._welcome(sock, None, address, endpoint.policy)
        return True

    def _turn_away(self, listener: socket.socket, endpoint: Endpoint, error: OSError) -> None:
        """Accepting failed for want of a descriptor: tell one client, go on a little later."""
        log.error("accept failed", listener=str(endpoint), error=str(error))
        if (sock := self._descriptors.accept_one(listener)) is not None:
            self._reject(sock, endpoint)
        self._descriptors.keep_one()
        self._loop.remove_reader(listener.fileno())
        self._loop.call_later(0.1, self._accept_again, listener, endpoint)

    def _accept_again(self, listener: socket.socket, endpoint: Endpoint) -> None:
        if listener.fileno() >= 0 and not self.stopped:
            self._loop.add_reader(listener.fileno(), self._accept, listener, endpoint)

    def _reject(self, sock: socket.socket, endpoint: Endpoint) -> None:
        self.rejected += 1
        if not endpoint.tls:
            with suppress(OSError):
                sock.send(TOO_MANY)
        sock.close()

    async def _accept_tls(self, sock: socket.socket, address: object, policy: str) -> None:
        context, presented = self._context(), b""
        assert context is not None

        def shown(der: bytes) -> None:
            nonlocal presented
            presented = der

        try:
            async with asyncio.timeout(TLS_HANDSHAKE_TIMEOUT):
                layer = await handshake(sock, context, server_side=True, refused=shown)
        except OSError as error:
            sock.close()
            who = identity(presented) if presented else ""
            fault = self._failing.failed(printable_address(address).decode(), error, who)
            self._refused(fault.reason, who, address)
            return
        except BaseException:
            sock.close()
            raise
        self._welcome(sock, layer, address, policy)
