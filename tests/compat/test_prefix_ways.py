"""Two tenants with key prefixes on one server: what each of them sees, by whatever way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.harness.failover import times_logged
from tests.harness.identities import entry, judging, users
from tests.harness.process import wait_until
from tests.harness.resp import pack, pack_all
from tests.harness.servers import Server, Sidecar, valkey
from tests.harness.wire import Wire, call

OK = b"+OK\r\n"
TENANTS = ("shop", "jobs")


def file_of(**prefixes: str) -> str:
    """A file with these tenants, each with an identity of the same name."""
    return "".join(
        entry(name, "pw", tenant=name)
        + f'[tenants.{name}]\npassword = "{name}-upstream"\nprefix = "{prefix}"\n'
        for name, prefix in prefixes.items()
    )


FILE = file_of(shop="shop:", jobs="jobs:") + entry("nobody", "pw")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with valkey() as server:
        users(server, *TENANTS, rules="~NAME:* &* +@all")
        yield server


@pytest.fixture(scope="module", params=["shared", "session"])
def sidecar(
    request: pytest.FixtureRequest, server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sidecar]:
    file = tmp_path_factory.mktemp("prefix") / "identities.toml"
    settings = judging(file, FILE, upstream__pooling=request.param)
    if request.param == "shared":
        settings |= {"cache.mode": "rules", "cache.rules": '["*"]'}
    with Sidecar(server.url, settings=settings) as sidecar:
        yield sidecar


@pytest.fixture(autouse=True)
def empty(server: Server) -> None:
    call(server.port, "FLUSHALL")


@pytest.fixture
def shop(sidecar: Sidecar) -> Iterator[Wire]:
    with logged_in(sidecar, "shop") as wire:
        yield wire


@pytest.fixture
def jobs(sidecar: Sidecar) -> Iterator[Wire]:
    with logged_in(sidecar, "jobs") as wire:
        yield wire


def logged_in(sidecar: Sidecar, name: str, protocol: int = 2) -> Wire:
    wire = Wire(sidecar.port)
    if protocol == 3:
        assert wire.cmd("HELLO", "3", "AUTH", name, "pw")[:1] == b"%"
    else:
        assert wire.cmd("AUTH", name, "pw") == OK
    return wire


def names_at(server: Server) -> set[str]:
    return set(call(server.port, "KEYS", "*"))


def test_the_same_names_are_other_keys(server: Server, shop: Wire, jobs: Wire) -> None:
    assert shop.cmd("SET", "k", "1") == jobs.cmd("SET", "k", "2") == OK
    for _ in range(3):  # the near cache answers too
        assert shop.ask("GET", "k") == "1"
        assert jobs.ask("GET", "k") == "2"
    assert names_at(server) == {"shop:k", "jobs:k"}
    assert shop.ask("DEL", "k") == 1
    assert jobs.ask("GET", "k") == "2"


def test_nothing_of_the_other_is_listed(shop: Wire, jobs: Wire) -> None:
    jobs.cmd("MSET", *(word for n in range(500) for word in (f"j{n}", "x")))
    assert shop.ask("KEYS", "*") == []
    assert shop.ask("RANDOMKEY") is None
    shop.cmd("SET", "mine", "x")
    assert shop.ask("KEYS", "*") == ["mine"]
    assert shop.ask("RANDOMKEY") == "mine"
    found, cursor = [], "0"
    while cursor != "0" or not found:
        cursor, names = shop.ask("SCAN", cursor, "COUNT", "100")
        found += names
    assert found == ["mine"]
    assert shop.ask("KEYS", "jobs:*") == shop.ask("KEYS", "*:*") == []
    assert shop.ask("EXISTS", "j1", "jobs:j1") == 0


def test_what_is_pipelined_behind_a_random_key(shop: Wire, jobs: Wire) -> None:
    """In its order, though the random key takes several scans."""
    jobs.cmd("MSET", *(word for n in range(5000) for word in (f"j{n}", "x")))
    shop.cmd("SET", "mine", "x")
    requests = [("GET", "mine"), ("RANDOMKEY",), ("GET", "mine"), ("RANDOMKEY",), ("KEYS", "*")]
    replies = shop.pipeline(requests * 20)
    value, name = b"$1\r\nx\r\n", b"$4\r\nmine\r\n"
    assert replies == [value, name, value, name, b"*1\r\n" + name] * 20


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_login_with_requests_behind_it(server: Server, sidecar: Sidecar, protocol: int) -> None:
    """They get the prefix of who logs in, in one write with it."""
    login = ("HELLO", "3", "AUTH") if protocol == 3 else ("AUTH",)
    requests = [
        (*login, "shop", "pw"), ("SET", "k", "1"), (*login, "jobs", "pw"), ("SET", "k", "2"),
        (*login, "shop", "wrong"), ("SET", "l", "3"), ("KEYS", "*"), (*login, "shop", "pw"),
        ("GET", "k"),
    ]  # fmt: skip
    with Wire(sidecar.port) as wire:
        wire.send(pack_all(requests))
        replies = wire.read_replies(len(requests))
    assert replies[1] == replies[3] == replies[5] == OK
    assert replies[4].startswith(b"-WRONGPASS")
    assert replies[6] in (b"*2\r\n$1\r\nk\r\n$1\r\nl\r\n", b"*2\r\n$1\r\nl\r\n$1\r\nk\r\n")
    assert replies[8] == b"$1\r\n1\r\n"
    assert names_at(server) == {"shop:k", "jobs:k", "jobs:l"}


@pytest.mark.parametrize("before", [[], [("RESET",)], [("SUBSCRIBE", "c"), ("RESET",)]])
def test_who_hangs_up_behind_a_login(
    server: Server, sidecar: Sidecar, before: list[tuple[str, ...]]
) -> None:
    """What has been sent is executed and answered, and nothing ends but its connection."""
    for protocol in (2, 3):
        with logged_in(sidecar, "shop", protocol) as wire:
            login = (("HELLO", "3", "AUTH") if protocol == 3 else ("AUTH",)) + ("shop", "pw")
            wire.send(pack_all([*before, login, ("SET", "k", str(protocol)), ("PING", "end")]))
            wire.half_close()
            assert wire.read_to_end().endswith(OK + b"$3\r\nend\r\n")
        assert call(server.port, "GET", "shop:k") == str(protocol)
    with logged_in(sidecar, "jobs") as wire:
        assert wire.call("PING") == "PONG"


def test_reset_and_another_login(server: Server, shop: Wire) -> None:
    """A client that was reset is nobody, until it logs in; what is behind a login is its user's."""
    requests = [("RESET",), ("GET", "k"), ("AUTH", "jobs", "pw"), ("SET", "k", "1"), ("RESET",)]
    requests += [("AUTH", "nobody", "pw"), ("SET", "k", "2"), ("KEYS", "*")]
    replies = shop.pipeline(requests)
    assert replies[:1] + replies[2:5] == [b"+RESET\r\n", OK, OK, b"+RESET\r\n"]
    assert replies[1].startswith(b"-NOAUTH")
    assert replies[5:7] == [OK, OK]
    assert names_at(server) == {"jobs:k", "k"}
    assert b"jobs:k" in replies[7]


