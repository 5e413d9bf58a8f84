"""All workers of one sidecar: started together, asked together, ended together.

What one worker asks of the others passes through here. Whoever does not answer soon is left out of
an answer, and the log says so; a worker that is known to be silent is not waited for.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import structlog

from sidecar.app.channel import CallError, Handler, SilentError
from sidecar.app.orders import SOON, Prepared, Start, State
from sidecar.app.worker_process import GRACE, WorkerProcess, decoded
from sidecar.proxy.session.client_ids import UPPER
from sidecar.proxy.session.others import Crowd
from sidecar.settings.schema import Settings
from sidecar.settings.urls import Endpoint
from sidecar.telemetry.combining import combined
from sidecar.telemetry.facts import UnderWay
from sidecar.telemetry.snapshots import Snapshot

log = structlog.get_logger()

T = TypeVar("T")

# Seconds in which one worker leaves the ports to others, before the next one does.
GIVING_WAY = 1.0


class Crew:
    """The workers. `share` makes the settings of one; `descriptors` returns the listening ones that
    they inherit; `upstream` is the embedded server, if there is one. `snapshots` returns the files
    in which all but one keep their warm sets."""

    def __init__(
        self,
        settings: Settings,
        share: Callable[[int], Settings],
        descriptors: Callable[[], Sequence[int]],
        upstream: Endpoint | None,
        snapshots: Callable[[int], Sequence[str]],
    ) -> None:
        self._share = share
        self._snapshots = snapshots
        self._upstream = upstream
        self._descriptors = descriptors
        self._patience = settings.upstream.start_timeout
        # Why all commands are held: by a worker that is started now from the first on, too.
        self.held: list[str] = []
        self._prepared = 0
        self._go = asyncio.Event()
        self._ids = secrets.randbelow(UPPER)
        self.workers = [
            WorkerProcess(
                number,
                self._start_of,
                descriptors,
                self._handlers,
                lambda: self._patience,
                lambda: self.held,
            )
            for number in range(1, settings.workers + 1)
        ]

    async def start(self) -> None:
        """Start all. Raises WorkerFailed."""
        await _all(worker.begin() for worker in self.workers)

    @property
    def urls(self) -> Sequence[str]:
        """The addresses that clients can connect to."""
        return self.workers[0].urls

    def _start_of(self, number: int) -> Start:
        self._ids += 1  # each process has ids of its own
        return Start(
            number=number,
            settings=self._share(number),
            ids=self._ids,
            sockets=self._descriptors(),
            upstream=self._upstream,
            held=self.held,
            snapshots=self._snapshots(number),
        )

    # What they are asked

    @property
    def up(self) -> Sequence[WorkerProcess]:
        """Those that answer."""
        return [worker for worker in self.workers if worker.state == "up"]

    async def refresh(self, within: float) -> None:
        """Have the newest state of all that answer within so many seconds."""
        await asyncio.gather(*(worker.look(within) for worker in self.up))

    def snapshot(self, own: Snapshot) -> Snapshot:
        """The figures of all, and the supervisor's own."""
        whole = combined([*((each.snapshot, each.before) for each in self.workers), (own, None)])
        workers = [each.described() for each in self.workers]
        return msgspec.structs.replace(whole, workers=workers)

    def snapshots(self) -> Mapping[str, Snapshot]:
        """The figures of each that serves, also of its processes before."""
        return {
            str(each.number): combined([(each.snapshot, each.before)])
            for each in self.workers
            if each.snapshot is not None
        }

    async def ask_all(
        self, name: str, content: object = None, *, type: Any = None, within: float = SOON
    ) -> Sequence[Any]:
        """What those say that answer."""
        asked = [self._ask(worker, name, content, type, within) for worker in self.up]
        return [said for said in await asyncio.gather(*asked) if said is not None]

    async def ask_one(
        self, name: str, content: object = None, *, type: Any, within: float = SOON
    ) -> Any:
        """What the first says that answers. Raises CallError, SilentError."""
        error: Exception = SilentError("no worker answers")
        for worker in self.up:
            try:
                return await worker.call(name, content, type=type, within=within)
            except SilentError as problem:
                error = problem
        raise error

    async def _ask(
        self, worker: WorkerProcess, name: str, content: object, type: Any, within: float
    ) -> Any:
        try:
            return await worker.call(name, content, type=type, within=within)
        except (CallError, SilentError) as error:
            log.warning("worker not asked", number=worker.number, of=name, error=str(error))
            return None

    async def change(self) -> None:
        """Have all take over their share of other settings."""
        await asyncio.gather(*(each.change(self._share(each.number)) for each in self.workers))

    async def go_over(self) -> Sequence[UnderWay]:
        """Have all take over their share of settings that name another upstream, one by one; what
        each had to end. Raises CallError, SilentError: some may have gone over."""
        ended = []
        for worker in self.workers:
            share = self._share(worker.number)
            ended.append(await worker.call("change", share, within=GRACE, type=UnderWay | None))
        return [each for each in ended if each is not None]

    async def end(self) -> None:
        """End all soon, also one that is starting: what it has started itself ends with it."""
        await asyncio.gather(*(worker.drain(alone=False) for worker in self.workers))
        await asyncio.gather(*(worker.ended(SOON) for worker in self.workers))

    async def drain(self, within: float, *, one_by_one: bool) -> None:
        """End all in order. `one_by_one`: another sidecar takes over the ports."""
        for number, worker in enumerate(self.workers):
            if one_by_one and number:
                await asyncio.sleep(GIVING_WAY)
            await worker.drain(alone=False)
        await asyncio.gather(*(worker.ended(within + GRACE) for worker in self.workers))

    def kill(self) -> None:
        """End all at once."""
        for worker in self.workers:
            worker.kill()

    # What one asks of the others

    def _handlers(self, asking: WorkerProcess) -> dict[str, Handler]:
        async def crowds(content: msgspec.Raw) -> Sequence[Crowd]:
            others = [each for each in self.workers if each is not asking]
            return await asyncio.gather(*(self._crowd_of(each) for each in others))

        async def kill_others(content: msgspec.Raw) -> Sequence[int]:
            numbers = decoded(content, list[int])
            others = [each for each in self.up if each is not asking]
            asked = [self._ask(each, "kill", numbers, list[int], SOON) for each in others]
            return [number for said in await asyncio.gather(*asked) for number in said or ()]

        async def keep_other(content: msgspec.Raw) -> int:
            number = decoded(content, int)
            others = [each for each in self.up if each is not asking]
            asked = [self._ask(each, "keep", number, int, SOON) for each in others]
            return next((link for link in await asyncio.gather(*asked) if link), 0)

        async def prepared(content: msgspec.Raw) -> Prepared:
            asking.told(decoded(content, State))
            self._prepared += 1
            if self._prepared >= len(self.workers):
                self._go.set()
            await self._go.wait()
            # From here on it is told of changes; those that were made since its start it gets now.
            asking.serves()
            share = self._share(asking.number)
            return Prepared(self.held, share if share != asking.settings else None)

        async def last(content: msgspec.Raw) -> None:
            asking.told(decoded(content, State))

        async def told_to_end(content: msgspec.Raw) -> None:
            if not asking.stopping:
                log.info("worker stopping", number=asking.number, pid=asking.pid)
                await asking.drain(alone=True)

        return {
            "crowds": crowds,
            "kill others": kill_others,
            "keep other": keep_other,
            "prepared": prepared,
            "last": last,
            "told to end": told_to_end,
        }

    async def _crowd_of(self, worker: WorkerProcess) -> Crowd:
        """Of one that does not answer, the connections that it had when it last did."""
        if worker.state != "silent":
            crowd: Crowd | None = await self._ask(worker, "crowd", None, Crowd, SOON)
            if crowd is not None:
                return crowd
        else:
            log.warning("worker not asked", number=worker.number, of="crowd", error="silent")
        last = worker.last
        return Crowd((), last.connections if last is not None else {})


async def _all(works: Any) -> None:
    """All of them; the first error ends the others."""
    tasks: list[asyncio.Task[None]] = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
