"""What the admin endpoint makes of what it is given: points, health, settings without secrets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.admin.health import health
from sidecar.admin.recorder import KEPT, Recorder, percentile
from sidecar.admin.redacted import shown
from sidecar.proxy.interruptions import KEPT as KEPT_INTERRUPTIONS
from sidecar.proxy.interruptions import Interruptions
from sidecar.proxy.server_info import facts_of
from sidecar.settings.load import load

BOUNDS = [0.001, 0.01, 0.1]


def counters(commands: int, counts: list[int], **more: object) -> dict[str, object]:
    return {
        "commands": {"get": commands},
        "latency": {"string": (counts, 1.0)},
        "latency_bounds": BOUNDS,
        **more,
    }


# The course


def test_points_are_rates_of_their_second() -> None:
    recorder = Recorder()
    assert recorder.add(counters(10, [0, 0, 0, 0], cache_hits=5), 100.0, 1.0) is None
    point = recorder.add(counters(40, [0, 20, 0, 0], cache_hits=15), 102.0, 3.0)
    assert point is not None
    assert (point["t"], point["commands"], point["hits"]) == (3000, 15.0, 5.0)
    assert 0.001 < point["p50"] < 0.01
    assert recorder.latest() == [point]


def test_counters_that_went_back_are_no_rate() -> None:
    recorder = Recorder()
    recorder.add(counters(1000, [500, 0, 0, 0], replies_error={"string": 9}), 1.0, 1.0)
    point = recorder.add(counters(3, [2, 0, 0, 0]), 2.0, 2.0)
    assert point is not None
    assert (point["commands"], point["errors"], point["p99"]) == (0.0, 0.0, None)


def test_nothing_is_told_while_nothing_serves() -> None:
    recorder = Recorder()
    assert recorder.add({}, 1.0, 1.0) is None
    assert recorder.add({}, 2.0, 2.0) is None
    assert recorder.latest() == []
    assert recorder.over(10)["commands"] is None


def test_the_course_is_bounded() -> None:
    recorder = Recorder()
    for second in range(KEPT + 50):
        recorder.add(counters(second, [second, 0, 0, 0]), float(second), float(second))
    points = recorder.latest()
    assert len(points) == KEPT
    assert points[-1]["t"] == (KEPT + 49) * 1000
    assert len(recorder.latest(3)) == 3
    assert recorder.over(10)["commands"] == 1.0


@given(st.lists(st.integers(0, 1000), min_size=4, max_size=4), st.floats(0.01, 1))
def test_a_percentile_is_in_its_bucket(counts: list[int], share: float) -> None:
    found = percentile(counts, BOUNDS, share)
    if not sum(counts):
        assert found is None
        return
    assert found is not None
    seen = 0
    for low, high, count in zip([0.0, *BOUNDS], [*BOUNDS, BOUNDS[-1]], counts, strict=True):
        seen += count
        if seen >= share * sum(counts) - 1e-9 and count:
            assert low - 1e-9 <= found <= high + 1e-9
            return


# Health

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


# Interruptions


def test_an_interruption_and_a_switch() -> None:
    history = Interruptions()
    history.began(100.0, "a:1")
    history.began(100.5, "a:1")
    (entry,) = history.snapshot()
    assert (entry["at"], entry["seconds"], entry["switched"]) == (100.0, None, False)
    history.switched(101.0, "a:1", "b:1")
    history.ended(101.25)
    history.ended(999.0)
    (entry,) = history.snapshot()
    assert (entry["before"], entry["after"], entry["switched"]) == ("a:1", "b:1", True)
    assert entry["seconds"] == 1.25
    history.switched(200.0, "b:1", "c:1")
    history.ended(200.125)
    assert [each["after"] for each in history.snapshot()] == ["c:1", "b:1"]
    for number in range(KEPT_INTERRUPTIONS + 10):
        history.began(float(number), "c:1")
        history.ended(float(number))
    assert len(history.snapshot()) == KEPT_INTERRUPTIONS


# What the server says


def test_facts_of_a_master() -> None:
    facts = facts_of(
        "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.1.2\r\n"
        "used_memory:1000\r\nmaxmemory:0\r\nrole:master\r\nconnected_slaves:2\r\n"
        "slave0:ip=10.0.0.2,port=6379,state=online,offset=90,lag=1\r\n"
        "slave1:ip=::1,port=6380,state=wait_bgsave,offset=0,lag=0\r\n"
        "master_repl_offset:100\r\n"
    )
    assert (facts["software"], facts["version"], facts["role"]) == ("valkey", "9.1.2", "master")
    assert facts["replicas"] == [
        {"address": "10.0.0.2:6379", "state": "online", "lag_bytes": 10, "lag_s": 1},
        {"address": "[::1]:6380", "state": "wait_bgsave", "lag_bytes": 100, "lag_s": 0},
    ]


@pytest.mark.parametrize("info", ["", "role", "connected_slaves:many", "connected_slaves:3\nx:y"])
def test_facts_of_what_is_no_info(info: str) -> None:
    assert facts_of(info)["replicas"] == []


# Settings


def test_no_secret_among_the_settings() -> None:
    settings = load(
        None,
        {
            "upstream.url": "redis://bob:hunter2@10.0.0.1:6379/3",
            "admin.token": "0123456789abcdef",
            "embedded.args": '["--requirepass", "hunter2", "--maxmemory=1gb"]',
        },
        {},
    )
    said = shown(settings)
    assert said["upstream.url"] == {"value": "redis://10.0.0.1:6379/3", "default": False}
    assert said["admin.token"] == {"value": "***", "default": False}
    assert said["embedded.args"]["value"] == ["--requirepass", "***", "***"]
    assert said["listen.backlog"] == {"value": 1024, "default": True}
    for secret in ("hunter2", "bob", "0123456789abcdef"):
        assert secret not in str(said)
