"""The upstream is switched to another server while clients are at work: real servers, real load."""

from __future__ import annotations

import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.admin import api, post
from tests.harness.certificates import Authority
from tests.harness.counting import Counting
from tests.harness.failover import news
from tests.harness.process import free_port, wait_until
from tests.harness.servers import Server, Sidecar, TlsFiles, redis7, valkey
from tests.harness.wire import Wire


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Server, Server]]:
    with valkey() as first, valkey() as second:
        yield first, second


@pytest.fixture
def two(servers: tuple[Server, Server]) -> tuple[Server, Server]:
    for server in servers:
        ask(server, "FLUSHALL")
        ask(server, "REPLICAOF", "NO", "ONE")
    return servers


def ask(server: Server, *words: str | int) -> bytes:
    """One command on a connection of its own."""
    with Wire(server.address) as wire:
        return wire.cmd(*words)


def beside(server: Server, **settings: str | int | float) -> Sidecar:
    named = {key.replace("__", "."): value for key, value in settings.items()}
    return Sidecar(server.url, admin=f"127.0.0.1:{free_port()}", settings=named)


Tls = dict[str, str] | None


def _body(url: str, tls: Tls) -> dict[str, Any]:
    return {"url": url} if tls is None else {"url": url, "tls": tls}


def switch(sidecar: Sidecar, url: str, dry_run: bool = False, tls: Tls = None) -> Any:
    status, said = post(sidecar, "/api/upstream", {**_body(url, tls), "dry_run": dry_run})
    assert status == 200, said
    return said


def test_ten_times_under_load(two: tuple[Server, Server]) -> None:
    """No error, and every INCR counted once on the sum of both."""
    with beside(two[0]) as sidecar, Counting(sidecar.port) as load:
        for number in range(10):
            there = two[(number + 1) % 2]
            assert switch(sidecar, there.url)["switched"]
            assert api(sidecar, "/api/topology")["master"] == f"127.0.0.1:{there.port}"
            load.more()
        load.stop()
        assert load.errors == Counter()
        assert load.counted(*two) == load.acknowledged


def refused(sidecar: Sidecar, url: str, tls: Tls = None) -> str:
    """Why the switch is refused; everything goes on at the old server."""
    before = api(sidecar, "/api/topology")["master"]
    status, said = post(sidecar, "/api/upstream", _body(url, tls))
    assert status == 409, said
    assert api(sidecar, "/api/topology")["master"] == before
    with Wire(sidecar.port) as wire:
        assert wire.cmd("PING") == b"+PONG\r\n"
    return str(said["error"])


def test_what_cannot_be_gone_to_changes_nothing(two: tuple[Server, Server]) -> None:
    first, second = two
    with beside(first) as sidecar, Counting(sidecar.port) as load:
        assert "connection refused" in refused(sidecar, f"redis://127.0.0.1:{free_port()}")
        user = f"redis://nobody:wrong@127.0.0.1:{second.port}"
        assert "WRONGPASS" in refused(sidecar, user)
        ask(second, "ACL", "SETUSER", "default", "resetpass", ">pw")
        assert "wants a login" in refused(sidecar, second.url)
        dry = {"url": second.url, "dry_run": True}
        assert "wants a login" in post(sidecar, "/api/upstream", dry)[1]["error"]
        with Wire(second.port) as direct:
            assert direct.cmd("AUTH", "pw") == b"+OK\r\n"
            assert direct.cmd("ACL", "SETUSER", "default", "nopass") == b"+OK\r\n"
        ask(second, "REPLICAOF", "127.0.0.1", first.port)
        assert "is not a master" in refused(sidecar, second.url)
        ask(second, "REPLICAOF", "NO", "ONE")
        assert "needs a restart" in refused(sidecar, "embedded://")
        assert "unknown URL scheme" in refused(sidecar, "http://127.0.0.1")
        assert "is not redis+sentinel" not in refused(sidecar, f"unix://{'/no/such.sock'}")
        load.more()
        load.stop()
        assert load.errors == Counter()
        assert load.counted(first) == load.acknowledged


def test_a_dry_run_compares(two: tuple[Server, Server]) -> None:
    first, second = two
    ask(first, "SET", "k", "v")
    ask(second, "CONFIG", "SET", "notify-keyspace-events", "KEA")
    with beside(first) as sidecar:
        said = switch(sidecar, second.url, dry_run=True)
        assert said["switched"] is False
        assert said["before"]["keys"] == {"0": 1}
        assert said["after"]["role"] == "master"
        assert said["after"]["version"]
        assert any("db 0 has 1 keys" in each for each in said["warnings"])
        assert any("notify-keyspace-events" in each for each in said["warnings"])
        with Wire(sidecar.port) as wire:
            assert wire.cmd("GET", "k") == b"$1\r\nv\r\n"
        same = switch(sidecar, first.url, dry_run=True)
        assert same["warnings"] == ["both addresses lead to the same server"]
    ask(second, "CONFIG", "SET", "notify-keyspace-events", "")


