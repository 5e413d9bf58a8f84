"""Every path of the admin endpoint, declared once: what it is for, and the type of its answer."""

from __future__ import annotations

from typing import Any

from sidecar.admin import answers
from sidecar.admin.bodies import SwitchTo
from sidecar.admin.figures import Stats
from sidecar.admin.openapi import Route
from sidecar.admin.recorder import KEPT
from sidecar.telemetry.facts import HotKeys

MOST_KEYS = 1000
MOST_TRACES = 500

TEXT = "text/plain"
TRACE_KINDS = ("sampled", "slow", "failed", "internal")
_READY = {200: "Ready.", 503: "Not ready."}
_DONE = {200: "Done."}

ROUTES: tuple[Route, ...] = (
    Route("GET", "/livez", "live", "Whether the event loop runs.", content=TEXT, open=True),
    Route("GET", "/healthz", "live", "The same as /livez.", content=TEXT, open=True),
    Route(
        "GET",
        "/readyz",
        "is_ready",
        "Whether clients can be served; ?verbose lists the checks.",
        content=TEXT,
        answers=_READY,
        flags=("verbose",),
        open=True,
    ),
    Route(
        "GET",
        "/metrics",
        "metrics",
        "Metrics, as Prometheus text or OpenMetrics; ?per_worker has those of each worker.",
        content=TEXT,
        flags=("per_worker",),
    ),
    Route("GET", "/api/openapi.json", "openapi", "This document.", Any),
    Route(
        "GET",
        "/api/health/redis",
        "redis_health",
        "How the upstream is doing, and why.",
        answers.Health,
        answers={200: "Status ok or degraded.", 503: "Status down."},
    ),
    Route(
        "GET",
        "/api/stats",
        "stats",
        "Totals, gauges, and the latest points, one for each second; ?count limits the points.",
        Stats,
        count=KEPT,
    ),
    Route("GET", "/api/hotkeys", "hotkeys", "The hottest keys.", HotKeys, count=MOST_KEYS),
    Route(
        "GET",
        "/api/topology",
        "topology",
        "Master, replicas, Sentinels, switches.",
        answers.Topology,
    ),
    Route(
        "GET",
        "/api/traces",
        "traces",
        "The latest traces; ?why selects one kind.",
        answers.Traces,
        count=MOST_TRACES,
        choices={"why": TRACE_KINDS},
    ),
    Route(
        "GET",
        "/api/certificates",
        "certificates",
        "Certificates in use.",
        answers.Certificates,
    ),
    Route(
        "GET",
        "/api/config",
        "config",
        "The settings, without secrets.",
        dict[str, answers.SettingShown],
    ),
    Route(
        "GET",
        "/api/events",
        "events",
        "The live stream: server-sent events.",
        content="text/event-stream",
        answers={200: "A stream without end.", 503: "Too many streams are open."},
    ),
    Route(
        "POST",
        "/api/drain",
        "drain",
        "End in order, as SIGTERM does.",
        answers.Draining,
        answers=_DONE,
    ),
    Route(
        "POST",
        "/api/cache/flush",
        "flush",
        "Empty the near cache.",
        answers.Flushed,
        answers=_DONE,
    ),
    Route(
        "POST",
        "/api/reload",
        "reload",
        "Read the settings and certificates again, as SIGHUP does.",
        answers.Reloaded,
        answers=_DONE,
    ),
    Route(
        "POST",
        "/api/pause",
        "pause",
        "Hold all new commands; answers once nothing is under way, or after failover.hold.",
        answers.Paused,
        answers=_DONE,
    ),
    Route(
        "POST",
        "/api/resume",
        "resume",
        "Let held commands go on.",
        answers.Resumed,
        answers=_DONE,
    ),
    Route(
        "POST",
        "/api/upstream",
        "switch",
        "Go over to another upstream; a dry run only compares.",
        answers.Switched,
        answers=_DONE,
        body=SwitchTo,
    ),
    Route(
        "POST",
        "/api/failover",
        "failover",
        "Ask a Sentinel to replace the master; needs admin.failover.",
        answers.FailoverBegun,
        answers=_DONE,
    ),
)
