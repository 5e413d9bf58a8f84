"""A TCP proxy in front of the nodes that can take the network away, as a process of its own.

All processes of a drill live on the loopback interface, where nothing can be unplugged without
privileges. So each node announces a port of this proxy instead of its own, and the proxy knows by
the source address who connects: a Sentinel (127.0.0.11 and up), a node (127.0.0.21 and up), or a
client (anybody else).

A cut does what a partition does to TCP: nothing is refused, reset or ended. What is under way is
held, and what one side sends or ends afterwards reaches the other only when the cut is healed and
both still want it. A connection made during a cut is accepted (the kernel does that) and stays
silent; it is dropped at the healing, as if its first packet had never arrived. A real network
would rather not accept it: whoever connects has to have a deadline for the first answer either
way.

Control: one line on a unix socket, `cut NODE GROUP,GROUP` or `heal`, answered with `ok`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
from collections import defaultdict
from collections.abc import Sequence

from tests.harness.fleet import Fleet
from tests.harness.process import wait_until

CHUNK = 65536
GROUPS = ("clients", "sentinels", "nodes")


class FaultNet:
    """The running proxy, as its cluster sees it."""

    def __init__(self, fleet: Fleet, ports: Sequence[tuple[int, int]]) -> None:
        """Start it; `ports` are (announced, real) for each node."""
        self._path = str(fleet.folder / "faultnet.sock")
        argv = [sys.executable, "-m", "bench.drills.faultnet", self._path, json.dumps(ports)]
        self._process = fleet.start("faultnet", argv)
        wait_until(self._answers, "the fault proxy", 10)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            self.heal()
            return True
        return False

    def _tell(self, line: str) -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(5)
            sock.connect(self._path)
            sock.sendall(line.encode() + b"\n")
            if sock.recv(16) != b"ok\n":
                raise ConnectionError("the fault proxy did not understand")

    def cut(self, node: int, groups: Sequence[str]) -> None:
        """Take the way between a node and these groups."""
        self._tell(f"cut {node} {','.join(groups)}")

    def heal(self) -> None:
        """All ways are open again."""
        self._tell("heal")


def group_of(address: str) -> str:
    """Who connects from this address."""
    last = int(address.rpartition(".")[2])
    if 11 <= last <= 20:
        return "sentinels"
    return "nodes" if 21 <= last <= 30 else "clients"


async def _pump(
    way: asyncio.Event, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Pass one direction on, its end included; a broken end breaks the other."""
    try:
        while data := await _received(reader):
            await way.wait()
            writer.write(data)
            await writer.drain()
        await way.wait()
        writer.write_eof()
    except (OSError, RuntimeError):
        writer.transport.abort()


async def _received(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(CHUNK)
    except OSError:
        return b""


def _open_way() -> asyncio.Event:
    way = asyncio.Event()
    way.set()
    return way


class Proxy:
    """One listener a node; one event for each way from a group to a node, set while it is open."""

    def __init__(self) -> None:
        self.ways: defaultdict[tuple[int, str], asyncio.Event] = defaultdict(_open_way)

    async def listen(self, node: int, port: int, target: int) -> None:
        """Pass what comes to `port` on to `target`."""

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            way = self.ways[node, group_of(writer.get_extra_info("peername")[0])]
            with contextlib.suppress(OSError):
                await self._link(way, target, reader, writer)
            writer.transport.abort()

        await asyncio.start_server(accept, "127.0.0.1", port)

    async def _link(
        self,
        way: asyncio.Event,
        target: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        if not way.is_set():
            await way.wait()
            return
        there, back = await asyncio.open_connection("127.0.0.1", target)
        for end in (writer, back):
            end.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.gather(_pump(way, reader, back), _pump(way, there, writer))
        back.transport.abort()

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one line."""
        words = (await reader.readline()).decode().split()
        if words[:1] == ["cut"]:
            for group in words[2].split(","):
                self.ways[int(words[1]), group].clear()
        elif words == ["heal"]:
            for way in self.ways.values():
                way.set()
        writer.write(b"ok\n" if words else b"?\n")
        await writer.drain()
        writer.close()


async def serve(path: str, ports: Sequence[tuple[int, int]]) -> None:
    """Listen for every node, then for orders, until killed."""
    proxy = Proxy()
    for node, (port, target) in enumerate(ports):
        await proxy.listen(node, port, target)
    server = await asyncio.start_unix_server(proxy.control, path)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(sys.argv[1], json.loads(sys.argv[2])))
