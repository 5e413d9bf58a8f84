"""What may surprise those who go from one server to another."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.proxy.comparison import warnings
from sidecar.telemetry.facts import ComparedServer

OLD = ComparedServer(
    address="old:6379",
    run_id="a",
    software="redis",
    version="7.0.15",
    role="master",
    keys={0: 1000},
    used_memory=10_000,
    maxmemory=0,
    maxmemory_policy="noeviction",
    notify_keyspace_events="",
)


def told(**differs: Any) -> list[str]:
    new = {name: getattr(OLD, name) for name in ComparedServer.__struct_fields__}
    return list(warnings(OLD, ComparedServer(**{**new, "run_id": "b", **differs})))


def test_nothing_worth_a_word() -> None:
    assert told(version="9.1.2", software="valkey", keys={0: 1005}) == []


@pytest.mark.parametrize(
    ("differs", "says"),
    [
        ({"run_id": "a"}, "both addresses lead to the same server"),
        ({"keys": {}}, "db 0 has 1000 keys on the old server and 0 on the new one"),
        (
            {"keys": {0: 1000, 3: 7}},
            "db 3 has 0 keys on the old server and 7 on the new one",
        ),
        (
            {"maxmemory_policy": "allkeys-lru"},
            "maxmemory-policy differs: 'noeviction' is 'allkeys-lru' on the new server",
        ),
        (
            {"notify_keyspace_events": "KEA"},
            "notify-keyspace-events differs: '' is 'KEA' on the new server",
        ),
        ({"error": "NOPERM"}, "the new server does not tell everything: NOPERM"),
    ],
)
def test_a_warning(differs: dict[str, Any], says: str) -> None:
    assert told(**differs) == [says]


def test_no_room() -> None:
    assert told(maxmemory=5_000)[-1] == (
        "the old server uses more memory than the new one may (maxmemory)"
    )


def test_what_is_not_known_is_no_difference() -> None:
    assert told(maxmemory=None, maxmemory_policy=None, notify_keyspace_events=None) == []
