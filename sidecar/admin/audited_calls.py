"""Records calls of the admin API in the audit stream (telemetry/audit.py).

What clients do over the Redis protocol is recorded by proxy/session/audit_trail.py.
"""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from sidecar.telemetry.audit import Audit

# Probes, scrapes and the page itself: no administration, and too many to record.
ROUTINE = frozenset({"/livez", "/healthz", "/readyz", "/metrics", "/", "/api/events"})
PAGE = "/web/"


def audited(stream: Audit) -> Middleware:
    """A middleware that records every call but the routine ones."""

    @web.middleware
    async def record(request: web.Request, handler: Handler) -> web.StreamResponse:
        if (request.path in ROUTINE or request.path.startswith(PAGE)) and request.method in (
            "GET",
            "HEAD",
        ):
            return await handler(request)
        status = 500
        try:
            response = await handler(request)
            status = response.status
            return response
        except web.HTTPException as error:
            status = error.status
            raise
        finally:
            stream.admin(request.method, request.path, status, request.remote or "")

    return record
