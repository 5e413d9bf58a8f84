"""The HTTP endpoint for probes and metrics.

| Path | Answer |
|---|---|
| `/livez`, `/healthz` | 200 while the event loop runs; never looks at the backend |
| `/readyz` | 200 when every check holds, otherwise 503; `?verbose` lists the checks |
| `/metrics` | Prometheus text, or OpenMetrics when the Accept header asks for it |
| `/api/hotkeys` | JSON: the hottest keys, hottest first; `?count=N` (20) |
| `/api/traces` | JSON: the newest traces, newest first; `?count=N` (50), `?why=slow` |

Reads only: what it shows comes from the functions it is given, so it knows neither the proxy nor
the servers behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from aiohttp import web
from prometheus_client.exposition import choose_encoder

from sidecar.admin.audited import audited
from sidecar.telemetry import metrics
from sidecar.telemetry.audit import Audit
from sidecar.urls import join_host_port, parse_host_port

Ready = Callable[[], Mapping[str, bool]]
"""Returns the readiness checks by name; ready means that all are true."""

HotKeys = Callable[[int], Mapping[str, object]]
"""Returns what /api/hotkeys shows, of at most so many keys."""

Traces = Callable[[int, str], Sequence[Mapping[str, object]]]
"""Returns what /api/traces shows: at most so many, of one kind or (empty) of all."""

MOST_KEYS = 1000
MOST_TRACES = 10_000
TRACE_KINDS = ("", "sampled", "slow", "failed", "internal")
STOP_PATIENCE = 1.0  # seconds a request under way may take when the server stops

_INDEX = """\
redis-sidecar

/livez            the process runs (alias /healthz)
/readyz?verbose   it can serve clients
/metrics          Prometheus metrics
/api/hotkeys      the hottest keys
/api/traces       the newest traces
"""


class AdminServer:
    """Serves one address from `start` to `stop`."""

    def __init__(
        self,
        listen: str,
        snapshot: metrics.Snapshot,
        ready: Ready,
        hot_keys: HotKeys = lambda count: {"window_s": 0, "keys": []},
        audit: Audit | None = None,
        traces: Traces = lambda count, why: [],
    ) -> None:
        """`listen` is `host:port` (port 0 takes a free one); raises ValueError for another form."""
        self._host, self._port = parse_host_port(listen)
        self._registry = metrics.registry(snapshot)
        self._ready = ready
        self._hot = hot_keys
        self._audit = audit
        self._recent = traces
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """`http://host:port`, with the port that is really bound after `start`."""
        return f"http://{join_host_port(self._host, self._port)}"

    async def start(self) -> None:
        """Bind and serve. Raises OSError when the address cannot be had."""
        app = web.Application(middlewares=[audited(self._audit)] if self._audit else [])
        app.router.add_get("/", self._index)
        app.router.add_get("/livez", self._live)
        app.router.add_get("/healthz", self._live)
        app.router.add_get("/readyz", self._is_ready)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/api/hotkeys", self._hot_keys)
        app.router.add_get("/api/traces", self._traces)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_PATIENCE)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        self._port = runner.addresses[0][1]

    async def stop(self) -> None:
        """Close the address and every connection; may be called twice."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _index(self, _: web.Request) -> web.Response:
        return web.Response(text=_INDEX)

    async def _live(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _is_ready(self, request: web.Request) -> web.Response:
        checks = self._ready()
        ready = all(checks.values())
        text = "ok\n" if ready else "not ready\n"
        if "verbose" in request.query:
            lines = (f"[{'+' if holds else '-'}] {name}\n" for name, holds in checks.items())
            text = "".join(lines) + text
        return web.Response(text=text, status=200 if ready else 503)

    async def _metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        body = encode(self._registry)
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _hot_keys(self, request: web.Request) -> web.Response:
        count = request.query.get("count", "20")
        if not _is_count(count, MOST_KEYS):
            return _not_a_count(count, MOST_KEYS)
        return web.json_response(self._hot(int(count)))

    async def _traces(self, request: web.Request) -> web.Response:
        count, why = request.query.get("count", "50"), request.query.get("why", "")
        if not _is_count(count, MOST_TRACES):
            return _not_a_count(count, MOST_TRACES)
        if why not in TRACE_KINDS:
            error = {"error": f"why={why!r}: write one of {', '.join(TRACE_KINDS[1:])}"}
            return web.json_response(error, status=400)
        return web.json_response({"traces": self._recent(int(count), why)})


def _is_count(text: str, most: int) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text) <= most


def _not_a_count(text: str, most: int) -> web.Response:
    error = {"error": f"count={text!r}: write a number from 1 to {most}"}
    return web.json_response(error, status=400)
