"""One worker, as the supervisor sees it: starts the process, watches it, starts it again.

    starting ── it serves ──> up <── answers / no answer for SILENT seconds ──> silent
       ^                       |                                                   |
       └────────────────────── the process has ended, after a pause <─────────────┘

A process that ends soon after its start is started again later and later, so that a crash loop does
not spin. What it had counted is kept (combining.py): the counters of the whole never go down, but
what a process that is killed has counted since it was last asked is lost.
"""

from __future__ import annotations

import asyncio
import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import structlog

from sidecar.app.channel import CallError, Channel, Handler, SilentError
from sidecar.app.orders import SOON, Start, State
from sidecar.policy.backoff import Backoff
from sidecar.settings.schema import Settings
from sidecar.telemetry.combining import kept
from sidecar.telemetry.snapshots import Snapshot, Worker, WorkerState

log = structlog.get_logger()

# Seconds without an answer after which a worker counts as silent, and between two questions.
SILENT = 2.0
LOOK = 0.25
# A process that has lived for this long (s) has not failed at its start.
SETTLED = 10.0
PAUSES = Backoff(0.1, 10.0)
# Seconds that a process may take beyond what it was given; and to load its modules, on a busy host.
GRACE = 5.0
LOADING = 30.0


class WorkerFailed(Exception):
    """The process could not start; the message is one line."""


