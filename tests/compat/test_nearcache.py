"""The near cache's traps, against real servers: one test each.

Tests with `network` hold back the near cache's own connection, so that what they show does not
depend on who is quicker.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.harness.admin import metrics
from tests.harness.cached import MAX_STALENESS, RULES, Cached
from tests.harness.farm import BINARIES
from tests.harness.faults import OTHERS, TRACKED, FaultProxy, tracking_proxy
from tests.harness.process import free_port, wait_until
from tests.harness.servers import Server
from tests.harness.wire import DeadlineError, Wire, pack

pytestmark = pytest.mark.one_worker("each worker has a near cache of its own")

SLACK = 0.25
"""A machine under load looks late at its clock, and later at its sockets."""

KINDS = ["valkey", pytest.param("redis7", marks=pytest.mark.redis)]

LONG = {"cache.max_staleness": "5s"}
"""So that only what is dropped can be missing, not what is unproved."""

NIL = b"$-1\r\n"
OLD, NEW = b"$3\r\nold\r\n", b"$3\r\nnew\r\n"


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of each kind."""
    with BINARIES[request.param]() as server:
        yield server


@pytest.fixture(scope="module")
def shared(server: Server) -> Iterator[Cached]:
    """The sidecar that tests share."""
    with Cached(server) as cached:
        yield cached


@pytest.fixture
def cached(shared: Cached) -> Iterator[Cached]:
    """The same, empty."""
    assert shared.sidecar.running
    shared.near.cmd("FLUSHALL")
    yield shared
    shared.part()


@pytest.fixture(scope="module")
def slow_shared(server: Server) -> Iterator[tuple[Cached, FaultProxy]]:
    """A sidecar whose connections can be held back."""
    with (
        tracking_proxy(server.port) as network,
        Cached(server, LONG, upstream=network.url) as cached,
    ):
        yield cached, network


@pytest.fixture
def slow(slow_shared: tuple[Cached, FaultProxy]) -> Iterator[tuple[Cached, FaultProxy]]:
    """The same, empty and healed."""
    cached, network = slow_shared
    cached.near.cmd("FLUSHALL")
    yield cached, network
    network.heal()


def hidden(cached: Cached, network: FaultProxy) -> None:
    """From now on invalidations don't arrive: `k` is cached as `old` before that."""
    assert cached.near.cmd("SET", "k", "old") == b"+OK\r\n"
    assert cached.warm("GET", "k") == OLD
    network.group(TRACKED).hold("to_client")


def answer_past(cached: Cached, network: FaultProxy, *command: str) -> bytes:
    """The answer to a read while the near cache can read nothing itself: given from what it has,
    or only when it can."""
    cached.other.send_command(*command)
    try:
        return cached.other.read_reply(0.3)
    except DeadlineError:
        network.heal()
        return cached.other.read_reply()


# Own writes


def test_hits_cost_the_server_nothing(cached: Cached) -> None:
    cached.near.cmd("SET", "k", "old")
    cached.warm("GET", "k")
    before = cached.calls("get")
    assert [cached.other.cmd("GET", "k") for _ in range(50)] == [OLD] * 50
    assert cached.calls("get") == before


def test_read_your_writes(cached: Cached) -> None:
    for number in range(200):
        assert cached.near.cmd("SET", "k", number) == b"+OK\r\n"
        value = b"$%d\r\n%d\r\n" % (len(str(number)), number)
        assert (cached.other.cmd("GET", "k"), cached.near.cmd("GET", "k")) == (value, value)


WRITES = [
    ("SET k new", NEW), ("GETSET k new", NEW), ("DEL k", NIL), ("UNLINK k", NIL),
    ("MSET j 1 k new", NEW), ("RENAME k j", NIL), ("APPEND k er", b"$5\r\nolder\r\n"),
    ("COPY j k REPLACE", NEW), ("RENAME j k", NEW), ("MOVE k 1", NIL), ("PEXPIRE k 0", NIL),
    ("SETRANGE k 0 NEW", b"$3\r\nNEW\r\n"), ("BITOP NOT k j", b"$3\r\n\x91\x9a\x88\r\n"),
    ("EVAL return(redis.call('SET',KEYS[1],'new')) 1 k", NEW),
    ("EVAL return(redis.call('SET','k','new')) 0", NEW),
    ("FLUSHALL", NIL), ("FLUSHDB", NIL), ("SWAPDB 0 7", NIL), ("SORT list STORE k", None),
]  # fmt: skip


