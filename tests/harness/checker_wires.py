"""The network between a sidecar and its server, one connection at a time.

    wires = Wires(server.port); await wires.start()      # a sidecar connects to wires.port
    with ThreadedWires(server.port) as wires: ...        # the same for tests without a loop
    wires.way("tracked").delay = 0.2                     # invalidations come late
    wires.way("others").hold()                           # a black hole: nothing is lost or refused
    wires.cut("tracked")                                 # RST to both ends

A connection is `tracked` once its client has sent CLIENT TRACKING ON as the sidecar does it, in
capitals, and one of the `others` before; an application that tracks for itself through the sidecar
is told apart by small letters.
What is held goes on in its order when the way is opened again.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import TypeAlias, cast

from .accepting import LoopThread
from .process import free_port

TRACKED, OTHERS = "tracked", "others"
SIGN = b"TRACKING\r\n$2\r\nON\r\n"


class Way:
    """What happens to one group of connections."""

    def __init__(self) -> None:
        self.delay = 0.0
        self.only = ""
        """The only direction that is delayed; empty: both."""
        self.held = {"to_server": False, "to_client": False}
        self.ends: set[End] = set()

    def hold(self, *directions: str) -> None:
        """Pass nothing on, in these directions (both)."""
        for direction in directions or tuple(self.held):
            self.held[direction] = True

    def delay_of(self, direction: str) -> float:
        """Seconds that a piece takes, this way."""
        return 0.0 if self.only and self.only != direction else self.delay

    def open(self) -> None:
        """Pass everything on at once, what was held as well."""
        self.delay, self.only = 0.0, ""
        self.held = dict.fromkeys(self.held, False)
        for end in list(self.ends):
            end.flush()


class End(asyncio.Protocol):
    """One end of a connection: passes what it receives on to the other end."""

    def __init__(self, wires: Wires, direction: str) -> None:
        self.wires, self.direction = wires, direction
        self.transport: asyncio.Transport | None = None
        self.other: End | None = None
        self.group = OTHERS
        self.queue: deque[tuple[float, bytes | None]] = deque()
        """When each piece may go on; None is the end."""
        self.seen = b""
        wires.ways[OTHERS].ends.add(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there; a client's other end has to be made."""
        self.transport = cast(asyncio.Transport, transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.other is None:
            self.wires.connect(self)

    def data_received(self, data: bytes) -> None:
        """Pass it on, now or later."""
        if self.direction == "to_server" and self.group == OTHERS and len(self.seen) < 4096:
            self.seen += data
            if SIGN in self.seen:
                self.move(TRACKED)
        if self.direction == "to_client":
            data = self.wires.rewrite(data)
        way = self.wires.ways[self.group]
        if self.direction == "to_server" and self.group == TRACKED:
            data = self.hold_before(way, data)
        delay = way.delay_of(self.direction)
        if not self.queue and not delay and not way.held[self.direction] and self.connected:
            self.write(data)
        else:
            self.queue.append((self.wires.loop.time() + delay, data))
            self.flush()

    def hold_before(self, way: Way, data: bytes) -> bytes:
        """Pass on what comes before the bytes that are waited for, if they are here; the rest."""
        before, found, after = data.partition(self.wires.hold_before or data)
        if not self.wires.hold_before or not found or not self.connected:
            return data
        self.write(before)
        way.hold("to_server")
        self.wires.hold_before = b""
        return found + after

    def connection_lost(self, error: Exception | None) -> None:
        """Its end is passed on behind what it had sent."""
        self.queue.append((0.0, None))
        self.flush()

    @property
    def connected(self) -> bool:
        """Whether the other end is there."""
        return self.other is not None and self.other.transport is not None

    def move(self, group: str) -> None:
        """Both ends belong to another group from now on."""
        for end in (self, self.other):
            if end is not None:
                self.wires.ways[end.group].ends.discard(end)
                end.group = group
                self.wires.ways[group].ends.add(end)

    def write(self, data: bytes | None) -> None:
        """Give it to the other end."""
        assert self.other is not None
        assert self.other.transport is not None
        if data is None:
            self.other.transport.close()
            self.wires.forget(self)
        elif not self.other.transport.is_closing():
            self.other.transport.write(data)

    def flush(self) -> None:
        """Pass on what may go on."""
        loop = self.wires.loop
        while self.queue and self.connected:
            due, data = self.queue[0]
            if self.wires.ways[self.group].held[self.direction]:
                return
            if due > loop.time():
                loop.call_at(due, self.flush)
                return
            self.queue.popleft()
            self.write(data)

    def cut(self) -> None:
        """RST."""
        self.queue.clear()
        if self.transport is not None:
            self.transport.abort()
        self.wires.forget(self)


Ways: TypeAlias = "dict[str, Way]"


class Wires:
    """All connections to one server."""

    def __init__(self, target: int) -> None:
        self.target, self.port = target, free_port()
        self.ways: Ways = {TRACKED: Way(), OTHERS: Way()}
        self.rewrite: Callable[[bytes], bytes] = lambda data: data
        """What the server says, as its clients get it."""
        self.hold_before = b""
        """On its way to the server, a tracked connection is held when it comes to these bytes."""
        self.loop: asyncio.AbstractEventLoop
        self._server: asyncio.Server | None = None
        self._connecting: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """As an upstream."""
        return f"redis://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen."""
        self.loop = asyncio.get_running_loop()
        self._server = await self.loop.create_server(
            lambda: End(self, "to_server"), "127.0.0.1", self.port
        )

    def close(self) -> None:
        """Listen no more, and end all connections."""
        if self._server is not None:
            self._server.close()
        for group in (TRACKED, OTHERS):
            self.cut(group)

    def connect(self, end: End) -> None:
        """Make the other end of a connection that has been accepted."""
        task = self.loop.create_task(self._connect(end))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, end: End) -> None:
        back = End(self, "to_client")
        back.other = end
        try:
            await self.loop.create_connection(lambda: back, "127.0.0.1", self.target)
        except OSError:
            end.cut()
            self.forget(back)
            return
        end.other = back
        back.group = OTHERS
        if end.group != OTHERS:
            end.move(end.group)
        end.flush()

    def way(self, group: str) -> Way:
        """What happens to a group."""
        return self.ways[group]

    def cut(self, group: str) -> int:
        """End the connections of a group with RST: how many."""
        ends = list(self.ways[group].ends)
        for end in ends:
            end.cut()
        return len(ends) // 2

    def forget(self, end: End) -> None:
        """It is over."""
        for way in self.ways.values():
            way.ends.discard(end)

    def heal(self) -> None:
        """No faults."""
        for way in self.ways.values():
            way.open()


class ThreadedWires(LoopThread):
    """`Wires` on an event loop in a thread, for tests that have none."""

    def __init__(self, target: int) -> None:
        super().__init__()
        self.wires = Wires(target)
        self.call(self.wires.start())

    @property
    def url(self) -> str:
        """As an upstream."""
        return self.wires.url

    def do(self, work: Callable[[], object]) -> None:
        """Something that belongs on the loop."""

        async def act() -> None:
            work()

        self.call(act())

    def hold(self, group: str, *directions: str) -> None:
        """Pass nothing on, in these directions (both)."""
        self.do(lambda: self.wires.way(group).hold(*directions))

    def open(self, group: str) -> None:
        """Pass everything on, what was held as well."""
        self.do(self.wires.way(group).open)

    def heal(self) -> None:
        """No faults; what was held goes on."""
        self.do(self.wires.heal)

    def cut(self, group: str) -> None:
        """RST to both ends."""
        self.do(lambda: self.wires.cut(group))

    def close(self) -> None:
        """End all connections, and the loop."""
        self.do(self.wires.close)
        super().close()