def test_two_at_once(two: tuple[Server, Server]) -> None:
    """The second one is refused."""
    first, second = two
    with beside(first) as sidecar, Wire(sidecar.port) as multi:
        multi.cmd("MULTI")  # it keeps the first switch waiting
        one: list[Any] = []
        thread = threading.Thread(target=lambda: one.append(switch(sidecar, second.url)))
        thread.start()
        wait_until(lambda: bool(news(sidecar, "commands held")), "the first is under way")
        status, said = post(sidecar, "/api/upstream", {"url": second.url})
        assert (status, "another change is under way" in said["error"]) == (409, True)
        thread.join()
        assert one[0]["switched"]


def test_during_a_pause(two: tuple[Server, Server]) -> None:
    """What waits goes to the new server, and not before the pause is over."""
    first, second = two
    with beside(first) as sidecar, Wire(sidecar.port) as wire:
        post(sidecar, "/api/pause")
        wire.send_command("SET", "k", "v")
        wait_until(lambda: api(sidecar, "/api/stats")["held"]["clients"] == 1, "it waits")
        switch(sidecar, second.url)
        assert api(sidecar, "/api/stats")["held"]["reason"] == "pause"
        assert ask(second, "EXISTS", "k") == b":0\r\n"
        post(sidecar, "/api/resume")
        assert wire.read_reply() == b"+OK\r\n"
        assert (ask(first, "EXISTS", "k"), ask(second, "EXISTS", "k")) == (b":0\r\n", b":1\r\n")


def test_what_a_switch_ends(two: tuple[Server, Server]) -> None:
    """As a failover does: subscribers, MONITOR, blocked commands, transactions that stay open."""
    first, second = two
    with (
        beside(first) as sidecar,
        Wire(sidecar.port) as subscriber,
        Wire(sidecar.port) as monitor,
        Wire(sidecar.port) as blocked,
        Wire(sidecar.port) as multi,
        Wire(sidecar.port) as watch,
        Wire(sidecar.port) as ordinary,
    ):
        ordinary.cmd("SELECT", 3)
        subscriber.cmd("SUBSCRIBE", "c")
        monitor.cmd("MONITOR")
        blocked.send_command("BLPOP", "q", 0)
        wait_until(lambda: api(sidecar, "/api/stats")["links"]["dedicated"] >= 3, "they have links")
        multi.cmd("MULTI")
        multi.cmd("SET", "multi", "v")
        watch.cmd("WATCH", "w")
        said = switch(sidecar, second.url)
        assert (said["ended"]["transactions"], said["ended"]["blocked"]) == (2, 1)
        assert said["held_s"] < 3
        for wire in (subscriber, multi, watch):
            wire.expect_eof()
        monitor.read_to_end()
        assert blocked.read_to_end().startswith(b"-UNCERTAIN")
        assert ordinary.cmd("SET", "k", "v") == b"+OK\r\n"
        with Wire(second.port) as direct:
            direct.cmd("SELECT", 3)
            assert direct.cmd("GET", "k") == b"$1\r\nv\r\n"
        assert ask(first, "EXISTS", "multi") == b":0\r\n"


def test_transactions_that_end_in_time(two: tuple[Server, Server]) -> None:
    """Each happens whole, on one of the servers."""
    first, second = two
    with beside(first) as sidecar, Wire(sidecar.port) as wire:
        wire.cmd("MULTI")
        wire.cmd("INCR", "n")
        thread = threading.Thread(target=switch, args=(sidecar, second.url))
        thread.start()
        wait_until(lambda: bool(news(sidecar, "commands held")), "it is under way")
        wire.cmd("INCR", "n")
        assert wire.cmd("EXEC") == b"*2\r\n:1\r\n:2\r\n"
        thread.join()
        assert (ask(first, "GET", "n"), ask(second, "GET", "n")) == (b"$1\r\n2\r\n", b"$-1\r\n")
        assert wire.cmd("INCR", "n") == b":1\r\n"