@pytest.mark.parametrize(("line", "then"), WRITES, ids=[line.split()[0] for line, _ in WRITES])
def test_own_writes_do_not_wait_for_an_invalidation(
    slow: tuple[Cached, FaultProxy], line: str, then: bytes | None
) -> None:
    cached, network = slow
    cached.near.cmd("SET", "j", "new")
    cached.near.cmd("RPUSH", "list", "1")
    hidden(cached, network)
    assert cached.near.cmd(*line.split())[:1] in b"+:$"
    got = answer_past(cached, network, "GET", "k")
    assert got == then if then is not None else got.startswith(b"-WRONGTYPE")


def test_a_large_write(slow: tuple[Cached, FaultProxy]) -> None:
    cached, network = slow
    hidden(cached, network)
    assert cached.near.cmd("SET", "k", "N" * 300_000) == b"+OK\r\n"
    assert answer_past(cached, network, "GET", "k") == b"$300000\r\n%b\r\n" % (b"N" * 300_000)


def test_in_a_pipeline(cached: Cached) -> None:
    cached.near.cmd("SET", "k", "old")
    cached.warm("GET", "k")
    for _ in range(50):
        cached.near.send(
            b"".join(pack(*words) for words in (
                ("GET", "k"), ("INCR", "n"), ("GET", "k"), ("SET", "k", "new"), ("GET", "k"),
                ("GET", "missing"), ("SET", "k", "old"), ("GET", "k"),
            ))
        )  # fmt: skip
        got = cached.near.read_replies(8)
        del got[1]
        assert got == [OLD, OLD, b"+OK\r\n", NEW, NIL, b"+OK\r\n", OLD]


def test_what_was_read_before_a_write_is_not_stored_after_it(
    slow: tuple[Cached, FaultProxy],
) -> None:
    """The reading is under way when the write is dispatched, and arrives after its answer."""
    cached, network = slow
    cached.near.cmd("SET", "k", "old")
    cached.warm("GET", "other")
    network.group(TRACKED).hold("to_client")
    cached.other.send_command("GET", "k")  # asks for the value: `old` is on its way
    wait_until(lambda: cached.calls("pttl") and cached.calls("get"), "the value read")
    assert cached.near.cmd("SET", "k", "new") == b"+OK\r\n"
    # Its invalidation is dropped with the connection, the value is not.
    network.heal()
    assert cached.other.read_reply() == NEW
    assert cached.near.cmd("GET", "k") == NEW


def test_what_is_read_while_a_write_is_under_way_is_not_stored(
    slow: tuple[Cached, FaultProxy],
) -> None:
    cached, network = slow
    hidden(cached, network)
    network.heal()
    network.group(OTHERS).hold("to_server")
    cached.near.send_command("SET", "k", "new")
    reader = cached.open()
    for _ in range(3):
        reader.send_command("GET", "k")
        with pytest.raises(DeadlineError):
            reader.read_reply(0.05)  # it waits its turn on the shared link
    network.group(OTHERS).open()
    assert cached.near.read_reply() == b"+OK\r\n"
    assert reader.read_replies(3) == [NEW] * 3
    assert reader.cmd("GET", "k") == NEW


def test_a_write_older_than_its_key_is_hot(server: Server) -> None:
    """With cache.mode = hot the cache knows nothing of a key's commands until it is hot. One that
    was sent before that, and is still on its way, counts all the same."""
    settings = {**LONG, "cache.mode": "hot", "cache.rules": "[]"}
    port = free_port()
    with (
        tracking_proxy(server.port) as network,
        Cached(server, settings, upstream=network.url, admin=f"127.0.0.1:{port}") as cached,
    ):
        assert cached.near.cmd("SET", "k", "old") == b"+OK\r\n"
        network.group(OTHERS).hold("to_server")
        cached.near.send_command("SET", "k", "new")
        for one in [cached.open() for _ in range(200)]:
            one.send(pack("GET", "k") * 16)
        wait_until(lambda: metrics(cached.sidecar)["sidecar_hot_keys"] == 1, "a hot key")
        readers = [cached.open() for _ in range(10)]
        for reader in readers:
            reader.send_command("GET", "k")
            with pytest.raises(DeadlineError):
                reader.read_reply(0.05)
        network.group(TRACKED).hold("to_client")
        network.group(OTHERS).open()
        assert cached.near.read_reply() == b"+OK\r\n"
        assert answer_past(cached, network, "GET", "k") == NEW


