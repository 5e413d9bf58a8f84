"""Health: ok, degraded or down, and the reasons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from sidecar.admin.answers import Topology
from sidecar.admin.figures import Recent
from sidecar.admin.health import health
from sidecar.policy.breaker import State
from sidecar.telemetry.facts import Replica, Sentinel, Server
from sidecar.telemetry.snapshots import DataPlane, Snapshot
from tests.harness.structs import filled

DAY, NOW = 86400.0, 1_800_000_000.0
GOOD: dict[str, Any] = {"links": {"up": True}, "breaker": {"state": State.CLOSED}}
REPLICA = {"address": "10.0.0.2:6379", "state": "online", "lag_bytes": 0, "lag_s": 0}
AWAY = filled(Sentinel, address="a", connected=False)


def replica(**facts: object) -> dict[str, list[Replica]]:
    return {"replicas": [filled(Replica, **(REPLICA | facts))]}


@pytest.mark.parametrize(
    ("plane", "recent", "server", "topology", "status", "reason"),
    [
        ({}, {}, {}, {}, "ok", ""),
        ({"links": {"up": False}}, {}, {}, {}, "down", "no connection"),
        ({"breaker": {"state": State.OPEN}}, {}, {}, {}, "down", "breaker is open"),
        ({"breaker": {"state": State.HALF_OPEN}}, {}, {}, {}, "degraded", "trying the server"),
        ({"certificates": {"listen": NOW + DAY}}, {}, {}, {}, "degraded", "ends in 24 hours"),
        (
            {"certificates": {"upstream-crl": NOW - 3 * DAY}},
            {},
            {},
            {},
            "degraded",
            "the revocation list of upstream.tls has ended 3 days ago",
        ),
        (
            {"certificates": {"listen": NOW + DAY}, "certificates_begin": {"listen": NOW - DAY}},
            {},
            {},
            {},
            "ok",
            "",
        ),
        ({"held": {"clients": 2}}, {}, {}, {}, "degraded", "2 clients wait"),
        ({}, {}, {"error": "NOPERM"}, {}, "degraded", "NOPERM"),
        ({}, {}, {"role": "replica"}, {}, "degraded", "is a replica"),
        ({}, {}, {"used_memory": 96, "maxmemory": 100}, {}, "degraded", "memory"),
        ({}, {}, {"used_memory": 96, "maxmemory": 0}, {}, "ok", ""),
        ({}, {}, replica(), {}, "ok", ""),
        ({}, {}, replica(lag_s=11), {}, "degraded", "11 s behind"),
        ({}, {}, replica(state="wait_bgsave"), {}, "degraded", "in sync"),
        ({}, {"commands": 100.0, "errors": 6.0}, {}, {}, "degraded", "6 of 100 commands"),
        ({}, {"commands": 100.0, "errors": 4.0}, {}, {}, "ok", ""),
        ({}, {}, {}, {"phase": "switching"}, "degraded", "master is changing"),
        ({}, {}, {}, {"sentinels": [AWAY]}, "degraded", "1 of 1 Sentinels"),
    ],
)
def test_health(
    plane: Mapping[str, Any],
    recent: Mapping[str, Any],
    server: Mapping[str, Any],
    topology: Mapping[str, Any],
    status: str,
    reason: str,
) -> None:
    said = health(
        Snapshot(data_plane=filled(DataPlane, **{**GOOD, **plane})),
        filled(Recent, **recent),
        Server(**server),
        filled(Topology, **topology),
        NOW,
    )
    assert said.status == status
    assert reason in "; ".join(said.reasons)
    assert bool(said.reasons) == (status != "ok")


def test_health_of_nothing() -> None:
    assert health(Snapshot(), filled(Recent), Server(), filled(Topology), NOW).status == "down"