def test_a_refused_command_in_a_transaction(shop: Wire) -> None:
    """The transaction is not executed, as when a server refuses one."""
    replies = shop.pipeline([("MULTI",), ("SET", "k", "1"), ("FLUSHALL",), ("EXEC",)])
    assert replies[:2] == [OK, b"+QUEUED\r\n"]
    assert replies[2] == b"-NOPERM the sidecar can't keep 'flushall' within a key prefix\r\n"
    assert replies[3].startswith(b"-EXECABORT")
    assert shop.ask("EXISTS", "k") == 0


def test_names_in_a_transaction(shop: Wire) -> None:
    requests = [("WATCH", "k"), ("MULTI",), ("SET", "k", "1"), ("KEYS", "*"), ("LPOP", "none")]
    requests += [("SCAN", "0"), ("EXEC",)]
    for one in (True, False):
        if one:
            reply = shop.pipeline(requests)[-1]
        else:
            reply = [shop.cmd(*request) for request in requests][-1]
        keys = b"*1\r\n$1\r\nk\r\n"
        assert reply == b"*4\r\n+OK\r\n" + keys + b"$-1\r\n*2\r\n$1\r\n0\r\n" + keys


def test_large_requests(server: Server, shop: Wire) -> None:
    """Beyond what is kept: streamed where the keys are found by their places, else refused."""
    large = "v" * 400_000
    assert shop.cmd("SET", "k", large) == OK
    assert shop.cmd("MSET", "a", large, "b", large) == OK
    assert shop.ask("STRLEN", "b") == len(large)
    assert names_at(server) == {"shop:k", "shop:a", "shop:b"}
    assert shop.ask("GET", "k") == large
    refused = shop.cmd("SORT", "k", "GET", large)
    assert refused == b"-NOPERM 'sort' is too large here for its keys to get a prefix\r\n"
    assert shop.ask("DEL", *(f"{n:010d}" for n in range(30_000)), "a", "b") == 2
    assert names_at(server) == {"shop:k"}


