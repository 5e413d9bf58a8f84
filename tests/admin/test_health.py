"""Health: ok, degraded or down, and the reasons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from sidecar.admin.health import health

GOOD: dict[str, object] = {"upstream_up": 1, "breaker": {"closed": 1, "open": 0}}
REPLICA = {"address": "10.0.0.2:6379", "state": "online", "lag_bytes": 0, "lag_s": 0}


@pytest.mark.parametrize(
    ("snapshot", "recent", "server", "topology", "status", "reason"),
    [
        ({}, {}, {}, {}, "ok", ""),
        ({"upstream_up": 0}, {}, {}, {}, "down", "no connection"),
        ({"breaker": {"open": 1}}, {}, {}, {}, "down", "breaker is open"),
        ({"breaker": {"half-open": 1}}, {}, {}, {}, "degraded", "trying the server again"),
        ({"held_clients": 2}, {}, {}, {}, "degraded", "2 clients wait"),
        ({}, {}, {"error": "NOPERM"}, {}, "degraded", "NOPERM"),
        ({}, {}, {"role": "replica"}, {}, "degraded", "is a replica"),
        ({}, {}, {"used_memory": 96, "maxmemory": 100}, {}, "degraded", "memory"),
        ({}, {}, {"used_memory": 96, "maxmemory": 0}, {}, "ok", ""),
        ({}, {}, {"replicas": [REPLICA]}, {}, "ok", ""),
        ({}, {}, {"replicas": [REPLICA | {"lag_s": 11}]}, {}, "degraded", "11 s behind"),
        ({}, {}, {"replicas": [REPLICA | {"state": "wait_bgsave"}]}, {}, "degraded", "in sync"),
        ({}, {"commands": 100.0, "errors": 6.0}, {}, {}, "degraded", "6 of 100 commands"),
        ({}, {"commands": 100.0, "errors": 4.0}, {}, {}, "ok", ""),
        ({}, {}, {}, {"phase": "switching"}, "degraded", "master is changing"),
        (
            {},
            {},
            {},
            {"sentinels": [{"address": "a", "connected": False}]},
            "degraded",
            "1 of 1 Sentinels",
        ),
    ],
)
def test_health(
    snapshot: Mapping[str, object],
    recent: Mapping[str, Any],
    server: Mapping[str, Any],
    topology: Mapping[str, Any],
    status: str,
    reason: str,
) -> None:
    said = health({**GOOD, **snapshot}, recent, server, topology)
    assert said["status"] == status
    assert reason in "; ".join(said["reasons"])
    assert bool(said["reasons"]) == (status != "ok")


def test_health_of_nothing() -> None:
    assert health({}, {}, {}, {})["status"] == "down"
