"""Subscribers on a real cluster: nodes die, freeze and change places, slots move."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis.crc import key_slot

from tests.compat.cluster_kinds import KINDS
from tests.compat.subscriber import Both, crash, freeze, hand_over, resubscribed, server_of
from tests.harness.admin import metric
from tests.harness.certificates import make_certificates
from tests.harness.cluster import Cluster
from tests.harness.errors import GONE
from tests.harness.process import free_port, wait_until
from tests.harness.programs import server_binary
from tests.harness.resp import pack_all
from tests.harness.servers import Server, Sidecar
from tests.harness.wire import Wire


@pytest.fixture(scope="module", params=KINDS)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with Cluster(request.param, shards=3, replicas=1, node_timeout=1500) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def single(cluster: Cluster) -> Iterator[Server]:
    with Server(server_binary(cluster.kind), "single") as server:
        yield server


@pytest.fixture(scope="module")
def sidecar(cluster: Cluster) -> Iterator[Sidecar]:
    with Sidecar(cluster.url, admin=f"127.0.0.1:{free_port()}") as sidecar:
        yield sidecar


SILENT = pytest.mark.one_worker("each worker finds out by itself that a node is silent")


@pytest.mark.parametrize("lose", [crash, pytest.param(freeze, marks=SILENT), hand_over])
def test_a_node_goes(
    cluster: Cluster, sidecar: Sidecar, single: Server, lose: Callable[[Cluster, int], None]
) -> None:
    """What each client has is confirmed as on one server, before and after."""
    before = resubscribed(sidecar)
    with ExitStack() as stack:
        clients = [
            stack.enter_context(Both(cluster, sidecar, single, protocol)) for protocol in (2, 3)
        ]
        for client in clients:
            one, two, three = client.channels
            client.tell("SUBSCRIBE", one, two, three, replies=3)
            client.tell("PSUBSCRIBE", "p:*")
            client.tell("SSUBSCRIBE", client.sharded(0))
            client.tell("UNSUBSCRIBE", two)
        old = cluster.shard(0).primary
        assert {server_of(cluster, client.name) for client in clients} == {old}
        lose(cluster, 0)
        wait_until(lambda: resubscribed(sidecar) >= before + 2, "both are served", 20)
        primary = cluster.shard(0).primary
        for client in clients:
            one, two, three = client.channels
            client.hears(one)
            client.hears(three)
            client.hears(client.sharded(0), sharded=True)
            wait_until(lambda c=client: server_of(cluster, c.name) is primary, "it is there")  # type: ignore[misc]
            client.publisher.call("PUBLISH", two, "nobody")
            client.tell("PING")
            client.tell("SUBSCRIBE", "four")
            client.tell("SUNSUBSCRIBE")
            client.tell("UNSUBSCRIBE", one, "nothing", replies=2)
            client.tell("PUNSUBSCRIBE")
            client.tell("UNSUBSCRIBE", three, "four", replies=2)
            client.tell("ECHO", "x")
        if lose is freeze:
            old.resume()
        elif lose is crash:
            old.start()
        cluster.settle()
    assert moves(sidecar) >= 1


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_slot_moves(cluster: Cluster, sidecar: Sidecar, single: Server, protocol: int) -> None:
    """There and back, with a subscriber to its channel and to others."""
    with Both(cluster, sidecar, single, protocol) as client:
        channel = client.sharded(1)
        slot = key_slot(channel.encode())
        client.tell("SSUBSCRIBE", channel)
        client.tell("SUBSCRIBE", client.channels[0])
        for target in (2, 1):
            before = resubscribed(sidecar)
            cluster.migrate(slot, target)
            cluster.settle()
            wait_until(lambda n=before: resubscribed(sidecar) > n, "it is served")  # type: ignore[misc]
            client.hears(channel, sharded=True)
            client.hears(client.channels[0])
            assert server_of(cluster, client.name) is cluster.shard(target).primary
        client.tell("SSUBSCRIBE", channel)
        client.tell("SUNSUBSCRIBE", channel)
        client.tell("SUNSUBSCRIBE")
        client.tell("UNSUBSCRIBE")


def test_a_slot_moves_atomically(cluster: Cluster, sidecar: Sidecar, single: Server) -> None:
    """As Valkey 9 does it."""
    if cluster.kind != "valkey":
        pytest.skip("no CLUSTER MIGRATESLOTS")
    with Both(cluster, sidecar, single, 2) as client:
        channel = client.sharded(1)
        client.tell("SSUBSCRIBE", channel)
        for target in (2, 1):
            cluster.migrate_atomically([key_slot(channel.encode())], target)
            client.hears(channel, sharded=True)
        client.tell("SUNSUBSCRIBE")


def test_a_slot_that_is_known_wrongly(cluster: Cluster, single: Server) -> None:
    """The sidecar has not heard of the move, and asks where the slot was."""
    with (
        Sidecar(cluster.url, settings={"cluster.refresh": 3600}) as sidecar,
        Both(cluster, sidecar, single, 2) as client,
    ):
        channel = client.sharded(1)
        slot = key_slot(channel.encode())
        cluster.migrate(slot, 2)
        cluster.settle()
        client.tell("SSUBSCRIBE", channel)
        client.hears(channel, sharded=True)
        client.tell("SUNSUBSCRIBE")
        cluster.migrate(slot, 1)
        cluster.settle()


def test_a_shard_is_removed(cluster: Cluster, sidecar: Sidecar, single: Server) -> None:
    with Both(cluster, sidecar, single, 3) as client:
        channel = client.sharded(1)
        slot = key_slot(channel.encode())
        new = cluster.add_shard()
        cluster.migrate(slot, new.number)
        cluster.settle()
        client.tell("SSUBSCRIBE", channel)
        client.tell("SUBSCRIBE", client.channels[0])
        assert server_of(cluster, client.name) is new.primary
        cluster.migrate(slot, 1)
        cluster.remove_shard(new.number)
        client.hears(channel, sharded=True)
        client.hears(client.channels[0])


def test_only_its_own_connection_is_ended(
    cluster: Cluster, sidecar: Sidecar, single: Server
) -> None:
    """By an operator at the server, or for reading too little: the client is to know."""
    with Both(cluster, sidecar, single, 2) as client:
        client.tell("SUBSCRIBE", client.channels[0])
        node = server_of(cluster, client.name)
        assert node is not None
        cluster.order(node, "CLIENT", "KILL", "TYPE", "pubsub")
        client.wire.expect_eof()


@pytest.mark.parametrize("half", [False, True])
def test_a_client_that_hangs_up(cluster: Cluster, half: bool) -> None:
    """The server closes the link then, and that is no reason for another one. There is no shared
    link to that shard, which would tell that its server is alive."""
    with Sidecar(cluster.url, admin=f"127.0.0.1:{free_port()}") as sidecar:
        with Wire(sidecar.port) as wire:
            wire.call("HELLO", 3, "SETNAME", "leaving")
            wire.call("SSUBSCRIBE", cluster.key(2, "leaving"))
            if half:
                wire.half_close()
                wire.expect_eof()
        wait_until(lambda: metric(sidecar, "sidecar_client_connections") == 0, "it has gone")
        wait_until(lambda: server_of(cluster, "leaving") is None, "so has its link")
        assert resubscribed(sidecar) == 0


def test_requests_under_way(cluster: Cluster, sidecar: Sidecar, single: Server) -> None:
    """Of a node that is silent, and then dies: they are answered by another one, once."""
    with Both(cluster, sidecar, single, 2) as client:
        one, two, three = client.channels
        client.tell("SUBSCRIBE", one)
        node = server_of(cluster, client.name)
        assert node is not None
        number = next(shard.number for shard in cluster.shards if shard.primary is node)
        node.pause()
        requests = (("PING",), ("SUBSCRIBE", two, three), ("UNSUBSCRIBE", one), ("PING", "x"))
        for wire in (client.wire, client.other):
            wire.send(pack_all(requests))
        node.kill()
        assert client.wire.read_replies(5, 20) == client.other.read_replies(5)
        client.hears(two)
        client.tell("UNSUBSCRIBE", two, three, replies=2)
        cluster.adopt(number)
        node.start()
        cluster.settle()


@pytest.mark.one_worker("each worker chooses a node for them, and logs what becomes of its own")
def test_many_subscribers_of_one_node(cluster: Cluster) -> None:
    """All of them move, and the log has one line."""
    count = 300
    with (
        Sidecar(cluster.url, admin=f"127.0.0.1:{free_port()}") as sidecar,
        ExitStack() as stack,
    ):
        wires = [stack.enter_context(Wire(sidecar.port)) for _ in range(count)]
        for wire in wires:
            assert wire.call("SUBSCRIBE", "all") == ["subscribe", "all", 1]
        at = [cluster.call(number, "PUBSUB", "NUMSUB", "all")[1] for number in range(3)]
        number = at.index(count)
        old = cluster.kill(number)
        wait_until(lambda: resubscribed(sidecar) == count, "all are served", 20)
        assert cluster.call((number + 1) % 3, "PUBLISH", "all", "hi") >= 0
        for wire in wires:
            assert wire.read_value() == ["message", "all", "hi"]
        wait_until(lambda: moves(sidecar), "the log tells of it")
        assert moves(sidecar) == 1
        cluster.adopt(number)
        old.start()
        cluster.settle()


def moves(sidecar: Sidecar) -> int:
    """How often the log tells of it."""
    return sidecar.log().count('"subscribers moved"')


def test_large_messages(cluster: Cluster, sidecar: Sidecar, single: Server) -> None:
    """Those that are kept until they are whole, and those that are given out as they come."""
    with Both(cluster, sidecar, single, 2) as client:
        channel = client.channels[0]
        client.tell("SUBSCRIBE", channel)
        for size in (1_000, 60_000, 70_000, 1_000_000, 10):
            for wire in (client.publisher, client.other_publisher):
                wire.call("PUBLISH", channel, "x" * size)
            assert client.wire.read_reply() == client.other.read_reply()
        client.tell("UNSUBSCRIBE", channel)


def test_a_database_of_its_own() -> None:
    """And a password: the other node is greeted as the first one was."""
    settings = {"cluster-databases": 16}
    with (
        Cluster("valkey", 2, password="secret", settings=settings) as cluster,
        Sidecar(cluster.url) as sidecar,
        Wire(sidecar.port) as wire,
    ):
        assert wire.call("SELECT", 3) == "OK"
        assert wire.call("CLIENT", "TRACKING", "OFF") == "OK"
        assert wire.call("CLIENT", "SETNAME", "selected") == "OK"
        assert wire.call("SUBSCRIBE", "news") == ["subscribe", "news", 1]
        node = server_of(cluster, "selected")
        assert node is not None
        node.kill()
        found = wait_until(lambda: server_of(cluster, "selected"), "it is served", 20, GONE)
        assert found is not node
        assert " db=3 " in cluster.order(found, "CLIENT", "LIST", "TYPE", "pubsub")
        cluster.order(found, "PUBLISH", "news", "hi")
        assert wire.read_value() == ["message", "news", "hi"]


@pytest.mark.slow
@pytest.mark.redis
def test_over_tls(tmp_path: Path) -> None:
    names = {
        "cluster-announce-hostname": "localhost",
        "cluster-preferred-endpoint-type": "hostname",
    }
    tls = make_certificates(tmp_path)
    with Cluster("redis7", 2, tls=tls, settings=names) as cluster:
        ca = {"upstream.tls.ca_file": str(tls.ca)}
        with Sidecar(cluster.url, settings=ca) as sidecar, Wire(sidecar.port) as wire:
            assert wire.call("CLIENT", "SETNAME", "sealed") == "OK"
            assert wire.call("SUBSCRIBE", "news") == ["subscribe", "news", 1]
            node = server_of(cluster, "sealed")
            assert node is not None
            node.kill()
            found = wait_until(lambda: server_of(cluster, "sealed"), "it is served", 20, GONE)
            cluster.order(found, "PUBLISH", "news", "hi")
            assert wire.read_value() == ["message", "news", "hi"]


def test_publishing_to_sharded_channels(cluster: Cluster, sidecar: Sidecar) -> None:
    """SPUBLISH goes to the shard that has the channel's slot."""
    moved = 'sidecar_cluster_redirections_total{kind="moved"}'
    with Wire(sidecar.port) as publisher, Wire(sidecar.port) as subscriber:
        for shard in range(3):
            channel = cluster.key(shard, "sharded")
            assert subscriber.call("SSUBSCRIBE", channel) == ["ssubscribe", channel, 1]
            before = metric(sidecar, moved)
            assert publisher.call("SPUBLISH", channel, "x") == 1
            assert metric(sidecar, moved) == before
            assert subscriber.read_reply().endswith(b"$1\r\nx\r\n")
            assert subscriber.call("SUNSUBSCRIBE", channel) == ["sunsubscribe", channel, 0]