def test_a_protocol_error(server: Server, shop: Wire) -> None:
    """It is told in its turn, and nothing of the request reaches the server."""
    call(server.port, "SET", "foo", "x")
    shop.send(pack("SET", "k", "1") + b"*2\r\n$3\r\nDEL\r\n$3\r\nfooXX")
    assert shop.read_reply() == OK
    assert shop.read_reply() == b"-ERR Protocol error: invalid CRLF in request\r\n"
    shop.expect_eof()
    assert names_at(server) == {"shop:k", "foo"}


@pytest.mark.parametrize("protocol", [2, 3])
def test_messages(sidecar: Sidecar, jobs: Wire, protocol: int) -> None:
    """Each hears its own, and of its own keys."""
    with logged_in(sidecar, "shop", protocol) as heard, logged_in(sidecar, "shop") as shop:
        assert heard.ask("SUBSCRIBE", "c", "d")[:2] == ["subscribe", "c"]
        assert heard.read_value() == ["subscribe", "d", 2]
        assert heard.ask("PSUBSCRIBE", "c*") == ["psubscribe", "c*", 3]
        assert shop.ask("PUBSUB", "CHANNELS") in (["c", "d"], ["d", "c"])
        assert shop.ask("PUBSUB", "NUMSUB", "c") == ["c", 1]
        assert jobs.ask("PUBSUB", "CHANNELS") == []
        assert jobs.ask("PUBLISH", "c", "theirs") == 0
        assert shop.ask("PUBLISH", "c", "ours") == 2
        assert heard.read_value() == ["message", "c", "ours"]
        assert heard.read_value() == ["pmessage", "c*", "c", "ours"]
        if protocol == 3:
            assert heard.ask("KEYS", "*") == []
        heard.send_command("UNSUBSCRIBE")
        assert sorted(heard.read_value()[1] for _ in "cd") == ["c", "d"]
        assert heard.ask("PUNSUBSCRIBE", "c*") == ["punsubscribe", "c*", 0]
        assert heard.ask("PING") == "PONG"


def test_events_of_its_own_keys(server: Server, sidecar: Sidecar, jobs: Wire) -> None:
    call(server.port, "CONFIG", "SET", "notify-keyspace-events", "KEA")
    with logged_in(sidecar, "shop") as heard, logged_in(sidecar, "shop") as shop:
        heard.cmd("PSUBSCRIBE", "__key*__:*")
        heard.cmd("SUBSCRIBE", "__keyspace@0__:k")
        heard.cmd("SUBSCRIBE", "__keyevent@0__:set")
        jobs.cmd("SET", "k", "1")
        shop.cmd("SET", "k", "1")
        found = [heard.read_value() for _ in range(4)]
        assert ["message", "__keyspace@0__:k", "set"] in found
        assert ["message", "__keyevent@0__:set", "k"] in found
        assert ["pmessage", "__key*__:*", "__keyspace@0__:k", "set"] in found
        assert ["pmessage", "__key*__:*", "__keyevent@0__:set", "k"] in found
        jobs.cmd("DEL", "k")
        shop.cmd("DEL", "k")
        assert ["pmessage", "__key*__:*", "__keyevent@0__:del", "k"] in [
            heard.read_value() for _ in range(3)
        ]


def test_tracking(sidecar: Sidecar, jobs: Wire) -> None:
    """A client is told of its own keys by its own names."""
    with logged_in(sidecar, "shop", 3) as tracks, logged_in(sidecar, "shop") as shop:
        assert tracks.cmd("CLIENT", "TRACKING", "ON", "BCAST") == OK
        info = tracks.ask("CLIENT", "TRACKINGINFO")
        assert info["prefixes"] == [""]
        jobs.cmd("SET", "k", "1")
        shop.cmd("SET", "k", "1")
        assert tracks.read_value() == ["invalidate", ["k"]]


