"""What is about all clients, and all subscribers, of a cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.compat.cluster_kinds import KINDS
from tests.harness.cluster import Cluster
from tests.harness.errors import DeadlineError
from tests.harness.process import wait_until
from tests.harness.servers import Sidecar
from tests.harness.several import several, spread
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


def test_unblock(cluster: Cluster, sidecar: Sidecar, wire: Wire) -> None:
    """At the shard where the client waits."""
    for shard in range(SHARDS):
        with Wire(sidecar.port) as blocked:
            number = blocked.call("CLIENT", "ID")
            blocked.send_command("BLPOP", cluster.key(shard, "unblock"), 0)
            wait_until(lambda n=number: wire.call("CLIENT", "UNBLOCK", n) == 1, "it is blocked")  # type: ignore[misc]
            assert blocked.read_reply() in (b"*-1\r\n", b"_\r\n")


def test_what_is_meant_is_one_of_another_worker(cluster: Cluster) -> None:
    """UNBLOCK, KILL and LIST reach it; and no client of another shard whose link has its id."""
    with several(cluster.url) as sidecar, spread(sidecar.port, 3) as (mine, others):
        asking, other = mine[0], others[0]
        keys = [cluster.key(shard, "elsewhere") for shard in range(SHARDS)]
        for blocked in (other, mine[1]):
            number = blocked.call("CLIENT", "ID")
            for key in keys:
                blocked.send_command("BLPOP", key, 0)
                wait_until(lambda n=number: asking.call("CLIENT", "UNBLOCK", n) == 1, "blocked")  # type: ignore[misc]
                assert blocked.read_reply() == b"*-1\r\n"
        bystanders = [*mine[1:], *others[1:]]
        for wire, key in zip(bystanders, (*keys, keys[0]), strict=True):
            wire.send_command("BLPOP", key, 0)
        number = other.call("CLIENT", "ID")
        assert asking.call("CLIENT", "UNBLOCK", number) == 0, "it waits for nothing"
        assert f"id={number} " in asking.ask("CLIENT", "LIST", "ID", number)
        assert asking.cmd("MULTI") == b"+OK\r\n"
        assert asking.cmd("CLIENT", "KILL", "ID", number) == b"+QUEUED\r\n"
        assert asking.cmd("EXEC") == b"*1\r\n:0\r\n", "it has no link of its own"
        assert asking.call("CLIENT", "KILL", "ID", number) == 1
        other.expect_eof()
        for wire in bystanders:
            wire.expect_silence()


def test_each_server_has_ids_of_its_own(cluster: Cluster, sidecar: Sidecar, wire: Wire) -> None:
    """Others' clients at the node that answers show, though links at other nodes have their ids."""
    with ExitStack() as stack:

        def many(of: Callable[[], Wire], name: str) -> list[Wire]:
            found = [stack.enter_context(of()) for _ in range(20)]
            for each in found:
                assert each.call("CLIENT", "SETNAME", name) == "OK"
            return found

        def theirs(shard: int) -> None:
            many(lambda: cluster.wire(cluster.shard(shard).primary), f"theirs-{shard}")

        def next_id(shard: int) -> int:
            with cluster.wire(cluster.shard(shard).primary) as direct:
                return int(direct.call("CLIENT", "ID"))

        newest = max(map(next_id, range(SHARDS)))
        for shard in range(SHARDS):
            while next_id(shard) < newest:
                pass
        theirs(0)  # here others come first, and at the other nodes the links
        for shard in range(SHARDS):
            key = cluster.key(shard, "never")
            for each in many(lambda: Wire(sidecar.port), f"ours-{shard}"):
                each.send_command("BLPOP", key, 0)
        for shard in range(1, SHARDS):
            theirs(shard)

        def listed() -> Counter[str]:
            lines = (wire.ask("CLIENT", "LIST") or "").splitlines()
            names = (word[5:] for line in lines for word in line.split() if word[:5] == "name=")
            return Counter(filter(None, names))

        wait_until(lambda: sum(listed().values()) == 20 * (SHARDS + 1), "all are there")
        found = listed()
        ours = {f"ours-{number}": 20 for number in range(SHARDS)}
        (theirs,) = (name for name in found if name.startswith("theirs-"))
        assert found == Counter({**ours, theirs: 20})
        own = f" name={theirs} "
        ids = [
            line.split()[0][3:] for line in wire.ask("CLIENT", "LIST").splitlines() if own in line
        ]
        for number in ids:
            assert wire.call("CLIENT", "KILL", "ID", number) == 1
        assert listed() == Counter(ours)


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
