"""A request over several slots: one part for each slot, and one reply."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.crc import key_slot

from tests.core.cluster.shell import Cluster
from tests.core.cluster.test_branches import A2, NEVER, A, B, C, gets
from tests.native.shell import named, request


def answer(cluster: Cluster, *replies: tuple[int, bytes]) -> None:
    """Shards answer, in this order, what they have been sent."""
    for number in range(3):
        cluster.flush(number)
        cluster.shards[number].down.clear()
    for number, reply in replies:
        cluster.shards[number].down += reply
        cluster.arrive(number)


def test_keys_of_one_slot_stay_together() -> None:
    cluster = Cluster()
    cluster.send(request("MGET", b"{x}1", b"{x}2"))
    assert cluster.core.turns(cluster.session)[0][0] in (0, 1, 2)
    cluster.drain()
    assert cluster.replies() == [named("MGET", b"{x}1", b"{x}2")]


def test_each_slot_gets_its_keys() -> None:
    cluster = Cluster()
    cluster.send(request("MSET", A, 1, B, 2, A, 3))
    for number in range(3):
        cluster.flush(number)
    assert cluster.shards[0].executed == [b"MSET %s 1 %s 3" % (A, A)]
    assert cluster.shards[1].executed == [b"MSET %s 2" % B]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_values_in_the_order_of_the_keys(order: tuple[int, int]) -> None:
    cluster = Cluster()
    cluster.send(request("MGET", B, A, B, A) + gets(C))
    answers = {0: b"*2\r\n$1\r\n1\r\n$-1\r\n", 1: b"*2\r\n$2\r\nb1\r\n_\r\n"}
    answer(cluster, *((number, answers[number]) for number in order))
    cluster.shards[2].down += named("GET", C)
    cluster.arrive(2)
    merged = b"*4\r\n$2\r\nb1\r\n$1\r\n1\r\n_\r\n$-1\r\n"
    assert cluster.replies() == [merged, named("GET", C)]


@pytest.mark.parametrize("command", ["DEL", "UNLINK", "EXISTS", "TOUCH", "del"])
def test_numbers_are_added(command: str) -> None:
    cluster = Cluster()
    cluster.send(request(command, A, B, A2))
    answer(cluster, (0, b":1\r\n"), (0, b":0\r\n"), (1, b":-41\r\n"))
    assert cluster.replies() == [b":-40\r\n"]


def test_the_first_error_is_the_reply() -> None:
    cluster = Cluster()
    cluster.send(request("MSET", A, 1, B, 2, C, 3))
    answer(cluster, (2, b"-OOM c\r\n"), (0, b"+OK\r\n"), (1, b"-OOM b\r\n"))
    assert cluster.replies() == [b"-OOM b\r\n"]


def test_a_part_is_redirected_by_itself() -> None:
    cluster = Cluster()
    cluster.asks[key_slot(A)] = 2
    cluster.send(request("DEL", A, B))
    answer(cluster, (0, b"-ASK 449 10.0.0.2:6379\r\n"), (1, b":1\r\n"))
    cluster.shards[2].take(cluster.core.link_output(cluster.shards[2].link, 1 << 30))
    assert cluster.shards[2].executed == [b"DEL " + A]
    cluster.shards[2].down[:] = b"+OK\r\n:1\r\n"
    cluster.arrive(2)
    assert cluster.replies() == [b":2\r\n"]


def test_a_reply_that_is_none_closes_the_client() -> None:
    cluster = Cluster()
    cluster.send(request("DEL", A, B))
    answer(cluster, (0, b":1\r\n"), (1, b"+1\r\n"))
    assert cluster.core.must_close(cluster.session)


def test_a_part_waits_for_its_link() -> None:
    cluster = Cluster()
    cluster.core.link_lost(cluster.shards[1].link)
    cluster.send(request("DEL", A, B))
    assert cluster.core.stall(cluster.session) == "link"
    assert cluster.core.outstanding(cluster.session) == 0


def test_a_wrong_number_of_arguments_is_the_servers_to_refuse() -> None:
    cluster = Cluster()
    cluster.send(request("MSET", A, 1, B))
    cluster.drain()
    assert cluster.replies() == [named("MSET", A, 1, B)]


def test_a_client_that_goes() -> None:
    cluster = Cluster()
    cluster.send(request("MGET", A, B, C))
    for number in range(3):
        cluster.flush(number)
    cluster.arrive(0)
    cluster.core.drop(cluster.session)
    for shard in cluster.shards[1:]:
        cluster.core.link_receive(shard.link, bytes(shard.down))


def counts(args: list[bytes]) -> bytes:
    """What a shard answers to DEL: how many keys it was sent."""
    return b":%d\r\n" % (len(args) - 1)


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("get"), st.sampled_from([A, B, C, A2])),
        st.tuples(st.just("del"), st.lists(st.sampled_from([A, B, C, A2]), min_size=1, max_size=6)),
        st.tuples(st.just("flush"), st.integers(0, 2), st.sampled_from([7, 40, 1 << 20])),
        st.tuples(st.just("arrive"), st.integers(0, 2), st.sampled_from([1, 9, 1 << 20])),
        st.tuples(st.just("move"), st.sampled_from([A, B, C]), st.integers(0, 2)),
        st.tuples(st.just("refuse"), st.integers(0, 2), st.booleans()),
        st.tuples(st.just("retry"), st.booleans()),
        st.tuples(st.just("drop")),
    ),
    max_size=50,
)


@settings(deadline=None, max_examples=150)
@given(_STEPS)
def test_split_requests_in_any_order_of_events(steps: list[tuple]) -> None:  # type: ignore[type-arg]
    """Between others, redirected or refused for a while: replies are the client's own, in turn."""
    cluster = Cluster()
    cluster.replies_to[b"DEL"] = counts
    expected: list[bytes] = []
    for kind, *args in steps:
        if kind == "get":
            cluster.send(gets(args[0]))
            expected.append(named("GET", args[0]))
        elif kind == "del":
            cluster.send(request("DEL", *args[0]))
            expected.append(b":%d\r\n" % len(args[0]))
        elif kind == "move":
            cluster.owner[key_slot(args[0])] = args[1]
        elif kind == "refuse":
            cluster.shards[args[0]].refuses = args[1]
        elif kind == "retry":
            cluster.retry(args[0], NEVER)
        elif kind == "drop":
            cluster.core.drop(cluster.session)
            return
        else:
            getattr(cluster, kind)(*args)
    for shard in cluster.shards:
        shard.refuses = False
    for _ in range(20):
        cluster.retry(True, NEVER)
        for number in range(3):
            cluster.flush(number)
            cluster.arrive(number)
        if cluster.core.stall(cluster.session) in ("replies", "room"):
            cluster.core.resume(cluster.session)
    cluster.drain()
    assert cluster.replies() == expected
    assert cluster.core.early(cluster.session) == 0
    assert not cluster.core.waits
