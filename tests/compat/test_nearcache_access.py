"""The near cache and users: nobody gets what another one's connection has read."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.harness.cached import MAX_STALENESS, Cached
from tests.harness.farm import BINARIES
from tests.harness.process import wait_until
from tests.harness.servers import Server
from tests.harness.wire import ClosedError, Wire, pack

KINDS = ["valkey", pytest.param("redis7", marks=pytest.mark.redis)]


VALUE = b"$5\r\nvalue\r\n"

USERS = {
    "reader": "~* &* +@all",
    "ours": "~ours:* &* +@all",
    "blind": "~* &* +@all -get",
    "modest": "~* +get +set +hello +client|setname +ping",
    "partly": "~* +get +set +hello +client +ping",
    "leaver": "~* &* +@all",
    "expelled": "~* &* +@all",
}


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that wants a password."""
    with BINARIES[request.param]({"requirepass": "secret"}) as server:
        yield server


@pytest.fixture(scope="module")
def shared(server: Server) -> Iterator[Cached]:
    """A sidecar that has no password of its own: every client brings one."""
    with Cached(server) as cached:
        for wire in (cached.direct, cached.near, cached.other):
            assert wire.cmd("AUTH", "secret") == b"+OK\r\n"
        yield cached


@pytest.fixture
def cached(shared: Cached) -> Iterator[Cached]:
    """The same with its users, `k` and `ours:k` cached for the default user."""
    shared.near.cmd("FLUSHALL")
    for name, rights in USERS.items():
        words = ("ACL", "SETUSER", name, "reset", "on", f">{name}", *rights.split())
        assert shared.direct.cmd(*words) == b"+OK\r\n"
    for key in ("k", "ours:k"):
        shared.near.cmd("SET", key, "value")
        assert shared.warm("GET", key) == VALUE
    yield shared
    shared.part()


def login(cached: Cached, name: str) -> Wire:
    """A client that is this user."""
    wire = cached.open()
    assert wire.cmd("AUTH", name, name) == b"+OK\r\n"
    return wire


def test_who_has_not_logged_in_gets_nothing(cached: Cached) -> None:
    stranger = cached.open()
    for _ in range(5):
        assert stranger.cmd("GET", "k").startswith(b"-NOAUTH")
        assert stranger.cmd("MGET", "k").startswith(b"-NOAUTH")
        assert stranger.cmd("AUTH", "wrong").startswith(b"-WRONGPASS")
        assert stranger.cmd("AUTH", "default", "wrong").startswith(b"-WRONGPASS")
    assert stranger.cmd("AUTH", "secret") == b"+OK\r\n"
    assert stranger.cmd("GET", "k") == VALUE


@pytest.mark.one_worker("each worker has a near cache of its own")
def test_the_first_of_a_user_asks_the_server(cached: Cached) -> None:
    reader = login(cached, "reader")
    assert cached.seen(reader, "GET", "k")[1] > 0
    assert cached.warm("GET", "k", wire=reader) == VALUE
    reader.cmd("SET", "k", "other")
    assert cached.near.cmd("GET", "k") == b"$5\r\nother\r\n"


def test_after_reset_a_client_is_nobody(cached: Cached) -> None:
    reader = login(cached, "reader")
    cached.warm("GET", "k", wire=reader)
    assert reader.cmd("RESET") == b"+RESET\r\n"
    assert reader.cmd("GET", "k").startswith(b"-NOAUTH")


@pytest.mark.parametrize(("user", "key"), [("blind", "k"), ("ours", "k")])
def test_no_permission_for_what_another_has_cached(cached: Cached, user: str, key: str) -> None:
    client = login(cached, user)
    for _ in range(10):
        assert client.cmd("GET", key).startswith(b"-NOPERM")
        assert client.cmd("MGET", key).startswith(b"-NOPERM") == (user == "ours")
        assert cached.near.cmd("GET", key) == VALUE


def test_a_forbidden_key_costs_the_user_no_other(cached: Cached) -> None:
    """One refused read is no reason to give up what may be read."""
    client = login(cached, "ours")
    cached.warm("GET", "ours:k", wire=client)
    cached.sidecar.mark()
    for _ in range(5):
        assert client.cmd("GET", "k").startswith(b"-NOPERM")
        assert cached.seen(client, "GET", "ours:k") == (VALUE, 0)
    assert "near cache emptied" not in cached.sidecar.news()


@pytest.mark.parametrize("user", ["modest", "partly"])
def test_a_user_who_may_not_do_what_the_cache_needs(cached: Cached, user: str) -> None:
    """CLIENT TRACKING or PTTL: served by the server, and the sidecar doesn't try anew each time."""
    client = login(cached, user)
    assert client.cmd("GET", "k") == VALUE
    before = cached.calls("hello")
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        assert client.cmd("GET", "k") == VALUE
    assert cached.calls("hello") - before < 12, "connected again and again"