def test_own_users_log_in_there(two: tuple[Server, Server]) -> None:
    """One that does not exist there gets the server's error."""
    first, second = two
    for server, users in ((first, ("ann", "bob")), (second, ("ann",))):
        for user in users:
            ask(server, "ACL", "SETUSER", user, "on", ">pw", "~*", "+@all")
    with beside(first) as sidecar, Wire(sidecar.port) as ann, Wire(sidecar.port) as bob:
        for wire, user in ((ann, "ann"), (bob, "bob")):
            assert wire.cmd("AUTH", user, "pw") == b"+OK\r\n"
            assert wire.cmd("ACL", "WHOAMI") == f"$3\r\n{user}\r\n".encode()
        ann.cmd("SELECT", 2)
        post(sidecar, "/api/pause")
        bob.send_command("ACL", "WHOAMI")
        wait_until(lambda: api(sidecar, "/api/stats")["held"]["clients"] == 1, "it waits")
        switch(sidecar, second.url)
        wait_until(lambda: "upstream greeting refused" in sidecar.log(), "bob is refused there")
        post(sidecar, "/api/resume")
        assert bob.read_to_end() == WRONGPASS
        assert ann.cmd("ACL", "WHOAMI") == b"$3\r\nann\r\n"
        assert ann.cmd("SET", "k", "v") == b"+OK\r\n"
        with Wire(sidecar.port) as again:
            assert again.cmd("AUTH", "bob", "pw") == WRONGPASS
    for server in two:
        ask(server, "ACL", "DELUSER", "ann", "bob")


WRONGPASS = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"


def test_credentials_database_and_resp3(two: tuple[Server, Server]) -> None:
    """The sidecar's own user and database are those of the new URL; who has selected another
    database stays there, under the new user."""
    first, second = two
    ask(second, "ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all")
    with beside(first) as sidecar, Wire(sidecar.port) as plain, Wire(sidecar.port) as third:
        third.cmd("HELLO", 3)
        third.cmd("SELECT", 3)
        plain.cmd("GET", "k")
        switch(sidecar, f"redis://app:pw@127.0.0.1:{second.port}/7")
        for wire in (plain, third):
            assert wire.cmd("ACL", "WHOAMI") == b"$3\r\napp\r\n"
        assert plain.cmd("SET", "seven", "v") == b"+OK\r\n"
        assert third.cmd("SET", "three", "v") == b"+OK\r\n"
        assert third.cmd("HGETALL", "none") == b"%0\r\n"
        with Wire(sidecar.port) as new:
            assert new.cmd("EXISTS", "seven") == b":1\r\n"
        for db, key in ((7, "seven"), (3, "three")):
            with Wire(second.port) as direct:
                direct.cmd("SELECT", db)
                assert direct.cmd("EXISTS", key) == b":1\r\n"
        switch(sidecar, first.url)
        assert plain.cmd("ACL", "WHOAMI") == b"$7\r\ndefault\r\n"
        assert plain.cmd("EXISTS", "seven") == b":0\r\n"
    ask(second, "ACL", "DELUSER", "app")


@pytest.mark.parametrize("mode", ["rules", "hot"])
def test_the_near_cache_begins_anew(two: tuple[Server, Server], mode: str) -> None:
    """No value of the old server is ever given once the switch is answered."""
    first, _ = two
    rules = {"cache__rules": "*"} if mode == "rules" else {}
    with beside(first, cache__mode=mode, **rules) as sidecar, Wire(sidecar.port) as wire:
        for number in range(6):
            server = two[number % 2]
            ask(server, "SET", "k", number)
            if number:
                switch(sidecar, server.url)
            for _ in range(50):
                assert wire.cmd("GET", "k") == b"$1\r\n%d\r\n" % number
        if mode == "rules":
            assert api(sidecar, "/api/stats")["cache"]["hits"] > 100


def test_a_unix_socket(two: tuple[Server, Server], tmp_path_factory: Any) -> None:
    folder = Path(tempfile.mkdtemp())
    path = folder / "s"
    with (
        valkey({"unixsocket": str(path)}) as third,
        beside(two[0]) as sidecar,
        Wire(sidecar.port) as wire,
    ):
        wire.cmd("SET", "k", "old")
        switch(sidecar, f"unix://{path}")
        assert wire.cmd("SET", "k", "v") == b"+OK\r\n"
        assert ask(third, "GET", "k") == b"$1\r\nv\r\n"
        switch(sidecar, two[0].url)
        assert wire.cmd("GET", "k") == b"$3\r\nold\r\n"


@pytest.mark.parametrize("follow", ["off", "auto"])
def test_the_old_server_is_gone_already(follow: str) -> None:
    """A switch is a way out of an outage, too: what waits goes to the new server."""
    with (
        valkey() as first,
        valkey() as second,
        beside(first, upstream__follow=follow, upstream__wait=20) as sidecar,
        Wire(sidecar.port, deadline=20) as wire,
    ):
        wire.cmd("SET", "k", "v")
        first.kill()
        wire.send_command("SET", "k", "w")
        wait_until(lambda: bool(news(sidecar, "upstream link lost")), "it is noticed")
        switch(sidecar, second.url)
        assert wire.read_reply() in (b"+OK\r\n", UNCERTAIN)
        assert wire.cmd("SET", "k", "x") == b"+OK\r\n"
        assert ask(second, "GET", "k") == b"$1\r\nx\r\n"


