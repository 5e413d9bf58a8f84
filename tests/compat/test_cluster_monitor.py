"""MONITOR on a real cluster shows what one server would: the commands of all primaries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest

from tests.compat.cluster_kinds import KINDS
from tests.harness.cluster import Cluster, ClusterNode
from tests.harness.errors import DeadlineError
from tests.harness.process import wait_until
from tests.harness.programs import server_binary
from tests.harness.servers import WORKERS, Server, Sidecar
from tests.harness.wire import Arg, Wire

SHARDS = 3
MIB = 1 << 20


@pytest.fixture(scope="module", params=KINDS)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with Cluster(request.param, shards=SHARDS, replicas=1, node_timeout=1500) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def single(cluster: Cluster) -> Iterator[Server]:
    with Server(server_binary(cluster.kind), "single") as server:
        yield server


@pytest.fixture(scope="module")
def sidecar(cluster: Cluster) -> Iterator[Sidecar]:
    with Sidecar(cluster.url) as sidecar:
        yield sidecar


def command_in(line: bytes) -> bytes:
    """Database and command of a line, without its time and its address."""
    assert line[:1] == b"+", line[:200]
    return line.split(b"[", 1)[1].split(b" ", 1)[0] + line.split(b"]", 1)[1]


def monitor_at(port: int, protocol: int = 2) -> Wire:
    """A client that monitors."""
    wire = Wire(port)
    wire.call("HELLO", protocol)
    wire.call("CLIENT", "SETNAME", "watcher")
    assert wire.cmd("MONITOR") == b"+OK\r\n"
    return wire


def shown(port: int, commands: Sequence[Sequence[Arg]], protocol: int) -> list[bytes]:
    """What a monitoring client is shown of these commands."""
    with monitor_at(port, protocol) as monitor, Wire(port) as client:
        for command in commands:
            client.cmd(*command)
        return [command_in(monitor.read_reply()) for _ in commands]


@pytest.mark.one_worker("MONITOR shows what other workers send by themselves")
@pytest.mark.parametrize("protocol", [2, 3])
def test_commands_of_all_primaries(
    cluster: Cluster, sidecar: Sidecar, single: Server, protocol: int
) -> None:
    """The same as at one server, from the +OK on; of each shard in the order of execution."""
    keys = [cluster.key(shard, f"seen{protocol}") for shard in range(SHARDS)]
    commands = [("APPEND", key, number) for number in range(30) for key in keys]
    found = shown(sidecar.port, commands, protocol)
    expected = shown(single.port, commands, protocol)
    for key in keys:
        of_key = [line for line in found if key.encode() in line]
        assert of_key == [line for line in expected if key.encode() in line]
    assert sorted(found) == sorted(expected)


def watched(cluster: Cluster) -> list[ClusterNode]:
    """The nodes at which somebody monitors."""
    return [node for node in cluster.running if b" flags=O " in lines_of(cluster, node)]


def lines_of(cluster: Cluster, node: ClusterNode) -> bytes:
    return str(cluster.order(node, "CLIENT", "LIST")).encode()


def touch(cluster: Cluster, client: Wire, name: str) -> list[str]:
    """A command for each shard; the keys."""
    keys = [cluster.key(shard, name) for shard in range(SHARDS)]
    for key in keys:
        client.call("INCR", key)
    return keys


def test_reset(cluster: Cluster, sidecar: Sidecar) -> None:
    """Nothing is shown behind +RESET, and no server is asked to show anything."""
    with monitor_at(sidecar.port) as monitor, Wire(sidecar.port) as client:
        assert len(watched(cluster)) == SHARDS
        touch(cluster, client, "before")
        assert len(monitor.read_replies(SHARDS)) == SHARDS
        monitor.send_command("RESET")
        assert monitor.read_until(b"+RESET\r\n")[-1] == b"+RESET\r\n"
        touch(cluster, client, "after")
        assert monitor.drain() == []
        wait_until(lambda: watched(cluster) == [], "nobody monitors")
        assert monitor.cmd("MONITOR") == b"+OK\r\n"
        (key, *_) = touch(cluster, client, "again")
        assert len(monitor.read_replies(SHARDS)) == SHARDS
        assert client.call("GET", key) == "1"


@pytest.mark.parametrize("end", [Wire.close, lambda wire: wire.cmd("QUIT")], ids=["close", "QUIT"])
def test_a_client_that_goes(
    cluster: Cluster, sidecar: Sidecar, end: Callable[[Wire], object]
) -> None:
    """Its connections to the servers go with it."""
    with monitor_at(sidecar.port) as monitor:
        assert len(watched(cluster)) == SHARDS
        end(monitor)
        wait_until(lambda: watched(cluster) == [], "nobody monitors")


def test_lines_stand_between_replies(cluster: Cluster, sidecar: Sidecar) -> None:
    """A monitoring client may ask for something: while it has a part of a reply, no line comes."""
    if cluster.kind != "valkey":
        pytest.skip("the line of a command stands before its reply there, and is as large")
    large = b"v" * 32 * MIB
    with monitor_at(sidecar.port) as monitor, Wire(sidecar.port) as client:
        own = own_shard(cluster)
        others = [cluster.key(shard, "line") for shard in range(SHARDS) if shard != own]
        monitor.send_command("ECHO", large)
        monitor.read_until_bytes(MIB)
        cluster.freeze(own)
        try:
            client.pipeline([("SET", key, 1) for key in others])
            with pytest.raises(DeadlineError):
                monitor.read_until_bytes(2 * len(large), 0.7)
        finally:
            cluster.thaw(own)
        monitor.send_command("QUIT")
        assert monitor.read_to_end(20).count(large) == 2


def own_shard(cluster: Cluster) -> int:
    """The number of the shard that has the monitoring client's own link."""
    (number,) = [
        shard.number
        for shard in cluster.shards
        if b" name=watcher " in lines_of(cluster, shard.primary)
    ]
    return number