@pytest.mark.parametrize("watch", [False, True], ids=["MULTI", "WATCH"])
def test_a_transaction_bars_until_exec(slow: tuple[Cached, FaultProxy], watch: bool) -> None:
    """QUEUED is no answer: the value read before EXEC must not be kept."""
    cached, network = slow
    cached.near.cmd("SET", "k", "old")
    cached.warm("GET", "k")
    if watch:
        cached.near.cmd("WATCH", "k")
    assert cached.near.cmd("MULTI") == b"+OK\r\n"
    assert cached.near.cmd("SET", "k", "new") == b"+QUEUED\r\n"
    assert [cached.other.cmd("GET", "k") for _ in range(20)] == [OLD] * 20
    assert cached.seen(cached.other, "GET", "k") == (OLD, 1)
    network.group(TRACKED).hold("to_client")
    assert cached.near.cmd("EXEC") == b"*1\r\n+OK\r\n"
    assert answer_past(cached, network, "GET", "k") == NEW


def test_after_discard_it_is_cached_again(cached: Cached) -> None:
    cached.near.cmd("SET", "k", "old")
    cached.warm("GET", "k")
    cached.near.cmd("MULTI")
    cached.near.cmd("SET", "k", "new")
    assert cached.near.cmd("DISCARD") == b"+OK\r\n"
    assert cached.warm("GET", "k") == OLD


def test_transactions_read_at_the_server(cached: Cached) -> None:
    cached.near.cmd("SET", "k", "old")
    cached.warm("GET", "k")
    before = cached.calls("get")
    cached.near.send(pack("MULTI") + pack("GET", "k") + pack("EXEC"))
    assert cached.near.read_replies(3)[-1] == b"*1\r\n" + OLD
    assert cached.calls("get") == before + 1


def test_watch_sees_what_the_server_sees(cached: Cached) -> None:
    cached.near.cmd("SET", "k", "old")
    cached.warm("GET", "k")
    cached.near.cmd("WATCH", "k")
    assert cached.seen(cached.near, "GET", "k") == (OLD, 1)
    cached.direct.cmd("SET", "k", "new")
    cached.near.cmd("MULTI")
    cached.near.cmd("GET", "k")
    assert cached.near.cmd("EXEC") == b"*-1\r\n"
    assert cached.near.cmd("GET", "k") == NEW


# Writers elsewhere


def test_foreign_writes_are_seen_each_time(cached: Cached) -> None:
    """Tracking is one-shot: after an invalidation only a tracked read makes the next one come."""
    for number in range(30):
        cached.direct.cmd("SET", "k", number)
        value = b"$%d\r\n%d\r\n" % (len(str(number)), number)
        cached.until(value, "GET", "k", deadline=MAX_STALENESS)
        assert cached.warm("GET", "k") == value


def test_foreign_writes_to_what_is_missing(cached: Cached) -> None:
    assert cached.warm("GET", "k") == NIL
    assert cached.warm("EXISTS", "k") == b":0\r\n"
    cached.direct.cmd("SET", "k", "new")
    cached.until(NEW, "GET", "k", deadline=MAX_STALENESS)
    cached.until(b":1\r\n", "EXISTS", "k", deadline=MAX_STALENESS)


@pytest.mark.parametrize("command", ["FLUSHALL", "FLUSHDB"])
def test_foreign_flush(cached: Cached, command: str) -> None:
    cached.near.cmd("SET", "k", "old")
    cached.warm("GET", "k")
    cached.direct.cmd(command)
    cached.until(NIL, "GET", "k", deadline=MAX_STALENESS)


