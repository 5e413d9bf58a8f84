"""What is about all clients, and all subscribers, of a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.compat.cluster_kinds import KINDS
from tests.harness.cluster import Cluster
from tests.harness.errors import DeadlineError
from tests.harness.process import wait_until
from tests.harness.servers import Sidecar
from tests.harness.wire import Wire

SHARDS = 3


@pytest.fixture(scope="module", params=KINDS)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with Cluster(request.param, shards=SHARDS) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def sidecar(cluster: Cluster) -> Iterator[Sidecar]:
    with Sidecar(cluster.url) as sidecar:
        yield sidecar


@pytest.fixture
def wire(sidecar: Sidecar) -> Iterator[Wire]:
    with Wire(sidecar.port) as wire:
        yield wire


def test_pause_and_unpause(cluster: Cluster, wire: Wire) -> None:
    """Of all servers, whoever their clients are."""
    with ExitStack() as stack:
        others = [stack.enter_context(cluster.wire(shard.primary)) for shard in cluster.shards]
        assert wire.call("CLIENT", "PAUSE", 60_000, "WRITE") == "OK"
        try:
            for shard, other in enumerate(others):
                other.send_command("SET", cluster.key(shard, "paused"), 1)
            for other in others:
                with pytest.raises(DeadlineError):
                    other.read_reply(0.1)
        finally:
            assert wire.call("CLIENT", "UNPAUSE") == "OK"
        assert [other.read_reply() for other in others] == [b"+OK\r\n"] * SHARDS
    assert wire.cmd("CLIENT", "PAUSE", "x").startswith(b"-ERR ")
    assert wire.cmd("CLIENT", "PAUSE").startswith(b"-ERR ")


@pytest.mark.one_worker("behind a cluster only clients of the same worker are unblocked")
def test_unblock(cluster: Cluster, sidecar: Sidecar, wire: Wire) -> None:
    """At the shard where the client waits."""
    for shard in range(SHARDS):
        with Wire(sidecar.port) as blocked:
            number = blocked.call("CLIENT", "ID")
            blocked.send_command("BLPOP", cluster.key(shard, "unblock"), 0)
            wait_until(lambda n=number: wire.call("CLIENT", "UNBLOCK", n) == 1, "it is blocked")  # type: ignore[misc]
            assert blocked.read_reply() in (b"*-1\r\n", b"_\r\n")


def test_channels_and_their_subscribers(cluster: Cluster, sidecar: Sidecar, wire: Wire) -> None:
    """Of all shards, each once, without the sidecar's own."""
    sharded = [cluster.key(shard, "sharded") for shard in range(SHARDS)]
    with ExitStack() as stack:
        for shard in cluster.shards:
            direct = stack.enter_context(cluster.wire(shard.primary))
            direct.call("SUBSCRIBE", "everywhere")
            direct.call("PSUBSCRIBE", f"p{shard.number}*")
            own = cluster.key(shard.number, "sidecar:")
            direct.call("SSUBSCRIBE", own)
            direct.call("SUBSCRIBE", "sidecar:own")
        for channel in sharded:
            subscriber = stack.enter_context(Wire(sidecar.port))
            subscriber.call("SSUBSCRIBE", channel)
        subscriber.call("SUBSCRIBE", "everywhere")
        assert wire.call("PUBSUB", "CHANNELS") == ["everywhere"]
        assert wire.call("PUBSUB", "CHANNELS", "no*") == []
        assert sorted(wire.call("PUBSUB", "SHARDCHANNELS")) == sorted(sharded)
        assert wire.call("PUBSUB", "NUMSUB", "everywhere", "none") == ["everywhere", 4, "none", 0]
        assert wire.call("PUBSUB", "NUMPAT") == SHARDS
        for channel in sharded:
            assert wire.call("PUBSUB", "SHARDNUMSUB", channel) == [channel, 1]
