"""Every way round the sidecar's judgement of logins: none leads to a server without one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.cluster_kinds import KINDS
from tests.harness.cluster import Cluster
from tests.harness.identities import entry, judging, users
from tests.harness.servers import Server, Sidecar, valkey
from tests.harness.wire import Wire, pack

WRONG = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
NOAUTH = b"-NOAUTH Authentication required.\r\n"
OK = b"+OK\r\n"
FILE = (
    entry("shop", "shop-pw", user="shop-user", password="shop-user-upstream")
    + entry("jobs", "jobs-pw", user="jobs-user", password="jobs-user-upstream")
    + entry("plain", "plain-pw")
)


# Users of the server that no identity is mapped to: a new one for each try, since wrong logins of
# one name slow down.
TRIES = 200
numbers = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server with the upstream's users, with others, and with some that have no password."""
    with valkey() as server:
        users(server, "shop-user", "jobs-user", *(f"direct{n}" for n in range(TRIES)))
        with Wire(server.port) as wire:
            for n in range(TRIES):
                assert wire.cmd("ACL", "SETUSER", f"open{n}", "on", "nopass", "~*", "+@all") == OK
        yield server


SETUPS = {
    "plain": {},
    "two workers": {"workers": "2"},
    "session pooling": {"upstream__pooling": "session", "cache__mode": "off"},
    "cache": {"cache__mode": "rules", "cache__rules": "*"},
    "small buffer": {"limits__request_buffer": "1KiB"},
}


@pytest.fixture(scope="module", params=SETUPS, ids=lambda name: name.replace(" ", "-"))
def sidecar(
    request: pytest.FixtureRequest, server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sidecar]:
    """A sidecar that judges logins, set up in each way."""
    file = tmp_path_factory.mktemp("identities") / "identities.toml"
    with Sidecar(server.url, settings=judging(file, FILE, **SETUPS[request.param])) as sidecar:
        yield sidecar


@pytest.fixture
def wire(sidecar: Sidecar) -> Iterator[Wire]:
    with Wire(sidecar.port) as wire:
        yield wire


def who(wire: Wire) -> bytes:
    return wire.cmd("ACL", "WHOAMI").split(b"\r\n")[1]


@pytest.mark.parametrize("name", ["shop", "jobs", "plain"])
def test_each_identity(sidecar: Sidecar, name: str) -> None:
    user = b"default" if name == "plain" else f"{name}-user".encode()
    with Wire(sidecar.port) as wire:
        assert wire.cmd("AUTH", name, f"{name}-pw") == OK
        assert who(wire) == user
    with Wire(sidecar.port) as wire:
        assert b"proto" in wire.cmd("HELLO", 3, "AUTH", name, f"{name}-pw", "SETNAME", "me")
        assert who(wire) == user
        assert wire.cmd("CLIENT", "GETNAME") == b"$2\r\nme\r\n"


LOGINS = (
    "AUTH direct{n} direct{n}-upstream",
    "AUTH open{n} anything",
    "HELLO 3 AUTH direct{n} direct{n}-upstream",
    "HELLO 03 AUTH open{n} x",
    "HELLO 3 SETNAME a\tb AUTH open{n} x",
    "HELLO 3 AUTH shop shop-pw AUTH open{n} x",
)
STATES = {
    "stranger": (),
    "shop": ("AUTH shop shop-pw",),
    "MULTI": ("AUTH shop shop-pw", "MULTI"),
    "WATCH": ("AUTH shop shop-pw", "WATCH k"),
    "SUBSCRIBE": ("HELLO 3 AUTH shop shop-pw", "SUBSCRIBE c"),
    "TRACKING": ("HELLO 3 AUTH shop shop-pw", "CLIENT TRACKING on"),
}


@pytest.mark.parametrize("before", STATES)
def test_the_servers_own_users_are_nobody_here(sidecar: Sidecar, before: str) -> None:
    """Their passwords are the sidecar's business; some need none."""
    for login in LOGINS:
        with Wire(sidecar.port) as wire:
            for line in STATES[before]:
                assert not wire.cmd(*line.split()).startswith(b"-")
            reply = wire.cmd(*login.format(n=next(numbers) % TRIES).split(" "))
            if reply == b"+QUEUED\r\n":
                reply = wire.cmd("EXEC").partition(b"\r\n")[2]
            assert reply.startswith(b"-"), (login, reply)
            if before == "stranger":
                assert wire.cmd("ACL", "WHOAMI") == NOAUTH
            else:
                wire.cmd("DISCARD")
                assert who(wire) == b"shop-user"


def test_an_inline_login(wire: Wire) -> None:
    wire.send(b"AUTH open0 x\r\nPING\r\nAUTH shop shop-pw\r\nACL WHOAMI\r\n")
    assert wire.read_replies(4) == [WRONG, NOAUTH, OK, b"$9\r\nshop-user\r\n"]


@pytest.mark.parametrize("before", ["stranger", "shop", "WATCH", "MULTI", "SUBSCRIBE"])
def test_a_login_too_large_to_be_kept(sidecar: Sidecar, before: str) -> None:
    """It is streamed nowhere: the connection ends."""
    with Wire(sidecar.port) as wire:
        if before != "stranger":
            wire.cmd("AUTH", "shop", "shop-pw")
        if before in ("MULTI", "WATCH", "SUBSCRIBE"):
            wire.cmd(before, *({"WATCH": "k", "SUBSCRIBE": "c"}.get(before, "")))
        wire.send(pack("AUTH", "open0", "x" * 300_000))
        assert b"+OK" not in wire.read_to_end()


