"""Facts of the server that change while clients are served: what is answered follows them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from tests.harness.accepting import Accepting
from tests.harness.errors import GONE
from tests.harness.process import wait_until
from tests.harness.server_stats import links
from tests.harness.servers import Server, Sidecar, valkey
from tests.harness.wire import Wire, pack

MIB = 1 << 20
TOO_LONG = b"-ERR Protocol error: invalid bulk length\r\n"


def test_the_longest_value() -> None:
    """`proto-max-bulk-len` is changed through the sidecar, up and down, as at a direct server."""
    value = b"x" * (2 * MIB)

    def says(port: int) -> bytes:
        """The reply to the header of a request with this value, or to all of it."""
        request = pack("SET", "k", value)
        with Wire(port) as client:
            client.send(request[:100])
            with suppress(OSError):  # it may have been refused by its header
                client.send(request[100:])
            return client.read_reply()

    with (
        valkey({"proto-max-bulk-len": MIB}) as server,
        Sidecar(server.url) as sidecar,
        Wire(sidecar.port) as client,
        Wire(sidecar.port) as refused,
    ):
        refused.send(pack("SET", "k", value)[:100])
        assert refused.read_reply() == TOO_LONG
        assert client.cmd("CONFIG", "SET", "proto-max-bulk-len", str(4 * MIB)) == b"+OK\r\n"
        wait_until(lambda: says(sidecar.port) == b"+OK\r\n", "larger values", 10, GONE)
        assert says(server.port) == b"+OK\r\n"


class Renames(Accepting):
    """A way to the server on which it looks like another version, as long as `rename` does so."""

    def __init__(self, server: Server, rename: Callable[[bytes], bytes]) -> None:
        self._behind = server.port
        self.rename = rename
        self._writers: set[asyncio.StreamWriter] = set()
        super().__init__()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on."""
        there, back = await asyncio.open_connection("127.0.0.1", self._behind)
        ends = {writer, back}
        self._writers |= ends
        replies = asyncio.create_task(self._pass(there, writer))
        try:
            while data := await reader.read(65536):
                back.write(data)
        finally:
            replies.cancel()
            self._writers -= ends
            for end in ends:
                end.transport.abort()

    async def _pass(self, there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await there.read(65536):
            writer.write(self.rename(data))

    def cut(self) -> None:
        """End all connections."""

        async def end() -> None:
            for writer in self._writers:
                writer.transport.abort()

        self.call(end())


def test_a_server_that_is_replaced_by_a_newer_one() -> None:
    """Its name stays. The near cache is off with the old one, and on from the next connection on,
    for clients that were there before as well."""
    settings: dict[str, str | int | float] = {"cache.mode": "rules", "cache.rules": "*"}
    old = (b"$6\r\nserver\r\n$6\r\nvalkey", b"$6\r\nserver\r\n$5\r\nredis")
    version = (b"$7\r\nversion\r\n$5\r\n9.", b"$7\r\nversion\r\n$5\r\n6.")
    with (
        valkey() as server,
        Renames(server, lambda data: data.replace(*old).replace(*version)) as way,
    ):
        url = f"redis://127.0.0.1:{way.port}"
        with (
            Sidecar(url, settings=settings) as sidecar,
            Wire(sidecar.port) as client,
            Wire(server.port) as observer,
        ):
            assert client.cmd("SET", "k", "v") == b"+OK\r\n"
            wait_until(lambda: "near cache" in sidecar.log(), "it is off", 10)
            assert not links(observer, tracked=True)
            way.rename = bytes
            way.cut()
            wait_until(lambda: client.cmd("GET", "k") == b"$1\r\nv\r\n", "service", 10)
            wait_until(lambda: links(observer, tracked=True), "the near cache is on", 10)
