"""A request over several slots: one part for each slot, and one reply."""

from __future__ import annotations

import pytest
from redis.crc import key_slot

from tests.core.cluster.shell import Cluster
from tests.core.cluster.test_branches import A2, A, B, C, gets
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