@pytest.mark.parametrize(
    "line",
    ["GET k", "SUBSCRIBE c", "MULTI", "WATCH k", "MONITOR", "BLPOP q 0", "EVAL return(1) 0",
     "CLIENT LIST", "CLIENT ID", "CLIENT NO-EVICT on", "SELECT 1", "NOSUCH x", "DEBUG sleep 0",
     "WAIT 0 0", "SCRIPT KILL", "FUNCTION STATS", "SYNC", "PING", "INFO", "XREAD STREAMS s 0"],
)  # fmt: skip
def test_strangers_get_nothing(wire: Wire, line: str) -> None:
    for _ in range(2):
        assert wire.cmd(*line.split()) == NOAUTH
    assert wire.cmd("RESET") == b"+RESET\r\n"
    assert wire.cmd("PING") == NOAUTH


def test_strangers_in_a_pipeline(wire: Wire) -> None:
    wire.send(
        pack("MULTI") + pack("SET", "k", "v") + pack("EXEC") + pack("AUTH", "shop", "shop-pw")
        + pack("MULTI") + pack("GET", "stranger") + pack("EXEC") + pack("RESET") + pack("GET", "k")
    )  # fmt: skip
    assert wire.read_replies(9) == [
        NOAUTH, NOAUTH, NOAUTH, OK, OK, b"+QUEUED\r\n", b"*1\r\n$-1\r\n", b"+RESET\r\n", NOAUTH,
    ]  # fmt: skip


def test_reset_ends_a_login(wire: Wire) -> None:
    wire.cmd("AUTH", "shop", "shop-pw")
    wire.cmd("SUBSCRIBE", "c")
    assert wire.cmd("RESET") == b"+RESET\r\n"
    assert wire.cmd("GET", "k") == NOAUTH
    assert wire.cmd("AUTH", "jobs", "jobs-pw") == OK
    assert who(wire) == b"jobs-user"


def test_a_login_again_where_the_server_has_state(wire: Wire) -> None:
    """As who the client is, anywhere; what the server has of it stays."""
    wire.cmd("AUTH", "shop", "shop-pw")
    wire.cmd("WATCH", "k")
    assert wire.cmd("AUTH", "shop", "shop-pw") == OK
    assert wire.cmd("AUTH", "shop", "wrong") == WRONG
    assert wire.cmd("MULTI") == OK
    assert wire.cmd("AUTH", "shop", "shop-pw") == b"+QUEUED\r\n"
    assert wire.cmd("GET", "none") == b"+QUEUED\r\n"
    assert wire.cmd("EXEC") == b"*2\r\n+OK\r\n$-1\r\n"
    wire.cmd("HELLO", 3)
    wire.cmd("SUBSCRIBE", "c")
    assert wire.cmd("AUTH", "shop", "shop-pw") == OK
    assert wire.cmd("AUTH", "shop", "wrong") == WRONG
    assert who(wire) == b"shop-user"


def test_another_login_where_the_server_has_state(wire: Wire) -> None:
    """The link goes on as the other user, as the server's own connection would; not in MULTI."""
    wire.cmd("AUTH", "shop", "shop-pw")
    wire.cmd("WATCH", "k")
    assert wire.cmd("AUTH", "jobs", "jobs-pw") == OK
    assert who(wire) == b"jobs-user"
    wire.cmd("HELLO", 3)
    wire.cmd("SUBSCRIBE", "c")
    assert wire.cmd("AUTH", "shop", "shop-pw") == OK
    assert who(wire) == b"shop-user"


def test_another_login_in_a_transaction(sidecar: Sidecar, wire: Wire) -> None:
    """It is refused, but with session pooling, where nobody knows of the transaction."""
    pooled = "upstream.pooling" in sidecar.settings
    wire.cmd("AUTH", "shop", "shop-pw")
    wire.cmd("MULTI")
    assert wire.cmd("AUTH", "jobs", "jobs-pw") == b"+QUEUED\r\n"
    assert wire.cmd("EXEC") == b"*1\r\n" + (OK if pooled else WRONG)
    assert who(wire) == (b"jobs-user" if pooled else b"shop-user")


def test_the_cache_tells_a_stranger_nothing(sidecar: Sidecar) -> None:
    with Wire(sidecar.port) as known, Wire(sidecar.port) as stranger:
        known.cmd("AUTH", "plain", "plain-pw")
        known.cmd("SET", "cached", "secret")
        for _ in range(50):
            assert known.cmd("GET", "cached") == b"$6\r\nsecret\r\n"
            assert stranger.cmd("GET", "cached") == NOAUTH


# -- a cluster


@pytest.fixture(scope="module", params=KINDS)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with Cluster(request.param, shards=3) as cluster:
        for shard in range(3):
            users(cluster.shard(shard).primary, "shop-user", "jobs-user")
        yield cluster


def test_on_a_cluster(cluster: Cluster, tmp_path: Path) -> None:
    settings = judging(tmp_path / "identities.toml", FILE)
    with Sidecar(cluster.url, settings=settings) as sidecar, Wire(sidecar.port) as wire:
        names = [f"k{n}" for n in range(30)]
        for line in ("GET k1", "MGET a b c", "DBSIZE", "SCAN 0", "SUBSCRIBE c", "MULTI", "KEYS *"):
            assert wire.cmd(*line.split()) == NOAUTH
        assert wire.cmd("AUTH", "shop", "shop-pw") == OK
        assert wire.pipeline([("SET", name, name) for name in names]) == [OK] * len(names)
        assert who(wire) == b"shop-user"
        assert wire.cmd("RESET") == b"+RESET\r\n"
        assert {wire.cmd("GET", name) for name in names} == {NOAUTH}
        assert wire.cmd("AUTH", "jobs", "jobs-pw") == OK
        assert [wire.call("GET", name) for name in names] == names
