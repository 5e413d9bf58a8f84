"""The near cache's sizes, rules and counters, and what it saves the server."""

from __future__ import annotations

import resource
import selectors
import socket
import time
from collections.abc import Iterator

import pytest

from tests.harness.admin import metrics
from tests.harness.cached import MAX_STALENESS, Cached
from tests.harness.faults import TRACKED, tracking_proxy
from tests.harness.process import free_port, wait_until
from tests.harness.servers import Server, Sidecar, valkey
from tests.harness.wire import DeadlineError, pack

SLACK = 0.25


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One server for all; each test has a sidecar of its own."""
    with valkey() as server:
        yield server


@pytest.fixture(autouse=True)
def empty(server: Server) -> None:
    """Nothing is left of the test before."""
    from tests.harness.wire import Wire

    with Wire(server.port) as wire:
        assert wire.cmd("FLUSHALL") == b"+OK\r\n"


@pytest.mark.one_worker("each worker has a near cache of its own")
def test_a_stampede_is_one_reading(server: Server) -> None:
    """1,000 clients ask for one cold key; the server, stopped meanwhile, is asked once."""
    resource.setrlimit(
        resource.RLIMIT_NOFILE,
        (min(8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),) * 2,
    )
    settings = {"cache.max_staleness": "5s"}
    with Cached(server, settings) as cached, selectors.DefaultSelector() as selector:
        cached.direct.cmd("SET", "cold", "value")
        cached.warm("GET", "other")
        clients = [
            socket.create_connection(("127.0.0.1", cached.sidecar.port)) for _ in range(1000)
        ]
        before = cached.calls("get")
        server.pause()
        try:
            for client in clients:
                client.sendall(pack("GET", "cold"))
                selector.register(client, selectors.EVENT_READ)
            # Nobody is answered as yet; the last one's request is read before PING's.
            with pytest.raises(DeadlineError):
                cached.near.cmd("PING", deadline=0.5)
        finally:
            server.resume()
        got = []
        limit = time.monotonic() + 10
        while len(got) < len(clients) and time.monotonic() < limit:
            for key, _ in selector.select(1):
                assert isinstance(key.fileobj, socket.socket)
                got.append(key.fileobj.recv(64))
                selector.unregister(key.fileobj)
        assert got == [b"$5\r\nvalue\r\n"] * 1000
        assert cached.calls("get") - before == 1
        for client in clients:
            client.close()


def test_clients_that_leave_while_a_value_is_read(server: Server) -> None:
    with tracking_proxy(server.port) as network, Cached(server, upstream=network.url) as cached:
        cached.direct.cmd("SET", "k", "value")
        cached.warm("GET", "other")
        network.group(TRACKED).hold("to_client")
        clients = [cached.open() for _ in range(20)]
        for client in clients:
            client.send_command("GET", "k")
        for client in clients[::2]:
            client.reset()
        network.heal()
        for client in clients[1::2]:
            assert client.read_reply() == b"$5\r\nvalue\r\n"
        assert cached.warm("GET", "k") == b"$5\r\nvalue\r\n"


def test_values_that_are_too_large(server: Server) -> None:
    with Cached(server, {"cache.max_value": "1KiB"}) as cached:
        cached.direct.cmd("MSET", "small", "x" * 900, "large", "x" * 2000)
        assert cached.warm("GET", "small") == b"$900\r\n" + b"x" * 900 + b"\r\n"
        for _ in range(5):
            reply, calls = cached.seen(cached.near, "GET", "large")
            assert reply == b"$2000\r\n" + b"x" * 2000 + b"\r\n"
            assert calls > 0
        cached.direct.cmd("SET", "large", "now small")
        assert cached.warm("GET", "large") == b"$9\r\nnow small\r\n"


def test_memory_is_bounded_and_what_is_used_stays(server: Server) -> None:
    port = free_port()
    settings = {"cache.memory": "1MiB", "cache.max_value": "16KiB"}
    with Cached(server, settings, admin=f"127.0.0.1:{port}") as cached:
        names = [f"k{number}" for number in range(600)]
        for name in names:
            cached.direct.cmd("SET", name, name * 1000)
        cached.direct.cmd("SET", "hot", "value")
        for turn in range(2):
            for name in names:
                assert cached.near.cmd("GET", name)[-20:] == (name * 20).encode()[-18:] + b"\r\n"
                cached.near.cmd("GET", "hot")
            found = metrics(cached.sidecar)
            assert found["sidecar_cache_bytes"] <= 1 << 20, turn
        assert found["sidecar_cache_evictions_total"] > 300
        assert cached.seen(cached.near, "GET", "hot") == (b"$5\r\nvalue\r\n", 0)


def test_rules(server: Server) -> None:
    rules = '["secret: never", "short: max_ttl=200ms", "*"]'
    with Cached(server, {"cache.rules": rules}) as cached:
        for key in ("secret:k", "short:k", "k"):
            cached.direct.cmd("SET", key, "value")
        assert [cached.seen(cached.near, "GET", "secret:k")[1] for _ in range(10)] == [1] * 10
        cached.warm("GET", "k")
        begin = time.monotonic()
        cached.warm("GET", "short:k")
        warmed = time.monotonic()
        wait_until(lambda: cached.seen(cached.near, "GET", "short:k")[1], "read anew")
        assert time.monotonic() - begin >= 0.15
        assert time.monotonic() - warmed < 0.2 + SLACK
        assert cached.seen(cached.near, "GET", "k")[1] == 0


def test_a_shorter_staleness_for_some(server: Server) -> None:
    rules = '["quick: max_staleness=100ms", "*"]'
    with (
        tracking_proxy(server.port) as network,
        Cached(
            server, {"cache.rules": rules, "cache.max_staleness": "2s"}, upstream=network.url
        ) as c,
    ):
        for key in ("quick:k", "k"):
            c.near.cmd("SET", key, "old")
            c.warm("GET", key)
        network.group(TRACKED).hold("to_client")
        c.direct.cmd("MSET", "quick:k", "new", "k", "new")
        c.until(b"$3\r\nnew\r\n", "GET", "quick:k", deadline=0.1 + SLACK)
        assert c.near.cmd("GET", "k") == b"$3\r\nold\r\n"
        c.until(b"$3\r\nnew\r\n", "GET", "k", deadline=2 + SLACK)


def test_a_proof_counts_from_when_it_was_asked_for(server: Server) -> None:
    """Not from when it came: what is on its way for long says nothing of the time since."""
    old, new = b"$3\r\nold\r\n", b"$3\r\nnew\r\n"
    with (
        tracking_proxy(server.port) as network,
        Cached(server, {"cache.max_staleness": "1s"}, upstream=network.url) as cached,
    ):
        cached.near.cmd("SET", "k", "old")
        cached.warm("GET", "k")
        network.group(TRACKED).to_client.delay = 0.7
        begin = time.monotonic()
        while time.monotonic() < begin + 1.2:  # all proofs are late by now
            assert cached.near.cmd("GET", "k") == old
        begin = time.monotonic()
        cached.direct.cmd("SET", "k", "new")
        while time.monotonic() < begin + 0.6:
            cached.near.cmd("GET", "k")
        network.group(TRACKED).hold("to_client")  # the invalidation is still on its way
        cached.until(new, "GET", "k", deadline=begin + 1 + SLACK - time.monotonic())


def test_prefixes_without_a_rule_are_not_cached(server: Server) -> None:
    with Cached(server, {"cache.rules": '["session:"]'}) as cached:
        cached.direct.cmd("MSET", "session:1", "value", "other", "value")
        cached.warm("GET", "session:1")
        assert [cached.seen(cached.near, "GET", "other")[1] for _ in range(10)] == [1] * 10


@pytest.mark.parametrize("mode", ["off", "observe"])
def test_modes_that_answer_nothing(server: Server, mode: str) -> None:
    with Cached(server, {"cache.mode": mode}) as cached:
        cached.direct.cmd("SET", "k", "value")
        assert [cached.seen(cached.near, "GET", "k")[1] for _ in range(10)] == [1] * 10
        assert cached.tracked() == [] or mode == "observe"


@pytest.mark.parametrize(("setting", "cached_for"), [("300ms", 0.3), ("0s", 0.0)])
def test_what_does_not_exist_is_cached_for_less(
    server: Server, setting: str, cached_for: float
) -> None:
    with Cached(server, {"cache.negative_ttl": setting}) as cached:
        if not cached_for:
            assert all(cached.seen(cached.near, "GET", "k")[1] for _ in range(10))
            return
        begin = time.monotonic()
        cached.warm("GET", "k")
        warmed = time.monotonic()
        wait_until(lambda: cached.seen(cached.near, "GET", "k")[1], "read anew")
        assert time.monotonic() - begin >= cached_for - 0.05
        assert time.monotonic() - warmed < cached_for + SLACK


def test_the_tracked_connection_stands_still(server: Server) -> None:
    """The server is fine: reads of what is not cached do not wait for long."""
    with tracking_proxy(server.port) as network, Cached(server, upstream=network.url) as cached:
        cached.direct.cmd("SET", "k", "value")
        cached.warm("GET", "other")
        network.group(TRACKED).hold()
        begin = time.monotonic()
        assert cached.near.cmd("GET", "k") == b"$5\r\nvalue\r\n"
        assert time.monotonic() - begin <= 3 * MAX_STALENESS
        slowest = 0.0
        for _ in range(20):
            begin = time.monotonic()
            assert cached.near.cmd("GET", "k") == b"$5\r\nvalue\r\n"
            slowest = max(slowest, time.monotonic() - begin)
        assert slowest < MAX_STALENESS


def test_a_long_mget_is_not_one_round_trip_for_each_key(server: Server) -> None:
    """With 20 ms to the server, 50 cold keys take a few of them, not 50."""
    with tracking_proxy(server.port) as network, Cached(server, upstream=network.url) as cached:
        keys = [f"k{number}" for number in range(50)]
        cached.direct.cmd("MSET", *[word for key in keys for word in (key, key)])
        cached.warm("GET", "other")
        for group in ("tracked", "others"):
            network.group(group).delay = 0.01
        begin = time.monotonic()
        assert cached.near.cmd("MGET", *keys) == cached.direct.cmd("MGET", *keys)
        assert time.monotonic() - begin < 0.4


def test_a_key_changed_between_its_ttl_and_its_value(server: Server) -> None:
    """What is read then is not kept with a TTL that was another value's."""
    with tracking_proxy(server.port) as network, Cached(server, upstream=network.url) as cached:
        cached.direct.cmd("DEBUG", "SET-ACTIVE-EXPIRE", 0)
        try:
            cached.direct.cmd("SET", "k", "old")
            cached.warm("GET", "other")
            asked = cached.calls("pttl")
            network.group(TRACKED).to_server.stall_before = b"*2\r\n$3\r\nGET\r\n"
            cached.near.send_command("GET", "k")
            wait_until(lambda: cached.calls("pttl") > asked, "the TTL was asked for")
            cached.direct.cmd("SET", "k", "new", "PX", 300)
            network.group(TRACKED).open()
            assert cached.near.read_reply() == b"$3\r\nnew\r\n"
            cached.until(b"$-1\r\n", "GET", "k", deadline=0.6)
        finally:
            cached.direct.cmd("DEBUG", "SET-ACTIVE-EXPIRE", 1)


