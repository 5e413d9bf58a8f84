"""One of several workers: a process that serves clients, and does what its supervisor says.

`python -m sidecar.app.worker N`, where N is the descriptor of its end of the control channel; only
the supervisor (crew.py) starts it. It is a `Sidecar` without the parts that there is one of: admin
endpoint, embedded server, signals, systemd. When the channel ends, the supervisor is gone, whatever
ended it: then the worker drains and ends as well.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Collection, Sequence
from contextlib import suppress
from typing import TypeVar

import msgspec
import structlog
import uvloop

from sidecar.admin.answers import Paused, Resumed, Switched
from sidecar.admin.sources import RefusedError
from sidecar.app.channel import CallError, Channel, SilentError
from sidecar.app.orders import ASKED, SOON, Ask, Prepared, Start, State
from sidecar.app.sidecar import Given, Sidecar
from sidecar.app.startup import StartError
from sidecar.proxy.moving import MoveError
from sidecar.proxy.session.others import Crowd, Membership
from sidecar.settings.schema import Settings
from sidecar.telemetry import logs
from sidecar.telemetry.facts import UnderWay

log = structlog.get_logger()

T = TypeVar("T")

# The supervisor asks the others in SOON, and answers then whoever has answered.
WITHIN = 3 * SOON


class Worker:
    """What this process does for its supervisor."""

    def __init__(self) -> None:
        self._channel: Channel
        self._sidecar: Sidecar | None = None
        self._to_hold: Sequence[str] = ()  # why commands are held from the first on
        self._held: list[str] = []  # and why they are by now, as far as the supervisor has said
        self._serving: asyncio.Event = asyncio.Event()
        self._ended: asyncio.Event = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    async def run(self, sock: socket.socket) -> None:
        """Until the sidecar, or the supervisor, has ended."""
        channel = self._channel = await Channel.on(sock, self._lost)
        for name, handler in {
            "start": self._start,
            "state": self._state,
            "hot keys": self._hot_keys,
            "traces": self._traces,
            "audit": self._audit,
            "topology": self._topology,
            "server": self._server,
            "flush": self._flush,
            "failover": self._failover,
            "change": self._change,
            "look": self._look,
            "hold": self._hold,
            "release": self._release,
            "drain": self._drain,
            "crowd": self._crowd,
            "kill": self._kill,
            "keep": self._keep,
        }.items():
            channel.answer(name, handler)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._told_to_end)
        for number in (signal.SIGINT, signal.SIGHUP):  # the supervisor has got them as well
            loop.add_signal_handler(number, _leave_it)
        await self._ended.wait()
        if self._running is not None:
            with suppress(StartError):
                await self._running
        await channel.finish(SOON)  # the answer may be the error of starting

    # What happens to it

    def _lost(self) -> None:
        if self._sidecar is not None:
            log.error("supervisor lost")
            self._sidecar.end()
        self._ended.set()

    def _told_to_end(self) -> None:
        """SIGTERM for this process: the supervisor knows whether the others end as well."""
        told = asyncio.ensure_future(self._tell("told to end"))
        told.add_done_callback(lambda _: None)

    async def _tell(self, name: str, content: object = None) -> None:
        with suppress(CallError, SilentError):
            await self._channel.call(name, content, within=SOON)

    async def _serve(self, sidecar: Sidecar) -> None:
        try:
            await sidecar.serve()
        finally:
            self._ended.set()

    # What it is asked

    async def _start(self, content: msgspec.Raw) -> Sequence[str]:
        start = msgspec.msgpack.decode(content, type=Start)
        settings = start.settings
        logs.configure(
            settings.log.format,
            settings.log.level,
            blocking=settings.log.blocking,
            worker=start.number,
        )
        sockets = [socket.socket(fileno=number) for number in start.sockets]
        for each in sockets:
            each.setblocking(False)
            each.set_inheritable(False)
        self._to_hold = start.held
        membership = Membership(_Others(self._channel), start.ids, self._prepared, start.snapshots)
        given = Given(sockets, start.upstream, membership, self._serving.set, self._last)
        sidecar = self._sidecar = Sidecar(settings, lambda: settings, given=given)
        running = self._running = asyncio.create_task(self._serve(sidecar))
        serving = asyncio.create_task(self._serving.wait())
        await asyncio.wait({running, serving}, return_when=asyncio.FIRST_COMPLETED)
        serving.cancel()
        if running.done():
            error = running.exception()
            raise CallError(str(error) if isinstance(error, StartError) else repr(error))
        assert sidecar.proxy is not None
        return sidecar.proxy.listening

    async def _prepared(self) -> None:
        """Wait until every worker can serve."""
        self._hold_for(self._to_hold)
        self._here.begun()
        patience = self._here.settings.upstream.start_timeout + ASKED
        try:
            now: Prepared = await self._channel.call(
                "prepared", self._now(), within=patience, type=Prepared
            )
        except (CallError, SilentError):
            return  # the supervisor is gone
        self._hold_for(now.held)
        if now.settings is not None:
            await self._here.changing.take(now.settings)

    def _hold_for(self, reasons: Sequence[str]) -> None:
        """Hold all commands for these reasons of the supervisor's, and for no other of them."""
        proxy = self._here.proxy
        if proxy is None:
            return
        for reason in self._held:
            if reason not in reasons and reason in proxy.pause.reasons:
                proxy.pause.end(reason)
        for reason in reasons:
            if reason not in proxy.pause.reasons:
                proxy.pause.begin(reason)
        self._held = list(reasons)

    async def _last(self) -> None:
        """All clients are gone: what is counted now is final."""
        await self._tell("last", self._now())

    def _now(self) -> State:
        parts = self._here.parts
        proxy = self._here.proxy
        crowd = proxy.crowd() if proxy is not None else None
        return State(
            snapshot=parts.snapshot(),
            ready=parts.ready(),
            connections=crowd.connections if crowd is not None else {},
        )

    @property
    def _here(self) -> Sidecar:
        if self._sidecar is None:
            raise CallError("not started")
        return self._sidecar

    async def _state(self, content: msgspec.Raw) -> State:
        reasons = msgspec.msgpack.decode(content, type=list[str])
        if reasons != self._held:  # it was not told: it did not answer then
            self._hold_for(reasons)
        return self._now()

    async def _hot_keys(self, content: msgspec.Raw) -> object:
        return self._here.parts.hot_keys(_ask(content).most)

    async def _traces(self, content: msgspec.Raw) -> object:
        ask = _ask(content)
        return self._here.parts.sources().traces.recent(ask.most, ask.why)

    async def _audit(self, content: msgspec.Raw) -> object:
        return self._here.parts.sources().audit.recent(_ask(content).most)

    async def _topology(self, content: msgspec.Raw) -> object:
        return await self._here.parts.topology()

    async def _server(self, content: msgspec.Raw) -> object:
        return await self._here.parts.server()

    async def _flush(self, content: msgspec.Raw) -> int:
        return (await _or_refusal(self._here.parts.flush_cache())).dropped

    async def _failover(self, content: msgspec.Raw) -> str:
        return (await _or_refusal(self._here.parts.failover())).asked

    async def _change(self, content: msgspec.Raw) -> UnderWay | None:
        sidecar = self._here
        try:
            ended = await sidecar.changing.take(msgspec.msgpack.decode(content, type=Settings))
        except (OSError, MoveError) as error:
            raise CallError(str(error)) from error
        sidecar.reopen_audit()
        return ended

    async def _look(self, content: msgspec.Raw) -> Switched:
        settings = msgspec.msgpack.decode(content, type=Settings)
        try:
            return await _or_refusal(self._here.changing.compare(settings))
        except (OSError, MoveError) as error:
            raise CallError(str(error)) from error

    async def _hold(self, content: msgspec.Raw) -> Paused:
        reason = msgspec.msgpack.decode(content, type=str)
        if reason not in self._held:
            self._held.append(reason)
        return await _or_refusal(self._here.changing.hold(reason))

    async def _release(self, content: msgspec.Raw) -> Resumed:
        reason = msgspec.msgpack.decode(content, type=str)
        if reason in self._held:
            self._held.remove(reason)
        try:
            return self._here.changing.release(reason)
        except RefusedError as error:
            raise CallError(str(error)) from error

    async def _drain(self, content: msgspec.Raw) -> None:
        self._here.ends_alone = msgspec.msgpack.decode(content, type=bool)
        self._here.end()

    async def _crowd(self, content: msgspec.Raw) -> Crowd:
        proxy = self._here.proxy
        return proxy.crowd() if proxy is not None else Crowd((), {})

    async def _kill(self, content: msgspec.Raw) -> Sequence[int]:
        numbers = msgspec.msgpack.decode(content, type=list[int])
        proxy = self._here.proxy
        return proxy.kill(numbers) if proxy is not None else ()

    async def _keep(self, content: msgspec.Raw) -> int:
        proxy = self._here.proxy
        number = msgspec.msgpack.decode(content, type=int)
        return await proxy.keep(number) if proxy is not None else 0


