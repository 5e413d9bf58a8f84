"""A TLS port in front of a plain server.

It gives a server without TLS (Valkey of the wheel) a TLS port, so that upstream TLS is testable
with packages from PyPI alone.
"""

from __future__ import annotations

import asyncio
import ssl

from .accepting import Accepting


class TlsTerminator(Accepting):
    """A TLS port in front of a plain port, in a thread with an event loop of its own.

    `handshakes` counts connections whose handshake ended well on this side (TLS 1.3 lets a client
    refuse the certificate after that), `passed` the bytes that came through.
    """

    def __init__(self, target: int, context: ssl.SSLContext, port: int | None = None) -> None:
        self.target = target
        self.handshakes = 0
        self.passed = 0
        super().__init__(port, context)

    @property
    def url(self) -> str:
        """The terminator as an upstream URL; the good certificate names this host."""
        return f"rediss://localhost:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on."""
        self.handshakes += 1
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        try:
            ends = (self._pump(reader, back), self._pump(there, writer))
            tasks = [asyncio.ensure_future(end) for end in ends]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            writer.close()
            back.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One direction, to its end. TLS has no half-close here: one end ends both."""
        try:
            while data := await reader.read(64 * 1024):
                self.passed += len(data)
                writer.write(data)
                await writer.drain()
        except OSError:
            return
