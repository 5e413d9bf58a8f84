"""Command policies: what they refuse is refused as the server refuses it to an ACL user with the
same rules, in every place where a request may stand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.harness.failover import times_logged
from tests.harness.resp import pack, pack_all
from tests.harness.servers import (
    HAVE_REDIS7,
    HAVE_REDIS8,
    Server,
    Sidecar,
    redis7,
    redis8,
    valkey,
)
from tests.harness.wire import Wire

FILE = """
[policies.some]
deny = ["KEYS", "FLUSHALL", "CONFIG|SET", "@admin"]
deny_keys = ["secret:*"]
"""
# The same for a user of the server.
RULES = ("+@all", "-keys", "-flushall", "-config|set", "-@admin", "~k*", "~q*", "allchannels")
SERVERS = {"valkey": valkey, "redis7": redis7, "redis8": redis8}
HAVE = {"valkey": True, "redis7": HAVE_REDIS7, "redis8": HAVE_REDIS8}


@pytest.fixture(scope="module", params=SERVERS)
def strict(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server whose user has the rules itself."""
    if not HAVE[request.param]:
        pytest.skip(f"{request.param} is not installed")
    with SERVERS[request.param]() as server:
        with Wire(server.port) as wire:
            wire.call("ACL", "SETUSER", "ann", "on", ">secret", *RULES)
        yield server


@pytest.fixture(scope="module")
def server(strict: Server) -> Iterator[Server]:
    """A server of the same kind whose user may do everything."""
    with Server(strict.binary, "server") as server:
        with Wire(server.port) as wire:
            wire.call("ACL", "SETUSER", "ann", "on", ">secret", "+@all", "allkeys", "allchannels")
        yield server


@pytest.fixture(scope="module", params=["shared", "session"])
def sidecar(
    request: pytest.FixtureRequest, server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sidecar]:
    file = tmp_path_factory.mktemp("identities") / "identities.toml"
    file.write_text(FILE)
    settings = {
        "identities.file": str(file),
        "listen.policy": "some",
        "upstream.pooling": request.param,
        "limits.request_buffer": 4096,
    }
    with Sidecar(server.url, settings=settings) as sidecar:
        yield sidecar


def said(port: int, data: bytes, count: int) -> list[bytes]:
    """What a client, logged in as the user, gets for this."""
    with Wire(port) as wire:
        assert wire.call("AUTH", "ann", "secret") == "OK"
        wire.send(data)
        return wire.read_replies(count)


def same(strict: Server, sidecar: Sidecar, requests: Sequence[str]) -> list[bytes]:
    """What both say to these requests in one write."""
    data = pack_all(line.split() for line in requests)
    through = said(sidecar.port, data, len(requests))
    assert through == said(strict.port, data, len(requests))
    return through


REFUSED = ["KEYS *", "flushall", "config set maxmemory 0", "GET secret:1", "ACL LIST", "SHUTDOWN"]


@pytest.mark.parametrize("line", REFUSED)
def test_alone(strict: Server, sidecar: Sidecar, line: str) -> None:
    (reply,) = same(strict, sidecar, [line])
    assert reply.startswith(b"-NOPERM")


@pytest.mark.parametrize("line", ["CONFIG GET maxmemory-samples", "MGET k1 k2", "SCAN 0"])
def test_what_is_allowed(sidecar: Sidecar, line: str) -> None:
    (reply,) = said(sidecar.port, pack(*line.split()), 1)
    if line[:6] != "CONFIG":  # which is in @admin
        assert not reply.startswith(b"-")


@pytest.mark.parametrize("line", REFUSED)
def test_in_its_turn(strict: Server, sidecar: Sidecar, line: str) -> None:
    same(strict, sidecar, ["SET k1 x", "GET k1", line, "GET k1", line, line, "DEL k1"])


