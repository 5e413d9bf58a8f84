"""A client without a library: it connects again at once, as those of Go and others do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Any, Protocol

import hiredis
from redis.exceptions import ResponseError

from bench.drills.kinds import kind_of
from bench.drills.spec import Connect, Spec


class Commands(Protocol):
    """What the load asks of a client."""

    def set(self, name: str, value: str, /) -> Awaitable[Any]:
        """SET."""

    def get(self, name: str, /) -> Awaitable[Any]:
        """GET."""

    def incr(self, name: str, /) -> Awaitable[Any]:
        """INCR."""

    def aclose(self) -> Awaitable[None]:
        """Go."""


class Raw:
    """A socket and hiredis, and one more try on a new connection."""

    def __init__(self, spec: Spec, client: int, connects: list[Connect]) -> None:
        self._spec, self._client, self._connects = spec, client, connects
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._replies = hiredis.Reader(encoding="utf-8")

    async def set(self, key: str, value: str, /) -> object:
        """SET."""
        return await self._ask("SET", key, value)

    async def get(self, key: str, /) -> Any:
        """GET."""
        return await self._ask("GET", key)

    async def incr(self, key: str, /) -> Any:
        """INCR."""
        return await self._ask("INCR", key)

    async def aclose(self) -> None:
        """Close the connection."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None

    async def _ask(self, *words: str) -> Any:
        request = hiredis.pack_command(words)
        async with asyncio.timeout(self._spec.timeout):
            try:
                return await self._answer(request)
            except (OSError, EOFError):
                await self.aclose()
                return await self._answer(request)

    async def _answer(self, request: bytes) -> Any:
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await self._open()
        self._writer.write(request)
        while (reply := self._replies.gets()) is False:
            data = await self._reader.read(1 << 16)
            if not data:
                raise EOFError("Connection closed by server")
            self._replies.feed(data)
        if isinstance(reply, Exception):
            raise ResponseError(str(reply))
        return reply

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        error = ""
        self._replies = hiredis.Reader(encoding="utf-8")
        try:
            return await asyncio.open_connection(self._spec.host, self._spec.port)
        except OSError as failure:
            error = kind_of(failure)
            raise
        finally:
            self._connects.append(Connect(self._client, time.monotonic(), error))
