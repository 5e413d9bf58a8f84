"""A connection through the fault proxy: two ends, each of which passes on what it receives.

Pieces wait in a queue, each with the time at which it may go on; a delay so adds to the latency and
takes nothing from the throughput. Reading stops while a direction is held, or far ahead of what the
other end takes, so senders feel it as they would feel a network.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, cast

from .fault_groups import Faults, Group

LOOKED_AT = 4096
"""First bytes of a client that may say which group it belongs to."""

AHEAD, AHEAD_OF_A_RATE = 1 << 20, 1 << 16
"""Bytes that may wait before no more are read."""

LOOK_AGAIN = 0.005
"""Seconds between two looks at a direction that is held: another thread ends that."""

RESET = struct.pack("ii", 1, 0)


class Proxy(Protocol):
    """What a connection needs of its proxy."""

    loop: asyncio.AbstractEventLoop
    rewrite: Callable[[bytes], bytes]
    passed: int
    cuts: int

    def group_of(self, address: str, sent: bytes) -> Group:
        """The group of a client at this address that has sent these bytes first."""

    def accept(self, end: ProxiedEnd) -> None:
        """A client has connected."""


class ProxiedEnd(asyncio.Protocol):
    """One end. `direction` is where what it receives goes."""

    transport: asyncio.Transport

    def __init__(self, proxy: Proxy, direction: str, group: Group) -> None:
        self.proxy, self.direction, self.group = proxy, direction, group
        self.other: ProxiedEnd | None = None
        self.lost = False
        self._finished = False
        """The other end has been told that no more comes."""
        self._queue: deque[tuple[float, bytes | None]] = deque()
        """When each piece may go on; None is the end."""
        self._queued = 0
        self._free = 0.0
        """When the last piece goes on, and the rate lets the next one."""
        self._timer: asyncio.TimerHandle | None = None
        self._full = False
        """The other end takes no more for the moment."""
        self._sent = b""

    @property
    def faults(self) -> Faults:
        """Those of its direction and group."""
        return self.group.to_server if self.direction == "to_server" else self.group.to_client

    @property
    def address(self) -> str:
        """Where the peer connects from."""
        return str(self.transport.get_extra_info("peername")[0])

    def join(self, group: Group) -> None:
        """Belong to this group from now on."""
        self.group.ends.discard(self)
        self.group = group
        if not self.lost:
            group.ends.add(self)

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there; a client's other end has to be made."""
        self.transport = cast(asyncio.Transport, transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.other is None:
            self.join(self.proxy.group_of(self.address, b""))
            self.proxy.accept(self)
        else:
            self.join(self.group)

    def data_received(self, data: bytes) -> None:
        """Take it in, and pass on what may go on."""
        if self.direction == "to_client":
            data = self.proxy.rewrite(data)
        elif len(self._sent) < LOOKED_AT:
            self._sent += data
            self._classify()
        faults = self.faults
        if faults.blackhole:
            return
        if faults.end_before and faults.end_before in data:
            self.proxy.cuts += 1
            self._end()
            return
        if faults.stall_before and faults.stall_before in data:
            before, found, after = data.partition(faults.stall_before)
            self._take(before)
            self.flush()
            faults.stall, faults.stall_before = True, b""
            data = found + after
        self._take(data)
        self.flush()

    def eof_received(self) -> bool:
        """No more comes from here; the other direction goes on, except with TLS."""
        if not self.faults.blackhole:
            self._queue.append((self._free, None))
            self.flush()
        return self.transport.get_extra_info("ssl_object") is None

    def connection_lost(self, error: Exception | None) -> None:
        """It is over: an end passes behind what had been sent, a reset at once."""
        self.lost = True
        self.group.ends.discard(self)
        if error is not None and not self._held and self.other is not None:
            self.other.cut()
        self._queue.append((self._free, None))
        self.flush()

    def pause_writing(self) -> None:
        """This end takes no more for the moment."""
        if self.other is not None:
            self.other._full = True

    def resume_writing(self) -> None:
        """It does again."""
        if self.other is not None:
            self.other._full = False
            self.other.flush()

    # Passing on

    def _classify(self) -> None:
        """What a client sends first may say which group it belongs to."""
        group = self.proxy.group_of(self.address, self._sent)
        for end in (self, self.other):
            if end is not None and end.group is not group:
                end.join(group)

    def _take(self, data: bytes) -> None:
        """Queue bytes, each piece with the time at which it may go on."""
        faults = self.faults
        size = faults.slice or len(data) or 1
        due = max(self.proxy.loop.time() + faults.delay, self._free)
        for at in range(0, len(data), size):
            piece = data[at : at + size]
            due += len(piece) / faults.rate if faults.rate else 0
            self._queue.append((due, piece))
            self._queued += len(piece)
        self._free = due

    @property
    def _held(self) -> bool:
        return self.faults.stall or self.group.severed

    def flush(self, *, now: bool = False) -> None:
        """Pass on what may go on; `now`: all of it."""
        if now:
            self._queue = deque((0.0, piece) for _, piece in self._queue)
            self._free = 0.0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if (pause := self._pass_on()) is not None:
            self._timer = self.proxy.loop.call_later(pause, self.flush)
        self._mind_the_reading()

    def _pass_on(self) -> float | None:
        """Seconds until it is worth looking again, if nothing else leads to that."""
        while self._queue and self.other is not None:
            if self._held:
                return LOOK_AGAIN
            due, piece = self._queue[0]
            wait = due - self.proxy.loop.time()
            if wait > 0:
                return wait
            if self._full:
                return None
            self._queue.popleft()
            if piece is None:
                self.finish()
            elif not self._write(self.other.transport, piece):
                return None
            if self.faults.slice:
                return 0
        return LOOK_AGAIN if self._held and not self.lost else None

    def _write(self, transport: asyncio.Transport, piece: bytes) -> bool:
        """Give a piece to the other end; False when that has cut the connection."""
        left = self.faults.cut_after  # once: whoever gets these bytes may set another
        cut = 0 <= left <= len(piece)
        if left >= 0:
            self.faults.cut_after = -1 if cut else left - len(piece)
        self._queued -= len(piece)
        self.proxy.passed += len(piece)
        if not transport.is_closing() and not self._finished:
            transport.write(piece[:left] if cut else piece)
        if cut:
            self.proxy.cuts += 1
            self.cut()
        return not cut

    def _mind_the_reading(self) -> None:
        """Read no more than is needed, so that senders feel it."""
        if self.lost or self.transport.is_closing():
            return
        ahead = AHEAD_OF_A_RATE if self.faults.rate else AHEAD
        if self._held or self._queued > ahead:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    # Ending

    def finish(self) -> None:
        """Tell the other end that no more comes; when both have been told, it is over."""
        other, self._finished = self.other, True
        if other is None:
            return
        if other._finished or not other.transport.can_write_eof():
            other.transport.close()
            self.transport.close()
        elif not other.transport.is_closing():
            with suppress(OSError):
                other.transport.write_eof()

    def _end(self) -> None:
        """Close both ends, as a server that ends."""
        for end in (self, self.other):
            if end is not None:
                end.transport.close()

    def cut(self) -> None:
        """RST, both ends."""
        for end in (self, self.other):
            if end is None or end.lost:
                continue
            end._queue.clear()
            sock = end.transport.get_extra_info("socket")
            if sock is not None and sock.fileno() >= 0:
                with suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            end.transport.abort()
