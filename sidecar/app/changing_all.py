"""Changes of a sidecar of several workers: in all of them, or in none (see changing.py).

The supervisor checks other settings, with the files that they name, and takes new addresses; then
every worker takes its share over. A pause holds the commands of all. In a planned switch all are
paused first, and go over one by one while nothing is under way: no worker writes to the old server
while another one writes to the new one. If one cannot go over, those that have go back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
import structlog

from sidecar.admin.answers import Paused, Resumed, Switched
from sidecar.admin.bodies import SwitchTo
from sidecar.admin.sources import RefusedError
from sidecar.app.changing import PAUSE, Changing, Running, without_embedded
from sidecar.app.channel import CallError, SilentError
from sidecar.app.crew import Crew
from sidecar.proxy.moving import SWITCH, MoveError
from sidecar.settings.changes import Changes, changes
from sidecar.settings.schema import Settings
from sidecar.settings.urls import parse_listen
from sidecar.telemetry import logs
from sidecar.telemetry.facts import UnderWay

log = structlog.get_logger()

NO_SOCKET = "a running worker cannot inherit another unix socket"
# Seconds in which each worker has answered a pause, or a question about another upstream.
PATIENCE = 30.0


@dataclass(frozen=True)
class Taken:
    """What the supervisor has taken for other settings: the `sections` that have certificates. In
    the end it is to `keep` it, or to `undo` it once its settings are the old ones."""

    sections: Sequence[str]
    keep: Callable[[], None]
    undo: Callable[[], None]


class RunningAll(Running, Protocol):
    """The supervisor, as far as changes concern it."""

    crew: Crew | None

    def take(self, settings: Settings) -> Taken:
        """Check the files that these settings name, and take their addresses. Raises OSError
        (ssl.SSLError): then nothing has changed."""


class ChangingAll(Changing):
    """Changes all workers of `running`."""

    def __init__(self, running: RunningAll, read_again: Callable[[], Settings]) -> None:
        super().__init__(running, read_again)
        self._all = running

    @property
    def _crew(self) -> Crew:
        if self._all.crew is None or not self._all.crew.up:
            raise RefusedError("the sidecar is not serving")
        return self._all.crew

    @property
    def _serving(self) -> bool:
        return self._all.crew is not None

    def _compare(self, old: Settings, new: Settings) -> Changes:
        urls = [url for url in new.listen.urls if url not in old.listen.urls]
        if any(parse_listen(url).kind == "unix" for url in urls):
            return without_embedded(changes(old, new, fixed={"listen.urls": NO_SOCKET}), old, new)
        return without_embedded(changes(old, new), old, new)

    async def _use(self, found: Changes) -> tuple[Sequence[str], UnderWay | None]:
        if found.switches:
            await self._look_by_one(found.settings)  # before any command is held for it
        taken, ended = self._all.take(found.settings), None
        if found.switches:
            ended = await self._switch_all(found.settings, taken.undo)
        else:
            self._all.use_settings(found.settings)
            assert self._all.crew is not None
            await self._all.crew.change()
        taken.keep()
        logs.set_level(found.settings.log.level)
        return taken.sections, ended

    async def pause(self) -> Paused:
        """Hold the commands of all workers."""
        crew = self._crew
        if PAUSE not in crew.held:
            self._all.note("pause", "done", "")
        said = await self._hold(crew, PAUSE)
        if not said:
            raise RefusedError("no worker answers")
        whole = len(said) == len(crew.workers)
        return Paused(
            paused=whole and all(each.paused for each in said),
            quiet=whole and all(each.quiet for each in said),
            waited_s=max(each.waited_s for each in said),
            held_clients=sum(each.held_clients for each in said),
            under_way=_sum([each.under_way for each in said]),
        )

    async def resume(self) -> Resumed:
        """Let the commands of all go on."""
        if PAUSE not in self._crew.held:
            raise RefusedError("the upstream is not paused")
        said = await self._release(self._crew, PAUSE)
        if not said:
            raise RefusedError("no worker answers")
        self._all.note("resume", "done", "")
        return Resumed(
            paused=any(each.paused for each in said), seconds=max(each.seconds for each in said)
        )

    @staticmethod
    async def _hold(crew: Crew, reason: str) -> Sequence[Paused]:
        """Hold the commands of all for this reason; what those say that answer."""
        if reason not in crew.held:
            crew.held.append(reason)
        said: Sequence[Paused] = await crew.ask_all("hold", reason, type=Paused, within=PATIENCE)
        return said

    @staticmethod
    async def _release(crew: Crew, reason: str) -> Sequence[Resumed]:
        """Commands are not held for this reason any more; what those say that answer."""
        if reason in crew.held:
            crew.held.remove(reason)
        said: Sequence[Resumed] = await crew.ask_all("release", reason, type=Resumed)
        return said

    async def switch(self, to: SwitchTo) -> Switched:
        """Have all go over to this upstream; or have one look at it."""
        if self._turn.locked():
            raise RefusedError("another change is under way; try again when it is done")
        settings = self._at(to)
        async with self._turn:
            if to.dry_run:
                return await self._look_by_one(settings)
            try:
                found = await self._look_by_one(settings)
                began = time.monotonic()
                ended = await self._switch_all(settings, lambda: None)
            except MoveError as error:
                log.error("switch failed", error=str(error))
                self._all.note("switch", "failed", str(error))
                raise
            self._tls_given = to.tls
        self._all.note("switch", "done", str(settings.upstream_endpoint))
        held = round(time.monotonic() - began, 4)
        return msgspec.structs.replace(found, switched=True, held_s=held, ended=ended)

    async def _look_by_one(self, settings: Settings) -> Switched:
        """What a worker finds at the upstream of these settings. Raises MoveError."""
        try:
            said = await self._crew.ask_one("look", settings, type=Switched, within=PATIENCE)
        except (CallError, SilentError) as error:
            raise MoveError(str(error)) from error
        found: Switched = said
        return found

    async def _switch_all(self, settings: Settings, undo: Callable[[], None]) -> UnderWay:
        """All workers go over, or none; what had to be ended. Raises MoveError, after `undo`."""
        crew, old = self._crew, self._all.settings
        try:
            await self._hold_all(crew)
            self._all.use_settings(settings)  # also for a worker that is started meanwhile
            return _sum(await crew.go_over())
        except (MoveError, CallError, SilentError) as error:
            self._all.use_settings(old)
            undo()
            if isinstance(error, MoveError):  # nobody has been asked to go
                raise
            await crew.change()
            raise MoveError(str(error)) from error
        finally:
            await self._release(crew, SWITCH)

    async def _hold_all(self, crew: Crew) -> None:
        """Hold the commands of all for a switch. Raises MoveError: something is under way still."""
        said = await self._hold(crew, SWITCH)
        if len(said) < len(crew.workers):
            raise MoveError("not every worker answers; try again when they do")
        if replies := sum(each.under_way.replies for each in said):
            raise MoveError(f"{replies} links still wait for replies of the old server")


def _sum(counts: Sequence[UnderWay]) -> UnderWay:
    names = UnderWay.__struct_fields__
    return UnderWay(**{name: sum(getattr(each, name) for each in counts) for name in names})
