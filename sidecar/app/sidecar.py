"""The parts of one running sidecar: started in order, joined, stopped in reverse.

Each part is handed what it needs (admin endpoint, embedded server, Sentinel watcher, proxy); none
imports another. When the sidecar ends, readiness turns false, the proxy stops accepting and drains,
and everything is closed. Errors of starting become a `StartError` here, once.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from sidecar import __version__
from sidecar.admin.parts import Parts
from sidecar.app.certificate_watch import CertificateWatch
from sidecar.app.changing import Changing
from sidecar.app.joints import Refusing
from sidecar.app.reload import watch
from sidecar.app.startup import StartError, advice, banner, reason
from sidecar.app.systemd import Systemd
from sidecar.app.upstreams import Way
from sidecar.discovery.embedded import EmbeddedError, EmbeddedServer
from sidecar.discovery.embedded_cluster import EmbeddedCluster
from sidecar.discovery.sentinel import DiscoveryError
from sidecar.file_version import file_version
from sidecar.policy.topology import Event
from sidecar.proxy.descriptors import raise_limit
from sidecar.proxy.links.errors import ProxyStartError
from sidecar.proxy.moving import MoveError
from sidecar.proxy.nearcache.warmup import Show
from sidecar.proxy.server import Proxy
from sidecar.proxy.session.others import Membership
from sidecar.settings.load import ConfigError
from sidecar.settings.schema import Settings
from sidecar.settings.urls import Endpoint
from sidecar.telemetry import logs, progress
from sidecar.telemetry.audit import Audit, AuditError
from sidecar.telemetry.looplag import LoopLag
from sidecar.telemetry.snapshots import Process

if TYPE_CHECKING:
    from sidecar.admin.server import AdminServer

log = structlog.get_logger()


@dataclass(frozen=True)
class Given:
    """What the supervisor gives to a worker: listening sockets, the server where it runs an
    embedded one, and what it tells of the other workers. `serving` is called once it serves,
    `served` once it has drained."""

    sockets: Sequence[socket.socket]
    upstream: Endpoint | None
    membership: Membership
    serving: Callable[[], None]
    served: Callable[[], Awaitable[None]]


class Sidecar:
    """The parts of one running sidecar, and what has been asked of it. `read_again` reads the
    settings from where they came from; it raises ConfigError. `file` is the configuration file.
    `given` is for one of several workers: what its supervisor does, it leaves."""

    def __init__(
        self,
        settings: Settings,
        read_again: Callable[[], Settings],
        file: str | None = None,
        given: Given | None = None,
    ) -> None:
        self.settings = settings
        self._given = given
        self._file = file
        self.admin: AdminServer | None = None
        self.embedded: EmbeddedServer | EmbeddedCluster | None = None
        self.proxy: Proxy | None = None
        self.way: Way | None = None
        self.changing = Changing(self, read_again)
        self.parts = Parts(settings, self.end, Refusing(self.changing), self.counts)
        self.failure = ""
        self.ends_alone = False  # the other workers go on
        self.stop = asyncio.Event()
        self.lag = LoopLag()
        self.systemd = Systemd(os.environ)
        self.watching: list[asyncio.Task[None]] = []
        self._reloads: set[asyncio.Task[None]] = set()
        self.audit: Audit | None = None

    def on_signal(self, number: int) -> None:
        """First signal: end in order. Second: at once."""
        name = signal.Signals(number).name
        if not self.stop.is_set():
            log.info("sidecar stopping", signal=name, drain_timeout=self.settings.drain.timeout)
            self.end()
            return
        log.warning("sidecar stopping at once", signal=name)
        self.kill_children()
        logs.flush(0.2)
        sys.stderr.flush()
        os._exit(128 + number)

    def kill_children(self) -> None:
        """End at once what this process has started."""
        if self.embedded is not None:
            self.embedded.kill()

    def on_reload(self) -> None:
        """SIGHUP: read the settings and certificates again; bad ones leave the old ones in use."""
        task = asyncio.get_running_loop().create_task(self._on_reload())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    def _on_file_changed(self) -> None:
        if self.settings.reload.watch:
            self.on_reload()

    async def _on_reload(self) -> None:
        self.systemd.reloading()
        try:
            await self.changing.reload()
        except (OSError, ConfigError, MoveError):
            pass  # logged
        finally:
            self.systemd.ready()

    def use_settings(self, settings: Settings) -> None:
        """These are the settings from now on."""
        self.settings = self.parts.settings = settings

    def use_way(self, way: Way) -> None:
        """This is the way to the upstream from now on."""
        self.way = way
        self.parts.sentinels = way.sentinels
        way.use()

    def on_event(self, event: Event) -> None:
        """A Sentinel has said something."""
        if self.proxy is not None:
            self.proxy.on_sentinel_event(event)

    def note(self, action: str, result: str, detail: str) -> None:
        """In the audit stream, which goes on in a new file where the old one was moved away."""
        if action == "reload":
            self.reopen_audit()
        if self.audit is not None:
            self.audit.note(action, result, detail)

    def reopen_audit(self) -> None:
        """Go on in a new audit file where the old one was moved away."""
        if self.audit is None:
            return
        try:
            self.audit.reopen()
        except AuditError as error:
            log.error("audit reopen failed", error=str(error))

    def end(self) -> None:
        """End in order."""
        if self._given is None:  # of a worker its supervisor asks the figures to the end
            self.parts.serves_no_more()
        self.stop.set()

    def on_embedded_exit(self, reason: str) -> None:
        """The data is gone with the server: end, so that whoever supervises us starts both."""
        self.failure = f"{reason}; start the sidecar again"
        self.stop.set()

    async def serve(self) -> None:
        self.lag.also.append(logs.tick)
        # Of now: a change of the file while this starts is a change.
        version = file_version(self._file) if self._file is not None else None
        certificates = CertificateWatch(lambda: self.settings, self.changing.renew)
        self.watching.append(asyncio.create_task(self.lag.watch()))
        try:
            if await self._unless_stopped(self._start()):
                self.begun()
                self.lag.begin(time.monotonic())
                self._announce()
                self.systemd.ready()
                self.watching.append(asyncio.create_task(self._feed_watchdog()))
                if self._file is not None:
                    changed = self._on_file_changed
                    self.watching.append(asyncio.create_task(watch(self._file, version, changed)))
                if self._given is None:
                    self.watching.append(asyncio.create_task(certificates.run()))
                await self.stop.wait()
                self.systemd.stopping()
                await self._drain()
        finally:
            self.parts.serves_no_more()
            for watching in self.watching:
                watching.cancel()
            await self._close()
        if self.failure:
            raise StartError(self.failure)
        if self._given is None:
            log.info("sidecar stopped")

    async def _feed_watchdog(self) -> None:
        await self.systemd.watch()

    def begun(self) -> None:
        """Clients are served from now on."""
        assert self.proxy is not None
        self.parts.serves(self.proxy.report, self.proxy.flush_cache)

    async def _unless_stopped(self, work: Coroutine[object, object, None]) -> bool:
        """Run `work`; False when a signal came first (then it is cancelled)."""
        task = asyncio.create_task(work)
        stop = asyncio.create_task(self.stop.wait())
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            finished = task.done()
            task.cancel()
            if not finished:
                with suppress(asyncio.CancelledError):
                    await task
        if finished:
            task.result()
        return finished

    def counts(self) -> Process:
        """What the process counts by itself, for the metrics."""
        lines = {"log": logs.lines()}
        if self.audit is not None:
            lines["audit"] = self.audit.lines()
        return Process(
            loop_lag=self.lag.longest(),
            loop_tasks=len(asyncio.all_tasks()),
            lines=lines,
            suppressed=logs.suppressed(),
        )

    def _start_audit(self) -> None:
        if self.settings.audit.file:
            try:
                self.audit = self.parts.audit = Audit(self.settings.audit.file)
            except AuditError as error:
                raise StartError(str(error)) from error
            if self._given is None:
                self.audit.note("started", detail=__version__)

    async def _start(self) -> None:
        self._start_audit()
        given = self._given
        if given is None:
            await self._start_admin()
        upstream = self.settings.upstream_endpoint
        if given is not None and given.upstream is not None:
            upstream = given.upstream
        elif upstream.is_embedded:
            upstream = await self._start_embedded(upstream)
        self.way = way = Way(self.settings, upstream, self.on_event)
        credentials = await way.open()
        self.proxy = proxy = Proxy(
            self.settings,
            upstream,
            audit=self.audit,
            credentials=credentials,
            show_warming=None if given is not None else self._warming(),
            membership=given.membership if given is not None else None,
        )
        deadline = time.monotonic() + self.settings.upstream.start_timeout
        try:
            master = await way.find_master(deadline)
            self.use_way(way)
            sockets = given.sockets if given is not None else self.systemd.sockets()
            await proxy.start(deadline, master, way.watcher, sockets)
        except DiscoveryError as error:
            raise StartError(str(error)) from error
        except ProxyStartError as error:
            raise StartError(str(error)) from error
        except ssl.SSLError as error:
            raise StartError(f"TLS: {reason(error)}; check listen.tls and upstream.tls") from error
        except OSError as error:
            where = ", ".join(self.settings.listen.urls)
            raise StartError(f"cannot listen on {where}: {advice(error, 'listen.urls')}") from error

    def _warming(self) -> Show | None:
        return progress.bar(self.settings.log.format, sys.stderr, "warming up")

    async def _start_admin(self) -> None:
        listen = self.settings.admin.listen
        if not listen:
            return
        # Here: workers have no admin address, and the HTTP library takes them long to load.
        from sidecar.admin.audited_calls import AuditedCalls
        from sidecar.admin.server import AdminServer

        calls = AuditedCalls(self.audit) if self.audit is not None else None
        try:
            admin = AdminServer(
                self.settings.admin,
                self.parts.sources(),
                self.parts.actions(),
                around=[calls.record] if calls is not None else [],
                opened=calls.opened if calls is not None else lambda request: None,
                reuse_port=self.settings.listen.reuse_port,
                name=f"{socket.gethostname()} {' '.join(self.settings.listen.urls)}",
                open_files=raise_limit(),
            )
            await admin.start()
        except ssl.SSLError as error:
            raise StartError(f"TLS of the admin address: {reason(error)}") from error
        except OSError as error:
            what = advice(error, "admin.listen")
            raise StartError(f"cannot listen on admin address {listen}: {what}") from error
        self.admin = admin
        self.parts.admin = admin.counts

    async def _start_embedded(self, upstream: Endpoint) -> Endpoint:
        settings = self.settings.embedded
        ended = self.on_embedded_exit
        if upstream.is_cluster:
            self.embedded = EmbeddedCluster(
                upstream.shards, upstream.replicas, settings.dir, settings.args, on_exit=ended
            )
        else:
            port = int(upstream.options.get("port", "0"))
            self.embedded = EmbeddedServer(settings.dir, settings.args, port=port, on_exit=ended)
        try:
            await self.embedded.start(self.settings.upstream.start_timeout)
        except EmbeddedError as error:
            raise StartError(str(error)) from error
        return self.embedded.endpoint

    def _announce(self) -> None:
        if self._given is not None:
            self._given.serving()
            return
        urls = self.addresses()
        upstream = f"embedded server at {self.embedded.url}" if self.embedded else ""
        upstream = upstream or str(self.settings.upstream_endpoint)
        admin = self.admin.url if self.admin is not None else "off"
        log.info("sidecar started", urls=urls, upstream=upstream, admin=admin)
        logs.flush()
        if logs.shows_console(self.settings.log.format, sys.stderr) and sys.stderr.isatty():
            sys.stderr.write(banner(urls, upstream, admin))

    def addresses(self) -> list[str]:
        """Where clients can connect."""
        return self.proxy.listening if self.proxy is not None else []

    async def _drain(self) -> None:
        """Let clients get their outstanding replies, as long as `drain.timeout` allows."""
        assert self.proxy is not None
        if self.failure:
            return
        try:
            if self.admin is not None:
                await self.admin.hand_over()
            await self.proxy.drain(self.settings.drain.timeout, alone=self.ends_alone)
        except Exception:
            log.exception("drain failed")
        if self._given is not None:
            await self._given.served()

    async def _close(self) -> None:
        """Stop all parts, the later started first; one that fails does not keep the others."""
        stops: list[Callable[[], Awaitable[None]]] = []
        if self.proxy is not None:
            stops.append(self.proxy.close)
        if self.way is not None:
            stops.append(self.way.close)
        if self.admin is not None:
            stops.append(self.admin.stop)
        if self.embedded is not None:
            stops.append(self.embedded.stop)
        for stop in stops:
            try:
                await stop()
            except Exception:
                log.exception("part stop failed")
        if self.audit is not None:
            if self._given is None:
                self.audit.note("stopped")
            self.audit.close()