class _Others:
    """The other workers, by way of the supervisor (`proxy.session.others.Others`)."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def crowds(self) -> Sequence[Crowd]:
        try:
            found: list[Crowd] = await self._channel.call("crowds", within=WITHIN, type=list[Crowd])
        except (CallError, SilentError):
            log.warning("other workers not asked", of="their clients")
            return ()
        return found

    async def kill(self, numbers: Collection[int]) -> Collection[int]:
        try:
            killed: list[int] = await self._channel.call(
                "kill others", list(numbers), within=WITHIN, type=list[int]
            )
        except (CallError, SilentError):
            log.warning("other workers not asked", of="CLIENT KILL")
            return ()
        return killed

    async def keep(self, number: int) -> int:
        try:
            link: int = await self._channel.call("keep other", number, within=WITHIN, type=int)
        except (CallError, SilentError):
            log.warning("other workers not asked", of="CLIENT TRACKING")
            return 0
        return link


async def _or_refusal(work: Awaitable[T]) -> T:
    """What it returns; a refusal is told to the supervisor."""
    try:
        return await work
    except RefusedError as error:
        raise CallError(str(error)) from error


def _ask(content: msgspec.Raw) -> Ask:
    return msgspec.msgpack.decode(content, type=Ask)


def _leave_it() -> None:
    """The supervisor does what there is to do."""


def main() -> None:
    """The process."""
    sock = socket.socket(fileno=int(sys.argv[1]))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:

        async def work() -> None:
            await Worker().run(sock)

        runner.run(work())
    logs.close()


if __name__ == "__main__":
    main()
    sys.stderr.flush()
    os._exit(0)  # nothing is left to do, and nothing may hold the process up
