"""The live stream behind `/api/events`: server-sent events for the web page and for scripts.

A task takes a snapshot once a second, whether or not anybody listens, since the recorder needs it.
While somebody listens, it looks at what changes suddenly a few times a second. Each event is
encoded once for all listeners. A listener that does not read is dropped: its stream ends, and it
can connect again.

| Event | Data | When |
|---|---|---|
| `hello` | `instance`, `version`, `started`, and the `points` so far | first |
| `stats` | the point of this second and the gauges | each second |
| `hotkeys` | the hottest keys | each second |
| `topology` | master, replicas, Sentinels, history | each second |
| `health` | as `/api/health/redis` | each second, and at once when replies become overdue |
| `breaker`, `switch`, `warm` | what has changed | at once |
| `traces`, `audit` | new ones | each second, if there are any |
| `certificates` | all of them | first, and once a minute |
| `bye` | nothing | the sidecar ends |

`instance` differs after a restart: by that a listener tells a restart from a lost connection.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import NamedTuple

import msgspec
import structlog

from sidecar.admin.figures import (
    BreakerEvent,
    BreakerState,
    Hello,
    Introduction,
    Point,
    StatsEvent,
    SwitchEvent,
    breaker_state,
    gauges,
    switches,
)
from sidecar.admin.health import health
from sidecar.admin.recorder import Recorder
from sidecar.admin.sources import NOWHERE, Sources
from sidecar.telemetry.audit import Record
from sidecar.telemetry.facts import Server, Trace
from sidecar.telemetry.snapshots import Snapshot

log = structlog.get_logger()

EVERY = 1.0
LOOKS = 5  # in each EVERY, at what changes suddenly
LISTENERS = 32
# Events that may wait for one listener: several minutes of them.
BACKLOG = 1000
TOP = 20
TRACES = 50
AUDIT = 100

_encode = msgspec.json.Encoder().encode


class TooManyListenersError(Exception):
    """As many streams as there may be are open already, or the server is ending."""


def message(event: str, data: object) -> bytes:
    """One event as it is sent. JSON has no line breaks of its own."""
    return b"event: %b\ndata: %b\n\n" % (event.encode(), _encode(data))


class Events:
    """Fills `recorder` once a second; every listener gets `introduction` first."""

    def __init__(self, sources: Sources, recorder: Recorder, introduction: Introduction) -> None:
        self._sources = sources
        self._recorder = recorder
        self._introduction = introduction
        self._listeners: set[asyncio.Queue[bytes | None]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._seen: _Sudden | None = None
        self._traces: set[tuple[str, float]] = set()
        self._audit: Record | None = None
        self._server = Server()
        self._topology = NOWHERE
        self._closed = False
        self.most = LISTENERS
        self.opened = 0

    def start(self) -> None:
        """Start taking snapshots."""
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._run_slow())]

    def __len__(self) -> int:
        """How many streams are open."""
        return len(self._listeners)

    async def stop(self) -> None:
        """End every stream."""
        self._closed = True
        self._tell(message("bye", {}))
        for queue in self._listeners:
            with suppress(asyncio.QueueFull):
                queue.put_nowait(None)
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def listen(self) -> AsyncGenerator[bytes, None]:
        """The stream of one listener, until the listener is dropped or the server ends."""
        if self._closed or len(self._listeners) >= self.most:
            raise TooManyListenersError
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(BACKLOG)
        self._listeners.add(queue)
        self.opened += 1
        try:
            told = msgspec.structs.asdict(self._introduction)
            yield message("hello", Hello(**told, points=self._recorder.latest()))
            yield b"".join(await self._everything())
            while (said := await queue.get()) is not None:
                yield said
        finally:
            self._listeners.discard(queue)

    def _tell(self, said: bytes) -> None:
        for queue in list(self._listeners):
            try:
                queue.put_nowait(said)
            except asyncio.QueueFull:
                # The stream ends after what waits already.
                self._listeners.discard(queue)
                queue.get_nowait()
                queue.put_nowait(None)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        looks = 0
        while True:
            try:
                if looks % LOOKS == 0:
                    await self._refresh(
                        "figures", *(("traces", "audit") if self._listeners else ())
                    )
                    self._each_second(looks // LOOKS)
                elif self._listeners:
                    await self._refresh("figures")
                    self._look(self._sources.snapshot())
            except Exception:
                log.exception("admin events failed")
            looks += 1
            due = max(due + EVERY / LOOKS, loop.time())
            await asyncio.sleep(due - loop.time())

    async def _run_slow(self) -> None:
        """What takes a question to the server or the Sentinels has a task of its own, so that the
        other task misses no second."""
        while True:
            began = time.monotonic()
            if self._listeners:
                try:
                    self._tell(b"".join(await self._slow()))
                except Exception:
                    log.exception("admin events failed")
            await asyncio.sleep(max(0.0, began + EVERY - time.monotonic()))

    async def _refresh(self, *what: str) -> None:
        await asyncio.gather(*map(self._sources.refresh, what))

    def _each_second(self, second: int) -> None:
        snapshot = self._sources.snapshot()
        point = self._recorder.add(snapshot, time.monotonic(), time.time())
        if not self._listeners:
            self._seen = None
            return
        self._look(snapshot)
        said = [_stats(snapshot, point), self._health(snapshot)]
        said += self._new()
        if second % 60 == 0:
            said.append(message("certificates", self._sources.certificates()))
        self._tell(b"".join(said))

    async def _slow(self) -> list[bytes]:
        """What takes a question to the server or the Sentinels."""
        sources = self._sources
        self._topology, self._server, _ = await asyncio.gather(
            sources.topology(), sources.server(), sources.refresh("hot keys")
        )
        return [
            message("topology", self._topology),
            message("hotkeys", self._sources.hot_keys(TOP)),
        ]

    def _health(self, snapshot: Snapshot) -> bytes:
        """Health, with what the server and the Sentinels last said: a server that is silent must
        not delay it."""
        recent, now = self._recorder.over(10), time.time()
        return message("health", health(snapshot, recent, self._server, self._topology, now))

    async def _everything(self) -> list[bytes]:
        """Everything that is known now, for a new listener."""
        await self._refresh("figures", "traces", "audit")
        snapshot = self._sources.snapshot()
        said = [_stats(snapshot, None)]
        said += await self._slow()
        said.append(self._health(self._sources.snapshot()))
        said.append(message("certificates", self._sources.certificates()))
        said.append(message("traces", self._sources.traces.recent(TRACES)))
        said.append(message("audit", self._sources.audit.recent(AUDIT)))
        return said

    def _new(self) -> list[bytes]:
        """Traces and audit lines since the last time."""
        said = []
        traces = self._sources.traces.recent(TRACES)
        new = [trace for trace in traces if _id(trace) not in self._traces]
        self._traces = {_id(trace) for trace in traces}
        if new:
            said.append(message("traces", new))
        lines = self._sources.audit.recent(AUDIT)
        known = next((i for i, line in enumerate(lines) if line == self._audit), len(lines))
        if known:
            self._audit = lines[0]
            said.append(message("audit", lines[:known]))
        return said

    def _look(self, snapshot: Snapshot) -> None:
        """Send at once what has changed."""
        before, now = self._seen, _sudden(snapshot)
        self._seen = now
        if before is None or before == now:
            return
        if before.due != now.due:
            self._tell(self._health(snapshot))
        if before.breaker != now.breaker:
            self._tell(message("breaker", BreakerEvent(state=now.breaker, before=before.breaker)))
        if (before.switches, before.up) != (now.switches, now.up):
            self._tell(message("switch", SwitchEvent(switches=now.switches, up=now.up)))
        if before.warm != now.warm:
            warm = snapshot.data_plane.warm if snapshot.data_plane is not None else None
            self._tell(message("warm", warm or {}))


class _Sudden(NamedTuple):
    """What is sent at once when it changes."""

    breaker: BreakerState
    switches: int
    up: bool
    due: str
    warm: tuple[object, ...]


def _sudden(snapshot: Snapshot) -> _Sudden:
    plane = snapshot.data_plane
    up = plane is not None and plane.links.up
    warm = plane.warm if plane is not None else None
    progress = (warm.state, warm.loaded, warm.failed) if warm is not None else ()
    due = plane.unanswered.state if plane is not None else ""
    return _Sudden(breaker_state(snapshot), switches(snapshot), up, due, progress)


def _stats(snapshot: Snapshot, point: Point | None) -> bytes:
    return message("stats", StatsEvent(**msgspec.structs.asdict(gauges(snapshot)), point=point))


def _id(trace: Trace) -> tuple[str, float]:
    """Identifies a trace: several commands may be part of one trace id."""
    return trace.trace_id, trace.time
