"""A thread that writes lines to a file descriptor: whoever logs never waits for the log's reader.

    put() -> bounded queue -> thread: encode, one write for all that has come -> descriptor

If the queue is full, further lines are dropped and counted. After the first line the thread waits a
moment for others, so that a burst costs few writes and few thread switches. `flush` has a time
limit, since the descriptor may be blocked for ever.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

MOST = 10_000  # lines waiting; a few MB
GATHER = 0.005  # seconds that a line waits for others
AT_ONCE = 1000  # lines in one write
STUCK_POLL = 0.5


class LineWriter:
    """Writes items to `fd`. `encode` makes a line of each, on the thread. Counts lines."""

    def __init__(self, fd: int, encode: Callable[[Any], bytes], most: int = MOST) -> None:
        self.written = 0
        self.dropped = 0
        self._fd = fd
        self._encode = encode
        self._most = most
        self._queue: SimpleQueue[Any] = SimpleQueue()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def put(self, item: Any) -> None:
        """Queue an item to be written; drop it if too many are waiting. Never blocks."""
        if self._queue.qsize() >= self._most:
            self.dropped += 1
        else:
            self._queue.put(item)

    def redirect(self, fd: int) -> None:
        """Write to this descriptor from now on, and close the one used so far."""
        self._queue.put(_Redirect(fd))

    def flush(self, within: float = 1.0) -> bool:
        """Wait until everything queued has been written; False if that took too long."""
        mark = threading.Event()
        self._queue.put(mark)
        return mark.wait(within)

    def close(self, within: float = 1.0) -> None:
        """Write what is left, for at most so many seconds, and end the thread."""
        self._closing = True
        self.flush(within)

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            if not isinstance(item, threading.Event):
                time.sleep(GATHER)
            self._write_out(item)
            if self._closing and self._queue.empty():
                return

    def _write_out(self, item: Any) -> None:
        """Write this item, and all that have come meanwhile."""
        lines: list[bytes] = []
        while True:
            if isinstance(item, threading.Event):
                self._send(lines)
                lines = []
                item.set()
            elif isinstance(item, _Redirect):
                self._send(lines)
                lines = []
                os.close(self._fd)
                self._fd = item.fd
            else:
                lines.append(self._line(item))
                if len(lines) >= AT_ONCE:
                    self._send(lines)
                    lines = []
            try:
                item = self._queue.get_nowait()
            except Empty:
                break
        self._send(lines)

    def _line(self, item: Any) -> bytes:
        try:
            return self._encode(item)
        except Exception as error:  # an item that cannot be encoded must not end the thread
            return f"log line lost: {error!r}\n".encode()

    def _send(self, lines: list[bytes]) -> None:
        rest = memoryview(b"".join(lines))
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                select.select([], [self._fd], [], STUCK_POLL)
            except OSError:
                self.dropped += len(lines)  # nobody reads it any more, or the disk is full
                return
        self.written += len(lines)


class _Redirect:
    """In the queue: continue with this descriptor."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
