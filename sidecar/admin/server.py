"""The admin endpoint: web page, API, metrics and probes on one address.

What it shows and does comes from the functions that it is given (sources.py), so it knows neither
the proxy nor the upstream. routes.py declares the paths, api.py answers them, guard.py decides who
may use them. docs/admin.md describes it for users.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence

from aiohttp import web
from aiohttp.typedefs import Middleware

import sidecar
from sidecar.admin.api import Api, BadQueryError
from sidecar.admin.events import Events
from sidecar.admin.figures import Introduction
from sidecar.admin.guard import HEADERS, Guard, Handler, errors_as_json, failure
from sidecar.admin.page import Page
from sidecar.admin.recorder import Recorder
from sidecar.admin.routes import ROUTES
from sidecar.admin.sources import Actions, Sources
from sidecar.settings.addresses import is_loopback, join_host_port, parse_host_port
from sidecar.settings.sections.operations import Admin
from sidecar.tls.contexts import admin_context, reload_admin

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
        name: str = "",
        reuse_port: bool = False,
    ) -> None:
        """`name` tells this sidecar from others. Port 0 takes any free port; with `reuse_port`
        another sidecar may listen there too. The middlewares
        `around` see every call, also refused ones.

        Raises ValueError for a malformed address, and for one that other hosts can reach without a
        token.
        """
        self._host, self._port = parse_host_port(settings.listen)
        if not settings.token and not is_loopback(self._host):
            raise ValueError(f"{settings.listen} can be reached from other hosts: it needs a token")
        self._settings = settings
        self._around = around
        sources, actions = sources or Sources(), actions or Actions()
        introduction = Introduction(
            instance=secrets.token_hex(8),
            name=name,
            version=sidecar.__version__,
            started=round(time.time(), 3),
        )
        recorder = Recorder()
        self._events = Events(sources, recorder, introduction)
        self._api = Api(
            sources,
            actions,
            recorder,
            self._events,
            introduction,
            bool(settings.token),
        )
        self._page = Page()
        self._guard = Guard(settings.token, self._page.paths)
        self._context = admin_context(settings.tls)
        self._reuse_port = reuse_port
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None

    @property
    def url(self) -> str:
        """`http://host:port`; after `start` with the port that is bound."""
        scheme = "https" if self._context is not None else "http"
        return f"{scheme}://{join_host_port(self._host, self._port)}"

    async def start(self) -> None:
        """Bind and serve. Raises OSError if the address cannot be bound."""
        app = web.Application(
            middlewares=[*self._around, self._protect, errors_as_json], client_max_size=BODY_MAX
        )
        for path in self._page.paths:
            app.router.add_get(path, self._page.serve)
        for route in ROUTES:
            app.router.add_route(route.method, route.path, getattr(self._api, route.handler))
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_PATIENCE)
        await runner.setup()
        try:
            site = web.TCPSite(
                runner,
                self._host,
                self._port,
                ssl_context=self._context,
                reuse_port=self._reuse_port or None,
            )
            await site.start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner, self._site = runner, site
        self._port = runner.addresses[0][1]
        self._events.start()

    async def hand_over(self) -> None:
        """Leave new calls to the sidecar that listens here as well; open connections go on."""
        if self._site is not None and self._reuse_port:
            await self._site.stop()
            self._site = None

    async def stop(self) -> None:
        """Close the address and every connection. Can be called twice."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await self._events.stop()
            await runner.cleanup()

    @property
    def uses_tls(self) -> bool:
        """Whether there is a certificate to reload."""
        return self._context is not None

    def reload(self, settings: Admin) -> None:
        """Read the certificate again, for new connections, if there is one; take over the token.

        Raises OSError (ssl.SSLError) if the certificate is bad: all stays as it was.
        """
        if self._context is not None:
            reload_admin(self._context, settings.tls)
        self._settings = settings
        self._guard.use_token(settings.token)
        self._api.describe(bool(settings.token))

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


def add(headers: Mapping[str, str], response: web.StreamResponse) -> None:
    """Add the headers that the response does not have."""
    for name, value in headers.items():
        response.headers.setdefault(name, value)
