"""The admin endpoint: web page, API, metrics and probes on one address.

What it shows and does comes from the functions that it is given (sources.py), so it knows neither
the proxy nor the upstream. routes.py declares the paths, api.py answers them, guard.py decides who
may use them. docs/admin.md describes it for users.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping, Sequence

from aiohttp import web
from aiohttp.typedefs import Middleware

import sidecar
from sidecar.admin.api import Api, BadQueryError
from sidecar.admin.connections import Connections
from sidecar.admin.events import LISTENERS, Events
from sidecar.admin.figures import Introduction
from sidecar.admin.guard import HEADERS, Guard, Handler, errors_as_json, failure
from sidecar.admin.page import Page
from sidecar.admin.recorder import Recorder
from sidecar.admin.routes import ROUTES
from sidecar.admin.sources import Actions, Sources
from sidecar.admin.tokens import Tokens
from sidecar.settings.addresses import is_loopback, join_host_port, parse_host_port
from sidecar.settings.sections.operations import Admin
from sidecar.telemetry.handshakes import Handshakes
from sidecar.telemetry.snapshots import AdminPort
from sidecar.tls.contexts import admin_context

STOP_PATIENCE = 1.0  # seconds that a running request may take when the server stops
BODY_MAX = 4096


class AdminServer:
    """Serves one address from `start` to `stop`."""

    def __init__(
        self,
        settings: Admin,
        sources: Sources | None = None,
        actions: Actions | None = None,
        around: Sequence[Middleware] = (),
        opened: Callable[[web.Request], None] = lambda request: None,
        name: str = "",
        reuse_port: bool = False,
        open_files: int = 0,
    ) -> None:
        """`name` tells this sidecar from others. Port 0 takes any free port; with `reuse_port`
        another sidecar may listen there too. The middlewares `around` see every call, also refused
        ones; `opened` is called for each live stream. The process may have so many `open_files`; 0
        is no limit.

        Raises ValueError for a malformed address, for one that other hosts can reach without a
        token or a certificate; OSError (ssl.SSLError) for a file that cannot be used.
        """
        self._host, self._port = parse_host_port(settings.listen)
        if not settings.is_guarded and not is_loopback(self._host):
            raise ValueError(f"{settings.listen} can be reached from other hosts: it needs a token")
        self._settings = settings
        self._around = around
        self._open_files = open_files
        sources, actions = sources or Sources(), actions or Actions()
        introduction = Introduction(
            instance=secrets.token_hex(8),
            name=name,
            version=sidecar.__version__,
            started=round(time.time(), 3),
        )
        recorder = Recorder()
        self._page = Page()
        self._tokens = Tokens(settings)
        self._guard = Guard(self._tokens, settings.tls, self._page.paths)
        self._events = Events(sources, recorder, introduction)
        self._api = Api(
            sources,
            actions,
            recorder,
            self._events,
            introduction,
            self._guard.wants_token,
            opened,
            self._guard.still_allows,
        )
        self._context = admin_context(settings.tls)
        self._handshakes = Handshakes("admin")
        self._reuse_port = reuse_port
        self._runner: web.AppRunner | None = None
        self._connections: Connections | None = None
        self._watching: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """`http://host:port`; after `start` with the port that is bound."""
        scheme = "https" if self._context is not None else "http"
        return f"{scheme}://{join_host_port(self._host, self._port)}"

    async def start(self) -> None:
        """Bind and serve. Raises OSError if the address cannot be bound."""
        app = web.Application(
            middlewares=[self._serving, *self._around, self._protect, errors_as_json],
            client_max_size=BODY_MAX,
        )
        app.on_response_prepare.append(_unnamed)
        for path in self._page.paths:
            app.router.add_get(path, self._page.serve)
        for route in ROUTES:
            app.router.add_route(route.method, route.path, getattr(self._api, route.handler))
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_PATIENCE)
        await runner.setup()
        assert runner.server is not None
        settings = self._settings
        connections = Connections(
            runner.server,
            self._context,
            settings.most_connections(self._open_files),
            settings.request_timeout,
            self._handshakes,
        )
        try:
            self._port = await connections.listen(
                self._host, self._port, reuse_port=self._reuse_port
            )
        except OSError:
            await runner.cleanup()
            raise
        self._runner, self._connections = runner, connections
        self._events.most = min(LISTENERS, connections.most // 2)
        self._events.start()
        self._watching = asyncio.create_task(self._tokens.watch())

    async def hand_over(self) -> None:
        """Leave new calls to the sidecar that listens here as well; open connections go on."""
        if self._connections is not None and self._reuse_port:
            self._connections.stop_listening()

    async def stop(self) -> None:
        """Close the address and every connection. Can be called twice."""
        runner, self._runner = self._runner, None
        if runner is not None and self._connections is not None:
            if self._watching is not None:
                self._watching.cancel()
            self._connections.stop_listening()
            await self._events.stop()
            await runner.cleanup()
            self._connections.close()

    @property
    def uses_tls(self) -> bool:
        """Whether there is a certificate to reload."""
        return self._context is not None

    def counts(self) -> AdminPort:
        """For the metrics."""
        connections = self._connections
        return AdminPort(
            connections=len(connections) if connections is not None else 0,
            closed=dict(connections.closed) if connections is not None else {},
            streams=len(self._events),
            streams_opened=self._events.opened,
            refused=dict(self._guard.refused),
            tls_failures=self._handshakes.failures,
        )

    def reload(self, settings: Admin) -> None:
        """Read the certificates again, for new connections, if there are any; take over the tokens
        and limits.

        Raises OSError (ssl.SSLError) if a file is bad: all stays as it was.
        """
        context = admin_context(settings.tls) if self._context is not None else None
        self._tokens.use(settings)
        # What can fail is done.
        self._guard.use(settings.tls)
        self._settings, self._context = settings, context
        if self._connections is not None:
            self._connections.use(
                context, settings.most_connections(self._open_files), settings.request_timeout
            )
            self._events.most = min(LISTENERS, self._connections.most // 2)
        self._api.describe(self._guard.wants_token)

    @web.middleware
    async def _serving(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The connection of this request is in use."""
        assert self._connections is not None
        with self._connections.serving(request.protocol):
            return await handler(request)

    @web.middleware
    async def _protect(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse what the guard refuses, and add the headers that protect answers in a browser."""
        response: web.StreamResponse | None = self._guard.refusal(request)
        if response is None:
            try:
                response = await handler(request)
            except BadQueryError as error:
                response = failure(400, str(error))
        if not response.prepared:
            add(HEADERS, response)
        return response


async def _unnamed(request: web.Request, response: web.StreamResponse) -> None:
    """Nobody needs to know what software answers, and in which version."""
    response.headers.popall("Server", None)


def add(headers: Mapping[str, str], response: web.StreamResponse) -> None:
    """Add the headers that the response does not have."""
    for name, value in headers.items():
        response.headers.setdefault(name, value)
