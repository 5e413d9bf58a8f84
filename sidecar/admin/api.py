"""Answers each path. routes.py declares the paths and the types of their answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
import structlog
from aiohttp import web

from sidecar.admin.answers import Certificates, Traces
from sidecar.admin.bodies import Nothing, SwitchTo
from sidecar.admin.events import Events, TooManyListenersError
from sidecar.admin.figures import Introduction, Stats, gauges
from sidecar.admin.guard import HEADERS, WHO, failure
from sidecar.admin.health import health
from sidecar.admin.openapi import document
from sidecar.admin.recorder import Recorder
from sidecar.admin.routes import MOST_KEYS, MOST_TRACES, ROUTES, TRACE_KINDS
from sidecar.admin.sources import Actions, RefusedError, Sources
from sidecar.telemetry.exposition import (
    OPENMETRICS_TYPE,
    TEXT_TYPE,
    Exposition,
    wants_openmetrics,
)

log = structlog.get_logger()

B = TypeVar("B", bound=msgspec.Struct)

_encode = msgspec.json.Encoder().encode

RECENT = 10  # seconds that health looks back
STREAM_PATIENCE = 10.0  # seconds a stream's reader may take for what is sent to it
# An action that takes longer goes on, but the caller gets no answer.
ACTION_PATIENCE = 30.0
BODY_PATIENCE = 10.0  # seconds that the body of a request may take


class BadQueryError(Exception):
    """A query parameter has a wrong value; the message says which, and what is right."""


class Api:
    """The handlers, by the names in ROUTES."""

    def __init__(
        self,
        sources: Sources,
        actions: Actions,
        recorder: Recorder,
        events: Events,
        introduction: Introduction,
        token: bool,
        opened: Callable[[web.Request], None],
        still_allows: Callable[[web.Request], bool],
    ) -> None:
        self._opened, self._still_allows = opened, still_allows
        self._sources = sources
        self._actions = actions
        self._exposition = Exposition(sources.snapshot, processes=sources.processes)
        self._recorder = recorder
        self._events = events
        self._introduction = introduction
        self.describe(token)

    def describe(self, token: bool) -> None:
        """Make the OpenAPI document, for callers with a token or without."""
        self._document = _encode(document(ROUTES, token))

    async def live(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def is_ready(self, request: web.Request) -> web.Response:
        await self._sources.refresh("figures")
        checks = self._sources.ready()
        ready = all(checks.values())
        text = "ok\n" if ready else "not ready\n"
        if "verbose" in request.query:
            lines = (f"[{'+' if holds else '-'}] {name}\n" for name, holds in checks.items())
            text = "".join(lines) + text
        return web.Response(text=text, status=200 if ready else 503)

    async def metrics(self, request: web.Request) -> web.Response:
        openmetrics = wants_openmetrics(", ".join(request.headers.getall("Accept", [])))
        content_type = OPENMETRICS_TYPE if openmetrics else TEXT_TYPE
        await self._sources.refresh("figures")
        each = self._sources.each() if "per_worker" in request.query else {}
        if each:
            body = self._exposition.render_each(each, openmetrics)
        else:
            body = self._exposition.render(openmetrics)
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def openapi(self, request: web.Request) -> web.Response:
        return web.Response(body=self._document, content_type="application/json")

    async def redis_health(self, request: web.Request) -> web.Response:
        topology, server, _ = await asyncio.gather(
            self._sources.topology(), self._sources.server(), self._sources.refresh("figures")
        )
        recent = self._recorder.over(RECENT)
        said = health(self._sources.snapshot(), recent, server, topology, time.time())
        return answer(said, 503 if said.status == "down" else 200)

    async def stats(self, request: web.Request) -> web.Response:
        count = count_of(request, 1, self._most("/api/stats"))
        await self._sources.refresh("figures")
        return answer(
            Stats(
                **msgspec.structs.asdict(self._introduction),
                **msgspec.structs.asdict(gauges(self._sources.snapshot())),
                uptime_s=round(time.time() - self._introduction.started, 3),
                last_minute=self._recorder.over(60),
                points=self._recorder.latest(count),
            )
        )

    async def hotkeys(self, request: web.Request) -> web.Response:
        count = count_of(request, 20, MOST_KEYS)
        await self._sources.refresh("hot keys")
        return answer(self._sources.hot_keys(count))

    async def topology(self, request: web.Request) -> web.Response:
        return answer(await self._sources.topology())

    async def traces(self, request: web.Request) -> web.Response:
        most = count_of(request, 50, MOST_TRACES)
        why = request.query.get("why", "")
        if why and why not in TRACE_KINDS:
            raise BadQueryError(f"why is one of {', '.join(TRACE_KINDS)}")
        await self._sources.refresh(f"traces:{why}")
        return answer(Traces(traces=self._sources.traces.recent(most, why)))

    async def certificates(self, request: web.Request) -> web.Response:
        return answer(Certificates(certificates=self._sources.certificates()))

    async def config(self, request: web.Request) -> web.Response:
        return answer(self._sources.config())

    async def events(self, request: web.Request) -> web.StreamResponse:
        stream = self._events.listen()
        try:
            first = await anext(stream)
        except TooManyListenersError:
            return failure(503, "too many streams are open, or the sidecar is ending")
        headers = {**HEADERS, "Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        response = web.StreamResponse(headers=headers)
        try:
            await response.prepare(request)
            self._opened(request)
            await response.write(first)
            async for said in stream:
                if not self._still_allows(request):
                    break
                async with asyncio.timeout(STREAM_PATIENCE):
                    await response.write(said)
        except (ConnectionError, TimeoutError):
            # The listener is gone or does not read: do not wait for the transport.
            if request.transport is not None:
                request.transport.abort()
        finally:
            await stream.aclose()
        return response

    async def drain(self, request: web.Request) -> web.Response:
        return await self._do(request, self._actions.drain)

    async def flush(self, request: web.Request) -> web.Response:
        return await self._do(request, self._actions.flush_cache)

    async def reload(self, request: web.Request) -> web.Response:
        return await self._do(request, self._actions.reload)

    async def failover(self, request: web.Request) -> web.Response:
        return await self._do(request, self._actions.failover)

    async def pause(self, request: web.Request) -> web.Response:
        return await self._do(request, self._actions.pause)

    async def resume(self, request: web.Request) -> web.Response:
        return await self._do(request, self._actions.resume)

    async def switch(self, request: web.Request) -> web.Response:
        return await self._do_with(request, SwitchTo, self._actions.switch)

    async def _do(
        self, request: web.Request, action: Callable[[], Awaitable[msgspec.Struct]]
    ) -> web.Response:
        return await self._do_with(request, Nothing, lambda body: action())

    async def _do_with(
        self, request: web.Request, kind: type[B], action: Callable[[B], Awaitable[msgspec.Struct]]
    ) -> web.Response:
        if request.content_type != "application/json":
            return failure(415, "send Content-Type: application/json, and {} as the body")
        try:
            async with asyncio.timeout(BODY_PATIENCE):
                sent = await request.read()
        except TimeoutError:
            return failure(408, "the body has not come in time", {"Connection": "close"})
        try:
            body = msgspec.json.decode(sent.strip() or b"{}", type=kind)
        except msgspec.MsgspecError:
            fields = ", ".join(f'"{name}": …' for name in kind.__struct_fields__)
            return failure(400, f"the body must be {{{fields}}}")
        try:
            async with asyncio.timeout(ACTION_PATIENCE):
                said = await action(body)
        except RefusedError as error:
            return failure(409, str(error))
        done = msgspec.to_builtins(said)
        who = {"user": request[WHO]} if WHO in request else {}
        log.info("admin action done", path=request.path, peer=request.remote, **who, **done)
        return answer(said)

    @staticmethod
    def _most(path: str) -> int:
        return next(route.count for route in ROUTES if route.path == path)


def answer(said: object, status: int = 200) -> web.Response:
    """A struct as JSON."""
    return web.Response(
        body=_encode(said),
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


def count_of(request: web.Request, default: int, most: int) -> int:
    """The query parameter `count`. Raises BadQueryError."""
    given = request.query.getall("count", [str(default)])
    text = given[0]
    if len(given) > 1 or not (text.isascii() and text.isdigit() and len(text) < 9):
        raise BadQueryError(f"count={text!r}: write a number from 1 to {most}")
    if not 0 < int(text) <= most:
        raise BadQueryError(f"count={text!r}: write a number from 1 to {most}")
    return int(text)