@pytest.mark.parametrize("line", [line for line in REFUSED if line != "SHUTDOWN"])
@pytest.mark.parametrize("whole", [True, False])
def test_in_a_transaction(strict: Server, sidecar: Sidecar, line: str, whole: bool) -> None:
    """It is aborted, and nothing of it is executed."""
    lines = ["SET k1 before", "MULTI", "SET k1 after", line, "EXEC", "GET k1"]
    if whole:
        record = same(strict, sidecar, lines)
    else:
        record = []
        with Wire(sidecar.port) as wire, Wire(strict.port) as direct:
            for line in ["AUTH ann secret", *lines]:
                reply = wire.cmd(*line.split())
                assert reply == direct.cmd(*line.split())
                record.append(reply)
    assert record[-2].startswith(b"-EXECABORT")
    assert record[-1] == b"$6\r\nbefore\r\n"


def test_while_watching(strict: Server, sidecar: Sidecar) -> None:
    same(strict, sidecar, ["WATCH k1", "KEYS *", "MULTI", "GET k1", "EXEC", "KEYS *"])


@pytest.mark.parametrize("protocol", [2, 3])
def test_while_subscribed(strict: Server, sidecar: Sidecar, protocol: int) -> None:
    record = []
    for port in (strict.port, sidecar.port):
        with Wire(port) as wire:
            wire.ask("HELLO", protocol, "AUTH", "ann", "secret")
            wire.send(pack_all([("SUBSCRIBE", "c"), ("KEYS", "*"), ("GET", "secret:1"), ("PING",)]))
            record.append(wire.read_replies(4))
    assert record[0] == record[1]
    assert record[1][1].startswith(b"-NOPERM")


@pytest.mark.parametrize("line", ["KEYS *", '"config" set maxmemory 0', "GET secret:1"])
def test_inline(strict: Server, sidecar: Sidecar, line: str) -> None:
    data = f"{line}\r\nECHO still\r\n".encode()
    assert said(sidecar.port, data, 2) == said(strict.port, data, 2)


@pytest.mark.parametrize("pieces", [1, 7])
def test_too_large_to_be_kept(strict: Server, sidecar: Sidecar, pieces: int) -> None:
    """The rest of it is discarded, whatever size the pieces have in which it comes."""
    data = pack("SET", "secret:1", "x" * 100_000) + pack("ECHO", "still")
    with Wire(sidecar.port) as wire:
        wire.call("AUTH", "ann", "secret")
        size = len(data) // pieces
        for at in range(0, len(data), size):
            wire.send(data[at : at + size])
        through = wire.read_replies(2)
    assert through == said(strict.port, data, 2)
    assert through[0].startswith(b"-NOPERM")


def test_large_in_a_transaction(strict: Server, sidecar: Sidecar) -> None:
    lines = [("MULTI",), ("SET", "secret:1", "x" * 100_000), ("GET", "k1"), ("EXEC",), ("PING",)]
    data = pack_all(lines)
    assert said(sidecar.port, data, 5) == said(strict.port, data, 5)


def test_behind_a_blocking_command(strict: Server, sidecar: Sidecar) -> None:
    same(strict, sidecar, ["BLPOP q1 0.05", "KEYS *", "ECHO still"])


def test_a_broken_request_is_no_way_round(server: Server, sidecar: Sidecar) -> None:
    """Servers do not look at the line ends of arguments."""
    with Wire(server.port) as wire:
        wire.call("SET", "k9", "x")
    with Wire(sidecar.port) as wire:
        wire.call("AUTH", "ann", "secret")
        wire.call("SUBSCRIBE", "c")
        wire.send(b"*1\r\n$8\r\nFLUSHALL**\r\n")
        wire.read_to_end()
    with Wire(server.port) as wire:
        assert wire.call("GET", "k9") == "x"


def test_scripts_are_the_servers_affair(sidecar: Sidecar) -> None:
    """What a script calls is not seen; docs/limits.md says so."""
    with Wire(sidecar.port) as wire:
        assert wire.cmd("EVAL", "return redis.call('keys', 'nosuch*')", "1", "k1") == b"*0\r\n"


