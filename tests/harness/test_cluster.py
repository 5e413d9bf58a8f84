"""The cluster that tests use does what it says; redis-py's own client agrees."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.harness.certificates import make_certificates
from tests.harness.cluster import SLOTS, Cluster, ranges_of
from tests.harness.process import wait_until
from tests.harness.resp import Refused

KINDS = [
    "valkey",
    pytest.param("redis7", marks=[pytest.mark.redis, pytest.mark.slow]),
    pytest.param("redis8", marks=[pytest.mark.slow]),
]


@pytest.fixture(scope="module", params=KINDS)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with Cluster(request.param, replicas=1) as cluster:
        yield cluster


def client(cluster: Cluster) -> redis.RedisCluster:
    return redis.RedisCluster(host="127.0.0.1", port=cluster.shard(0).primary.port)


def test_a_clients_view(cluster: Cluster) -> None:
    with client(cluster) as library:
        for number in range(3):
            key = cluster.key(number)
            assert library.set(key, number)
            node = library.get_node_from_key(key)
            assert node is not None
            assert node.port == cluster.shard(number).primary.port
            assert cluster.call(number, "GET", key) == str(number)


def test_a_slot_moves_with_its_keys(cluster: Cluster) -> None:
    key = cluster.key(0, "moves")
    slot = cluster.call(0, "CLUSTER", "KEYSLOT", key)
    names = [f"{{{key}}}{count}" for count in range(3)]
    for name in names:
        cluster.call(0, "SET", name, "1")
    cluster.begin_migration(slot, 1)
    assert cluster.move_keys(slot, 1) == 1
    assert cluster.move_keys(slot) == 2
    with pytest.raises(Refused, match=f"ASK {slot} "):
        cluster.call(0, "GET", key)
    cluster.end_migration(slot)
    assert cluster.owner(slot) == 1
    assert cluster.call(1, "EXISTS", *names) == 3
    with pytest.raises(Refused, match=f"MOVED {slot} "):
        cluster.call(0, "GET", key)
    cluster.migrate(slot, 0)
    assert cluster.call(0, "EXISTS", *names) == 3


def test_slots_move_at_one_moment(cluster: Cluster) -> None:
    if cluster.kind != "valkey":
        pytest.skip("Valkey 9 alone moves slots atomically")
    key = cluster.key(2, "atomic")
    cluster.call(2, "SET", key, "1")
    slot = cluster.call(2, "CLUSTER", "KEYSLOT", key)
    cluster.migrate_atomically([slot, 0, 1, 2], 1)
    assert cluster.call(1, "GET", key) == "1"
    cluster.migrate_atomically([slot], 2)
    cluster.migrate_atomically([0, 1, 2], 0)


def test_a_replica_takes_over(cluster: Cluster) -> None:
    before = cluster.shard(2).primary
    cluster.failover(2)
    now = cluster.shard(2).primary
    assert now is not before
    assert cluster.call(2, "ROLE")[0] == "master"
    assert cluster.order(before, "ROLE")[0] == "slave"


def test_shards_come_and_go(cluster: Cluster) -> None:
    number = cluster.add_shard().number
    assert number == 3
    cluster.migrate(100, number)
    cluster.settle()
    assert cluster.owner(100) == number
    cluster.migrate(100, 0)
    cluster.settle()
    cluster.remove_shard(number)
    assert [shard.number for shard in cluster.shards] == [0, 1, 2]


@pytest.mark.redis
@pytest.mark.slow
def test_a_crash_with_tls_and_a_password(tmp_path: Path) -> None:
    made = make_certificates(tmp_path)
    with Cluster("redis7", replicas=1, node_timeout=1000, password="pw", tls=made) as cluster:
        assert cluster.url.startswith("rediss+cluster://:pw@localhost:")
        cluster.call(1, "SET", cluster.key(1), "1")
        assert cluster.call(1, "WAIT", 1, 10_000) == 1
        old = cluster.kill(1)
        cluster.adopt(1)
        assert cluster.call(1, "GET", cluster.key(1)) == "1"
        old.start()
        cluster.settle()
        wait_until(lambda: cluster.order(old, "ROLE")[0] == "slave", "it is a replica now", 10)


def test_ranges() -> None:
    assert ranges_of([3, 1, 2, 7]) == [(1, 3), (7, 7)]
    assert ranges_of(range(SLOTS)) == [(0, SLOTS - 1)]