def test_a_user_who_may_not(cluster: Cluster, sidecar: Sidecar) -> None:
    """The server's own error; the client goes on."""
    for node in cluster.nodes:
        cluster.order(node, "ACL", "SETUSER", "reader", "on", ">pass", "~*", "+@all", "-monitor")
    with Wire(sidecar.port) as client, cluster.wire(cluster.shard(0).primary) as direct:
        for wire in (client, direct):
            wire.call("AUTH", "reader", "pass")
        assert client.cmd("MONITOR") == direct.cmd("MONITOR")
        assert client.call("PING") == "PONG"
    assert watched(cluster) == []


def write_large(cluster: Cluster, sidecar: Sidecar, rounds: int) -> int:
    """1 MiB to each shard that the monitoring client has no link of its own to, again and again:
    little of it is kept in the sidecar. How many commands that were."""
    own = own_shard(cluster)
    keys = [cluster.key(shard, "big") for shard in range(SHARDS) if shard != own]
    before = sidecar.rss()
    with Wire(sidecar.port) as client:
        for _ in range(rounds):
            for key in keys:
                assert client.call("SET", key, b"x" * MIB) == "OK"
            assert sidecar.rss() - before < 48 * MIB
    return rounds * len(keys)


def test_one_who_reads_late(cluster: Cluster, sidecar: Sidecar) -> None:
    """What it has not read waits at the servers, and nothing of it is lost."""
    with monitor_at(sidecar.port) as late:
        count = write_large(cluster, sidecar, 60)
        for _ in range(count):
            while b'"SET"' not in (line := late.read_reply()):
                assert WORKERS > 1 or b'"CLIENT"' in line
            assert len(line) > MIB


def test_one_who_does_not_read(cluster: Cluster, sidecar: Sidecar) -> None:
    """Servers close it by their limits: then it is closed."""
    limit = "client-output-buffer-limit"
    for node in cluster.running:
        cluster.order(node, "CONFIG", "SET", limit, "normal 8388608 0 0")
    try:
        with monitor_at(sidecar.port) as stuck:
            write_large(cluster, sidecar, 30)
            stuck.read_to_end(10)
    finally:
        for node in cluster.running:
            cluster.order(node, "CONFIG", "SET", limit, "normal 0 0 0")
    wait_until(lambda: watched(cluster) == [], "nobody monitors")


def is_shown(cluster: Cluster, monitor: Wire, client: Wire, number: int) -> None:
    """Commands at this shard come to be shown."""
    key = cluster.key(number, "shown")

    def comes() -> bool:
        client.cmd("INCR", key)
        try:
            return bool(monitor.read_until(key.encode(), 0.1))
        except DeadlineError:
            return False

    wait_until(comes, f"commands of shard {number} are shown", 20)


def crash(cluster: Cluster, number: int) -> None:
    cluster.kill(number)
    cluster.adopt(number)


def hand_over(cluster: Cluster, number: int) -> None:
    cluster.failover(number)


@pytest.mark.parametrize("lose", [hand_over, crash])
def test_another_primary_goes(
    cluster: Cluster, sidecar: Sidecar, lose: Callable[[Cluster, int], None]
) -> None:
    """The client stays, and is shown what the new primary executes, each command once."""
    with monitor_at(sidecar.port) as monitor, Wire(sidecar.port) as client:
        number = next(shard for shard in range(SHARDS) if shard != own_shard(cluster))
        lose(cluster, number)
        is_shown(cluster, monitor, client, number)
        primaries = [shard.primary for shard in cluster.shards]
        wait_until(lambda: set(watched(cluster)) == set(primaries), "the primaries are watched")
        assert client.cmd("SET", cluster.key(number, "last"), 1) == b"+OK\r\n"
        assert client.cmd("SET", cluster.key(number, "end"), 1) == b"+OK\r\n"
        lines = monitor.read_until(b"end")
        assert sum(b"last" in line for line in lines) == 1
    for node in cluster.nodes:
        if not node.running:
            node.start()
    cluster.settle()


def test_a_new_shard(cluster: Cluster, sidecar: Sidecar) -> None:
    """It is shown as soon as it is known."""
    with monitor_at(sidecar.port) as monitor, Wire(sidecar.port) as client:
        new = cluster.add_shard()
        slot = next(slot for slot in range(16384) if cluster.owners[slot] == 1)
        cluster.migrate(slot, new.number)
        is_shown(cluster, monitor, client, new.number)
        cluster.migrate(slot, 1)
        cluster.remove_shard(new.number)
        is_shown(cluster, monitor, client, 1)


def test_its_own_primary_goes(cluster: Cluster, sidecar: Sidecar) -> None:
    """The client is closed, as by a server that ends."""
    with monitor_at(sidecar.port) as monitor:
        own = own_shard(cluster)
        crash(cluster, own)
        monitor.expect_eof(10)
    wait_until(lambda: watched(cluster) == [], "nobody monitors")
