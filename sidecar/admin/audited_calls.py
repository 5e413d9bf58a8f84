"""Calls of the admin API, in the audit stream."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from sidecar.telemetry.audit import Audit

# What machines ask for all the time, and what is only looked at: no administration.
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
