"""The near cache beside commands that are wide, refused or large: they touch what they name, and no
more."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.harness.cached import Cached
from tests.harness.farm import BINARIES
from tests.harness.faults import TRACKED, tracking_proxy
from tests.harness.process import wait_until
from tests.harness.servers import Server, valkey
from tests.harness.wire import Wire

KINDS = ["valkey", pytest.param("redis7", marks=[pytest.mark.redis, pytest.mark.slow])]

LONG: dict[str, str | int | float] = {"cache.max_staleness": "5s"}
NAMES = [f"k{number}" for number in range(20)]
WIDE = [f"wide{number}" for number in range(400)]

REFUSED: dict[str, tuple[str, ...]] = {
    "a bare GET": ("GET",),
    "GET of two keys": ("GET", "k0", "k1"),
    "a bare DEL": ("DEL",),
    "MSET without a value": ("MSET", "k0"),
    "SET of a wrong form": ("SET",),
    "an unknown subcommand": ("OBJECT", "NONSENSE", "k0"),
    "an unknown subcommand of ACL": ("ACL", "NONSENSE"),
    "FLUSHALL of a wrong form": ("FLUSHALL", "NONSENSE"),
    "FLUSHDB of a wrong form": ("FLUSHDB", "SYNC", "ASYNC"),
    "SWAPDB of a wrong form": ("SWAPDB", "0"),
    "SWAPDB of databases there are not": ("SWAPDB", "0", "99999"),
    "ACL SETUSER of a wrong form": ("ACL", "SETUSER", "bob", "+nonsense"),
}
HARMLESS: dict[str, tuple[str, ...]] = {
    "ACL WHOAMI": ("ACL", "WHOAMI"),
    "ACL LIST": ("ACL", "LIST"),
    "EXISTS of many keys": ("EXISTS", *WIDE),
    "DEL of many keys": ("DEL", *WIDE),
    "UNLINK of many keys": ("UNLINK", *WIDE),
    "MGET of many keys": ("MGET", *WIDE),
    "MSET of many keys": ("MSET", *[word for key in WIDE for word in (key, "v")]),
    "TOUCH of many keys": ("TOUCH", *WIDE),
}


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of each kind."""
    with BINARIES[request.param]() as server:
        yield server


@pytest.fixture(scope="module")
def cached(server: Server) -> Iterator[Cached]:
    """A sidecar with some keys in its near cache, and a user who may only look at others."""
    with Cached(server, LONG) as cached:
        cached.direct.cmd("ACL", "SETUSER", "bob", "on", ">bob", "~*", "-@all", "+ping", "+client")
        for name in NAMES:
            cached.direct.cmd("SET", name, name)
        yield cached


@pytest.fixture(autouse=True)
def warm(cached: Cached) -> None:
    """They are all there."""
    for name in NAMES:
        cached.warm("GET", name)


def missed(cached: Cached) -> int:
    """Reads of the keys that the server had to answer."""
    before = cached.calls("get")
    for name in NAMES:
        assert cached.other.cmd("GET", name) == f"${len(name)}\r\n{name}\r\n".encode()
    return cached.calls("get") - before


@pytest.mark.one_worker("each worker has a near cache of its own")
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_touches_nothing(cached: Cached, name: str) -> None:
    reply = cached.near.cmd(*REFUSED[name])
    assert reply.startswith(b"-")
    assert reply == cached.direct.cmd(*REFUSED[name])
    assert missed(cached) == 0


@pytest.mark.one_worker("each worker has a near cache of its own")
@pytest.mark.parametrize("name", HARMLESS)
def test_what_names_others_touches_nothing(cached: Cached, name: str) -> None:
    assert not cached.near.cmd(*HARMLESS[name]).startswith(b"-")
    assert missed(cached) == 0


