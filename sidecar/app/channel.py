"""The control channel between the supervisor and a worker: calls and answers on one socket.

    length (4 bytes, big endian) | msgpack: [CALL | ANSWER | FAILED, number, name, content]

Both ends call and answer. A call has a deadline, so nobody waits for an end that is silent; an
answer that comes later is dropped. The peer is a process of ours: what it says is trusted, but its
length is capped all the same.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

import msgspec
import structlog

log = structlog.get_logger()

T = TypeVar("T")

CALL, ANSWER, FAILED = 0, 1, 2
# A snapshot is some 100 kB, a list of ten thousand clients some MB.
MOST_BYTES = 256 << 20
_HEAD = 4

_encode = msgspec.msgpack.Encoder().encode

Handler = Callable[[msgspec.Raw], Awaitable[object]]
"""Answers one kind of call. What it raises as `CallError` is told to the caller."""


class CallError(Exception):
    """The other end has said that it cannot; the message is one line."""


class SilentError(Exception):
    """The other end has not answered in time, or is gone."""


class _Message(msgspec.Struct, array_like=True):
    kind: int
    number: int
    name: str
    content: msgspec.Raw


_decoder = msgspec.msgpack.Decoder(_Message)


class Channel(asyncio.Protocol):
    """One end. `answer` are the handlers by name; `lost` is called once, when the other end is
    gone."""

    def __init__(self, lost: Callable[[], None]) -> None:
        self._lost = lost
        self._handlers: dict[str, Handler] = {}
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._waiting: dict[int, asyncio.Future[msgspec.Raw]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._number = 0
        self._is_lost = False

    @classmethod
    async def on(cls, sock: socket.socket, lost: Callable[[], None]) -> Channel:
        """A channel on this end of a socket pair, which it owns from now on."""
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        _, channel = await loop.create_connection(lambda: cls(lost), sock=sock)
        return channel

    def answer(self, name: str, handler: Handler) -> None:
        """Answer calls of this name with `handler`."""
        self._handlers[name] = handler

    async def call(
        self, name: str, content: object = None, *, within: float, type: type[T] | Any = None
    ) -> T:
        """What the other end answers. Raises CallError, SilentError."""
        if self._transport is None or self._transport.is_closing():
            raise SilentError("gone")
        self._number += 1
        number, loop = self._number, asyncio.get_running_loop()
        waiting = self._waiting[number] = loop.create_future()
        try:
            self._send(CALL, number, name, content)
            async with asyncio.timeout(within):
                said = await waiting
        except TimeoutError as error:
            raise SilentError(f"no answer within {within:g} s") from error
        finally:
            self._waiting.pop(number, None)
        return cast(T, msgspec.msgpack.decode(said, type=type))

    def close(self) -> None:
        """End it; `lost` is not called."""
        self._lost = _nothing
        if self._transport is not None and not self._is_lost:
            self._transport.abort()

    async def finish(self, within: float) -> None:
        """End it once the calls under way are answered and all is sent, at most so many seconds
        later; `lost` is not called."""
        self._lost, lost = _nothing, asyncio.Event()
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                while answering := [task for task in self._answering if not task.done()]:
                    await asyncio.wait(answering)
                if self._transport is not None and not self._is_lost:
                    self._lost = lost.set
                    self._transport.close()
                    await lost.wait()
        self.close()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        at = 0
        while len(received) - at >= _HEAD:
            length = int.from_bytes(received[at : at + _HEAD], "big")
            if length > MOST_BYTES:
                log.error("internal error", error=f"a control message of {length} bytes")
                self._abort()
                return
            if len(received) - at - _HEAD < length:
                break
            at += _HEAD
            message = _decoder.decode(bytes(received[at : at + length]))
            at += length
            self._take(message)
        del received[:at]

    def connection_lost(self, error: Exception | None) -> None:
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(SilentError("gone"))
        for task in self._answering:
            task.cancel()
        self._is_lost = True
        self._lost()

    # Inside

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _take(self, message: _Message) -> None:
        if message.kind == CALL:
            task = asyncio.get_running_loop().create_task(self._answer(message))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
            return
        waiting = self._waiting.get(message.number)
        if waiting is None or waiting.done():
            return
        if message.kind == ANSWER:
            waiting.set_result(message.content)
        else:
            waiting.set_exception(CallError(msgspec.msgpack.decode(message.content, type=str)))

    async def _answer(self, message: _Message) -> None:
        kind, content = ANSWER, None
        try:
            content = await self._handlers[message.name](message.content)
        except CallError as error:
            kind, content = FAILED, str(error)
        except Exception as error:
            log.error("internal error", error=repr(error), exc_info=error)
            kind, content = FAILED, f"internal error: {error!r}"
        self._send(kind, message.number, message.name, content)

    def _send(self, kind: int, number: int, name: str, content: object) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        data = _encode((kind, number, name, content))
        self._transport.write(len(data).to_bytes(_HEAD, "big") + data)


def _nothing() -> None:
    """Nobody is told."""
