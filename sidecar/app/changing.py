"""Changes while the sidecar runs: other settings, a pause, another upstream. One at a time.

A change is checked first, and then taken over as a whole or not at all. Settings that say where the
upstream is, and how to enter it, mean a planned switch (proxy/moving.py); the others are taken over
in the moment before the links go over.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec
import structlog

from sidecar.admin.answers import Paused, Reloaded, Resumed, Switched
from sidecar.admin.bodies import SwitchTo
from sidecar.admin.sources import RefusedError
from sidecar.app.reload import take_over
from sidecar.app.startup import StartError, reason
from sidecar.app.upstreams import Way
from sidecar.discovery.sentinel import DiscoveryError
from sidecar.policy.topology import Event
from sidecar.proxy.comparison import warnings
from sidecar.proxy.moving import SHARE, SWITCH, Moved, MoveError
from sidecar.proxy.pause import under_way
from sidecar.proxy.server import Proxy
from sidecar.settings.changes import Changes, changes
from sidecar.settings.load import ConfigError
from sidecar.settings.rules import combinations
from sidecar.settings.schema import Settings
from sidecar.settings.sections.upstream import UpstreamTls
from sidecar.telemetry import logs
from sidecar.telemetry.facts import ComparedServer, UnderWay

if TYPE_CHECKING:
    from sidecar.admin.server import AdminServer

log = structlog.get_logger()

PAUSE = "pause"
# Seconds that an operator waits for an answer at most (admin/api.py gives up a little later).
PATIENCE = 25.0
_HINT = "write the URL in use into upstream.url"
_HINT_TLS = f"{_HINT}, and the settings of its TLS into [upstream.tls]"
EMBEDDED = (
    "embedded:// is a server of the sidecar's own, with its own data, which ends with the sidecar"
)


class Running(Protocol):
    """The running sidecar, as far as changes concern it."""

    settings: Settings
    proxy: Proxy | None
    admin: AdminServer | None
    way: Way | None

    def use_settings(self, settings: Settings) -> None: ...
    def use_way(self, way: Way) -> None: ...
    def note(self, action: str, result: str, detail: str) -> None: ...
    def on_event(self, event: Event) -> None: ...


class Changing:
    """Changes `running`. `read_again` reads the settings from where they came from; it raises
    ConfigError."""

    def __init__(self, running: Running, read_again: Callable[[], Settings]) -> None:
        self._running = running
        self._read_again = read_again
        self._turn = asyncio.Lock()
        self._read = running.settings.upstream
        self._tls_given: UpstreamTls | None = None  # with the switch that the upstream in use is of

    @property
    def _proxy(self) -> Proxy:
        proxy = self._running.proxy
        if proxy is None or not proxy.listening:
            raise RefusedError("the sidecar is not serving")
        return proxy

    # Settings

    async def reload(self) -> Reloaded:
        """Read the settings and certificates again, and take over what can be. Raises ConfigError,
        OSError (ssl.SSLError), MoveError: then nothing has changed."""
        async with self._turn:
            try:
                done = await self._reload()
            except ConfigError as error:
                what = "; ".join(error.problems)
                of_certificates = all(".tls." in each.partition(" ")[0] for each in error.problems)
                self._failed(what, certificates=of_certificates)
                raise
            except MoveError as error:
                self._failed(str(error), certificates=False)
                raise
            except (OSError, ssl.SSLError) as error:
                self._failed(reason(error), certificates=True)
                raise
        log.info("certificates reloaded")
        if done.changed or done.needs_restart:
            log.info("settings reloaded", changed=done.changed, needs_restart=done.needs_restart)
        for setting, why in done.because.items():
            log.warning("restart needed", setting=setting, reason=why)
        self._running.note("reload", "done", ", ".join(["certificates", *done.changed]))
        return done

    async def renew(self) -> None:
        """Read the certificates again, and nothing else: their files have changed. Errors are
        logged; then nothing has changed."""
        async with self._turn:
            settings = self._running.settings
            if not self._serving:
                return
            try:
                await self._use(Changes(settings, [], [], {}))
            except (OSError, ssl.SSLError) as error:
                self._failed(reason(error), certificates=True)
                return
        log.info("certificates reloaded")
        self._running.note("reload", "done", "certificates")

    def _failed(self, what: str, *, certificates: bool) -> None:
        if certificates:
            log.error("certificate reload failed", error=what)
        else:
            log.error("settings reload failed", error=what)
        self._running.note("reload", "failed", what)

    async def _reload(self) -> Reloaded:
        running = self._running
        read = self._read_again()
        upstream_read, tls, strict = read.upstream, self._tls_given, True
        if upstream_read.url != self._read.url:
            tls = None
        elif upstream_read.url != running.settings.upstream.url or tls is not None:
            # An operator has switched since: only news from the configuration undo that.
            log.warning("upstream differs", hint=_HINT if tls is None else _HINT_TLS)
            given = tls or upstream_read.tls
            read, strict = at_upstream(read, running.settings.upstream.url, given), False
        found = self._compare(running.settings, read)
        if problems := list(combinations(found.settings, strict=strict)):
            raise ConfigError([f"{each} (with what needs a restart)" for each in problems])
        if not self._serving:
            return Reloaded(reloaded=[])
        sections, _ = await self._use(found)
        self._read, self._tls_given = upstream_read, tls
        return Reloaded(
            reloaded=sections,
            changed=found.taken,
            needs_restart=list(found.restart),
            because=found.restart,
        )

    def _compare(self, old: Settings, new: Settings) -> Changes:
        """What of the new settings can be taken over."""
        return without_embedded(changes(old, new), old, new)

    @property
    def _serving(self) -> bool:
        """Whether there are parts that use settings."""
        return self._running.proxy is not None and bool(self._running.proxy.listening)

    async def _use(self, found: Changes) -> tuple[Sequence[str], UnderWay | None]:
        """Take over what was found: the sections that have certificates, and what a switch had to
        end. Raises OSError (ssl.SSLError), MoveError: then nothing has changed."""
        running = self._running
        sections: Sequence[str] = ()

        def use() -> None:
            nonlocal sections
            watcher = running.way.watcher if running.way is not None else None
            sections = take_over(found.settings, running.proxy, watcher, running.admin)
            running.use_settings(found.settings)
            logs.set_level(found.settings.log.level)

        if not found.switches:
            use()
            return sections, None
        moved = await self._go(found.settings, use)
        return sections, moved.ended

    async def take(self, settings: Settings) -> UnderWay | None:
        """Take over settings that were checked elsewhere; what a switch had to end, if they name
        another upstream. Raises OSError (ssl.SSLError), MoveError: then nothing has changed."""
        async with self._turn:
            found = changes(self._running.settings, settings)
            _, ended = await self._use(Changes(settings, found.taken, found.switches, {}))
            return ended

    # The upstream

    async def pause(self) -> Paused:
        """Hold all commands, if they are not; wait until nothing is under way."""
        if PAUSE not in self._proxy.pause.reasons:
            self._running.note("pause", "done", "")
        return await self.hold(PAUSE)

    async def hold(self, reason: str) -> Paused:
        """Hold all commands for this reason, if they are not; wait until nothing is under way."""
        proxy, began = self._proxy, time.monotonic()
        pause, within = proxy.pause, self._running.settings.failover.hold
        if reason not in pause.reasons:
            pause.begin(reason)
        found = await pause.quiet(min(SHARE * within if reason == SWITCH else within, PATIENCE))
        return Paused(
            paused=reason in pause.reasons,
            quiet=found.quiet,
            waited_s=round(time.monotonic() - began, 3),
            held_clients=proxy.plane.held_count,
            under_way=under_way(proxy.plane),
        )

    async def resume(self) -> Resumed:
        """Let commands go on, unless a switch is under way."""
        said = self.release(PAUSE)
        self._running.note("resume", "done", "")
        return said

    def release(self, reason: str) -> Resumed:
        """Commands are not held for this reason any more. Raises RefusedError if they are not."""
        pause = self._proxy.pause
        if reason not in pause.reasons:
            raise RefusedError("the upstream is not paused")
        return Resumed(paused=False, seconds=round(pause.end(reason), 3))

    async def switch(self, to: SwitchTo) -> Switched:
        """Go over to this upstream, or only look at it. Raises ConfigError, OSError, MoveError:
        then nothing has changed."""
        proxy = self._proxy
        if self._turn.locked():
            raise RefusedError("another change is under way; try again when it is done")
        settings = self._at(to)
        async with self._turn:
            if to.dry_run:
                return await self.compare(settings)
            before = await proxy.ask_own()
            try:
                after = await self._look(settings)
                moved = await self._go(settings, lambda: self._running.use_settings(settings))
            except MoveError as error:
                log.error("switch failed", error=str(error))
                self._running.note("switch", "failed", str(error))
                raise
            self._tls_given = to.tls
        self._running.note("switch", "done", str(settings.upstream_endpoint))
        return self._compared(before, after, moved)

    def _at(self, to: SwitchTo) -> Settings:
        """The settings with another upstream. Raises ConfigError, MoveError."""
        old = self._running.settings
        settings = at_upstream(old, to.url, to.tls or self._read.tls)
        if problems := list(combinations(settings, strict=False)):
            raise ConfigError(problems)
        endpoint = settings.upstream_endpoint
        if to.tls is not None and not (endpoint.tls or endpoint.kind == "sentinel"):
            raise ConfigError([f"tls: given, but {endpoint} is not rediss://"])
        if settings.upstream_endpoint.is_embedded or old.upstream_endpoint.is_embedded:
            raise MoveError(f"{EMBEDDED}: that needs a restart")
        return settings

    async def compare(self, settings: Settings) -> Switched:
        """The server in use beside the one of these settings. Raises MoveError."""
        before = await self._proxy.ask_own()
        return self._compared(before, await self._look(settings))

    def _compared(
        self, before: ComparedServer, after: ComparedServer, moved: Moved | None = None
    ) -> Switched:
        return Switched(
            switched=moved is not None,
            before=before,
            after=after,
            warnings=list(warnings(before, after)),
            held_s=round(moved.seconds, 4) if moved is not None else None,
            ended=moved.ended if moved is not None else None,
        )

    def _no_cluster(self, settings: Settings) -> None:
        """What clients wait for is another thing behind a cluster. Raises MoveError."""
        if (
            settings.upstream_endpoint.is_cluster
            or self._proxy.settings.upstream_endpoint.is_cluster
        ):
            raise MoveError(
                "a running sidecar is not switched to a cluster, or away from one: change "
                "upstream.url and restart it"
            )

    async def _look(self, settings: Settings) -> ComparedServer:
        """What the new server tells of itself. Raises MoveError."""
        self._no_cluster(settings)
        way = self._way(settings)
        try:
            return await self._proxy.look_at(await way.destination())
        except (StartError, DiscoveryError) as error:
            raise MoveError(str(error)) from error
        finally:
            await way.close()

    async def _go(self, settings: Settings, first: Callable[[], None]) -> Moved:
        """Switch. Raises MoveError, and what `first` raises: then nothing has changed."""
        self._no_cluster(settings)
        way, old = self._way(settings), self._running.way
        arrived = False

        def ready() -> None:
            nonlocal arrived
            first()
            self._running.use_way(way)
            arrived = True

        try:
            moved = await self._proxy.mover.move(await way.destination(), ready)
        except (StartError, DiscoveryError) as error:
            raise MoveError(str(error)) from error
        finally:
            if not arrived:
                await way.close()
        if old is not None:
            await old.close()
        return moved

    def _way(self, settings: Settings) -> Way:
        return Way(settings, settings.upstream_endpoint, self._running.on_event)


def at_upstream(settings: Settings, url: str, tls: UpstreamTls) -> Settings:
    """These settings with another `upstream.url`, and the settings of TLS that belong to it."""
    return msgspec.structs.replace(
        settings, upstream=msgspec.structs.replace(settings.upstream, url=url, tls=tls)
    )


def without_embedded(found: Changes, old: Settings, new: Settings) -> Changes:
    """What can be taken over if a server of the sidecar's own is among the two upstreams: neither
    can be left, or gone to, without a restart."""
    embedded = old.upstream_endpoint.is_embedded or new.upstream_endpoint.is_embedded
    if not embedded or not found.switches:
        return found
    return changes(old, new, fixed=dict.fromkeys(found.switches, EMBEDDED))
