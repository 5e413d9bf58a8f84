"""The near cache in front of one node of a cluster: it answers only what the node would."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness.cached import Cached
from tests.harness.farm import BINARIES
from tests.harness.process import free_port, wait_until

KINDS = ["valkey", pytest.param("redis7", marks=pytest.mark.redis)]


@pytest.fixture(params=KINDS)
def cached(request: pytest.FixtureRequest) -> Iterator[Cached]:
    settings: dict[str, str | int | float] = {
        "cluster-enabled": "yes",
        "cluster-port": free_port(),
    }
    with BINARIES[request.param](settings) as server, Cached(server) as cached:
        assert cached.direct.cmd("CLUSTER", "ADDSLOTSRANGE", 0, 16383) == b"+OK\r\n"
        ok = b"cluster_state:ok"
        wait_until(lambda: ok in cached.direct.cmd("CLUSTER", "INFO"), "it serves", 10)
        yield cached


def test_keys_of_several_slots(cached: Cached) -> None:
    """What is here is no answer where the server refuses the question."""
    for key in ("a", "b", "{x}1", "{x}2"):
        assert cached.near.cmd("SET", key, key) == b"+OK\r\n"
        cached.warm("GET", key)
    crossing = cached.direct.cmd("MGET", "a", "b")
    assert crossing.startswith(b"-CROSSSLOT ")
    assert cached.near.cmd("MGET", "a", "b") == crossing
    together = cached.direct.cmd("MGET", "{x}1", "{x}2")
    assert cached.near.cmd("MGET", "{x}1", "{x}2") == together
    assert cached.warm("MGET", "a") == b"*1\r\n$1\r\na\r\n"
    assert cached.warm("GET", "b") == b"$1\r\nb\r\n"
