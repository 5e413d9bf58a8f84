"""What the nodes of real clusters say is read as what it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sidecar.policy.shard_map import ShardMap
from sidecar.policy.shards import (
    PLAIN,
    Address,
    Reading,
    View,
    agreed,
    view_of_shards,
    view_of_slots,
)
from tests.compat.cluster_kinds import KINDS
from tests.harness.certificates import make_certificates
from tests.harness.cluster import Cluster, ClusterNode
from tests.harness.process import wait_until

READERS: list[tuple[str, Callable[[object, Address, Reading], View]]] = [
    ("SHARDS", view_of_shards),
    ("SLOTS", view_of_slots),
]


@pytest.fixture(scope="module", params=KINDS)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with Cluster(request.param, shards=2, replicas=1) as cluster:
        yield cluster


def told(cluster: Cluster, node: ClusterNode, protocol: int = 2) -> Iterator[View]:
    """What a node says, in both ways."""
    for command, read in READERS:
        with cluster.wire(node) as wire:
            wire.call("HELLO", protocol)
            reply = wire.call("CLUSTER", command, text=False)
        yield read(reply, (node.host, node.port), PLAIN)


def primaries(view: View) -> dict[int, tuple[str, Address] | None]:
    """Who has each slot."""
    return {
        slot: (each.primary.id, each.primary.address) if each.primary else None
        for each in view.shards
        for first, last in each.slots
        for slot in range(first, last + 1)
    }


def wanted(cluster: Cluster) -> dict[int, tuple[str, Address] | None]:
    nodes = {shard.number: shard.primary for shard in cluster.shards}
    return {slot: (nodes[n].id, nodes[n].address) for slot, n in enumerate(cluster.owners)}


@pytest.mark.parametrize("protocol", [2, 3])
def test_all_nodes_say_who_has_which_slot(cluster: Cluster, protocol: int) -> None:
    for node in cluster.nodes:
        for view in told(cluster, node, protocol):
            assert primaries(view) == wanted(cluster)


def test_slots_that_move_and_a_replica_that_takes_over(cluster: Cluster) -> None:
    known = ShardMap()
    node = cluster.shard(0).primary
    before, _ = told(cluster, node)
    known.take(before)
    number = known.slots[100]
    cluster.migrate(100, 1)
    cluster.settle()
    after, by_slots = told(cluster, node)
    assert primaries(after) == primaries(by_slots) == wanted(cluster)
    assert known.take(after).moved == (100,)
    cluster.migrate(100, 0)
    cluster.settle()
    cluster.failover(0)
    views = [next(told(cluster, node)) for node in cluster.nodes]
    changes = known.take(agreed(views, known.view))
    new = cluster.shard(0).primary
    assert [(n, m.id, m.address) for n, m in changes.switched] == [(number, new.id, new.address)]
    assert (changes.added, changes.gone, changes.lost) == ((), (), ())
    assert known.number_at(f"{new.host}:{new.port}") == number


@pytest.mark.slow
@pytest.mark.redis
def test_names_and_ports_for_tls(tmp_path: Path) -> None:
    """Certificates are for names, so nodes announce them."""
    settings = {
        "cluster-announce-hostname": "localhost",
        "cluster-preferred-endpoint-type": "hostname",
    }
    tls = make_certificates(tmp_path)
    with Cluster("redis7", shards=2, tls=tls, settings=settings) as cluster:
        node = cluster.shard(0).primary
        want = {("localhost", each.listening) for each in cluster.nodes}

        def named() -> bool:
            reply = cluster.order(node, "CLUSTER", "SHARDS")
            return "?" not in str(reply)

        wait_until(named, "the nodes know each other's names", 10)
        with cluster.wire(node) as wire:
            reply = wire.call("CLUSTER", "SHARDS", text=False)
        view = view_of_shards(reply, ("asked", 1), Reading(tls=True))
        assert {each.primary.address for each in view.shards if each.primary} == want


@pytest.mark.slow
def test_a_primary_that_dies(cluster: Cluster) -> None:
    """Others say that it is dead, then who has taken over; it is the same shard all the time."""
    with Cluster(cluster.kind, shards=3, replicas=1, node_timeout=1000) as mortal:
        known = ShardMap()
        watching = [mortal.shard(1).primary, mortal.shard(2).primary]
        known.take(agreed([next(told(mortal, node)) for node in watching]))
        number = known.slots[0]
        old = mortal.kill(0)
        seen: list[int] = []

        def replaced() -> bool:
            views = [next(told(mortal, node)) for node in watching]
            changes = known.take(agreed(views, known.view))
            assert not changes.added
            assert not changes.gone
            seen.extend(n for n, _ in changes.switched)
            return bool(seen)

        wait_until(replaced, "a replica has taken over", 30)
        assert seen == [number]
        now = known.shards[number].primary
        assert now is not None
        assert now.id == mortal.shard(0).replicas[0].id
        mortal.adopt(0)
        old.start()
        mortal.settle()
        for node in mortal.nodes:
            for view in told(mortal, node):
                assert primaries(view) == wanted(mortal)
                assert not known.take(view).added