class TestFile:
    """The file is read again while clients are connected."""

    def test_a_policy_changes(self, server: Server, tmp_path: Path) -> None:
        file = tmp_path / "identities.toml"
        file.write_text(FILE)
        settings = {"identities.file": str(file), "listen.policy": "some"}
        with Sidecar(server.url, settings=settings) as sidecar, Wire(sidecar.port) as wire:
            assert wire.cmd("KEYS", "nosuch").startswith(b"-NOPERM")
            file.write_text('[policies.some]\ndeny = ["GET"]\n')
            sidecar.wait_ready(lambda: times_logged(sidecar, "identities reloaded") == 1)
            assert wire.cmd("KEYS", "nosuch") == b"*0\r\n"
            assert wire.cmd("GET", "k").startswith(b"-NOPERM")

    def test_of_an_identity_and_of_a_listener_both_hold(
        self, server: Server, tmp_path: Path
    ) -> None:
        file = tmp_path / "identities.toml"
        file.write_text(
            '[identities.ann]\npolicy = "own"\n[policies.own]\nread_only = true\n'
            '[policies.port]\ndeny = ["KEYS"]\n'
        )
        with (
            Sidecar(
                server.url, settings={"identities.file": str(file), "listen.policy": "port"}
            ) as sidecar,
            Wire(sidecar.port) as wire,
        ):
            assert wire.cmd("SET", "k", "v") == b"+OK\r\n"
            assert wire.cmd("KEYS", "nosuch").startswith(b"-NOPERM")
            wire.call("AUTH", "ann", "secret")
            assert wire.cmd("SET", "k", "v").startswith(b"-NOPERM")
            assert wire.cmd("GET", "k") == b"$1\r\nv\r\n"
            assert wire.cmd("KEYS", "nosuch").startswith(b"-NOPERM")
            wire.call("RESET")
            assert wire.cmd("SET", "k", "v") == b"+OK\r\n"

    def test_of_one_listener(self, server: Server, tmp_path: Path) -> None:
        with Sidecar(server.url) as free:
            port = free.port
        path = tmp_path / "s.sock"
        with Sidecar(
            server.url,
            listen=f"redis://127.0.0.1:{port}?policy=production",
            port=port,
            also=[f"unix://{path}"],
        ) as sidecar:
            with Wire(sidecar.port) as wire:
                assert wire.cmd("DEBUG", "SLEEP", "0").startswith(b"-NOPERM")
            with Wire(str(path)) as wire:
                assert wire.cmd("DEBUG", "SLEEP", "0") == b"+OK\r\n"

    @pytest.mark.parametrize("way", ["pinned", "multi", "watch"])
    def test_a_login_on_a_link_of_ones_own_is_no_way_out(
        self, server: Server, tmp_path: Path, way: str
    ) -> None:
        file = tmp_path / "identities.toml"
        file.write_text('[identities.ann]\npolicy = "own"\n[policies.own]\ndeny = ["KEYS"]\n')
        before = {
            "pinned": ["SUBSCRIBE c", "UNSUBSCRIBE c"],
            "multi": ["MULTI"],
            "watch": ["WATCH k"],
        }
        with (
            Sidecar(server.url, settings={"identities.file": str(file)}) as sidecar,
            Wire(sidecar.port) as wire,
        ):
            assert wire.cmd("KEYS", "nosuch") == b"*0\r\n"
            for line in before[way]:
                wire.cmd(*line.split())
            assert wire.cmd("AUTH", "ann", "secret") in (b"+OK\r\n", b"+QUEUED\r\n")
            if way == "multi":
                wire.cmd("EXEC")
            assert wire.cmd("ACL", "WHOAMI") == b"$3\r\nann\r\n"
            assert wire.cmd("KEYS", "nosuch").startswith(b"-NOPERM")
            if way != "watch":  # the link is still the client's own
                for line in before[way]:
                    wire.cmd(*line.split())
                assert wire.cmd("AUTH", "default", "x") in (b"+OK\r\n", b"+QUEUED\r\n")
                if way == "multi":
                    wire.cmd("EXEC")
                assert wire.cmd("ACL", "WHOAMI") == b"$7\r\ndefault\r\n"
                assert wire.cmd("KEYS", "nosuch").startswith(b"-NOPERM")  # as before
