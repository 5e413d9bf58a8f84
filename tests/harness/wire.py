"""The blocking client: bytes out, the raw bytes of exactly one reply in.

`cmd` gives a reply's bytes, `ask` and `call` its value. Nothing here sleeps: every wait ends with
the bytes, with the end of the stream, or with `DeadlineError` when the deadline has passed.
"""

from __future__ import annotations

import itertools
import socket
import ssl
import struct
import time
from collections.abc import Iterable, Sequence
from typing import Any

from .closing import Closing
from .errors import ClosedError, DeadlineError
from .resp import Arg, Refused, pack, pack_all, reply_end, value

__all__ = ["ClosedError", "DeadlineError", "Wire", "call", "pack"]

DEADLINE = 5.0
"""Seconds a read may take unless the test says otherwise."""

BATCH = 500
"""Requests of a pipeline that are sent before their replies are read."""

_CHUNK = 256 * 1024
_tokens = itertools.count(1)


def call(port: int, *args: Arg, deadline: float = DEADLINE) -> Any:
    """One request on a connection of its own: its reply's value; an error is raised."""
    with Wire(port, deadline=deadline) as wire:
        return wire.call(*args)


class Wire(Closing):
    """One client connection: to a TCP port of 127.0.0.1, to an address, or to a path."""

    def __init__(
        self,
        where: int | str | tuple[str, int],
        *,
        deadline: float = DEADLINE,
        tls: ssl.SSLContext | None = None,
        receive_buffer: int | None = None,
    ) -> None:
        where = ("127.0.0.1", where) if isinstance(where, int) else where
        family = socket.AF_UNIX
        if not isinstance(where, str):
            family = socket.AF_INET6 if ":" in where[0] else socket.AF_INET
        self.deadline = deadline
        self._sock = socket.socket(family, socket.SOCK_STREAM)
        self._buffer = bytearray()
        self._pos = 0
        try:
            if receive_buffer is not None:
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            self._sock.settimeout(deadline)
            self._sock.connect(where)
            if family != socket.AF_UNIX:
                self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                self._sock = tls.wrap_socket(self._sock, server_hostname="localhost")
        except BaseException:
            self._sock.close()
            raise

    @property
    def address(self) -> str:
        """This end of a TCP connection, as CLIENT LIST writes it."""
        host, port, *_ = self._sock.getsockname()
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def certificate(self) -> bytes:
        """The certificate (DER) that the other end has shown."""
        assert isinstance(self._sock, ssl.SSLSocket)
        return self._sock.getpeercert(binary_form=True) or b""

    @classmethod
    def answers(cls, port: int) -> bool:
        """Whether a new connection gets its PING answered."""
        with cls(port) as wire:
            return wire.cmd("PING") == b"+PONG\r\n"

    # Sending

    def send(self, data: bytes) -> None:
        """Send bytes as they are. All of them are gone when this returns."""
        self._sock.settimeout(self.deadline)
        self._sock.sendall(data)

    def send_command(self, *args: Arg) -> None:
        """Send one request, without reading its reply."""
        self.send(pack(*args))

    def cmd(self, *args: Arg, deadline: float | None = None) -> bytes:
        """Send one request and return its reply's raw bytes."""
        self.send(pack(*args))
        return self.read_reply(deadline)

    def ask(self, *args: Arg, deadline: float | None = None, text: bool = True) -> Any:
        """Send one request and return its reply's value; an error is a `Refused`."""
        return value(self.cmd(*args, deadline=deadline), text=text)

    def call(self, *args: Arg, deadline: float | None = None, text: bool = True) -> Any:
        """As `ask`, but an error is raised."""
        found = self.ask(*args, deadline=deadline, text=text)
        if isinstance(found, Refused):
            raise found
        return found

    def pipeline(self, requests: Iterable[Sequence[Arg]]) -> list[bytes]:
        """Send many requests, BATCH at a time, and return their replies' raw bytes."""
        requests = list(requests)
        replies: list[bytes] = []
        for at in range(0, len(requests), BATCH):
            batch = requests[at : at + BATCH]
            self.send(pack_all(batch))
            replies += self.read_replies(len(batch))
        return replies

    # Receiving

    def read_reply(self, deadline: float | None = None) -> bytes:
        """The raw bytes of the next reply (an attribute together with its value, or a push)."""
        limit = time.monotonic() + (self.deadline if deadline is None else deadline)
        while True:
            end = reply_end(self._buffer, self._pos) if self._pos < len(self._buffer) else None
            if end is not None:
                reply = bytes(memoryview(self._buffer)[self._pos : end])
                self._pos = end
                return reply
            if not self._receive(limit):
                raise ClosedError(f"closed by the peer; unread: {self._unread()!r}")

    def read_value(self, deadline: float | None = None) -> Any:
        """The value of the next reply or message."""
        return value(self.read_reply(deadline))

    def read_replies(self, count: int, deadline: float | None = None) -> list[bytes]:
        """The next `count` replies."""
        return [self.read_reply(deadline) for _ in range(count)]

    def read_until(self, last: bytes, deadline: float | None = None) -> list[bytes]:
        """All replies up to and with the first one that contains `last`."""
        limit = time.monotonic() + (self.deadline if deadline is None else deadline)
        found: list[bytes] = []
        while not found or last not in found[-1]:
            found.append(self.read_reply(max(limit - time.monotonic(), 0.001)))
        return found

    def replicate(self, request: bytes) -> bytes:
        """Send a PSYNC or SYNC and return its reply.

        A server sends empty lines while the snapshot for a replica is not ready.
        """
        self.send(request)
        while True:
            self.read_until_bytes(1)
            if self._buffer[self._pos : self._pos + 1] != b"\n":
                return self.read_reply()
            self._pos += 1

    def drain(self, deadline: float | None = None) -> list[bytes]:
        """All replies outstanding, made countable by a `PING token` behind them (left out)."""
        token = b"drain-%d" % next(_tokens)
        self.send_command("PING", token)
        return self.read_until(token, deadline)[:-1]

    def read_until_bytes(self, count: int, deadline: float | None = None) -> bool:
        """Wait until `count` bytes are here that are not read yet."""
        limit = time.monotonic() + (self.deadline if deadline is None else deadline)
        while len(self._buffer) - self._pos < count:
            if not self._receive(limit):
                return False
        return True

    def read_to_end(self, deadline: float | None = None) -> bytes:
        """Everything the peer still sends before it closes, in whatever way it closes."""
        limit = time.monotonic() + (self.deadline if deadline is None else deadline)
        while self._receive(limit):
            pass
        rest = self._unread()
        self._pos = len(self._buffer)
        return rest

    def expect_eof(self, deadline: float | None = None) -> None:
        """Wait for the peer to close; nothing may come before that."""
        rest = self.read_to_end(deadline)
        if rest:
            raise AssertionError(f"the peer sent more before closing: {rest[:200]!r}")

    def expect_silence(self) -> None:
        """Nothing unread is here: call it when what would have come must already be here."""
        self._sock.setblocking(False)
        try:
            data = self._sock.recv(_CHUNK)
        except (BlockingIOError, ssl.SSLWantReadError):
            data = b""
        self._buffer += data
        if self._unread():
            raise AssertionError(f"unexpected bytes: {self._unread()[:200]!r}")

    def _receive(self, limit: float) -> bool:
        """Add what arrives to the buffer; False at the end of the stream."""
        if self._pos > 1 << 20 or self._pos == len(self._buffer):
            del self._buffer[: self._pos]
            self._pos = 0
        left = limit - time.monotonic()
        if left <= 0:
            raise DeadlineError(f"no whole reply in time; unread: {self._unread()[:200]!r}")
        self._sock.settimeout(left)
        try:
            data = self._sock.recv(_CHUNK)
        except TimeoutError:
            text = f"no whole reply in time; unread: {self._unread()[:200]!r}"
            raise DeadlineError(text) from None
        except ConnectionResetError:
            return False
        self._buffer += data
        return bool(data)

    def _unread(self) -> bytes:
        """The received bytes no reply has been made of."""
        return bytes(memoryview(self._buffer)[self._pos :])

    # Ending

    def half_close(self) -> None:
        """Shut the sending side; the peer sees the end of the stream, replies still arrive."""
        self._sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with RST, as a process that dies does with unread data."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()

    def close(self) -> None:
        """Close the connection; more than once is fine."""
        self._sock.close()
