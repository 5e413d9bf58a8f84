"""A blocking connection to a server or Sentinel, for the drill's own questions and its watchers."""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Any

import hiredis

RECEIVE = 65536


class Refused(Exception):
    """The server answered with an error."""


class Wire:
    """One connection to 127.0.0.1. Every failure of the network is an OSError."""

    def __init__(self, port: int, timeout: float = 1.0) -> None:
        """Connect; `timeout` (s) holds for the connection and for every answer."""
        self._sock = socket.create_connection(("127.0.0.1", port), timeout)
        self._reader = hiredis.Reader(replyError=Refused, encoding="utf-8", errors="replace")

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; also from another thread, whose `read` then fails."""
        self._sock.close()

    def send(self, *words: str | int) -> None:
        """Send one command."""
        self._sock.sendall(hiredis.pack_command(tuple(str(word) for word in words)))

    def read(self) -> Any:
        """The next reply or message, errors as `Refused` objects; TimeoutError if none comes."""
        while (reply := self._reader.gets()) is False:
            data = self._sock.recv(RECEIVE)
            if not data:
                raise ConnectionResetError("closed by the server")
            self._reader.feed(data)
        return reply

    def call(self, *words: str | int) -> Any:
        """The reply to one command; raises `Refused` if it is an error."""
        self.send(*words)
        reply = self.read()
        if isinstance(reply, Refused):
            raise reply
        return reply


def ask(port: int, *words: str | int, timeout: float = 1.0) -> Any:
    """One command on a connection of its own."""
    with Wire(port, timeout) as wire:
        return wire.call(*words)


def pairs(flat: list[Any]) -> dict[str, str]:
    """A flat list of names and values, as the Sentinels answer."""
    return dict(zip(flat[::2], flat[1::2], strict=True))