def test_foreign_flush_from_another_database(cached: Cached) -> None:
    client, other = cached.open(), cached.connect(cached.server.port)
    client.cmd("SELECT", 1)
    client.cmd("SET", "k", "old")
    cached.warm("GET", "k", wire=client)
    other.cmd("FLUSHALL")
    cached.until(NIL, "GET", "k", wire=client, deadline=MAX_STALENESS)
    client.cmd("SET", "k", "old")
    cached.warm("GET", "k", wire=client)
    other.cmd("FLUSHDB")  # of database 0: here it only costs a reading
    assert client.cmd("GET", "k") == OLD


def test_a_silent_connection_ends_the_lease(server: Server) -> None:
    """The invalidations are held back: after max_staleness nothing is served that may be old."""
    with tracking_proxy(server.port) as network, Cached(server, upstream=network.url) as cached:
        hidden(cached, network)
        cached.direct.cmd("SET", "k", "new")
        cached.until(NEW, "GET", "k", deadline=MAX_STALENESS + SLACK)


def test_a_lost_connection_empties_the_cache(slow: tuple[Cached, FaultProxy]) -> None:
    cached, network = slow
    hidden(cached, network)
    cached.direct.cmd("SET", "k", "new")
    cached.sidecar.mark()
    network.group(TRACKED).cut()
    wait_until(lambda: "near cache emptied" in cached.sidecar.news(), "news of it")
    assert cached.near.cmd("GET", "k") == NEW
    network.heal()
    assert cached.warm("GET", "k") == NEW


def test_the_connection_killed_at_the_server(cached: Cached) -> None:
    cached.near.cmd("SET", "k", "old")
    cached.warm("GET", "k")
    cached.sidecar.mark()
    for row in cached.tracked():
        assert cached.direct.cmd("CLIENT", "KILL", "ID", row["id"]) == b":1\r\n"
    cached.direct.cmd("SET", "k", "new")
    wait_until(lambda: "near cache emptied" in cached.sidecar.news(), "news of it")
    assert cached.near.cmd("GET", "k") == NEW
    assert cached.warm("GET", "k") == NEW


def test_a_shared_connection_lost_empties_the_cache(slow: tuple[Cached, FaultProxy]) -> None:
    """The server may be another one behind the same address."""
    cached, network = slow
    hidden(cached, network)
    cached.direct.cmd("SET", "k", "new")
    cached.sidecar.mark()
    network.group(OTHERS).cut()
    wait_until(lambda: "near cache emptied" in cached.sidecar.news(), "news of it")
    assert cached.near.cmd("GET", "k") == NEW


def test_a_frozen_server() -> None:
    """Values are served for max_staleness at most: then the client waits for the server."""
    with BINARIES["valkey"]() as server, Cached(server) as cached:
        cached.near.cmd("SET", "k", "old")
        cached.warm("GET", "k")
        server.pause()
        begin = last = now = time.monotonic()
        try:
            while cached.near.cmd("GET", "k", deadline=2.0) == OLD:
                last, now = now, time.monotonic()
                assert last - begin < 4 * MAX_STALENESS, "still served"
        except DeadlineError:
            pass
        finally:
            server.resume()
        assert last - begin <= MAX_STALENESS + SLACK
        assert cached.near.read_reply() == OLD


def test_a_server_that_comes_back_empty() -> None:
    with BINARIES["valkey"]() as server, Cached(server) as cached:
        cached.near.cmd("SET", "k", "old")
        cached.warm("GET", "k")
        server.restart()
        begin = last = now = time.monotonic()
        while (got := cached.near.cmd("GET", "k")) != NIL:
            last = now if got == OLD else last
            now = time.monotonic()
            assert now - begin < 10, got
        assert last - begin <= MAX_STALENESS
        cached.direct = cached.connect(server.port)
        assert cached.warm("GET", "k") == NIL


def test_a_tracking_table_that_is_too_small() -> None:
    """The server evicts keys from its table and says so, without a change."""
    with BINARIES["valkey"]({"tracking-table-max-keys": 10}) as server, Cached(server) as cached:
        keys = [f"k{number}" for number in range(100)]
        cached.near.cmd("MSET", *[word for key in keys for word in (key, "old")])
        for _ in range(3):
            assert {cached.near.cmd("GET", key) for key in keys} == {OLD}
        cached.direct.cmd("MSET", *[word for key in keys for word in (key, "new")])
        for key in keys:
            cached.until(NEW, "GET", key, deadline=MAX_STALENESS)


