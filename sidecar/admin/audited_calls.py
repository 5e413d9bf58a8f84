"""Records calls of the admin API in the audit stream (telemetry/audit.py).

What clients do over the Redis protocol is recorded by proxy/session/audit_trail.py.
"""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler

from sidecar.admin.guard import READING, WHO
from sidecar.telemetry.audit import Audit

STREAM = "/api/events"
# Probes, scrapes and the page itself: no administration, and too many to record.
ROUTINE = frozenset({"/livez", "/healthz", "/readyz", "/metrics", "/"})
PAGE = "/web/"
REFUSED = (401, 403)


class AuditedCalls:
    """What the admin server calls: `record` is a middleware, `opened` tells that a live stream has
    begun."""

    def __init__(self, stream: Audit) -> None:
        self._stream = stream

    @web.middleware
    async def record(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Record every call but the routine ones, and of those the ones that are refused. A live
        stream is recorded when it begins."""
        status = 500
        try:
            response = await handler(request)
            status = response.status
            return response
        except web.HTTPException as error:
            status = error.status
            raise
        finally:
            told = _is_routine(request) or (request.path == STREAM and status in (200, 500))
            if status in REFUSED or not told:
                self._tell(request, status)

    def opened(self, request: web.Request) -> None:
        """A live stream has begun."""
        self._tell(request, 200)

    def _tell(self, request: web.Request, status: int) -> None:
        who, peer = request.get(WHO, ""), request.remote or ""
        self._stream.admin(request.method, request.path, status, peer, who)


def _is_routine(request: web.Request) -> bool:
    routine = request.path in ROUTINE or request.path.startswith(PAGE)
    return routine and request.method in READING
