"""Background tasks of the data plane, and the ticker that calls its parts at regular intervals.

The lowest module in `proxy`: it imports no other part of the sidecar.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import structlog

log = structlog.get_logger()

# Seconds between two ticks.
TICK = 0.05


T = TypeVar("T")


def for_each(members: Iterable[T], do: Callable[[T], object]) -> None:
    """Call `do` with each of them. What fails with one is logged, and does not stop the others."""
    for member in list(members):
        try:
            do(member)
        except Exception as error:
            log.error("internal error", error=repr(error), exc_info=error)


class Tasks:
    """The background tasks of one data plane. Once `closing` is set, nothing new may start."""

    def __init__(self) -> None:
        self.closing = False
        self._running: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a background task. Its errors are logged; `close` cancels it."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("internal error", error=repr(error), exc_info=error)

    def stop(self) -> None:
        """Set `closing`; running tasks go on until `close`."""
        self.closing = True

    async def close(self) -> None:
        """Cancel every task and wait for its end."""
        self.stop()
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Ticker:
    """Calls each added function every TICK seconds, in the order of adding, with the monotonic
    time."""

    def __init__(self) -> None:
        self._calls: list[Callable[[float], None]] = []

    def add(self, call: Callable[[float], None]) -> None:
        """Call this function at each tick."""
        self._calls.append(call)

    async def run(self, tasks: Tasks) -> None:
        """Tick until the data plane closes."""
        while not tasks.closing:
            await asyncio.sleep(TICK)
            now = time.monotonic()
            for call in self._calls:
                for_each((call,), partial(_call, now))


def _call(now: float, call: Callable[[float], None]) -> None:
    call(now)


def stop_task(task: asyncio.Task[None] | None) -> None:
    """Cancel a task, unless it is the running one, which is about to return by itself."""
    if task is not None and task is not _current_task():
        task.cancel()


def _current_task() -> asyncio.Task[object] | None:
    with suppress(RuntimeError):
        return asyncio.current_task()
    return None
