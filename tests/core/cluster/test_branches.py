"""A client's pipeline over the shards of a cluster: all at once, and in the client's order."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.crc import key_slot

from tests.core.cluster.shell import SLOTS, Cluster
from tests.native.shell import UNCERTAIN, named, request


def key_at(shard: int, number: int = 0, shards: int = 3) -> bytes:
    """The key with this number whose slot a shard has at first."""
    found = (b"k%d" % i for i in range(10_000))
    mine = [key for key in found if key_slot(key) * shards // SLOTS == shard]
    return mine[number]


A, B, C = key_at(0), key_at(1), key_at(2)
A2 = key_at(0, 1)


def gets(*keys: bytes) -> bytes:
    return b"".join(request("GET", key) for key in keys)


def expected(*keys: bytes) -> list[bytes]:
    return [named("GET", key) for key in keys]


def test_a_pipeline_goes_to_all_shards_at_once() -> None:
    cluster = Cluster()
    cluster.send(gets(A, B, C, A2))
    assert cluster.core.turns(cluster.session) == [(0, 1), (1, 1), (2, 1), (0, 1)]
    for number in range(3):
        cluster.flush(number)
    assert [shard.executed for shard in cluster.shards] == [
        [b"GET " + A, b"GET " + A2],
        [b"GET " + B],
        [b"GET " + C],
    ]


def test_early_replies_wait_for_their_turn() -> None:
    cluster = Cluster()
    cluster.send(gets(A, B, C, A2))
    for number in range(3):
        cluster.flush(number)
    cluster.arrive(2)
    cluster.arrive(1)
    assert cluster.replies() == []
    assert cluster.core.early(cluster.session) == len(named("GET", B) + named("GET", C))
    cluster.arrive(0)
    assert cluster.replies() == expected(A, B, C, A2)
    assert cluster.core.early(cluster.session) == 0
    assert cluster.core.outstanding(cluster.session) == 0


@pytest.mark.parametrize("size", [1, 2, 7])
def test_replies_in_pieces(size: int) -> None:
    cluster = Cluster()
    cluster.send(gets(A, B, A2, B, C))
    for number in range(3):
        cluster.flush(number)
    for _ in range(40):
        for number in (1, 2, 0):
            cluster.arrive(number, size)
    assert cluster.replies() == expected(A, B, A2, B, C)


def test_what_names_no_key_goes_where_the_last_request_went() -> None:
    cluster = Cluster()
    cluster.send(request("GET", C) + request("PING") + request("ECHO", "x"))
    assert cluster.core.turns(cluster.session) == [(2, 3)]
    cluster.drain()
    assert cluster.replies() == [named("GET", C), named("PING"), named("ECHO", "x")]


def test_a_slot_that_nobody_has_is_waited_for() -> None:
    cluster = Cluster()
    cluster.core.put_slots(0, SLOTS - 1, 65535)
    cluster.send(gets(A))
    assert cluster.core.stall(cluster.session) == "link"
    cluster.core.put_slots(0, SLOTS - 1, 0)
    cluster.core.resume(cluster.session)
    cluster.drain()
    assert cluster.replies() == expected(A)


def test_a_redirected_request_keeps_its_place() -> None:
    cluster = Cluster()
    cluster.owner[key_slot(A)] = 2
    cluster.send(gets(A, B, A2, C))
    cluster.drain()
    assert cluster.replies() == expected(A, B, A2, C)
    assert cluster.core.shard_of(key_slot(A)) == 2
    assert cluster.core.redirections() == (1, 0)


def test_requests_behind_a_redirected_one_do_not_overtake_it() -> None:
    """Two for the same key are on their way to the old shard; a third comes after the change."""
    cluster = Cluster()
    cluster.owner[key_slot(A)] = 1
    cluster.send(request("SET", A, 1) + request("SET", A, 2))
    cluster.flush(0)
    down = cluster.shards[0].down
    first = down.index(b"\r\n") + 2
    cluster.arrive(0, first)
    cluster.send(request("SET", A, 3))
    assert cluster.core.stall(cluster.session) == "replies"
    cluster.drain()
    assert cluster.shards[1].executed == [b"SET %s %d" % (A, n) for n in (1, 2, 3)]
    assert cluster.replies() == [named("SET", A, n) for n in (1, 2, 3)]


def test_ask_changes_no_slot() -> None:
    cluster = Cluster()
    cluster.asks[key_slot(A)] = 1
    cluster.gone.add(A)
    cluster.send(gets(A, C, A))
    cluster.drain()
    assert cluster.replies() == expected(A, C, A)
    assert cluster.core.shard_of(key_slot(A)) == 0
    assert cluster.shards[1].executed == [b"GET " + A] * 2


NEVER = 1 << 31  # microseconds until what waits is given up


def test_a_circle_of_redirections_ends() -> None:
    """The request waits. When that is over its client gets the error, and what stands behind it its
    replies."""
    cluster = Cluster()
    slot = key_slot(A)

    class Elsewhere(list[int]):
        turns = 0

        def __getitem__(self, index):  # type: ignore[no-untyped-def, override]
            if index != slot:
                return super().__getitem__(index)
            Elsewhere.turns += 1
            return Elsewhere.turns % 2 + 1  # never whoever is asked, or nearly

    cluster.owner = Elsewhere(cluster.owner)
    cluster.asks.clear()
    cluster.send(gets(A, C))
    for _ in range(50):
        for number in range(3):
            cluster.flush(number)
            cluster.arrive(number)
    assert cluster.core.waits
    assert Elsewhere.turns < 20
    assert cluster.replies() == []
    cluster.retry(False, 0)
    replies = cluster.replies()
    assert replies[0].startswith(b"-MOVED ")
    assert replies[1:] == [named("GET", C)]
    assert not cluster.core.waits


@pytest.mark.parametrize(
    "error",
    [
        b"-MOVED %d 10.9.9.9:1\r\n" % key_slot(A),
        b"-ASK %d 10.9.9.9:1\r\n" % key_slot(A),
        b"-CLUSTERDOWN The cluster is down\r\n",
        b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n",
        b"-LOADING Redis is loading the dataset in memory\r\n",
    ],
)
@pytest.mark.parametrize("given_up", [True, False])
@pytest.mark.parametrize("size", [1 << 20, 3])
def test_what_cannot_be_served_now_waits(error: bytes, given_up: bool, size: int) -> None:
    """A server to which no link leads, or one that refuses for now."""
    cluster = Cluster()
    cluster.send(gets(A, B))
    for number in range(2):
        cluster.flush(number)
    cluster.shards[0].down[:] = error
    for _ in range(60):
        cluster.arrive(0, size)
        cluster.arrive(1)
    assert cluster.core.waits
    assert cluster.replies() == []
    cluster.retry(True, 0 if given_up else NEVER)
    assert not cluster.core.waits
    for number in range(2):
        cluster.flush(number)
        cluster.arrive(number)
    first = error if given_up else named("GET", A)
    assert cluster.replies() == [first, named("GET", B)]
    assert cluster.core.outstanding(cluster.session) == 0


def test_a_server_that_is_known_but_not_in_use_yet() -> None:
    """A replica that has just taken over: the links to its shard lead there in a moment."""
    cluster = Cluster()
    cluster.send(gets(A))
    cluster.flush(0)
    addresses = [(cluster.address(n), n, True) for n in range(3)]
    cluster.core.use_addresses([*addresses, (b"10.9.9.9:1", 0, False)])
    cluster.shards[0].down[:] = b"-MOVED %d 10.9.9.9:1\r\n" % key_slot(A)
    cluster.arrive(0)
    assert cluster.core.waits
    cluster.retry(False, NEVER)  # it is not time yet
    assert cluster.core.waits
    cluster.retry(True, NEVER)
    cluster.drain()
    assert cluster.replies() == expected(A)


def test_nothing_overtakes_one_that_is_sent_again() -> None:
    """It may be refused once more, and must not come behind what its client has sent meanwhile."""
    cluster = Cluster()
    cluster.send(request("SET", A, 1))
    for _ in range(2):
        cluster.flush(0)
        cluster.shards[0].down[:] = b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n"
        cluster.arrive(0)
        cluster.retry(True, NEVER)
        cluster.send(request("SET", A, 2))
        assert cluster.core.stall(cluster.session) == "replies"
    cluster.drain()
    assert cluster.replies() == [named("SET", A, n) for n in (1, 2, 2)]


def test_a_client_that_goes_while_its_request_waits() -> None:
    cluster = Cluster()
    cluster.send(gets(A))
    cluster.flush(0)
    cluster.shards[0].down[:] = b"-CLUSTERDOWN The cluster is down\r\n"
    cluster.arrive(0)
    assert cluster.core.waits
    cluster.core.drop(cluster.session)
    assert not cluster.core.waits
    cluster.retry(True, NEVER)


def test_a_client_that_goes_leaves_nothing() -> None:
    """Replies come for its branches, and for a request that was redirected."""
    cluster = Cluster()
    cluster.owner[key_slot(A)] = 2
    cluster.send(gets(A, B, C))
    cluster.flush(0)
    cluster.arrive(0)
    cluster.core.drop(cluster.session)
    for _ in range(3):
        for shard in cluster.shards:
            shard.take(cluster.core.link_output(shard.link, 1 << 30))
            data, shard.down = bytes(shard.down), bytearray()
            if data:
                cluster.core.link_receive(shard.link, data)


def test_early_replies_stop_the_reading() -> None:
    """Of a client whose first reply does not come."""
    cluster = Cluster(output_pause=1000)
    cluster.send(gets(A) + gets(B) * 200)
    cluster.flush(1)
    cluster.arrive(1)
    cluster.send(gets(B))
    assert cluster.core.stall(cluster.session) == "room"


_KEYS = [key_at(shard, number) for shard in range(3) for number in range(2)]
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.lists(st.sampled_from(_KEYS), min_size=1, max_size=6)),
        st.tuples(st.just("flush"), st.integers(0, 2), st.sampled_from([5, 30, 1 << 20])),
        st.tuples(st.just("arrive"), st.integers(0, 2), st.sampled_from([1, 9, 40, 1 << 20])),
        st.tuples(st.just("move"), st.sampled_from(_KEYS), st.integers(0, 2)),
        st.tuples(st.just("lose"), st.integers(0, 2)),
    ),
    max_size=60,
)


@settings(deadline=None, max_examples=100)
@given(_STEPS)
def test_any_order_of_events(steps: list[tuple]) -> None:  # type: ignore[type-arg]
    """Replies are the client's own, in its order; each request is executed once, or perhaps not at
    all if its reply says so."""
    cluster = Cluster()
    sent: list[tuple[bytes, int]] = []
    for kind, *args in steps:
        if kind == "send":
            for key in args[0]:
                sent.append((key, len(sent)))
            data = [request("SET", key, n) for key, n in sent[len(sent) - len(args[0]) :]]
            cluster.send(b"".join(data))
        elif kind == "flush":
            cluster.flush(*args)
        elif kind == "arrive":
            cluster.arrive(*args)
        elif kind == "lose":
            cluster.lose(*args)
            if cluster.core.must_close(cluster.session):
                return  # it had got a part of the reply that is lost
        else:
            cluster.owner[key_slot(args[0])] = args[1]
    cluster.drain()
    replies = cluster.replies()
    assert len(replies) == len(sent)
    uncertain = {n for n, reply in enumerate(replies) if reply.startswith(UNCERTAIN)}
    assert [r for n, r in enumerate(replies) if n not in uncertain] == [
        named("SET", key, n) for key, n in sent if n not in uncertain
    ]
    executed = [line for shard in cluster.shards for line in shard.executed]
    assert len(set(executed)) == len(executed)
    certain = {b"SET %s %d" % each for each in sent if each[1] not in uncertain}
    assert certain <= set(executed) <= {b"SET %s %d" % each for each in sent}
    assert cluster.core.early(cluster.session) == 0


@settings(deadline=None, max_examples=100)
@given(_STEPS)
def test_the_order_of_one_key(steps: list[tuple]) -> None:  # type: ignore[type-arg]
    """Is the client's, on whichever shards it is executed: none of a loss here. A slot does not
    come back to where it was; see the head of branches.pyx."""
    cluster = Cluster()
    been = {(key_slot(key), cluster.owner[key_slot(key)]) for key in _KEYS}
    log: list[bytes] = []
    for shard in cluster.shards:
        shard.executed = log
    sent = 0
    for kind, *args in steps:
        if kind == "send":
            keys = list(enumerate(args[0], sent))
            sent += len(keys)
            cluster.send(b"".join(request("SET", key, n) for n, key in keys))
        elif kind == "move":
            moves = key_slot(args[0]), args[1]
            if moves not in been:
                been.add(moves)
                cluster.owner[moves[0]] = moves[1]
        elif kind != "lose":
            getattr(cluster, kind)(*args)
    cluster.drain()
    for key in _KEYS:
        numbers = [int(line.split()[2]) for line in log if line.split()[1] == key]
        assert numbers == sorted(numbers)
