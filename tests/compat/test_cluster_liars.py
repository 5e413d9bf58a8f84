"""Nodes that tell wrong, contradictory, empty or senseless things of their cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness.cluster import Cluster
from tests.harness.errors import Unavailable
from tests.harness.lying import Lying
from tests.harness.servers import Sidecar
from tests.harness.wire import Wire

SHARDS, SLOTS = (b"CLUSTER", b"SHARDS"), (b"CLUSTER", b"SLOTS")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


def bulk(text: str) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(text), text.encode())


def array(*items: bytes) -> bytes:
    return b"*%d\r\n%b" % (len(items), b"".join(items))


def shard(first: int, last: int, *nodes: tuple[str, int]) -> bytes:
    """One shard of a reply to CLUSTER SHARDS; all its nodes are primaries."""
    slots = array(b":%d\r\n" % first, b":%d\r\n" % last)
    rows = [
        array(
            *(bulk("id"), bulk(name), bulk("port"), b":%d\r\n" % port),
            *(bulk("endpoint"), bulk("127.0.0.1"), bulk("role"), bulk("master")),
        )
        for name, port in nodes
    ]
    return array(bulk("slots"), slots, bulk("nodes"), array(*rows))


def serves(cluster: Cluster, sidecar: Sidecar) -> None:
    """Every shard, without a redirection that a client sees."""
    with Wire(sidecar.port) as wire:
        for number in range(3):
            assert wire.cmd("SET", cluster.key(number, "lie"), number) == b"+OK\r\n"
            assert cluster.call(number, "GET", cluster.key(number, "lie")) == str(number)


def test_two_primaries_of_one_shard_are_asked_about_again(cluster: Cluster) -> None:
    """As Redis 8 lists them while a former primary comes back: CLUSTER SLOTS tells."""
    first, second = (cluster.shard(number).primary for number in (0, 1))
    both = array(shard(0, 16383, (first.id, first.port), (second.id, second.port)))
    with (
        Lying(first.address, {SHARDS: both}) as node,
        Sidecar(f"redis+cluster://127.0.0.1:{node.port}") as sidecar,
    ):
        serves(cluster, sidecar)
        assert node.told


def test_one_that_stands_alone_moves_nothing(cluster: Cluster) -> None:
    first, second, third = (cluster.shard(number).primary for number in range(3))
    mine = array(shard(0, 16383, (first.id, first.port)))
    with Lying(first.address, {SHARDS: mine}) as node:
        members = ",".join(f"127.0.0.1:{port}" for port in (node.port, second.port, third.port))
        with Sidecar(f"redis+cluster://{members}") as sidecar:
            serves(cluster, sidecar)
            assert node.told
            with Wire(sidecar.port) as wire:
                assert wire.call("DBSIZE") == sum(cluster.call(n, "DBSIZE") for n in range(3))


@pytest.mark.parametrize(
    ("lies", "says"),
    [
        ({SHARDS: array(), SLOTS: array()}, "no node has any slot"),
        ({SHARDS: b"+OK\r\n", SLOTS: b":5\r\n"}, "no list"),
        ({SHARDS: b"-ERR no\r\n", SLOTS: b"-NOPERM not you\r\n"}, "NOPERM not you"),
        (
            {SHARDS: array(shard(0, 9, ("a", 1)), shard(9, 20, ("b", 2))), SLOTS: array()},
            "no node has any slot",
        ),
        ({SHARDS: array(shard(0, 16384, ("a", 1))), SLOTS: array(array())}, "without a node"),
    ],
)
def test_nonsense_is_told_at_the_start(
    cluster: Cluster, lies: dict[tuple[bytes, ...], bytes], says: str
) -> None:
    settings = {"upstream.start_timeout": 0.5}
    with Lying(cluster.shard(0).primary.address, lies) as node:
        url = f"redis+cluster://127.0.0.1:{node.port}"
        with pytest.raises(Unavailable, match="no node of the cluster has told") as caught:
            Sidecar(url, settings=settings)
    assert says in str(caught.value)
