"""Every path of the admin endpoint, once: what it is for and what it answers."""

from __future__ import annotations

from sidecar.admin.openapi import (
    ANY,
    BOOLEAN,
    INTEGER,
    NUMBER,
    STRING,
    Route,
    arr,
    maybe,
    obj,
    table,
)
from sidecar.admin.recorder import KEPT

MOST_KEYS = 1000
MOST_TRACES = 500

TEXT = "text/plain"
_RATE = maybe(NUMBER)
_PERCENTILES = obj(p50=_RATE, p95=_RATE, p99=_RATE, p999=_RATE)

_POINT = obj(
    t=INTEGER,
    commands=NUMBER,
    hits=NUMBER,
    misses=NUMBER,
    errors=NUMBER,
    local_errors=NUMBER,
    uncertain=NUMBER,
    bytes_in=NUMBER,
    bytes_out=NUMBER,
    clients=NUMBER,
    held=NUMBER,
    held_bytes=NUMBER,
    cache_bytes=NUMBER,
    cache_entries=NUMBER,
    p50=_RATE,
    p95=_RATE,
    p99=_RATE,
    p999=_RATE,
)
_HEALTH = obj(
    status={"enum": ["ok", "degraded", "down"]},
    reasons=arr(STRING),
    role=maybe(STRING),
    server=obj(
        software=maybe(STRING),
        version=maybe(STRING),
        used_memory=maybe(INTEGER),
        maxmemory=maybe(INTEGER),
        info_s=_RATE,
        error=maybe(STRING),
    ),
    latency=_PERCENTILES,
    commands_per_second=_RATE,
    errors_per_second=_RATE,
    cache=obj(
        hit_ratio=_RATE,
        entries=INTEGER,
        bytes=INTEGER,
        limit_bytes=INTEGER,
        mode=STRING,
        proof_age_s=_RATE,
    ),
    breaker={"enum": ["closed", "open", "half-open", "unknown"]},
    held_clients=INTEGER,
    held_bytes=INTEGER,
    replication=obj(replicas=INTEGER, lag_bytes=maybe(INTEGER), lag_s=maybe(INTEGER)),
)
_STATS = obj(
    instance=STRING,
    version=STRING,
    started=NUMBER,
    uptime_s=NUMBER,
    serving=BOOLEAN,
    clients=INTEGER,
    links=obj(shared=INTEGER, dedicated=INTEGER, idle=INTEGER),
    held=obj(clients=INTEGER, bytes=INTEGER),
    breaker=obj(state=STRING, opened=INTEGER),
    cache=obj(
        mode=STRING,
        entries=INTEGER,
        bytes=INTEGER,
        limit_bytes=INTEGER,
        hits=INTEGER,
        misses=table(INTEGER),
        evictions=INTEGER,
        proof_age_s=_RATE,
    ),
    totals=table(INTEGER),
    warm=ANY,
    last_minute=table(_RATE),
    points=arr(_POINT),
)
_HOT_KEYS = obj(
    window_s=NUMBER,
    keys=arr(
        obj(
            key=STRING,
            db=INTEGER,
            user=STRING,
            share=NUMBER,
            rate=NUMBER,
            reads=NUMBER,
            writes=NUMBER,
            hot=BOOLEAN,
            cached=BOOLEAN,
        )
    ),
)
_SWITCH = obj(at=NUMBER, before=STRING, after=STRING, switched=BOOLEAN, seconds=_RATE)
_TOPOLOGY = obj(
    True,
    upstream=STRING,
    follows_sentinels=BOOLEAN,
    phase=maybe(STRING),
    master=maybe(STRING),
    up=BOOLEAN,
    switches=INTEGER,
    replicas=arr(obj(True, address=STRING, state=STRING)),
    sentinels=arr(obj(True, address=STRING, connected=BOOLEAN)),
    history=arr(_SWITCH),
)
_SPAN = obj(True, span_id=STRING, name=STRING, kind=STRING, offset_ms=NUMBER, duration_ms=NUMBER)
_TRACE = obj(
    True,
    trace_id=STRING,
    name=STRING,
    time=NUMBER,
    duration_ms=NUMBER,
    why=arr(STRING),
    error=maybe(STRING),
    spans=arr(_SPAN),
)
_TRACES = obj(traces=arr(_TRACE))
_CERTIFICATES = obj(
    certificates=arr(
        obj(
            use=STRING,
            file=STRING,
            subject=maybe(STRING),
            not_after=_RATE,
            seconds_left=maybe(INTEGER),
            error=maybe(STRING),
        )
    )
)

TRACE_KINDS = ("sampled", "slow", "failed", "internal")
_READY = {200: "Ready.", 503: "Not ready."}
_DONE = {200: "Done."}

ROUTES: tuple[Route, ...] = (
    Route("GET", "/livez", "live", "Does the event loop run?", TEXT, open=True),
    Route("GET", "/healthz", "live", "The same as /livez.", TEXT, open=True),
    Route(
        "GET",
        "/readyz",
        "is_ready",
        "Can clients be served? ?verbose lists the checks.",
        TEXT,
        answers=_READY,
        flags=("verbose",),
        open=True,
    ),
    Route("GET", "/metrics", "metrics", "Metrics, as Prometheus text or OpenMetrics.", TEXT),
    Route("GET", "/api/openapi.json", "openapi", "This document."),
    Route(
        "GET",
        "/api/health/redis",
        "redis_health",
        "How the Redis behind is doing, and why.",
        _HEALTH,
        answers={200: "Status ok or degraded.", 503: "Status down."},
    ),
    Route(
        "GET",
        "/api/stats",
        "stats",
        "Totals, gauges and the course of the last minutes, a point a second; ?count of them.",
        _STATS,
        count=KEPT,
    ),
    Route("GET", "/api/hotkeys", "hotkeys", "The hottest keys.", _HOT_KEYS, count=MOST_KEYS),
    Route("GET", "/api/topology", "topology", "Master, replicas, Sentinels, switches.", _TOPOLOGY),
    Route(
        "GET",
        "/api/traces",
        "traces",
        "The latest traces; ?why picks one kind.",
        _TRACES,
        count=MOST_TRACES,
        choices={"why": TRACE_KINDS},
    ),
    Route("GET", "/api/certificates", "certificates", "Certificates in use.", _CERTIFICATES),
    Route(
        "GET",
        "/api/config",
        "config",
        "The settings, without secrets.",
        table(obj(value=ANY, default=BOOLEAN)),
    ),
    Route(
        "GET",
        "/api/events",
        "events",
        "The live stream: server-sent events.",
        "text/event-stream",
        answers={200: "A stream without end.", 503: "Too many listen."},
    ),
    Route(
        "POST", "/api/drain", "drain", "End in order, as SIGTERM does.", obj(True), answers=_DONE
    ),
    Route(
        "POST",
        "/api/cache/flush",
        "flush",
        "Empty the near cache.",
        obj(dropped=INTEGER),
        answers=_DONE,
    ),
    Route(
        "POST",
        "/api/reload",
        "reload",
        "Read the certificates again, as SIGHUP does.",
        obj(reloaded=arr(STRING)),
        answers=_DONE,
    ),
    Route(
        "POST",
        "/api/failover",
        "failover",
        "Have a Sentinel replace the master; needs admin.failover.",
        obj(asked=STRING),
        answers=_DONE,
    ),
)