def test_what_the_server_does_not_announce_is_found(server: Server) -> None:
    """SWAPDB from elsewhere tells nobody: the next answer is compared, and the value dropped."""
    port = free_port()
    with Cached(server, {"cache.check": 1.0}, admin=f"127.0.0.1:{port}") as cached:
        for key in ("k", "h"):
            cached.direct.cmd("DEL", key)
        cached.direct.cmd("SET", "k", "before")
        cached.direct.cmd("HSET", "h", *[f"f{n}" for n in range(60)])
        name = "sidecar_cache_checks_total"

        def compared() -> bool:
            cached.near.cmd("GET", "k")
            cached.near.cmd("HGETALL", "h")
            return metrics(cached.sidecar)[f'{name}{{result="same"}}'] >= 20

        wait_until(compared, "20 answers compared")
        assert metrics(cached.sidecar)[f'{name}{{result="different"}}'] == 0
        cached.sidecar.mark()
        cached.direct.cmd("SWAPDB", 0, 1)
        wait_until(lambda: cached.near.cmd("GET", "k") == b"$-1\r\n", "the server's own")
        assert metrics(cached.sidecar)[f'{name}{{result="different"}}'] >= 1
        wait_until(lambda: "near cache check failed" in cached.sidecar.news(), "said so")
        cached.direct.cmd("SWAPDB", 0, 1)


