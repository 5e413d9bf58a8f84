"""A SentinelWatcher under test: what it told, and waiting for what it should tell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from sidecar.discovery.sentinel import DiscoveryError, SentinelWatcher
from sidecar.policy.topology import Event, MasterNamed
from sidecar.settings.sections.upstream import Sentinel
from sidecar.settings.urls import Endpoint, parse_upstream
from sidecar.telemetry import facts

from .sentinels import SentinelProcess

DEADLINE = 15.0
HOST = "127.0.0.1"


class Watch:
    """A watcher and what it told."""

    def __init__(self, endpoint: Endpoint, settings: Sentinel, **options: Any) -> None:
        self.events: list[Event] = []
        self.fails = False
        self._news = asyncio.Event()
        context = options.pop("context", None)
        self.watcher = SentinelWatcher(endpoint, settings, context, self._hear, **options)

    def _hear(self, event: Event) -> None:
        self.events.append(event)
        self._news.set()
        if self.fails:
            raise RuntimeError("of the test")

    async def until(self, check: Callable[[], object], what: str) -> None:
        """Wait for something to be true; looked at with each event, and every few ms."""
        try:
            async with asyncio.timeout(DEADLINE):
                while not check():
                    self._news.clear()
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._news.wait(), 0.02)
        except TimeoutError:
            state = f"{self.watcher.snapshot()}\n{self.events}"
            raise AssertionError(f"not within {DEADLINE} s: {what}\n{state}") from None

    def sentinels(self) -> Sequence[facts.Sentinel]:
        """As the snapshot shows them."""
        return self.watcher.snapshot().sentinels

    def knows(self, process: SentinelProcess) -> bool:
        """Whether this one is among them."""
        return f"{HOST}:{process.port}" in {one.address for one in self.sentinels()}

    def sentinel(self, process: SentinelProcess) -> facts.Sentinel:
        """One of them."""
        (found,) = [s for s in self.sentinels() if s.address == f"{HOST}:{process.port}"]
        return found

    def connected(self, number: int) -> bool:
        """Whether there are so many, and all of them have named a master."""
        states = [one.connected and one.master is not None for one in self.sentinels()]
        return len(states) == number and all(states)

    def named(self, *, switched: bool) -> list[MasterNamed]:
        """Every MasterNamed of one sort."""
        named = [event for event in self.events if isinstance(event, MasterNamed)]
        return [event for event in named if event.switched == switched]


@asynccontextmanager
async def watching(url: str, *, start: bool = True, **changes: Any) -> AsyncIterator[Watch]:
    """A watcher, closed at the end. `changes` are settings, and `context`."""
    context = changes.pop("context", None)
    settings = Sentinel(**{"connect_timeout": 1.0, "poll_interval": 60.0, **changes})
    watch = Watch(parse_upstream(url), settings, context=context)
    before = asyncio.all_tasks()
    try:
        if start:
            watch.watcher.start()
        yield watch
    finally:
        await watch.watcher.close()
    assert asyncio.all_tasks() <= before


async def find(url: str, **changes: Any) -> tuple[str, int]:
    """`find_master` of a new watcher."""
    async with watching(url, start=False, **changes) as watch:
        return await watch.watcher.find_master()


async def failure(url: str, **changes: Any) -> str:
    """The same, when nobody names a master: one line that says why."""
    with pytest.raises(DiscoveryError) as caught:
        await find(url, **changes)
    text = str(caught.value)
    assert "\n" not in text
    return text
