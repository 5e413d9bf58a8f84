"""Sharded channels of one client at several shards: as at one server, and each follows its slot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from redis.crc import key_slot

from tests.compat.cluster_kinds import KINDS
from tests.compat.subscriber import Both, crash, freeze, hand_over, resubscribed, server_of
from tests.harness.cluster import Cluster
from tests.harness.process import free_port, wait_until
from tests.harness.programs import server_binary
from tests.harness.resp import Arg, pack_all, value
from tests.harness.servers import Server, Sidecar

SILENT = pytest.mark.one_worker("each worker finds out by itself that a node is silent")
FROZEN = pytest.param(freeze, marks=[SILENT, pytest.mark.slow])


@pytest.fixture(scope="module", params=KINDS)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with Cluster(request.param, shards=3, replicas=1, node_timeout=1500) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def single(cluster: Cluster) -> Iterator[Server]:
    with Server(server_binary(cluster.kind), "single") as server:
        yield server


@pytest.fixture(
    scope="module", params=["standalone", pytest.param("cluster", marks=pytest.mark.slow)]
)
def sidecar(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[Sidecar]:
    shown = {"cluster.present": request.param, "cluster.refresh": "1s"}
    with Sidecar(cluster.url, settings=shown, admin=f"127.0.0.1:{free_port()}") as sidecar:
        yield sidecar


@pytest.fixture(params=[2, 3])
def client(
    request: pytest.FixtureRequest, cluster: Cluster, sidecar: Sidecar, single: Server
) -> Iterator[Both]:
    with Both(cluster, sidecar, single, request.param) as client:
        yield client


def end_all(client: Both, *names: str) -> None:
    """Without naming them: in what order is the server's business."""
    for wire in (client.wire, client.other):
        wire.send_command("SUNSUBSCRIBE")
        told = [value(reply) for reply in wire.read_replies(len(names))]
        assert {(word, name) for word, name, _ in told} == {("sunsubscribe", n) for n in names}
        assert [left for *_, left in told] == list(range(len(names)))[::-1]


def test_channels_of_all_shards(client: Both) -> None:
    one, two, three = names = [client.sharded(shard) for shard in range(3)]
    for name in names:
        client.tell("SSUBSCRIBE", name)
    for name in names:
        client.hears(name, sharded=True)
    client.tell("PING")
    client.tell("SUBSCRIBE", client.channels[0])
    client.tell("SUNSUBSCRIBE", two)
    client.tell("SUNSUBSCRIBE", two)
    client.tell("SUNSUBSCRIBE", f"never:{three}")
    client.tell("SSUBSCRIBE", two)
    client.tell("SSUBSCRIBE", two)
    for name in (three, two, one):
        client.hears(name, sharded=True)
    client.hears(client.channels[0])
    end_all(client, *names)
    client.tell("SUNSUBSCRIBE")
    client.tell("UNSUBSCRIBE")
    client.tell("ECHO", "x")
    client.tell("SSUBSCRIBE", three)
    client.hears(three, sharded=True)


def test_in_one_write(client: Both) -> None:
    one, two, three = (client.sharded(shard) for shard in range(3))
    requests: list[tuple[Arg, ...]] = [
        ("SSUBSCRIBE", one),
        ("SSUBSCRIBE", two),
        ("PING", "a"),
        ("SUBSCRIBE", *client.channels),
        ("SSUBSCRIBE", three),
        ("SUNSUBSCRIBE", two),
        ("PING", "b"),
        ("UNSUBSCRIBE", client.channels[0]),
        ("SSUBSCRIBE", two),
    ]
    for wire in (client.wire, client.other):
        wire.send(pack_all(requests))
    assert client.wire.read_replies(11, 10) == client.other.read_replies(11)
    client.hears(two, sharded=True)
    client.hears(client.channels[1])


def test_over_two_slots_in_one_request(client: Both) -> None:
    names = [client.sharded(shard) for shard in range(2)]
    client.wire.send_command("SSUBSCRIBE", *names)
    assert client.wire.read_reply().startswith(b"-CROSSSLOT ")
    client.tell("SSUBSCRIBE", names[1])


def test_only_another_shards_are_left(client: Both) -> None:
    """The server of the client's own link has none of them: it is a subscriber all the same."""
    one, two = client.sharded(0), client.sharded(1)
    client.tell("SSUBSCRIBE", one)
    client.tell("SSUBSCRIBE", two)
    client.tell("SUNSUBSCRIBE", one)
    client.tell("PING")
    if client.mark == b"*":
        client.tell("GET", one)
        client.tell("OBJECT", "ENCODING", two)
    client.hears(two, sharded=True)
    end_all(client, two)


