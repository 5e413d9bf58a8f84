"""A sidecar of several workers (`workers` above 1): the process that starts and supervises them.

                      admin address, signals, systemd, embedded server
                                        |
                                   supervisor
                  a socket pair each ───┼───────────────┐
                                        |               |
    clients ──SO_REUSEPORT──>  worker 1 ...  worker N  ──> upstream

It is a `Sidecar` whose data plane is in other processes. It checks the settings, takes the ports,
so that nobody else gets them while no worker listens, and hands listening unix sockets and those of
the service manager to all workers. A worker is a process started anew, not a fork: nothing of this
process's event loop, threads or secrets gets into it but what it is told (orders.py).

If this process is killed, its workers see the end of their channels, drain and end.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from contextlib import suppress

import msgspec
import structlog

from sidecar.app.changing_all import ChangingAll, Taken
from sidecar.app.crew import Crew
from sidecar.app.joints import Refusing
from sidecar.app.sidecar import Sidecar
from sidecar.app.startup import StartError, advice
from sidecar.app.whole import Whole
from sidecar.app.worker_process import WorkerFailed
from sidecar.proxy.certificates import Certificates
from sidecar.proxy.links.errors import ProxyStartError
from sidecar.proxy.listening import (
    How,
    Listening,
    added_and_gone,
    inherited,
    is_made_for,
    listen,
    reserve,
    with_policies,
)
from sidecar.proxy.memory_guard import memory_limit
from sidecar.settings.schema import Settings
from sidecar.settings.shares import share_of
from sidecar.settings.urls import Endpoint, parse_listen
from sidecar.tls.contexts import sentinel_context

log = structlog.get_logger()


class Supervisor(Sidecar):
    """All workers of one sidecar."""

    def __init__(
        self, settings: Settings, read_again: Callable[[], Settings], file: str | None = None
    ) -> None:
        super().__init__(settings, read_again, file)
        self.changing = ChangingAll(self, read_again)
        self.parts: Whole = Whole(settings, self.end, Refusing(self.changing), self.counts)
        self.crew: Crew | None = None
        self._listening: list[Listening] = []

    # Starting

    async def _start(self) -> None:
        self._start_audit()
        await self._start_admin()
        upstream: Endpoint | None = None
        if self.settings.upstream_endpoint.is_embedded:
            upstream = await self._start_embedded(self.settings.upstream_endpoint)
        try:
            self._listen()
        except ProxyStartError as error:
            raise StartError(str(error)) from error
        except OSError as error:
            where = ", ".join(self.settings.listen.urls)
            raise StartError(f"cannot listen on {where}: {advice(error, 'listen.urls')}") from error
        self.crew = Crew(
            self.settings, self._share, self._descriptors, upstream, self._other_snapshots
        )
        self.parts.serves_with(self.crew)
        try:
            await self.crew.start()
        except WorkerFailed as error:
            raise StartError(str(error)) from error

    def _listen(self) -> None:
        """Take the addresses: TCP ports for the workers to listen on, unix sockets and those of the
        service manager for them to inherit. Raises OSError, ProxyStartError."""
        endpoints = [parse_listen(url) for url in self.settings.listen.urls]
        self._listening += inherited(self.systemd.sockets(), endpoints)
        there = [each.endpoint for each in self._listening]
        for endpoint in endpoints:
            if endpoint not in there:
                self._listening += self._taken(self.settings, endpoint)

    @staticmethod
    def _taken(settings: Settings, endpoint: Endpoint) -> Iterable[Listening]:
        of = settings.listen
        how = How(of.backlog, int(str(of.unix_mode), 8), of.reuse_port)
        return listen(endpoint, how) if endpoint.kind == "unix" else reserve(endpoint, how)

    def _descriptors(self) -> list[int]:
        """The listening sockets that every worker inherits."""
        return [each.sock.fileno() for each in self._listening if _is_shared(each)]

    def _share(self, number: int) -> Settings:
        """The settings of one worker: its share, with the ports that the system chose."""
        settings = self.settings
        memory = memory_limit(settings.limits.memory)
        urls = tuple(dict.fromkeys(each.endpoint.listen_url for each in self._listening))
        whole = msgspec.structs.replace(
            settings,
            limits=msgspec.structs.replace(settings.limits, memory=memory),
            listen=msgspec.structs.replace(settings.listen, urls=urls),
            warm=msgspec.structs.replace(settings.warm, snapshot=self._snapshot(number)),
        )
        return share_of(whole, number)

    def _snapshot(self, number: int) -> str:
        """Where a worker keeps its warm set: each in a file of its own."""
        path = self.settings.warm.snapshot
        return f"{path}.{number}" if path and number > 1 else path

    def _other_snapshots(self, number: int) -> list[str]:
        """The files of the other workers. A worker begins with the names of all: clients do not
        come back to the one that they were connected to."""
        numbers = range(1, self.settings.workers + 1)
        paths = [self._snapshot(other) for other in numbers if other != number]
        return [path for path in paths if path]

    def addresses(self) -> list[str]:
        return list(self.crew.urls) if self.crew is not None else []

    def begun(self) -> None:
        assert self.crew is not None
        log.info("workers started", workers=len(self.crew.workers))

    # While it runs

    def kill_children(self) -> None:
        if self.crew is not None:
            self.crew.kill()
        super().kill_children()

    async def _feed_watchdog(self) -> None:
        """The service manager hears that all turns while every worker answers."""
        crew = self.crew
        assert crew is not None
        await self.systemd.watch(lambda: all(each.state != "silent" for each in crew.workers))

    def take(self, settings: Settings) -> Taken:
        """Check the files that these settings name, and take their addresses. Raises OSError
        (ssl.SSLError): then nothing has changed."""
        sections = self._check(settings)
        before = self._listening
        added, gone = added_and_gone(self.settings.listen.urls, settings.listen.urls)
        new: list[Listening] = []
        try:
            for endpoint in added:
                new += self._taken(settings, endpoint)
            if self.admin is not None:
                self.admin.reload(settings.admin)
        except OSError:
            _close(new)
            raise
        stay = [each for each in before if not any(is_made_for(each.endpoint, e) for e in gone)]
        self._listening = [*with_policies(stay, settings.listen.urls), *new]

        def undo() -> None:
            self._listening = before
            _close(new)
            if self.admin is not None:
                with suppress(OSError):  # its files have changed meanwhile, and are read later
                    self.admin.reload(self.settings.admin)

        return Taken(sections, lambda: _close([e for e in before if e not in stay]), undo)

    def _check(self, settings: Settings) -> list[str]:
        """Read all certificates; the sections that have some. Raises OSError (ssl.SSLError)."""
        tls = settings.upstream_endpoint.tls
        Certificates(settings, upstream=tls).read(settings)
        sentinel_context(settings.sentinel, settings.upstream.tls, tls)
        read = {
            "listen.tls": any(listener.tls for listener in settings.listeners),
            "upstream.tls": tls or settings.sentinel.tls == "on",
            "admin.tls": self.admin is not None and self.admin.uses_tls,
        }
        return [section for section, used in read.items() if used]

    # Stopping

    async def _drain(self) -> None:
        assert self.crew is not None
        try:
            if self.admin is not None:
                await self.admin.hand_over()
            within = 0.0 if self.failure else self.settings.drain.timeout
            for each in self._listening:
                if not self.settings.listen.reuse_port:
                    each.close()
            await self.crew.drain(within, one_by_one=self.settings.listen.reuse_port)
        except Exception:
            log.exception("drain failed")

    async def _close(self) -> None:
        if self.crew is not None:
            await self.crew.end()
        for each in self._listening:
            each.close()
        await super()._close()


def _close(listening: Iterable[Listening]) -> None:
    for each in listening:
        each.close()


def _is_shared(each: Listening) -> bool:
    """Whether the workers inherit this socket; on other ports each listens by itself."""
    if each.endpoint.kind == "unix":
        return True
    with suppress(OSError):
        return bool(each.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    return False
