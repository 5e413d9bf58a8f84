"""Clients that know nothing of clusters, on a real cluster: as if it were one server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import redis
from redis.crc import key_slot

from tests.compat.cluster_kinds import KINDS
from tests.harness.admin import api, metric, post
from tests.harness.cluster import Cluster
from tests.harness.process import free_port, wait_until
from tests.harness.resp import pack_all
from tests.harness.servers import Sidecar
from tests.harness.wire import Wire

SHARDS = 3


@pytest.fixture(scope="module", params=KINDS)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with Cluster(request.param, shards=SHARDS) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def sidecar(cluster: Cluster) -> Iterator[Sidecar]:
    with Sidecar(cluster.url, admin=f"127.0.0.1:{free_port()}") as sidecar:
        yield sidecar


@pytest.fixture
def wire(sidecar: Sidecar) -> Iterator[Wire]:
    with Wire(sidecar.port) as wire:
        yield wire


def keys(cluster: Cluster, count: int = 2, prefix: str = "k") -> list[str]:
    """So many keys of each shard, those of a shard side by side nowhere."""
    each = [
        [name for name in (f"{prefix}{n}" for n in range(200)) if cluster.owner(name) == shard]
        for shard in range(SHARDS)
    ]
    return [each[shard][n] for n in range(count) for shard in range(SHARDS)]


def test_a_pipeline_over_all_shards(cluster: Cluster, wire: Wire) -> None:
    names = keys(cluster, 20)
    assert wire.pipeline([("SET", name, name) for name in names]) == [b"+OK\r\n"] * len(names)
    found = wire.pipeline([("GET", name) for name in names for _ in range(2)])
    assert [each.split(b"\r\n")[1].decode() for each in found] == [n for n in names for _ in "12"]


def test_pipelines_before_there_is_any_link(cluster: Cluster) -> None:
    """Of several clients: a link may have come up while replies from other shards were due."""
    names = keys(cluster, 1, "early")
    orders = ["0220", "1212", "2111", "1101", "0121", "2020"]
    with Sidecar(cluster.url) as fresh, ExitStack() as stack:
        wires = [stack.enter_context(Wire(fresh.port)) for _ in orders]
        for one, order in zip(wires, orders, strict=True):
            one.send(pack_all([("SET", names[int(shard)], shard) for shard in order]))
        for one, order in zip(wires, orders, strict=True):
            assert one.read_replies(len(order)) == [b"+OK\r\n"] * len(order)


def test_several_keys_in_one_command(cluster: Cluster, wire: Wire) -> None:
    names = keys(cluster, 5, "several")
    assert wire.call("MSET", *(word for n in names for word in (n, f"v:{n}"))) == "OK"
    asked = [*names, "several:none", names[0]]
    assert wire.call("MGET", *asked) == [*(f"v:{n}" for n in names), None, f"v:{names[0]}"]
    assert wire.call("EXISTS", *asked) == len(names) + 1
    assert wire.call("TOUCH", *asked) == len(names) + 1
    assert wire.call("UNLINK", *names[:5]) == 5
    assert wire.call("DEL", *names) == len(names) - 5
    assert wire.call("MGET", *names) == [None] * len(names)


def test_what_cannot_be_split_gets_the_servers_error(cluster: Cluster, wire: Wire) -> None:
    one, two, *_ = keys(cluster)
    for request in (("MSETNX", one, 1, two, 2), ("RENAME", one, two), ("SINTER", one, two)):
        assert wire.cmd(*request).startswith(b"-CROSSSLOT ")
    assert wire.call("MSETNX", "{x}1", 1, "{x}2", 2) == 1
    assert wire.call("DEL", "{x}1", "{x}2") == 2


def test_transactions(cluster: Cluster, wire: Wire) -> None:
    """In one write, and word by word: MULTI does not tell where it is going to be."""
    for shard in range(SHARDS):
        name = cluster.key(shard, "tx")
        whole = [("MULTI",), ("SET", name, 1), ("INCR", name), ("EXEC",)]
        answers = [b"+OK\r\n", b"+QUEUED\r\n", b"+QUEUED\r\n", b"*2\r\n+OK\r\n:2\r\n"]
        assert wire.pipeline(whole) == answers
        assert [wire.cmd(*request) for request in whole] == answers
        assert wire.call("MULTI") == "OK"
        assert wire.call("INCR", name) == "QUEUED"
        assert wire.call("DISCARD") == "OK"
        assert wire.call("GET", name) == "2"
    assert [wire.cmd(word) for word in ("MULTI", "EXEC")] == [b"+OK\r\n", b"*0\r\n"]
    assert [wire.cmd(word) for word in ("MULTI", "DISCARD")] == [b"+OK\r\n"] * 2
    assert wire.cmd("EXEC") == b"-ERR EXEC without MULTI\r\n"


def test_watch(cluster: Cluster, sidecar: Sidecar, wire: Wire) -> None:
    name = cluster.key(1, "watched")
    wire.call("SET", name, 1)
    with Wire(sidecar.port) as other:
        for change, expected in ((False, ["2"]), (True, None)):
            assert wire.call("WATCH", name) == "OK"
            if change:
                other.call("SET", name, 9)
            assert wire.call("MULTI") == "OK"
            assert wire.call("SETRANGE", name, 0, 2) == "QUEUED"
            assert wire.call("GET", name) == "QUEUED"
            found = wire.call("EXEC")
            assert found == (expected and [1, *expected])


def test_blocking_commands_on_every_shard(cluster: Cluster, sidecar: Sidecar) -> None:
    names = [cluster.key(shard, "list") for shard in range(SHARDS)]
    waiting = [Wire(sidecar.port) for _ in names]
    try:
        for wire, name in zip(waiting, names, strict=True):
            wire.send_command("BLPOP", name, 20)
        with Wire(sidecar.port) as other:
            for name in names:
                other.call("LPUSH", name, "here")
        for wire, name in zip(waiting, names, strict=True):
            assert wire.read_value() == [name, "here"]
            assert wire.call("PING") == "PONG"
    finally:
        for wire in waiting:
            wire.close()


def test_a_slow_shard_holds_back_only_who_waits_for_it(cluster: Cluster, sidecar: Sidecar) -> None:
    names = [cluster.key(shard, "slow") for shard in range(SHARDS)]
    with Wire(sidecar.port) as one, Wire(sidecar.port) as two:
        for name in names:
            one.call("SET", name, 1)
            two.call("GET", name)
        cluster.freeze(0)
        try:
            one.send(b"".join(b"GET %s\r\n" % name.encode() for name in names))
            assert two.pipeline([("INCR", name) for name in names[1:]]) == [b":2\r\n"] * 2
        finally:
            cluster.thaw(0)
        assert one.read_replies(3) == [b"$1\r\n1\r\n", b"$1\r\n1\r\n", b"$1\r\n1\r\n"]


@pytest.mark.parametrize("moving", [False, True])
def test_a_slot_that_moves(cluster: Cluster, sidecar: Sidecar, moving: bool) -> None:
    """`moving`: it is half there."""
    slot = key_slot(b"moving")
    source = cluster.owner(slot)
    target = (source + 1) % SHARDS
    names = [f"{{moving}}{n}" for n in range(10)]
    with Wire(sidecar.port) as wire:
        wire.call("MSET", *(word for name in names for word in (name, 0)))
        cluster.begin_migration(slot, target)
        cluster.move_keys(slot, 5 if moving else None)
        requests = [("INCR", name) for name in names]
        assert wire.pipeline(requests) == [b":1\r\n"] * 10
        assert wire.call("SET", "{moving}new", 1) == "OK"
        cluster.move_keys(slot)
        cluster.end_migration(slot)
        cluster.settle()
        assert wire.pipeline(requests) == [b":2\r\n"] * 10
        assert wire.call("DEL", *names, "{moving}new") == 11
        cluster.migrate(slot, source)
        cluster.settle()
        assert wire.call("EXISTS", *names) == 0


def test_keys_of_a_slot_that_is_split_are_waited_for(cluster: Cluster, sidecar: Sidecar) -> None:
    """-TRYAGAIN: two keys of one command are on two servers."""
    slot = key_slot(b"split")
    source = cluster.owner(slot)
    names = [f"{{split}}{n}" for n in range(4)]
    with Wire(sidecar.port) as wire:
        wire.call("MSET", *(word for name in names for word in (name, name)))
        cluster.begin_migration(slot, (source + 1) % SHARDS)
        cluster.move_keys(slot, 2)
        wire.send_command("MGET", *names)
        with Wire(sidecar.port) as other:
            assert other.pipeline([("GET", name) for name in names])[0][:1] == b"$"
        cluster.move_keys(slot)
        cluster.end_migration(slot)
        cluster.settle()
        assert wire.read_value() == names
        cluster.migrate(slot, source)
        cluster.settle()


def test_redis_py(cluster: Cluster, sidecar: Sidecar) -> None:
    client = redis.Redis(port=sidecar.port, decode_responses=True)
    names = keys(cluster, 3, "py")
    with client.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.set(name, 1).incr(name)
        assert pipeline.execute() == [True, 2] * len(names)
    assert client.mget(names) == ["2"] * len(names)
    with client.lock("py:lock", timeout=10):
        assert client.exists("py:lock") == 1
    assert set(client.scan_iter("py*", count=3)) == set(names)
    assert client.delete(*names) == len(names)


def test_many_clients_at_once(cluster: Cluster, sidecar: Sidecar) -> None:
    names = keys(cluster, 4, "many")

    def work() -> None:
        with Wire(sidecar.port) as wire:
            for _ in range(50):
                wire.pipeline([("INCR", name) for name in names])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Wire(sidecar.port) as wire:
        assert wire.call("MGET", *names) == ["400"] * len(names)
        wire.call("DEL", *names)


def test_blocking_while_a_slot_moves(cluster: Cluster, sidecar: Sidecar) -> None:
    """A key that is not there is asked for at the new owner, and waited for there."""
    slot = key_slot(b"waits")
    source = cluster.owner(slot)
    target = (source + 1) % SHARDS
    with Wire(sidecar.port) as waiting, Wire(sidecar.port) as other:
        cluster.begin_migration(slot, target)
        waiting.send_command("BLPOP", "{waits}1", 20)
        assert other.call("LPUSH", "{waits}2", "x") == 1
        assert other.call("LPUSH", "{waits}1", "y") == 1
        assert waiting.read_value() == ["{waits}1", "y"]
        cluster.move_keys(slot)
        cluster.end_migration(slot)
        cluster.settle()
        assert waiting.cmd("BLPOP", "{waits}2", 20) == b"*2\r\n$8\r\n{waits}2\r\n$1\r\nx\r\n"
        assert other.call("WATCH", "{waits}3") == "OK"
        assert other.call("UNWATCH") == "OK"
        cluster.migrate(slot, source)
        cluster.settle()
        assert other.call("WATCH", "{waits}3") == "OK"
        block = [("MULTI",), ("SET", "{waits}3", 1), ("EXEC",)]
        assert other.pipeline(block)[2] == b"*1\r\n+OK\r\n"
        assert other.call("DEL", "{waits}3") == 1


def test_what_concerns_all_shards(cluster: Cluster, wire: Wire) -> None:
    names = keys(cluster, 3, "all")
    wire.call("FLUSHALL")
    assert wire.call("DBSIZE") == 0
    assert wire.call("RANDOMKEY") is None
    wire.call("MSET", *(word for name in names for word in (name, 1)))
    assert wire.call("DBSIZE") == len(names)
    assert sorted(wire.call("KEYS", "all*")) == sorted(names)
    assert wire.call("RANDOMKEY") in names
    for shard in range(SHARDS):
        assert cluster.call(shard, "DBSIZE") == 3
    sha = wire.call("SCRIPT", "LOAD", "return redis.call('GET', KEYS[1])")
    assert [wire.call("EVALSHA", sha, 1, name) for name in names] == ["1"] * len(names)
    assert wire.call("SCRIPT", "EXISTS", sha, "0" * 40) == [1, 0]
    assert wire.call("CONFIG", "SET", "maxmemory-samples", 7) == "OK"
    for shard in range(SHARDS):
        assert cluster.call(shard, "CONFIG", "GET", "maxmemory-samples")[1] == "7"
    info = wire.call("INFO")
    assert "cluster_enabled:0" in info
    assert f"keys={len(names)}," in info
    assert wire.cmd("CLUSTER", "INFO") == b"-ERR This instance has cluster support disabled\r\n"
    assert wire.cmd("SHUTDOWN", "NOSAVE", "x").startswith(b"-")


@pytest.mark.parametrize("count", [1, 10, 1000])
def test_scan(cluster: Cluster, sidecar: Sidecar, count: int) -> None:
    """Every key is found, while others come and go."""
    with Wire(sidecar.port) as wire, Wire(sidecar.port) as other:
        wire.call("FLUSHALL")
        names = [f"scan{n}" for n in range(100)]
        wire.call("MSET", *(word for name in names for word in (name, 1)))
        found: set[str] = set()
        cursor = "0"
        for step in range(20_000):
            cursor, some = wire.call("SCAN", cursor, "MATCH", "scan*", "COUNT", count)
            found.update(some)
            other.call("SET", f"x{step % 50}", 1)
            if cursor == "0":
                break
        assert found == set(names)
        assert wire.call("SCAN", 0, "COUNT", 1, "COUNT", 1000)[0] == "0"  # the last one counts
        assert wire.cmd("SCAN", "x") == b"-ERR invalid cursor\r\n"
        wire.call("FLUSHALL")


def test_messages(cluster: Cluster, sidecar: Sidecar, wire: Wire) -> None:
    with Wire(sidecar.port) as one, Wire(sidecar.port) as two:
        for subscriber in (one, two):
            subscriber.call("SUBSCRIBE", "news")
        assert wire.call("PUBSUB", "CHANNELS") == ["news"]
        assert wire.call("PUBSUB", "NUMSUB", "news") == ["news", 2]
        wire.call("PUBLISH", "news", "hi")
        for subscriber in (one, two):
            assert subscriber.read_value() == ["message", "news", "hi"]


def test_what_is_shown(cluster: Cluster, sidecar: Sidecar, wire: Wire) -> None:
    for shard in range(SHARDS):
        wire.call("GET", cluster.key(shard))
    shards = api(sidecar, "/api/topology")["shards"]
    assert [each["number"] for each in shards] == list(range(SHARDS))
    assert all(each["up"] and each["replicas"] == [] for each in shards)
    assert sum(each["slots"] for each in shards) == 16384
    assert {each["primary"] for each in shards} == {
        f"{shard.primary.host}:{shard.primary.port}" for shard in cluster.shards
    }
    assert metric(sidecar, 'sidecar_cluster_shards{state="all"}') == SHARDS
    assert metric(sidecar, 'sidecar_cluster_shards{state="without_primary"}') == 0
    assert metric(sidecar, "sidecar_cluster_slots_uncovered") == 0
    assert metric(sidecar, "sidecar_cluster_waiting_clients") == 0
    assert (metric(sidecar, 'sidecar_cluster_redirections_total{kind="moved"}') or 0) >= 0
    assert api(sidecar, "/api/health/redis")["status"] == "ok"


def test_as_a_cluster_of_one_node(cluster: Cluster) -> None:
    """For clients that work with clusters only."""
    with Sidecar(cluster.url, settings={"cluster.present": "cluster"}) as sidecar:
        for protocol in (2, 3):
            client = redis.RedisCluster(
                host="127.0.0.1", port=sidecar.port, protocol=protocol, decode_responses=True
            )
            names = keys(cluster, 3, "node")
            for name in names:
                client.set(name, 1)
                assert client.incr(name) == 2
            assert client.mget_nonatomic(names) == ["2"] * len(names)
            assert [node.port for node in client.get_nodes()] == [sidecar.port]
            assert client.cluster_countkeysinslot(key_slot(names[0].encode())) >= 1
            assert client.delete(*names) == len(names)
            client.close()
        with Wire(sidecar.port) as wire:
            assert wire.cmd("READONLY") == wire.cmd("ASKING") == b"+OK\r\n"
            assert wire.call("CLUSTER", "KEYSLOT", "x{y}") == key_slot(b"y")
            assert "cluster_enabled:1" in wire.call("INFO")
            assert wire.cmd("CLUSTER", "FORGET", "x").startswith(b"-ERR ")


def test_commands_for_nodes_of_a_cluster(wire: Wire) -> None:
    """One server that is no cluster refuses them."""
    for request in (("READONLY",), ("ASKING",), ("CLUSTER", "SLOTS"), ("CLUSTER", "MYID")):
        assert wire.cmd(*request) == b"-ERR This instance has cluster support disabled\r\n"


def test_no_switch_to_a_cluster_or_away(cluster: Cluster, sidecar: Sidecar, wire: Wire) -> None:
    for url in (cluster.url, f"redis://127.0.0.1:{cluster.shard(0).primary.port}"):
        for dry_run in (True, False):
            status, said = post(sidecar, "/api/upstream", {"url": url, "dry_run": dry_run})
            assert (status, "restart" in said["error"]) == (409, True)
    assert wire.call("PING") == "PONG"


def test_protocol_and_database(cluster: Cluster, wire: Wire) -> None:
    """RESP3, and a database that a cluster does not have."""
    refused = cluster.shard(0).primary
    with cluster.wire(refused) as direct:
        assert wire.cmd("SELECT", 1) == direct.cmd("SELECT", 1)
    assert wire.call("SELECT", 0) == "OK"
    hello = wire.call("HELLO", 3)
    assert (hello["proto"], hello["mode"]) == (3, "standalone")
    names = keys(cluster, 1, "hello")
    assert wire.call("MSET", *(word for name in names for word in (name, 1))) == "OK"
    assert wire.cmd("GET", "none") == b"_\r\n"
    assert wire.call("DEL", *names) == len(names)
    assert wire.call("RESET") == "RESET"
    assert wire.cmd("GET", "none") == b"$-1\r\n"


def test_messages_of_a_shard(cluster: Cluster, sidecar: Sidecar, wire: Wire) -> None:
    for shard in range(SHARDS):
        channel = cluster.key(shard, "channel")
        with Wire(sidecar.port) as subscriber:
            assert subscriber.call("SSUBSCRIBE", channel) == ["ssubscribe", channel, 1]
            assert wire.call("SPUBLISH", channel, "hi") == 1
            assert subscriber.read_value() == ["smessage", channel, "hi"]


def test_large_requests_go_to_their_shard(cluster: Cluster, wire: Wire) -> None:
    """They are passed on before they are there as a whole."""
    large = "x" * 3_000_000
    for shard in range(SHARDS):
        name = cluster.key(shard, "large")
        assert wire.call("SET", name, large) == "OK"
        assert wire.call("STRLEN", name) == len(large)
        assert wire.call("EVAL", f"return #ARGV[1] --{'x' * 100_000}", 1, name, large) == len(large)
        assert wire.call("DEL", name) == 1


@pytest.mark.parametrize("words", [("TRACKING", "ON"), ("NO-TOUCH", "ON"), ("NO-EVICT", "ON")])
def test_what_needs_one_connection_is_refused(
    cluster: Cluster, wire: Wire, words: tuple[str, ...]
) -> None:
    assert b"behind a cluster" in wire.cmd("CLIENT", *words)
    off = ("CLIENT", words[0], "OFF")
    with Wire(cluster.shard(0).primary.port) as direct:
        assert wire.cmd(*off) == direct.cmd(*off)


def test_wait(cluster: Cluster, wire: Wire) -> None:
    """There are no replicas here; what is wrong is each shard's to refuse."""
    wire.call("MSET", *(word for name in keys(cluster, 1, "wait") for word in (name, 1)))
    assert wire.call("WAIT", 0, 100) == 0
    assert wire.call("WAIT", 1, 10) == 0
    assert wire.cmd("WAIT", "x", 10).startswith(b"-ERR ")
    assert wire.call("PING") == "PONG"


