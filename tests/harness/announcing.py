"""A stand-in for the endpoint of a managed service that announces its maintenance.

It passes everything on to a real server, which knows no CLIENT MAINT_NOTIFICATIONS, and takes that
request out: connections that have made it get what a test announces.
"""

from __future__ import annotations

import asyncio

import hiredis
from hiredis import pack_command

from .accepting import Accepting

REQUEST = b"MAINT_NOTIFICATIONS"
CHUNK = 1 << 16


class Announcing(Accepting):
    """An endpoint at `host` and `port`, in front of the server at `behind`."""

    def __init__(
        self, behind: tuple[str, int], port: int | None = None, host: str = "127.0.0.1"
    ) -> None:
        self._behind = behind
        self.host = host
        self.asked: list[tuple[bytes, ...]] = []
        """The requests for announcements, as words."""
        self._hearing: list[asyncio.StreamWriter] = []
        self._clients: list[asyncio.StreamWriter] = []
        super().__init__(port)

    async def _create(self) -> asyncio.Server:
        return await asyncio.start_server(self._accept, self.host, self.port)

    @property
    def connections(self) -> set[int]:
        """The ports of the clients that are connected."""
        return {writer.get_extra_info("peername")[1] for writer in self._clients}

    @property
    def hearing(self) -> int:
        """How many connections get what is announced."""
        return len(self._hearing)

    def announce(self, *words: str | int | None) -> None:
        """Push this to all who hear."""
        push = b">%d\r\n" % len(words) + b"".join(_packed(word) for word in words)
        self.do(lambda: [writer.write(push) for writer in self._hearing])

    def cut(self) -> None:
        """End every connection, and take no new ones."""
        self.refuse()
        self.do(lambda: [writer.transport.abort() for writer in self._clients])

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on, both ways."""
        back, forth = await asyncio.open_connection(*self._behind)
        self._clients.append(writer)
        try:
            sent = asyncio.ensure_future(self._forward(reader, forth, writer))
            got = asyncio.ensure_future(self._backward(back, writer))
            await asyncio.wait((sent, got), return_when=asyncio.FIRST_COMPLETED)
            for each in (sent, got):
                each.cancel()
            await asyncio.gather(sent, got, return_exceptions=True)
        finally:
            self._clients.remove(writer)
            if writer in self._hearing:
                self._hearing.remove(writer)
            forth.transport.abort()
            writer.close()

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        forth: asyncio.StreamWriter,
        client: asyncio.StreamWriter,
    ) -> None:
        while data := await reader.read(CHUNK):
            if REQUEST in data:
                data = self._without_requests(data, client)
            forth.write(data)
            await forth.drain()

    def _without_requests(self, data: bytes, client: asyncio.StreamWriter) -> bytes:
        """ECHO stands in for them, whose answer becomes theirs."""
        decoder = hiredis.Reader()
        decoder.feed(data)
        out = []
        while (words := decoder.gets()) is not False:
            assert isinstance(words, list)
            if REQUEST in words:
                self.asked.append(tuple(words))
                if words[2] == b"ON":
                    self._hearing.append(client)
                words = [b"ECHO", REQUEST]
            out.append(pack_command(tuple(words)))
        return b"".join(out)

    async def _backward(self, back: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        echo = b"$%d\r\n%s\r\n" % (len(REQUEST), REQUEST)
        while data := await back.read(CHUNK):
            client.write(data.replace(echo, b"+OK\r\n"))
            await client.drain()


def _packed(word: str | int | None) -> bytes:
    if word is None:
        return b"_\r\n"
    if isinstance(word, int):
        return b":%d\r\n" % word
    return b"$%d\r\n%s\r\n" % (len(word), word.encode())