def test_counters(server: Server) -> None:
    port = free_port()
    with Cached(server, admin=f"127.0.0.1:{port}") as cached:
        cached.near.cmd("SET", "k", "value")
        cached.warm("GET", "k")
        before = metrics(cached.sidecar)
        for _ in range(10):
            cached.near.cmd("GET", "k")
        cached.near.cmd("SET", "k", "other")
        cached.warm("GET", "k")
        cached.direct.cmd("SET", "k", "third")
        wait_until(
            lambda: grown(cached.sidecar, before, 'invalidations_total{by="server"}'), "told"
        )
        cached.direct.cmd("FLUSHALL")
        wait_until(lambda: grown(cached.sidecar, before, "flushes_total"), "told")
        assert grown(cached.sidecar, before, "hits_total") >= 10
        assert grown(cached.sidecar, before, 'invalidations_total{by="own"}') >= 1
        assert grown(cached.sidecar, before, "fills_total") >= 1
        found = metrics(cached.sidecar)
        assert found["sidecar_cache_entries"] == 0
        assert 0 <= found["sidecar_cache_proof_age_seconds"] < MAX_STALENESS


def grown(sidecar: Sidecar, before: dict[str, float], name: str) -> float:
    """How much a counter has grown; labels may have other names."""
    stem, _, label = name.partition("{")
    value = label.partition("=")[2]
    now = metrics(sidecar)
    return sum(
        amount - before.get(sample, 0)
        for sample, amount in now.items()
        if sample.startswith(f"sidecar_cache_{stem}") and value in sample
    )