def test_a_start_before_the_cluster() -> None:
    """With `upstream.start = "wait"`. Commands wait until a shard is known, but not for ever."""
    settings = {"upstream.start": "wait", "failover.hold": 0.3}
    url = f"redis+cluster://127.0.0.1:{free_port()}"
    with Sidecar(url, settings=settings, ready=False) as sidecar:
        wait_until(lambda: "sidecar started" in sidecar.log(), "it has started", 20)
        with Wire(sidecar.port) as wire:
            for request in (
                ("GET", "k"),
                ("PING",),
                ("DBSIZE",),
                ("BLPOP", "k", 1),
                ("MGET", 1, 2),
            ):
                assert wire.cmd(*request).startswith((b"-CLUSTERDOWN ", b"-UNAVAILABLE ")), request


def test_a_request_too_large_to_be_kept(cluster: Cluster) -> None:
    """Its slot has moved, and the sidecar has not heard of it: it does from the answer."""
    never = {"cluster.refresh": 3600, "cache.mode": "off"}
    with Sidecar(cluster.url, settings=never) as sidecar, Wire(sidecar.port) as wire:
        name = cluster.key(0, "too large")
        slot = key_slot(name.encode())
        assert wire.call("SET", name, "x") == "OK"
        for target in (1, 0):
            cluster.migrate(slot, target)
            cluster.settle()
            assert wire.cmd("SET", name, "x" * 3_000_000).startswith(b"-TRYAGAIN ")
            assert wire.call("SET", name, "x" * 3_000_000) == "OK"