def test_slots_move(client: Both, cluster: Cluster, sidecar: Sidecar) -> None:
    """To the shard of the client's own link, away from it, and between others."""
    stays, goes = client.sharded(0), client.sharded(1)
    slot = key_slot(goes.encode())
    client.tell("SSUBSCRIBE", stays)
    client.tell("SSUBSCRIBE", goes)
    for target in (2, 0, 1):
        before = resubscribed(sidecar)
        cluster.migrate(slot, target)
        cluster.settle()
        wait_until(lambda n=before: resubscribed(sidecar) > n, "it is served")  # type: ignore[misc]
        client.hears(goes, sharded=True)
        client.hears(stays, sharded=True)
    end_all(client, stays, goes)


def test_slots_come_apart(client: Both, cluster: Cluster) -> None:
    """Two channels of the client's own link: one of them goes elsewhere, and comes back."""
    stays, goes = client.sharded(1), cluster.key(1, f"goes:{client.name}")
    for channel in (stays, goes):
        client.tell("SSUBSCRIBE", channel)
    for target in (2, 1):
        cluster.migrate(key_slot(goes.encode()), target)
        cluster.settle()
        client.hears(goes, sharded=True)
        client.hears(stays, sharded=True)
    client.tell("SUNSUBSCRIBE", goes)
    client.tell("SUNSUBSCRIBE", stays)


@pytest.mark.parametrize("lose", [crash, FROZEN, pytest.param(hand_over, marks=pytest.mark.slow)])
@pytest.mark.parametrize("number", [0, 1])
def test_a_shard_is_lost(
    cluster: Cluster,
    sidecar: Sidecar,
    single: Server,
    lose: Callable[[Cluster, int], None],
    number: int,
) -> None:
    """The one of the client's own link, and another one."""
    with ExitStack() as stack:
        clients = [stack.enter_context(Both(cluster, sidecar, single, each)) for each in (2, 3)]
        for client in clients:
            for shard in range(2):
                client.tell("SSUBSCRIBE", client.sharded(shard))
        old = cluster.shard(number).primary
        lose(cluster, number)
        for client in clients:
            for shard in (number, 1 - number):
                client.hears(client.sharded(shard), sharded=True)
            end_all(client, *(client.sharded(shard) for shard in range(2)))
        if lose is freeze:
            old.resume()
        elif lose is crash:
            old.start()
        cluster.settle()


def test_commands_of_a_subscriber(client: Both, cluster: Cluster) -> None:
    """RESP3 allows all of them, at any shard; RESP2 refuses them."""
    names = [cluster.key(shard, f"key:{client.name}") for shard in range(3)]
    client.tell("SUBSCRIBE", client.channels[0])
    requests: list[tuple[Arg, ...]] = []
    for name in names:
        requests += [("SET", name, name), ("GET", name), ("PING", name), ("RPUSH", name, 1)]
        requests += [("OBJECT", "ENCODING", name), ("DEL", name)]
    requests += [("RPUSH", names[0], "smessage", "b", "c"), ("LRANGE", names[0], 0, -1)]
    for wire in (client.wire, client.other):
        wire.send(pack_all(requests))
    count = len(requests)
    assert client.wire.read_replies(count, 10) == client.other.read_replies(count)
    client.hears(client.channels[0])
    client.tell("SSUBSCRIBE", client.sharded(2))
    client.tell("GET", names[2])
    client.hears(client.sharded(2), sharded=True)


def test_links_end_with_the_client(cluster: Cluster, client: Both) -> None:
    for shard in range(3):
        client.tell("SSUBSCRIBE", client.sharded(shard))
    client.wire.close()
    wait_until(lambda: server_of(cluster, client.name) is None, "all its links have gone")


def test_what_changes_its_connection_ends_what_is_elsewhere(client: Both) -> None:
    """It is told so, as by a server that has lost the slots."""
    one, two = client.sharded(0), client.sharded(1)
    client.tell("SSUBSCRIBE", one)
    client.tell("SSUBSCRIBE", two)
    client.wire.send_command("RESET")
    told = [value(reply) for reply in client.wire.read_replies(2)]
    assert told == [["sunsubscribe", two, 1], "RESET"]