def test_blocked_clients(sidecar: Sidecar, jobs: Wire) -> None:
    with logged_in(sidecar, "shop") as waits, logged_in(sidecar, "shop") as shop:
        waits.send_command("BLPOP", "q", "0")
        jobs.cmd("RPUSH", "q", "theirs")
        shop.cmd("RPUSH", "q", "ours")
        assert waits.read_value() == ["q", "ours"]


def test_redis_py(server: Server, sidecar: Sidecar) -> None:
    for protocol in (2, 3):
        with redis.Redis(
            port=sidecar.port,
            username="shop",
            password="pw",
            protocol=protocol,
            decode_responses=True,
        ) as client:
            client.delete("l", "s", "z")
            client.rpush("l", "a", "b")
            assert client.blpop(["none", "l"], timeout=1) is not None
            with client.pipeline() as pipe:
                pipe.watch("l")
                pipe.multi()
                pipe.zadd("z", {"m": 1})
                pipe.keys("z")
                assert pipe.execute() == [1, ["z"]]
            client.xadd("s", {"f": "v"})
            client.xgroup_create("s", "g", id="0")
            found = client.xreadgroup("g", "c", {"s": ">"})
            assert (next(iter(found)) if isinstance(found, dict) else found[0][0]) == "s"
            with pytest.raises(redis.ResponseError, match="No such key 'none'"):
                client.xreadgroup("g", "c", {"none": ">"})
            assert sorted(client.scan_iter()) == ["l", "s", "z"]
            script = client.register_script("return redis.call('get', KEYS[1])")
            assert script(keys=["none"]) is None
            client.unlink("l", "s", "z")
    assert names_at(server) == set()


def test_clients_of_a_changed_prefix_are_closed(server: Server, tmp_path: Path) -> None:
    """Those of others stay."""
    file = tmp_path / "identities.toml"
    with (
        Sidecar(server.url, settings=judging(file, FILE)) as sidecar,
        logged_in(sidecar, "shop") as shop,
        logged_in(sidecar, "jobs") as jobs,
        logged_in(sidecar, "nobody") as nobody,
    ):
        changed = file.with_suffix(".new")
        changed.write_text(FILE.replace('"jobs:"', '"jobs:new:"'))
        changed.replace(file)
        wait_until(lambda: times_logged(sidecar, "identities reloaded") == 1, "another file", 10)
        jobs.expect_eof()
        assert shop.ask("GET", "k") is None
        assert nobody.ask("GET", "k") is None
        with logged_in(sidecar, "jobs") as again:
            again.cmd("SET", "k", "1")
    assert names_at(server) == {"jobs:new:k"}


def test_renamed_commands(server: Server, tmp_path: Path) -> None:
    """In either mode, of an identity or a listener, and what is unknown is told in the server's own
    words."""
    policy = '[policies.named]\nrename = { XKEYS = "KEYS" }\n'
    terminate = judging(tmp_path / "a.toml", entry("shop", "pw", more='policy = "named"') + policy)
    file = tmp_path / "b.toml"
    file.write_text(entry("default", more='policy = "named"') + policy)
    listener = tmp_path / "c.toml"
    listener.write_text(policy)
    of_listener = {"identities.file": str(listener), "listen.policy": "named"}
    unknown = b"-ERR unknown command 'nothing', with args beginning with: 'a' 'b c' \r\n"
    with Wire(server.port) as direct:
        assert direct.cmd("nothing", "a", "b c") == unknown
    for settings in (terminate, {"identities.file": str(file)}, of_listener):
        with Sidecar(server.url, settings=settings) as sidecar, Wire(sidecar.port) as wire:
            if settings is terminate:
                wire.cmd("AUTH", "shop", "pw")
            assert wire.cmd("SET", "k", "1") == OK
            assert wire.ask("xkeys", "k*") == ["k"]
            shown = unknown.replace(b"nothing", b"KEYS").replace(b" 'b c'", b"")
            assert wire.cmd("KEYS", "a") == shown
            assert wire.cmd("nothing", "a", "b c") == unknown