def test_scan_at_a_migration_that_has_broken_off(cluster: Cluster) -> None:
    """It does not pass the slot over, and does not go on for ever."""
    number = key_slot(b"open")
    source = cluster.owner(number)
    settings = {"failover.hold": 0.2}
    with Sidecar(cluster.url, settings=settings) as sidecar, Wire(sidecar.port) as wire:
        cluster.begin_migration(number, (source + 1) % SHARDS)
        cursor, said = b"0", b""
        while not said.startswith(b"-"):
            said = wire.cmd("SCAN", cursor, "COUNT", 1000)
            cursor = said.split(b"\r\n")[2] if said.startswith(b"*") else b""
            assert cursor != b"0"
        whole = cluster.kind == "redis7"  # which has no cursor by slot
        assert (b"slots move " if whole else b"slot %d is half-way" % number) in said
        cluster.end_migration(number)
        cluster.settle()
        cursor = b"0"
        while (cursor := wire.cmd("SCAN", cursor, "COUNT", 1000).split(b"\r\n")[2]) != b"0":
            assert cursor.isdigit()
        cluster.migrate(number, source)
        cluster.settle()


def test_a_redirection_to_a_shard_that_nobody_has_used(cluster: Cluster) -> None:
    """Its link is connected then."""
    slot = key_slot(b"first")
    source = cluster.owner(slot)
    with Sidecar(cluster.url) as sidecar, Wire(sidecar.port) as wire:
        assert wire.call("SET", "{first}1", 1) == "OK"
        cluster.begin_migration(slot, (source + 1) % SHARDS)
        assert wire.cmd("GET", "{first}2") == b"$-1\r\n"
        cluster.move_keys(slot)
        assert wire.cmd("GET", "{first}1") == b"$1\r\n1\r\n"
        cluster.end_migration(slot)
        cluster.settle()
        assert wire.call("DEL", "{first}1") == 1
        cluster.migrate(slot, source)
        cluster.settle()