# Time


@pytest.mark.parametrize("write", ["SET k old PX 300", "PSETEX k 300 old"])
def test_logical_expiry(server: Server, cached: Cached, write: str) -> None:
    """The server deletes nothing by itself, so it announces nothing."""
    cached.direct.cmd("DEBUG", "SET-ACTIVE-EXPIRE", 0)
    try:
        begin = time.monotonic()
        cached.near.cmd(*write.split())
        assert cached.warm("GET", "k") == OLD
        assert cached.warm("EXISTS", "k") == b":1\r\n"
        cached.until(NIL, "GET", "k", deadline=begin + 0.31 + SLACK - time.monotonic())
        assert cached.near.cmd("EXISTS", "k") == b":0\r\n"
    finally:
        cached.direct.cmd("DEBUG", "SET-ACTIVE-EXPIRE", 1)


def test_a_ttl_given_later(cached: Cached) -> None:
    for wire in (cached.near, cached.direct):
        cached.near.cmd("SET", "k", "old")
        cached.warm("GET", "k")
        wire.cmd("PEXPIRE", "k", 100)
        cached.until(NIL, "GET", "k", deadline=0.11 + SLACK)


def test_a_ttl_taken_away(cached: Cached) -> None:
    cached.near.cmd("SET", "k", "old", "PX", 200)
    cached.warm("GET", "k")
    cached.near.cmd("PERSIST", "k")
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        assert cached.near.cmd("GET", "k") == OLD


# What is not cached


def test_errors_are_never_cached(cached: Cached) -> None:
    cached.near.cmd("RPUSH", "k", "a")
    for _ in range(5):
        reply, calls = cached.seen(cached.near, "GET", "k")
        assert reply.startswith(b"-WRONGTYPE")
        assert calls > 0
        assert cached.near.cmd("GET", "k", "too", "many").startswith(b"-ERR wrong number")
    cached.direct.cmd("DEL", "k")
    assert cached.near.cmd("GET", "k") == NIL


def test_a_read_of_several_keys_is_no_read_of_the_first(cached: Cached) -> None:
    """EXISTS takes any number of keys."""
    cached.near.cmd("SET", "a", 1)
    assert [cached.near.cmd("EXISTS", "a", "b", "c") for _ in range(10)] == [b":1\r\n"] * 10
    cached.other.cmd("SET", "b", 1)
    assert cached.near.cmd("EXISTS", "a", "b", "c") == b":2\r\n"
    assert [cached.near.cmd("EXISTS", "a", "b", "c") for _ in range(10)] == [b":2\r\n"] * 10
    cached.direct.cmd("SET", "c", 1)
    cached.until(b":3\r\n", "EXISTS", "a", "b", "c", deadline=MAX_STALENESS)


def test_clients_named_fresh(cached: Cached) -> None:
    cached.near.cmd("SET", "k", "old")
    cached.warm("GET", "k")
    for name in ("fresh", "fresh:report"):
        client = cached.open()
        client.cmd("CLIENT", "SETNAME", name)
        assert cached.seen(client, "GET", "k") == (OLD, 1)
        cached.warm("GET", "k")
        client.cmd("CLIENT", "SETNAME", "refreshed")
        assert cached.seen(client, "GET", "k") == (OLD, 0)


def test_databases_are_kept_apart(cached: Cached) -> None:
    clients = [cached.open() for _ in range(3)]
    for db, client in enumerate(clients):
        client.cmd("SELECT", db)
        client.cmd("SET", "k", f"db{db}")
    for _ in range(2):
        for db, client in enumerate(clients):
            assert cached.warm("GET", "k", wire=client) == b"$3\r\ndb%d\r\n" % db
    clients[0].cmd("SELECT", 2)
    assert clients[0].cmd("GET", "k") == b"$3\r\ndb2\r\n"
    clients[1].cmd("SET", "k", "new")
    assert [client.cmd("GET", "k") for client in clients] == [
        b"$3\r\ndb2\r\n",
        NEW,
        b"$3\r\ndb2\r\n",
    ]


