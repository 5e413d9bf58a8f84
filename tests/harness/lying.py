"""A node of a cluster that tells something else of the cluster than it knows."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from .accepting import Accepting
from .refdecoder import requests
from .refreplies import reply_end
from .resp import pack

CHUNK = 1 << 16


class Lying(Accepting):
    """In front of the node at `behind`, which gets every request but those in `lies`: they are
    answered with these raw replies; with none, they are not answered at all."""

    def __init__(self, behind: tuple[str, int], lies: Mapping[tuple[bytes, ...], bytes]) -> None:
        self._behind = behind
        self._lies = lies
        self.told = 0
        super().__init__()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request after the other."""
        back, forth = await asyncio.open_connection(*self._behind)
        unread = b""
        try:
            while data := await reader.read(CHUNK):
                unread += data
                done = 0
                for event in requests(unread):
                    if event[0] == "args":
                        writer.write(await self._answer(event[1], back, forth))
                        done = event[2]
                unread = unread[done:]
        finally:
            forth.close()
            writer.close()

    async def _answer(
        self, args: list[bytes], back: asyncio.StreamReader, forth: asyncio.StreamWriter
    ) -> bytes:
        lie = self._lies.get(tuple(word.upper() for word in args))
        if lie is not None:
            self.told += 1
            return lie
        forth.write(pack(*args))
        reply = b""
        while not reply or reply_end(reply) is None:
            data = await back.read(CHUNK)
            if not data:
                raise ConnectionResetError
            reply += data
        return reply
