"""Transactions on a real cluster: where they go, and when their slots are not the same or move."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis.crc import key_slot

from tests.compat.cluster_kinds import KINDS
from tests.harness.cluster import Cluster
from tests.harness.programs import server_binary
from tests.harness.resp import Arg, pack_all
from tests.harness.servers import Server, Sidecar
from tests.harness.wire import Wire


@pytest.fixture(scope="module", params=KINDS)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with Cluster(request.param, shards=3) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def ports(cluster: Cluster) -> Iterator[tuple[int, int]]:
    """Of a sidecar before the cluster, and of a single server."""
    with Sidecar(cluster.url) as sidecar, Server(server_binary(cluster.kind), "single") as single:
        yield sidecar.port, single.port


@pytest.fixture
def wire(ports: tuple[int, int]) -> Iterator[Wire]:
    with Wire(ports[0]) as wire:
        yield wire


@pytest.fixture(params=[False, True], ids=["one by one", "in one write"])
def at_once(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def same(ports: tuple[int, int], requests: list[tuple[Arg, ...]], at_once: bool) -> list[bytes]:
    """Both say the same to these requests."""
    found = []
    for port in ports:
        with Wire(port) as wire:
            if at_once:
                wire.send(pack_all(requests))
                found.append(wire.read_replies(len(requests)))
            else:
                found.append([wire.cmd(*request) for request in requests])
    assert found[0] == found[1]
    return found[0]


@pytest.mark.parametrize("shard", [0, 1, 2])
def test_the_key_comes_late(
    cluster: Cluster, ports: tuple[int, int], shard: int, at_once: bool
) -> None:
    name = cluster.key(shard, f"late{at_once}")
    said = same(
        ports,
        [
            ("MULTI",),
            ("PING",),
            ("echo", "x"),
            ("PING", "hello"),
            ("SET", name, 1),
            ("PUBLISH", "nobody", "x"),
            ("INCR", name),
            ("EXEC",),
            ("GET", name),
            ("MULTI",),
            ("PING",),
            ("DISCARD",),
            ("EXEC",),
        ],
        at_once,
    )
    assert said[7].startswith(b"*6\r\n+PONG\r\n")
    assert cluster.call(shard, "GET", name) == "2"


def test_no_key_at_all(ports: tuple[int, int], at_once: bool) -> None:
    requests: list[tuple[Arg, ...]] = [("MULTI",), ("PING",), ("ECHO", "x"), ("EXEC",)]
    assert (
        same(ports, [*requests, ("PING",), *requests], at_once)[3] == b"*2\r\n+PONG\r\n$1\r\nx\r\n"
    )


@pytest.mark.parametrize("wrong", [("ECHO",), ("TIME", 1), ("NOSUCH",), ("MULTI",)])
def test_what_a_server_refuses(
    ports: tuple[int, int], at_once: bool, wrong: tuple[Arg, ...]
) -> None:
    requests: list[tuple[Arg, ...]] = [("MULTI",), ("PING",), wrong, ("EXEC",), ("PING",)]
    assert same(ports, requests, at_once)[2].startswith(b"-ERR ")


def test_keys_of_several_slots(cluster: Cluster, ports: tuple[int, int], at_once: bool) -> None:
    """As a server of the cluster says it."""
    one, two = (cluster.key(shard, "several") for shard in (0, 1))
    with Wire(ports[0]) as wire:
        requests: list[tuple[Arg, ...]] = [
            ("MULTI",),
            ("PING",),
            ("MSETNX", one, 1, two, 2),
            ("EXEC",),
        ]
        said = wire.pipeline(requests) if at_once else [wire.cmd(*each) for each in requests]
        assert said[2].startswith(b"-CROSSSLOT ")
        assert said[3].startswith(b"-EXECABORT ")
        assert wire.call("EXISTS", one, two) == 0


def test_a_user_who_may_not(cluster: Cluster, ports: tuple[int, int]) -> None:
    """It was told that the command is queued: the connection ends, and nothing is done."""
    for shard in range(3):
        cluster.call(shard, "ACL", "SETUSER", "mute", "on", ">secret", "~*", "+@all", "-echo")
    name = cluster.key(1, "mute")
    with Wire(ports[0]) as wire:
        wire.call("AUTH", "mute", "secret")
        assert wire.call("MULTI") == "OK"
        assert wire.call("ECHO", "x") == "QUEUED"
        assert wire.cmd("SET", name, 1).startswith(b"-NOPERM ")
        wire.expect_eof()
    assert cluster.call(1, "EXISTS", name) == 0


def test_a_transaction_that_is_reset(ports: tuple[int, int]) -> None:
    requests: list[tuple[Arg, ...]] = [("MULTI",), ("PING",), ("RESET",), ("EXEC",), ("PING",)]
    same(ports, requests, False)


def test_a_transaction_over_several_slots(cluster: Cluster, wire: Wire) -> None:
    """What the server says where both slots are at one shard, and the same where they are not."""
    one, near, far = (cluster.key(shard, name) for shard, name in ((0, "a"), (0, "b"), (1, "c")))
    crossed = b"-CROSSSLOT Keys in request don't hash to the same slot\r\n"
    aborted = b"-EXECABORT Transaction discarded because of previous errors.\r\n"
    for second, said in ((near, [b"+QUEUED\r\n", crossed]), (far, [crossed, aborted])):
        request = [("MULTI",), ("SET", one, 1), ("SET", second, 2), ("EXEC",)]
        assert wire.pipeline(request) == [b"+OK\r\n", b"+QUEUED\r\n", *said]
        assert [wire.cmd(*words) for words in request] == [b"+OK\r\n", b"+QUEUED\r\n", *said]
    assert wire.pipeline([("WATCH", one), ("WATCH", far)]) == [b"+OK\r\n", crossed]
    assert wire.cmd("UNWATCH") == b"+OK\r\n"
    assert wire.call("MGET", one, near, far) == [None] * 3


@pytest.mark.parametrize("known", [False, True])
def test_a_transaction_whose_slot_moves(
    cluster: Cluster, ports: tuple[int, int], wire: Wire, known: bool
) -> None:
    """`known`: another client has been redirected meanwhile, so the sidecar knows of the move."""
    name, far = cluster.key(0, f"txmove-{known}"), cluster.key(2, f"txmove-{known}")
    slot = key_slot(name.encode())
    try:
        for begun in (("MULTI",), ("WATCH", name)):
            assert wire.cmd(*begun) == b"+OK\r\n"
            assert not wire.cmd("SET", name, 1).startswith(b"-")
            cluster.migrate(slot, 1 if cluster.owners[slot] == 0 else 0)
            if known:
                with Wire(ports[0]) as other:
                    assert not other.cmd("GET", name).startswith(b"-")
            assert wire.cmd("SET", name, 2).startswith(b"-TRYAGAIN ")
            assert wire.cmd("SET", far, 2).startswith(b"-CROSSSLOT ")
            wire.cmd("UNWATCH" if begun[0] == "WATCH" else "DISCARD")
            assert wire.cmd("SET", name, 3) == b"+OK\r\n"
    finally:
        cluster.migrate(slot, 0)


def test_what_is_pipelined_behind_a_watch_whose_slot_has_moved(
    cluster: Cluster, wire: Wire
) -> None:
    """The sidecar does not know of the move: WATCH is sent on, and what is behind it waits."""
    name = cluster.key(0, "watched")
    slot = key_slot(name.encode())
    try:
        for to in (1, 2, 0):
            assert wire.cmd("SET", name, to) == b"+OK\r\n"
            cluster.migrate(slot, to)
            asked = [("WATCH", name), ("GET", name)]
            assert wire.pipeline(asked) == [b"+OK\r\n", b"$1\r\n%d\r\n" % to]
            changed = [("MULTI",), ("INCR", name), ("EXEC",)]
            assert wire.pipeline(changed)[-1] == b"*1\r\n:%d\r\n" % (to + 1)
    finally:
        cluster.migrate(slot, 0)