@pytest.mark.parametrize("protocol", [2, 3])
def test_who_has_unsubscribed_is_a_client_like_any_other(
    cluster: Cluster, sidecar: Sidecar, protocol: int
) -> None:
    """On the same connection: its commands go by their keys again."""
    names = [cluster.key(shard, f"later{protocol}") for shard in range(3)]
    with Wire(sidecar.port) as wire:
        wire.cmd("HELLO", protocol)
        for begin, end in (("SUBSCRIBE", "UNSUBSCRIBE"), ("PSUBSCRIBE", "PUNSUBSCRIBE")):
            wire.send(pack_all([(begin, "c1"), (end, "c1")]))
            assert [reply.split(b"\r\n")[2] for reply in wire.read_replies(2)] == [
                begin.lower().encode(),
                end.lower().encode(),
            ]
            for name in names:
                assert wire.cmd("SET", name, begin) == b"+OK\r\n"
            assert wire.call("MGET", *names) == [begin] * 3
            assert wire.pipeline([("MULTI",), ("INCR", "n"), ("EXEC",)])[0] == b"+OK\r\n"
        wire.send(pack_all([("UNSUBSCRIBE",)]))
        assert b"unsubscribe" in wire.read_reply()
        for name in names:
            assert wire.cmd("DEL", name) == b":1\r\n"
