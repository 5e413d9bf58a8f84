"""A TCP proxy that misbehaves on command, in a thread with an event loop of its own.

    with FaultProxy(server.port) as proxy:
        Wire(proxy.port) ...
        proxy.delay = 0.05          # from now on, for every connection, both ways
        proxy.cut()                 # RST to both ends of every connection

Attributes are what happens to bytes from now on; methods are what happens once, to the connections
there are. `to_server` and `to_client` hold the faults of each direction; setting an attribute of
the proxy sets both.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from .accepting import Accepting

_CHUNK = 64 * 1024


@dataclass
class Faults:
    """What happens to the bytes of one direction."""

    delay: float = 0.0
    """Seconds added to every piece; order is kept."""
    slice: int = 0
    """Pass on in pieces of at most so many bytes, each sent by itself; 0: as they come."""
    rate: float = 0.0
    """Bytes per second; 0: no limit."""
    blackhole: bool = False
    """Read and drop."""
    stall: bool = False
    """Keep what has come and read no more, so that the sender's window closes."""
    cut_after: int = -1
    """Reset both ends once so many more bytes have passed; negative: never."""


class _Link:
    """One connection through the proxy."""

    def __init__(self, proxy: FaultProxy) -> None:
        self.proxy = proxy
        self.writers: list[asyncio.StreamWriter] = []

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Connect to the target and pump both ways until both have ended."""
        self.writers.append(writer)
        try:
            host, port = self.proxy.target
            there, back = await asyncio.open_connection(host, port)
            self.writers.append(back)
            for end in self.writers:
                end.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.gather(
                self._pump(reader, back, self.proxy.to_server),
                self._pump(there, writer, self.proxy.to_client),
            )
        except (OSError, asyncio.CancelledError) as problem:
            self.cut()
            if isinstance(problem, asyncio.CancelledError):
                raise
        finally:
            for end in self.writers:
                end.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, faults: Faults
    ) -> None:
        """Pass bytes on, one direction, as its faults say at the time."""
        while True:
            data = await reader.read(faults.slice or _CHUNK)
            await self._stalled(faults)
            if not data:
                break
            if faults.delay:
                await asyncio.sleep(faults.delay)
            if faults.rate:
                await asyncio.sleep(len(data) / faults.rate)
            if faults.blackhole:
                continue
            if 0 <= faults.cut_after <= len(data):
                writer.write(data[: faults.cut_after])
                faults.cut_after = -1
                self.cut()
                return
            if faults.cut_after > 0:
                faults.cut_after -= len(data)
            writer.write(data)
            await writer.drain()
            if faults.slice:
                await asyncio.sleep(0)
        if not faults.blackhole and writer.can_write_eof():
            writer.write_eof()

    @staticmethod
    async def _stalled(faults: Faults) -> None:
        """Wait while the direction is stalled; another thread ends that."""
        while faults.stall:  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    def cut(self) -> None:
        """RST both ways."""
        for end in self.writers:
            sock = end.get_extra_info("socket")
            if sock is not None and sock.fileno() >= 0:
                linger = struct.pack("ii", 1, 0)
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            end.transport.abort()


class FaultProxy(Accepting):
    """Listens on a port of 127.0.0.1 and passes to `target` what the faults let pass."""

    def __init__(self, target: int | tuple[str, int], port: int | None = None) -> None:
        self.target = ("127.0.0.1", target) if isinstance(target, int) else target
        self.to_server = Faults()
        self.to_client = Faults()
        self.accepted = 0
        self._links: set[_Link] = set()
        super().__init__(port)

    def __setattr__(self, name: str, value: object) -> None:
        """A fault set on the proxy is set for both directions."""
        if name in Faults.__dataclass_fields__:
            setattr(self.to_server, name, value)
            setattr(self.to_client, name, value)
        else:
            super().__setattr__(name, value)

    @property
    def url(self) -> str:
        """The proxy as an upstream URL."""
        return f"redis://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """Connections there are now."""
        return len(self._links)

    def cut(self) -> None:
        """RST to both ends of every connection."""
        self._each(_Link.cut)

    def half_close(self, *, towards: str = "client") -> None:
        """End one direction of every connection, as a peer that shuts its sending side."""
        index = 0 if towards == "client" else 1

        def end(link: _Link) -> None:
            if len(link.writers) > index and link.writers[index].can_write_eof():
                link.writers[index].write_eof()

        self._each(end)

    def heal(self) -> None:
        """No faults from now on, listening."""
        for name, field in Faults.__dataclass_fields__.items():
            setattr(self, name, field.default)
        self.listen()

    def close(self) -> None:
        """Stop everything."""
        self.refuse()
        self.cut()
        super().close()

    def _each(self, action: Callable[[_Link], None]) -> None:
        async def act() -> None:
            for link in list(self._links):
                action(link)

        self.call(act())

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on."""
        link = _Link(self)
        self.accepted += 1
        self._links.add(link)
        try:
            await link.run(reader, writer)
        finally:
            self._links.discard(link)
