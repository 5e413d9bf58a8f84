"""A tenant with a key prefix on a cluster: its keys lie in the slots of the server's names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.compat.cluster_kinds import KINDS
from tests.harness.cluster import Cluster
from tests.harness.identities import judging
from tests.harness.servers import Sidecar
from tests.harness.wire import Wire

from .test_prefix_ways import OK, file_of, logged_in


@pytest.fixture(scope="module", params=KINDS)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with Cluster(request.param, shards=3) as cluster:
        for name in ("shop", "jobs"):
            for node in cluster.nodes:
                rules = ("on", f">{name}-upstream", f"~{{{name}}}:*", f"~{name}:*", "&*", "+@all")
                cluster.order(node, "ACL", "SETUSER", name, *rules)
        yield cluster


@pytest.fixture(scope="module")
def sidecar(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    file = tmp_path_factory.mktemp("prefix") / "identities.toml"
    settings = judging(file, file_of(shop="shop:", jobs="{jobs}:"))
    settings |= {"cache.mode": "rules", "cache.rules": '["*"]'}
    with Sidecar(cluster.url, settings=settings) as sidecar:
        yield sidecar


@pytest.fixture
def shop(sidecar: Sidecar) -> Iterator[Wire]:
    with logged_in(sidecar, "shop") as wire:
        yield wire


def names_at(cluster: Cluster) -> set[str]:
    return {key for shard in range(3) for key in cluster.call(shard, "KEYS", "*")}


def test_keys_over_all_shards(cluster: Cluster, sidecar: Sidecar, shop: Wire) -> None:
    names = [f"k{n}" for n in range(40)]
    with logged_in(sidecar, "jobs") as jobs:
        assert jobs.cmd("MSET", "k1", "theirs", "k2", "theirs") == OK
    assert shop.cmd("MSET", *(word for name in names for word in (name, f"v-{name}"))) == OK
    for _ in range(3):
        assert shop.ask("MGET", *names) == [f"v-{name}" for name in names]
        assert shop.pipeline([("GET", name) for name in names])[7] == b"$4\r\nv-k7\r\n"
    assert names_at(cluster) >= {f"shop:{name}" for name in names} | {"{jobs}:k1", "{jobs}:k2"}
    assert sorted(shop.ask("KEYS", "*")) == sorted(names)
    found, cursor = [], "0"
    while cursor != "0" or not found:
        cursor, page = shop.ask("SCAN", cursor, "COUNT", "7")
        found += page
    assert sorted(found) == sorted(names)
    assert shop.ask("RANDOMKEY") in names
    assert shop.ask("DEL", *names) == len(names)
    assert shop.ask("RANDOMKEY") is None
    assert names_at(cluster) == {"{jobs}:k1", "{jobs}:k2"}


def test_a_prefix_with_a_hash_tag(cluster: Cluster, sidecar: Sidecar) -> None:
    """All its keys are in one slot: its transactions may have several."""
    with logged_in(sidecar, "jobs") as jobs:
        requests = [("WATCH", "a"), ("MULTI",), ("SET", "a", "1"), ("SET", "b", "2"), ("EXEC",)]
        assert jobs.pipeline(requests)[-1] == b"*2\r\n+OK\r\n+OK\r\n"
        assert jobs.ask("EVAL", "return redis.call('mget', KEYS[1], KEYS[2])", "2", "a", "b") == [
            "1", "2",
        ]  # fmt: skip
        assert jobs.ask("RPUSH", "l", "x") == 1
        assert jobs.ask("BLPOP", "none", "l", "1") == ["l", "x"]
    assert {"{jobs}:a", "{jobs}:b"} <= names_at(cluster)


def test_messages_and_transactions_of_several_shards(sidecar: Sidecar, shop: Wire) -> None:
    with logged_in(sidecar, "shop") as heard:
        assert heard.ask("SUBSCRIBE", "c") == ["subscribe", "c", 1]
        shop.cmd("PUBLISH", "c", "x")
        assert heard.read_value() == ["message", "c", "x"]
    with logged_in(sidecar, "shop") as heard:
        assert heard.ask("SSUBSCRIBE", "s") == ["ssubscribe", "s", 1]
        assert shop.ask("SPUBLISH", "s", "x") == 1
        assert heard.read_value() == ["smessage", "s", "x"]
    replies = shop.pipeline([("MULTI",), ("SET", "k", "1"), ("KEYS", "*"), ("EXEC",), ("GET", "k")])
    assert replies[-1] == b"$1\r\n1\r\n"
