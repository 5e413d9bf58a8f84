"""Threads with an event loop of their own, and listeners in them.

`LoopThread` runs what a test asks for, beside the test. A `Listener` is one that listens on a port
of 127.0.0.1; `Accepting` is for peers that say in `serve` what becomes of each connection.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from .closing import Closing
from .process import free_port

CALL_DEADLINE = 10.0

T = TypeVar("T")


class LoopThread(Closing):
    """An event loop in a thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.loop = loop or asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(CALL_DEADLINE)

    def do(self, work: Callable[[], T]) -> T:
        """Call something on the loop and wait for what it returns."""

        async def act() -> T:
            return work()

        return self.call(act())

    def close(self) -> None:
        """Cancel what still runs, and end the thread."""
        self.call(self._settle())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)
        self.loop.close()

    async def _settle(self) -> None:
        """Cancel what is left, so that the loop closes clean."""
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


class Listener(LoopThread):
    """Listens on a port of 127.0.0.1, with TLS when given a context."""

    def __init__(
        self,
        port: int | None = None,
        tls: ssl.SSLContext | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(loop)
        self.port = free_port() if port is None else port
        self.tls = tls
        self._server: asyncio.Server | None = None
        self.listen()

    async def _create(self) -> asyncio.Server:
        """Begin to listen."""
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
            self._server = await self._create()

    async def _refuse(self) -> None:
        if self._server is not None:
            server, self._server = self._server, None
            for listener in server.sockets:
                self.loop.remove_reader(listener.fileno())
            # What has just been accepted gets its transport only while the server is open.
            await asyncio.sleep(0)
            server.close()


class Accepting(Listener):
    """Serves each connection in a task of its own."""

    def __init__(self, port: int | None = None, tls: ssl.SSLContext | None = None) -> None:
        self._serving: set[asyncio.Task[None]] = set()
        super().__init__(port, tls)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """What becomes of one connection."""
        raise NotImplementedError

    async def _create(self) -> asyncio.Server:
        return await asyncio.start_server(self._accept, "127.0.0.1", self.port, ssl=self.tls)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection in a task, which may be cancelled before its first step."""
        task = self.loop.create_task(self.serve(reader, writer))
        self._serving.add(task)

        def over(task: asyncio.Task[None]) -> None:
            self._serving.discard(task)
            problem = None if task.cancelled() else task.exception()
            if problem is not None:
                self.loop.call_exception_handler({"message": "serve()", "exception": problem})
            if problem is not None or task.cancelled():
                writer.transport.abort()

        task.add_done_callback(over)