def test_swapdb_through_the_sidecar(cached: Cached) -> None:
    client = cached.open()
    client.cmd("SELECT", 3)
    client.cmd("SET", "k", "new")
    cached.near.cmd("SET", "k", "old")
    cached.warm("GET", "k")
    cached.warm("GET", "k", wire=client)
    assert cached.near.cmd("SWAPDB", 0, 3) == b"+OK\r\n"
    assert (cached.near.cmd("GET", "k"), client.cmd("GET", "k")) == (NEW, OLD)


def test_an_applications_own_tracking(cached: Cached) -> None:
    """It gets its invalidations, of writes through the sidecar and of others."""
    client = cached.open(3)
    client.cmd("CLIENT", "TRACKING", "ON")
    for wire in (cached.near, cached.direct):
        cached.near.cmd("SET", "k", "old")
        cached.warm("GET", "k")
        client.drain()
        assert client.cmd("GET", "k") == OLD
        wire.cmd("SET", "k", "new")
        assert client.read_reply() == b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"
        assert client.cmd("GET", "k") == NEW


def test_servers_that_are_too_old() -> None:
    """Redis 6 puts pushes inside of other replies: off, and the log says so."""
    with BINARIES["valkey"]() as server, tracking_proxy(server.port) as network:
        network.rewrite = as_redis_6
        with Cached(server, upstream=network.url) as cached:
            wait_until(lambda: "near cache disabled" in cached.sidecar.log(), "a line in the log")
            cached.near.cmd("SET", "k", "old")
            assert [cached.seen(cached.near, "GET", "k") for _ in range(5)] == [(OLD, 1)] * 5
            assert cached.tracked() == []


def test_an_invalidation_of_several_keys(slow: tuple[Cached, FaultProxy]) -> None:
    """Servers may announce many at once, though these here do it one at a time."""
    cached, network = slow
    cached.near.cmd("SET", "k", "old")
    cached.warm("GET", "k")
    one, several = b"invalidate\r\n*1\r\n$1\r\nk", b"invalidate\r\n*2\r\n$3\r\nfoo\r\n$1\r\nk"
    network.rewrite = lambda said: said.replace(one, several)
    try:
        cached.direct.cmd("SET", "k", "new")
        cached.until(NEW, "GET", "k", deadline=SLACK)
    finally:
        network.rewrite = lambda said: said


def as_redis_6(said: bytes) -> bytes:
    """HELLO's reply, as an older server would give it."""
    at = said.find(b"$6\r\nserver\r\n$6\r\nvalkey")
    if at < 0:
        return said
    version = said.index(b"$7\r\nversion\r\n", at) + len(b"$7\r\nversion\r\n")
    end = said.index(b"\r\n", said.index(b"\r\n", version) + 2) + 2
    said = said[:version] + b"$6\r\n6.2.14\r\n" + said[end:]
    return said.replace(b"$6\r\nserver\r\n$6\r\nvalkey", b"$6\r\nserver\r\n$5\r\nredis")


def test_settings_of_these_tests_are_the_programs(cached: Cached) -> None:
    """`hot` would cache nothing of what is asked for so rarely."""
    assert RULES["cache.mode"] == "rules"
    with Wire(cached.sidecar.port) as wire:
        assert wire.cmd("PING") == b"+PONG\r\n"


def test_a_hit_does_not_wait_for_a_command_that_is_held(server: Server) -> None:
    """Replies of a batch are sent together, but not while the server holds back one of them."""
    with Cached(server) as cached:
        cached.near.cmd("SET", "k", "old")
        cached.warm("GET", "k")
        assert cached.direct.cmd("CLIENT", "PAUSE", 60_000, "WRITE") == b"+OK\r\n"
        cached.near.send(pack("GET", "k") + pack("SET", "other", "v") + pack("GET", "k"))
        assert cached.near.read_reply(2) == OLD
        with pytest.raises(DeadlineError):
            cached.near.read_reply(0.2)
        assert cached.direct.cmd("CLIENT", "UNPAUSE") == b"+OK\r\n"
        assert cached.near.read_replies(2) == [b"+OK\r\n", OLD]