def test_a_user_who_may_not_ping_does_not_have_the_cache_connect_all_the_time(
    cached: Cached,
) -> None:
    """Its link is of no use, and comes back in pauses that grow."""
    words = ("reset", "on", ">mute", "~*", "&*", "+@all", "-ping")
    assert cached.direct.cmd("ACL", "SETUSER", "mute", *words) == b"+OK\r\n"

    def connections() -> int:
        info = cached.direct.cmd("INFO", "stats")
        return int(info.partition(b"total_connections_received:")[2].split()[0])

    with login(cached, "mute") as mute:
        before, until = connections(), time.monotonic() + 1.5
        while time.monotonic() < until:
            assert mute.cmd("GET", "k") == VALUE
        assert connections() - before < 40


@pytest.mark.one_worker("each worker has a near cache of its own")
@pytest.mark.parametrize("elsewhere", [False, True], ids=["own", "pinned"])
def test_permissions_changed_through_the_sidecar(cached: Cached, elsewhere: bool) -> None:
    client = login(cached, "reader")
    cached.warm("GET", "k", wire=client)
    boss = cached.open(3)
    boss.cmd("HELLO", 3, "AUTH", "default", "secret")
    if elsewhere:
        boss.cmd("CLIENT", "TRACKING", "ON")
    assert boss.cmd("ACL", "SETUSER", "reader", "-get") == b"+OK\r\n"
    for _ in range(10):
        assert client.cmd("GET", "k").startswith(b"-NOPERM")


@pytest.mark.parametrize(
    "words", ["SET k x", "LPUSH k x", "INCR k", "MSET ours:k x k x", "EVAL return(1) 1 k"]
)
def test_a_write_that_is_refused_changes_nothing(cached: Cached, words: str) -> None:
    """It drops the values of its keys, as one that is executed does; they are cached again."""
    other = login(cached, "ours")
    assert other.cmd(*words.split())[:1] == b"-"
    for key in ("k", "ours:k"):
        assert cached.near.cmd("GET", key) == VALUE
        assert cached.warm("GET", key) == VALUE


@pytest.mark.one_worker("each worker has a near cache of its own")
def test_a_user_deleted_through_the_sidecar(cached: Cached) -> None:
    """The server closes the user's connections; the sidecar's clients of that user get no data."""
    client = login(cached, "leaver")
    cached.warm("GET", "k", wire=client)
    assert cached.near.cmd("ACL", "DELUSER", "leaver") == b":1\r\n"
    try:
        got = client.cmd("GET", "k")
    except (AssertionError, OSError):
        got = b""
    assert got[:1] in (b"", b"-")


def test_a_user_deleted_at_the_server(cached: Cached) -> None:
    """Its connections are closed, the near cache's among them."""
    client = login(cached, "expelled")
    cached.warm("GET", "k", wire=client)
    assert cached.direct.cmd("ACL", "DELUSER", "expelled") == b":1\r\n"
    begin = last = now = time.monotonic()
    try:
        while client.cmd("GET", "k") == VALUE:
            last, now = now, time.monotonic()
            if now - begin > 5:
                pytest.fail("still served")
    except (ClosedError, OSError):
        pass  # the connection is closed; what is not the value ends the loop
    assert last - begin <= MAX_STALENESS


@pytest.mark.one_worker("each worker has a near cache of its own")
def test_each_user_has_a_connection(cached: Cached) -> None:
    clients = [login(cached, name) for name in ("reader", "reader", "ours")]
    for client in clients:
        cached.warm("GET", "ours:k", wire=client)
    users = [row["user"] for row in cached.tracked()]
    assert (users.count("reader"), users.count("ours")) == (1, 1)
    hidden = cached.near.cmd("CLIENT", "LIST")
    assert b"flags=t" not in hidden


@pytest.mark.one_worker("each worker has a near cache of its own")
def test_a_transaction_as_another_user(cached: Cached) -> None:
    """What a dedicated link does counts for all users' values."""
    reader = login(cached, "reader")
    cached.warm("GET", "k", wire=reader)
    cached.near.send(pack("MULTI") + pack("SET", "k", "other"))
    cached.near.read_replies(2)
    assert cached.near.cmd("EXEC") == b"*1\r\n+OK\r\n"
    assert reader.cmd("GET", "k") == b"$5\r\nother\r\n"


def test_values_return_after_a_refusal_is_lifted(cached: Cached) -> None:
    client = login(cached, "blind")
    assert client.cmd("GET", "k").startswith(b"-NOPERM")
    cached.near.cmd("ACL", "SETUSER", "blind", "+get")
    wait_until(lambda: client.cmd("GET", "k") == VALUE, "the value")
    assert cached.warm("GET", "k", wire=client) == VALUE