@pytest.mark.one_worker("each worker has a near cache of its own")
@pytest.mark.parametrize(
    "words",
    [("FLUSHALL",), ("FLUSHDB",), ("SWAPDB", "0", "1"), ("ACL", "SETUSER", "ann", "on")],
    ids=" ".join,
)
def test_who_may_not_flush_does_not_empty_the_cache(cached: Cached, words: tuple[str, ...]) -> None:
    bob = cached.open()
    assert bob.cmd("AUTH", "bob", "bob") == b"+OK\r\n"
    assert bob.cmd(*words).startswith(b"-NOPERM")
    assert missed(cached) == 0
    replies = bob.pipeline([("PING",), words, ("PING",)])
    assert replies[1].startswith(b"-NOPERM")
    assert missed(cached) == 0


@pytest.mark.one_worker("each worker has a near cache of its own")
def test_what_is_not_refused_empties_it(cached: Cached) -> None:
    """In a pipeline too, and inside of a transaction; in that transaction the reply to FLUSHALL is
    QUEUED."""
    for requests in (
        [("FLUSHALL",), ("GET", "k0")],
        [("MULTI",), ("FLUSHALL",), ("EXEC",), ("GET", "k0")],
        [("MULTI",), ("FLUSHALL",), ("GET", "k1"), ("EXEC",), ("GET", "k0")],
    ):
        assert cached.near.pipeline(requests)[-1] == b"$-1\r\n", requests
        for name in NAMES:
            assert cached.other.cmd("GET", name) == b"$-1\r\n"
            cached.direct.cmd("SET", name, name)
        for name in NAMES:
            cached.warm("GET", name)
    assert cached.near.cmd("ACL", "SETUSER", "ann", "on") == b"+OK\r\n"
    assert missed(cached) == len(NAMES)


@pytest.mark.one_worker("each worker has a near cache of its own")
def test_a_flush_that_is_discarded_or_refused_in_a_transaction(cached: Cached) -> None:
    bob = cached.open()
    assert bob.cmd("AUTH", "bob", "bob") == b"+OK\r\n"
    assert cached.direct.cmd("ACL", "SETUSER", "bob", "+multi", "+exec") == b"+OK\r\n"
    assert bob.pipeline([("MULTI",), ("FLUSHALL",), ("EXEC",)])[-1].startswith(b"-EXECABORT")
    assert missed(cached) == 0


@pytest.mark.one_worker("each worker has a near cache of its own")
@pytest.mark.parametrize("count", [65, 255, 400])
def test_each_of_many_keys_is_dropped(cached: Cached, count: int) -> None:
    """Those that the command names, and no others."""
    keys = WIDE[:count]
    cached.direct.cmd("MSET", *[word for key in WIDE for word in (key, "v")])
    for key in WIDE[:count:50]:
        cached.warm("GET", key)
    cached.warm("GET", WIDE[count - 1])
    assert cached.near.cmd("DEL", *keys) == b":%d\r\n" % count
    for key in keys:
        assert cached.other.cmd("GET", key) == b"$-1\r\n"
    assert missed(cached) == 0


@pytest.mark.parametrize("count", [128, 129, 400])
def test_an_mget_of_many_keys_is_answered(cached: Cached, count: int) -> None:
    keys = WIDE[:count]
    cached.direct.cmd("MSET", *[word for key in keys for word in (key, key * 3)])
    expected = cached.direct.cmd("MGET", *keys)
    assert cached.warm("MGET", *keys) == expected
    cached.direct.cmd("SET", keys[-1], "new")
    wait_until(
        lambda: cached.near.cmd("MGET", *keys) == cached.direct.cmd("MGET", *keys), "the new value"
    )


# Values that are too large.

LARGE = "x" * 3_000_000


