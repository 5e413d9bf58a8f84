"""Work that runs beside the data plane, on the same loop, and ends with it; and its regular beat.

Lies below everything else in `proxy`: no other part of the sidecar is known here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import structlog

log = structlog.get_logger()

# How often the parts that look after something are called.
TICK = 0.05


class Tasks:
    """The tasks of one data plane. `closing` tells that nothing new is to be begun."""

    def __init__(self) -> None:
        self.closing = False
        self._running: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something beside; its errors are logged, and it ends with the data plane."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("internal error", error=repr(error), exc_info=error)

    def stop(self) -> None:
        """The data plane ends: from now on nothing is begun again."""
        self.closing = True

    async def close(self) -> None:
        """End every task."""
        self.stop()
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Ticker:
    """Calls what has been added, in that order, every TICK seconds with the monotonic time."""

    def __init__(self) -> None:
        self._calls: list[Callable[[float], None]] = []

    def add(self, call: Callable[[float], None]) -> None:
        """Call this at each tick, after those added before."""
        self._calls.append(call)

    async def run(self, tasks: Tasks) -> None:
        """Tick until the tasks end."""
        while not tasks.closing:
            await asyncio.sleep(TICK)
            now = time.monotonic()
            for call in self._calls:
                call(now)


def stop_task(task: asyncio.Task[None] | None) -> None:
    """End a task, unless it is the caller's own: that one is over by itself."""
    if task is not None and task is not _current_task():
        task.cancel()


def _current_task() -> asyncio.Task[object] | None:
    with suppress(RuntimeError):
        return asyncio.current_task()
    return None