UNCERTAIN = (
    b"-UNCERTAIN the connection to the server was lost before it answered; "
    b"the command may or may not have been executed\r\n"
)


def test_what_it_can_is_learnt_before_the_first_command(two: tuple[Server, Server]) -> None:
    with (
        redis7({"proto-max-bulk-len": "1mb"}) as old,
        beside(two[0]) as sidecar,
        Wire(sidecar.port) as wire,
    ):
        assert wire.cmd("SET", "k", b"x" * (2 << 20)) == b"+OK\r\n"
        switch(sidecar, old.url)
        wire.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2097152\r\n")
        assert wire.read_reply() == b"-ERR Protocol error: invalid bulk length\r\n"


def test_followed_there(two: tuple[Server, Server]) -> None:
    """The new upstream's failovers are followed, and those of the old one concern nobody."""
    first, second = two
    with beside(first) as sidecar, Wire(sidecar.port) as wire:
        switch(sidecar, second.url)
        ask(first, "REPLICAOF", "127.0.0.1", second.port)
        assert wire.cmd("SET", "k", "v") == b"+OK\r\n"
        ask(second, "REPLICAOF", "127.0.0.1", 1)
        wire.send_command("SET", "k", "w")
        wait_until(lambda: bool(news(sidecar, "writes held")), "it is noticed")
        ask(second, "REPLICAOF", "NO", "ONE")
        assert wire.read_reply() == b"+OK\r\n"


@pytest.mark.redis
@pytest.mark.parametrize("workers", [1, 2])
def test_to_tls_that_the_settings_do_not_know(
    two: tuple[Server, Server], tmp_path: Path, workers: int
) -> None:
    """A server with a CA of its own: the switch has the settings for it, a reload leaves them, and
    a switch without any goes by the configuration again."""
    authority = Authority(tmp_path, "ca")
    pem = authority.issue("server", "localhost")
    known = {"ca_file": str(authority.cert_file), "server_name": "localhost"}
    plain = two[0]
    with (
        redis7(tls=TlsFiles(pem.cert, pem.key, authority.cert_file)) as secret,
        beside(plain, workers=workers) as sidecar,
    ):
        wait_until(lambda: "sidecar started" in sidecar.log(), "all workers serve")
        url = f"rediss://127.0.0.1:{secret.tls_port}"
        with Counting(sidecar.port) as load:
            assert "the certificate is not accepted" in refused(sidecar, url)
            assert "no file" in refused(sidecar, url, {**known, "ca_file": "/no/such.pem"})
            assert "is not rediss://" in refused(sidecar, two[1].url, known)
            assert switch(sidecar, url, dry_run=True, tls=known)["after"]["role"] == "master"
            load.more()
            assert switch(sidecar, url, tls=known)["switched"]
            load.more()
            status, said = post(sidecar, "/api/reload")
            assert (status, said["changed"]) == (200, [])
            assert "[upstream.tls]" in news(sidecar, "upstream differs")[0]["hint"]
            assert switch(sidecar, plain.url)["switched"]
            load.more()
            assert "the certificate is not accepted" in refused(sidecar, url)
            load.stop()
            assert load.errors == Counter()
            assert load.counted(plain, secret) == load.acknowledged


@pytest.mark.redis
def test_from_tls_and_back(two: tuple[Server, Server], tmp_path: Path) -> None:
    """The settings of TLS wait for the way back, and a reload does not mind them meanwhile."""
    authority = Authority(tmp_path, "ca")
    pem = authority.issue("server", "localhost")
    settings: dict[str, str | int | float] = {
        "upstream.tls.ca_file": str(authority.cert_file),
        "upstream.tls.server_name": "localhost",
    }
    admin = f"127.0.0.1:{free_port()}"
    with (
        redis7(tls=TlsFiles(pem.cert, pem.key, authority.cert_file)) as secret,
        Sidecar(secret.tls_url, admin=admin, settings=settings) as sidecar,
        Counting(sidecar.port) as load,
    ):
        for url in (two[0].url, secret.tls_url, two[0].url):
            load.more()
            assert switch(sidecar, url)["switched"]
            assert post(sidecar, "/api/reload")[0] == 200
        load.more()
        load.stop()
        assert load.errors == Counter()
        assert load.counted(two[0], secret) == load.acknowledged