def test_what_is_too_large_is_read_once(cached: Cached) -> None:
    """Once by each who asks, that is, and by the cache only until it knows."""
    cached.direct.cmd("SET", "large", LARGE)
    cached.direct.cmd("HSET", "large hash", "f", LARGE)
    for command in (("GET", "large"), ("HGETALL", "large hash"), ("HGET", "large hash", "f")):
        expected = cached.direct.cmd(*command)
        assert cached.near.cmd(*command) == expected
        for _ in range(5):
            assert cached.seen(cached.near, *command) == (expected, 1)
    assert cached.seen(cached.near, "MGET", "k0", "large")[1] == 1
    assert cached.seen(cached.near, "STRLEN", "large")[0] == b":%d\r\n" % len(LARGE)


@pytest.mark.parametrize("through", ["near", "direct"])
def test_that_it_is_too_large_is_forgotten(cached: Cached, through: str) -> None:
    cached.direct.cmd("SET", "large", LARGE)
    for _ in range(2):
        cached.near.cmd("GET", "large")
    writer: Wire = getattr(cached, through)
    writer.cmd("SET", "large", "small")
    wait_until(lambda: cached.near.cmd("GET", "large") == b"$5\r\nsmall\r\n", "the new value")
    assert cached.warm("GET", "large") == b"$5\r\nsmall\r\n"


def peak(server: Server, mode: str) -> int:
    """How much a sidecar grows when a client asks for 200 MiB and does not read them."""
    with Cached(server, {**LONG, "cache.mode": mode}) as cached:
        for _ in range(3):
            assert cached.near.cmd("GET", "other") == b"$-1\r\n"
        before = cached.sidecar.rss()
        executed = cached.calls("get")
        with Wire(cached.sidecar.port) as client:
            client.send_command("GET", "huge")
            wait_until(lambda: cached.calls("get") > executed, "the huge value is read")
            top = before
            end = time.monotonic() + 1.5
            while time.monotonic() < end:
                assert cached.near.cmd("GET", "other") == b"$-1\r\n"
                top = max(top, cached.sidecar.rss())
    return top - before


def test_what_is_too_large_is_not_kept() -> None:
    """With a near cache a reply of 200 MiB takes no more memory than without."""
    with valkey() as server, Wire(server.port) as direct:
        assert direct.cmd("SETRANGE", "huge", 200 * 2**20, "x").startswith(b":")
        assert peak(server, "rules") < peak(server, "off") + 16 * 2**20


def test_nobody_waits_behind_what_is_too_large(server: Server) -> None:
    """The tracked link stands still in the middle of a large reply: cached reads and new ones go
    past it, and it is used again when it goes on."""
    with tracking_proxy(server.port) as network, Cached(server, upstream=network.url) as cached:
        cached.direct.cmd("MSET", "large", LARGE, "small", "s", "new", "n")
        cached.warm("GET", "small")
        network.group(TRACKED).to_client.rate = 100_000  # bytes a second
        with Wire(cached.sidecar.port) as client:
            client.send_command("GET", "large")
            assert len(client.read_reply()) > len(LARGE)
        slowest = 0.0
        for _ in range(50):
            for key, value in (("small", "s"), ("new", "n")):
                begin = time.monotonic()
                assert cached.near.cmd("GET", key) == b"$1\r\n%b\r\n" % value.encode()
                slowest = max(slowest, time.monotonic() - begin)
        assert slowest < 0.2
        network.heal()
        assert cached.warm("GET", "small") == b"$1\r\ns\r\n"


@pytest.mark.one_worker("each worker has a near cache of its own")
def test_more_databases_than_there_are_spaces() -> None:
    """Those that nobody uses any more make room."""
    with valkey({"databases": 1100}) as server, Cached(server) as cached:
        client = cached.open()
        for number in range(1, 1060):
            assert client.cmd("SELECT", number) == b"+OK\r\n"
        client.cmd("SET", "k", "value")
        assert cached.warm("GET", "k", wire=client) == b"$5\r\nvalue\r\n"
        client.cmd("SELECT", 5)
        assert cached.warm("GET", "k", wire=client) == b"$-1\r\n"
        assert cached.warm("GET", "k") == b"$-1\r\n"
