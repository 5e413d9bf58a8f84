"""`python -m bench.delay PORT TARGET SECONDS`: a server that is further away.

Passes connections to PORT of 127.0.0.1 on to port TARGET; what the target answers takes so much
longer. Throughput is not limited, and order is kept. The event loop's timers are good to about a
millisecond.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import cast

import uvloop


class End(asyncio.Protocol):
    """One end of a connection: what it receives goes to the other one after `seconds`."""

    def __init__(self, other: End | None, seconds: float) -> None:
        self.other = other
        self.seconds = seconds
        self.transport: asyncio.Transport | None = None
        self.early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.other is not None:
            for data in self.other.early:
                self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        to = self.other.transport if self.other is not None else None
        if to is None:
            self.early.append(data)
        elif self.seconds:
            asyncio.get_running_loop().call_later(self.seconds, to.write, data)
        else:
            to.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


class Near(End):
    """The end where clients connect. It connects the other one."""

    def __init__(self, target: int, seconds: float) -> None:
        super().__init__(None, 0.0)
        self.target, self.far_seconds = target, seconds

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.other = far = End(self, self.far_seconds)
        loop = asyncio.get_running_loop()
        connecting = loop.create_connection(lambda: far, "127.0.0.1", self.target)
        self.connecting = loop.create_task(connecting)


async def serve(port: int, target: int, seconds: float) -> None:
    """Until it is killed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Near(target, seconds), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
