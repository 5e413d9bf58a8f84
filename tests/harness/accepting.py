"""Threads with an event loop of their own, and listeners in them.

`LoopThread` runs coroutines that a test asks for, beside the test. `Accepting` is one that accepts
connections on a port of 127.0.0.1; the peers made of it say in `serve` what becomes of each.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from .closing import Closing
from .process import free_port

CALL_DEADLINE = 10.0

T = TypeVar("T")


class LoopThread(Closing):
    """An event loop in a thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop or asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_DEADLINE)

    def close(self) -> None:
        """Cancel what still runs, and end the thread."""
        self.call(self._settle())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    async def _settle(self) -> None:
        """Cancel what is left, so that the loop closes clean."""
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


class Accepting(LoopThread):
    """Listens on a port of 127.0.0.1, with TLS when given a context."""

    def __init__(self, port: int | None = None, context: ssl.SSLContext | None = None) -> None:
        super().__init__()
        self.port = free_port() if port is None else port
        self._context = context
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self.listen()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """What becomes of one connection."""
        raise NotImplementedError

    def listen(self) -> None:
        """Accept connections (again)."""
        self.call(self._listen())

    def refuse(self) -> None:
        """Stop listening: new connections are refused, those there are stay."""
        self.call(self._refuse())

    def close(self) -> None:
        """Stop listening and end every connection."""
        self.refuse()
        super().close()

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(
                self._accept, "127.0.0.1", self.port, ssl=self._context
            )

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection in a task, which may be cancelled before its first step."""
        task = self._loop.create_task(self.serve(reader, writer))
        self._serving.add(task)

        def over(task: asyncio.Task[None]) -> None:
            self._serving.discard(task)
            problem = None if task.cancelled() else task.exception()
            if problem is not None:
                self._loop.call_exception_handler({"message": "serve()", "exception": problem})
            if problem is not None or task.cancelled():
                writer.transport.abort()

        task.add_done_callback(over)

    async def _refuse(self) -> None:
        if self._server is not None:
            server, self._server = self._server, None
            for listener in server.sockets:
                self._loop.remove_reader(listener.fileno())
            # What has just been accepted gets its transport only while the server is open.
            await asyncio.sleep(0)
            server.close()