class WorkerProcess:
    """Worker `number`. `start_with` makes its orders anew for each process, `descriptors` are
    those that it inherits, `handlers` answer its calls. `held` are the reasons for which commands
    are to be held: one that did not answer when that was said hears of it so."""

    def __init__(
        self,
        number: int,
        start_with: Callable[[int], Start],
        descriptors: Callable[[], Sequence[int]],
        handlers: Callable[[WorkerProcess], dict[str, Handler]],
        patience: Callable[[], float],
        held: Callable[[], Sequence[str]],
    ) -> None:
        self.number = number
        self.state: WorkerState = "starting"
        self.why = "not yet started"
        self.since = time.time()
        self.restarts = 0
        self.before: Snapshot | None = None
        self.last: State | None = None
        self.urls: Sequence[str] = ()
        self.settings: Settings | None = None  # that its process was started with
        self._start_with = start_with
        self._descriptors = descriptors
        self._handlers = handlers
        self._patience = patience
        self._held = held
        self._process: asyncio.subprocess.Process | None = None
        self._channel: Channel | None = None
        self._asked = 0.0
        self._ends = False  # it was told to
        self.stopping = False  # and is not to be started again
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def pid(self) -> int:
        """Of the process; 0 while there is none."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else 0

    @property
    def snapshot(self) -> Snapshot | None:
        """What it last said; None while it does not serve."""
        return self.last.snapshot if self.last is not None else None

    def described(self) -> Worker:
        """For the metrics and the admin API."""
        return Worker(
            number=self.number,
            pid=self.pid,
            state=self.state,
            since=round(self.since, 3),
            why=self.why,
            restarts=self.restarts,
        )

    async def begin(self) -> None:
        """Start the first process. Raises WorkerFailed."""
        await self._start()
        self._tasks = [
            asyncio.create_task(self._start_again_and_again()),
            asyncio.create_task(self._look_again_and_again()),
        ]

    async def call(
        self, name: str, content: object = None, *, within: float = SOON, type: Any = None
    ) -> Any:
        """Ask it something. Raises CallError, SilentError."""
        if self._channel is None:
            raise SilentError("not running")
        return await self._channel.call(name, content, within=within, type=type)

    async def look(self, within: float) -> None:
        """Ask how it is, and take in the answer."""
        channel = self._channel
        if channel is None or self.state == "starting":
            return
        began = time.monotonic()
        try:
            state: State = await channel.call("state", self._held(), within=within, type=State)
        except (SilentError, CallError):
            if channel is self._channel and time.monotonic() - self._asked > SILENT:
                self._now("silent", f"worker {self.number} does not answer")
            return
        if channel is self._channel:
            self.last, self._asked = state, max(began, self._asked)
            self._now("up", "")

    def serves(self) -> None:
        """It is about to accept clients, and answers."""
        self._asked = time.monotonic()
        self._now("up", "")

    def told(self, state: State) -> None:
        """It has said by itself how it is."""
        self.last = state

    async def change(self, settings: Settings) -> None:
        """Take over other settings; a process that cannot is replaced by one that has them."""
        if self.state == "starting":
            return  # it gets them before it serves
        try:
            await self.call("change", settings, within=GRACE)
        except (CallError, SilentError) as error:
            log.error("worker replaced", number=self.number, reason=str(error))
            await self.drain(alone=True)

    async def drain(self, *, alone: bool) -> None:
        """Have it end in order; `alone`: the others go on, and another process is started."""
        self._ends = True
        self.stopping = self.stopping or not alone
        with suppress(CallError, SilentError):
            await self.call("drain", alone)

    async def ended(self, within: float) -> None:
        """Wait for the end of the process, at most so long; then end it at once."""
        process = self._process
        if process is not None and process.returncode is None:
            try:
                async with asyncio.timeout(within):
                    await process.wait()
            except TimeoutError:
                log.warning("worker killed", number=self.number, reason="it did not end in time")
        self.kill()
        for task in self._tasks:
            task.cancel()

    def kill(self) -> None:
        """End the process at once."""
        self.stopping = True
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()

    # Inside

    def _now(self, state: WorkerState, why: str) -> None:
        if state == self.state:
            return
        was, self.state, self.why, self.since = self.state, state, why, time.time()
        if state == "silent":
            log.error("worker silent", number=self.number, pid=self.pid)
        elif was == "silent" and state == "up":
            log.info("worker answers again", number=self.number, pid=self.pid)

    async def _start(self) -> None:
        self._now("starting", self.why)
        ours, theirs = socket.socketpair()
        with theirs:
            inherited = (theirs.fileno(), *self._descriptors())
            # -P: the working directory is not where our modules come from.
            argv = (sys.executable, "-P", "-m", "sidecar.app.worker", str(theirs.fileno()))
            self._process = await asyncio.create_subprocess_exec(*argv, pass_fds=inherited)
        channel = self._channel = await Channel.on(ours, lambda: None)
        for name, handler in self._handlers(self).items():
            channel.answer(name, handler)
        start = self._start_with(self.number)
        self.settings = start.settings
        try:
            within = self._patience() + LOADING
            self.urls = await channel.call("start", start, within=within, type=list[str])
        except (CallError, SilentError) as error:
            self._channel = None
            self._now("starting", self.why)
            process, reason = self._process, str(error)
            if process.returncode is None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(SOON):
                        await process.wait()
            if isinstance(error, SilentError) and process.returncode is not None:
                reason = _reason(process.returncode)
            if process.returncode is None:
                process.kill()
            await process.wait()
            channel.close()
            raise WorkerFailed(reason) from error
        self._ends = False
        self.serves()
        log.info("worker started", number=self.number, pid=self.pid)
        await self.look(SOON)

    async def _start_again_and_again(self) -> None:
        failures = 0
        while not self.stopping:
            began = time.monotonic()
            assert self._process is not None
            status = await self._process.wait()
            self._over(_reason(status))
            if self.stopping:
                return
            told, self._ends = self._ends, False
            if told and status == 0:
                log.info("worker ended", number=self.number, reason="told to end")
            else:
                log.error("worker ended", number=self.number, reason=_reason(status))
            failures = 0 if told or time.monotonic() - began > SETTLED else failures + 1
            while not self.stopping:
                if failures:
                    await asyncio.sleep(PAUSES.delay(failures - 1, random.random()))
                self.restarts += 1
                try:
                    await self._start()
                    break
                except WorkerFailed as error:
                    failures += 1
                    self.why = f"worker {self.number} cannot start: {error}"
                    log.error("worker start failed", number=self.number, error=str(error))

    def _over(self, reason: str) -> None:
        """The process has ended: keep what it had counted."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self.before = kept(self.snapshot, self.before)
        self.last = None
        self._now("starting", f"worker {self.number} has ended ({reason}) and is started again")

    async def _look_again_and_again(self) -> None:
        while True:
            began = time.monotonic()
            await self.look(SILENT)
            await asyncio.sleep(max(0.0, began + LOOK - time.monotonic()))


def _reason(status: int) -> str:
    if status < 0:
        with suppress(ValueError):
            return signal.Signals(-status).name
    return f"status {status}"


def decoded(content: msgspec.Raw, type: Any) -> Any:
    """What a worker has sent."""
    return msgspec.msgpack.decode(content, type=type)
