"""Changes of a sidecar of several workers: in all of them, or in none (see changing.py).

The supervisor checks other settings, with the files that they name, and takes new addresses; then
every worker takes its share over. A pause holds the commands of all. A planned switch is refused:
it would have to reach all workers in one moment, or some would write to the old server while others
write to the new one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from sidecar.admin.answers import Paused, Reloaded, Resumed, Switched
from sidecar.admin.sources import RefusedError
from sidecar.app.changing import Changing, Running
from sidecar.app.crew import Crew
from sidecar.settings.changes import changes
from sidecar.settings.load import ConfigError
from sidecar.settings.rules import combinations
from sidecar.settings.schema import Settings, describe
from sidecar.settings.urls import parse_listen
from sidecar.telemetry import logs
from sidecar.telemetry.facts import UnderWay

NO_SWITCH = "with several workers the upstream is not switched while they run"
NO_SOCKET = "a running worker cannot inherit another unix socket"
# Seconds in which each worker has answered a pause.
PATIENCE = 30.0


class RunningAll(Running, Protocol):
    """The supervisor, as far as changes concern it."""

    crew: Crew | None

    def take(self, settings: Settings) -> Sequence[str]:
        """Check the files that these settings name, and take their addresses; the sections that
        have certificates. Raises OSError (ssl.SSLError): then nothing has changed."""


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

    async def _reload(self) -> Reloaded:
        old, new = self._all.settings, self._read_again()
        fixed = {row.path: NO_SWITCH for row in describe() if row.switches}
        if any(
            parse_listen(u).kind == "unix" and u not in old.listen.urls for u in new.listen.urls
        ):
            fixed["listen.urls"] = NO_SOCKET
        found = changes(old, new, fixed=fixed)
        if problems := list(combinations(found.settings)):
            raise ConfigError([f"{each} (with what needs a restart)" for each in problems])
        if self._all.crew is None:
            return Reloaded(reloaded=[])
        sections = self._all.take(found.settings)
        self._all.use_settings(found.settings)
        logs.set_level(found.settings.log.level)
        await self._all.crew.change()
        return Reloaded(
            reloaded=sections,
            changed=found.taken,
            needs_restart=list(found.restart),
            because=found.restart,
        )

    async def pause(self) -> Paused:
        """Hold the commands of all workers."""
        crew = self._crew
        crew.paused = True
        said: Sequence[Paused] = await crew.ask_all("pause", type=Paused, within=PATIENCE)
        if not said:
            raise RefusedError("no worker answers")
        self._all.note("pause", "done", "")
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
        crew = self._crew
        crew.paused = False
        said: Sequence[Resumed] = await crew.ask_all("resume", type=Resumed)
        if not said:
            raise RefusedError("the upstream is not paused")
        self._all.note("resume", "done", "")
        return Resumed(
            paused=any(each.paused for each in said), seconds=max(each.seconds for each in said)
        )

    async def switch(self, url: str, *, dry_run: bool) -> Switched:
        """Refused."""
        raise RefusedError(f"{NO_SWITCH}: write it into the configuration, and restart")


def _sum(counts: Sequence[UnderWay]) -> UnderWay:
    names = UnderWay.__struct_fields__
    return UnderWay(**{name: sum(getattr(each, name) for each in counts) for name in names})
