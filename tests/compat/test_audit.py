"""The audit stream of a real sidecar: who did what, and no secret in it."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.farm import Farm
from tests.harness.process import free_port, wait_until
from tests.harness.servers import Server, Sidecar, valkey
from tests.harness.wire import Wire, pack

Facts = dict[str, Any]
Before = Callable[[Wire], None]
Sent = Callable[[Wire, tuple[str, ...]], None]

DEADLINE = 20.0
"""Seconds that a record may take: the machine may be busy with other things."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with valkey({"requirepass": "s3cret"}) as server:
        with Wire(server.port) as wire:
            assert wire.cmd("AUTH", "s3cret") == b"+OK\r\n"
            rules = ("on", ">w0rd", "~*", "+@all", "-flushall", "-config")
            assert wire.cmd("ACL", "SETUSER", "alice", *rules) == b"+OK\r\n"
        yield server


class Audited:
    """A sidecar and its audit file."""

    def __init__(self, sidecar: Sidecar, path: Path) -> None:
        self.sidecar, self.path = sidecar, path

    def records(self, event: str = "") -> list[Facts]:
        lines = [json.loads(line) for line in self.path.read_text().splitlines()]
        assert all(line["audit"] is True for line in lines)
        return [line for line in lines if event in ("", line["event"])]

    def wait(self, event: str, **facts: object) -> Facts:
        """The first record of this event with these facts."""

        def found() -> Facts | None:
            for record in self.records(event):
                if facts.items() <= record.items():
                    return record
            return None

        record = wait_until(found, f"{event} {facts}", DEADLINE)
        assert record is not None
        return record


@pytest.fixture
def audited(server: Server, tmp_path: Path) -> Iterator[Audited]:
    path = tmp_path / "audit.log"
    settings = {"audit.file": str(path)}
    admin = f"127.0.0.1:{free_port()}"
    upstream = f"redis://:s3cret@127.0.0.1:{server.port}"
    with Sidecar(upstream, settings=settings, admin=admin) as sidecar:
        yield Audited(sidecar, path)


def test_logins(audited: Audited) -> None:
    with Wire(audited.sidecar.port) as wire:
        assert wire.cmd("AUTH", "alice", "w0rd") == b"+OK\r\n"
        assert wire.cmd("AUTH", "alice", "wr0ng").startswith(b"-WRONGPASS")
        assert wire.cmd("HELLO", "3", "AUTH", "default", "s3cret").startswith(b"%")
        number = int(wire.cmd("CLIENT", "ID")[1:])
    accepted = audited.wait("login", user="alice", result="accepted")
    assert accepted["client"] == number
    assert accepted["address"].startswith("127.0.0.1:")
    audited.wait("login", user="alice", result="refused")
    audited.wait("login", user="default", result="accepted")
    text = audited.path.read_text()
    assert not [word for word in ("s3cret", "w0rd", "wr0ng") if word in text]


def test_dangerous_commands_are_recorded_once_without_their_arguments(audited: Audited) -> None:
    with Wire(audited.sidecar.port) as wire:
        wire.cmd("SET", "private", "value")
        wire.cmd("KEYS", "private*")
        wire.cmd("CONFIG", "SET", "maxmemory-samples", "5")
        wire.cmd("config", "get", "maxmemory-samples")
        wire.cmd("CONFIG", "hunter2")
        wire.cmd("DEBUG", "SLEEP", "0")
        wire.cmd("SCRIPT", "EXISTS", "00")
        wire.cmd("SCRIPT", "FLUSH")
        wire.cmd("SELECT", "3")
        wire.cmd("FLUSHDB")
        wire.send(b"FLUSHALL ASYNC\r\n")
        assert wire.read_reply() == b"+OK\r\n"
    audited.wait("command", command="flushall")
    seen = [(r["command"], r.get("subcommand", ""), r["db"]) for r in audited.records("command")]
    assert seen == [
        ("keys", "", 0),
        ("config", "set", 0),
        ("config", "get", 0),
        ("config", "?", 0),
        ("debug", "sleep", 0),
        ("script", "flush", 0),
        ("flushdb", "", 3),
        ("flushall", "", 3),
    ]
    text = audited.path.read_text()
    assert not [word for word in ("private", "hunter2", "maxmemory") if word in text]


def test_transactions_are_recorded_once_whether_whole_or_not(audited: Audited) -> None:
    with Wire(audited.sidecar.port) as wire:
        wire.send(pack("MULTI") + pack("FLUSHDB") + pack("EXEC"))
        for _ in range(3):
            wire.read_reply()
        # This one is taken back from the shared link, since it is not whole.
        wire.send(pack("MULTI") + pack("KEYS", "*"))
        assert [wire.read_reply(), wire.read_reply()] == [b"+OK\r\n", b"+QUEUED\r\n"]
        wire.cmd("EXEC")
        wire.cmd("SWAPDB", "0", "0")
    audited.wait("command", command="swapdb")
    seen = [r["command"] for r in audited.records("command")]
    assert seen == ["flushdb", "keys", "swapdb"]


def test_logins_that_are_passed_through(audited: Audited) -> None:
    """How they end is not known there. HELLO is one only with credentials."""
    with Wire(audited.sidecar.port) as wire:
        wire.cmd("HELLO", "3")
        wire.cmd("CLIENT", "TRACKING", "ON")
        assert wire.cmd("AUTH", "alice", "w0rd") == b"+OK\r\n"
        assert wire.cmd("HELLO", "3").startswith(b"%")
        assert wire.cmd("HELLO", "3", "AUTH", "alice", "wr0ng").startswith(b"-WRONGPASS")
        wire.cmd("KEYS", "*")
    audited.wait("command", command="keys")
    seen = [r["command"] for r in audited.records("command")]
    assert seen == ["auth", "hello", "keys"]
    text = audited.path.read_text()
    assert not [word for word in ("w0rd", "wr0ng") if word in text]


def test_commands_of_clients_with_links_of_their_own(audited: Audited) -> None:
    with Wire(audited.sidecar.port) as wire:
        wire.cmd("SUBSCRIBE", "news")
        wire.cmd("UNSUBSCRIBE", "news")
        wire.cmd("KEYS", "*")
        wire.cmd("MONITOR")
    audited.wait("command", command="monitor")
    assert [r["command"] for r in audited.records("command")] == ["keys", "monitor"]


PADDING = "~" + "x" * 300_000


def shared(wire: Wire) -> None:
    pass


def watching(wire: Wire) -> None:
    wire.cmd("WATCH", "k")


def tracking(wire: Wire) -> None:
    wire.cmd("CLIENT", "TRACKING", "ON")


def subscribed(wire: Wire) -> None:
    wire.cmd("HELLO", "3")
    wire.cmd("SUBSCRIBE", "news")


def in_multi(wire: Wire) -> None:
    wire.cmd("MULTI")


def whole(wire: Wire, words: tuple[str, ...]) -> None:
    wire.send(pack(*words))


def inline(wire: Wire, words: tuple[str, ...]) -> None:
    wire.send(" ".join(words).encode() + b"\r\n")


def behind_others(wire: Wire, words: tuple[str, ...]) -> None:
    wire.send(pack("GET", "k") * 3 + pack(*words) + pack("GET", "k"))


def bytewise(wire: Wire, words: tuple[str, ...]) -> None:
    for byte in pack(*words):
        wire.send(bytes([byte]))


def streamed(wire: Wire, words: tuple[str, ...]) -> None:
    wire.send(pack(*words, PADDING))


COMMANDS = [("FLUSHDB",), ("CONFIG", "GET", "save"), ("ACL", "SETUSER", "bob"), ("KEYS", "none*")]


@pytest.mark.parametrize("pooling", ["shared", "session"])
@pytest.mark.parametrize("before", [shared, watching, tracking, subscribed, in_multi])
@pytest.mark.parametrize("sent", [whole, inline, behind_others, bytewise, streamed])
def test_every_way_is_recorded_once(
    server: Server, tmp_path: Path, pooling: str, before: Before, sent: Sent
) -> None:
    path = tmp_path / "audit.log"
    settings = {"audit.file": str(path), "upstream.pooling": pooling}
    upstream = f"redis://:s3cret@127.0.0.1:{server.port}"
    with Sidecar(upstream, settings=settings) as sidecar:
        audited = Audited(sidecar, path)
        for words in COMMANDS:
            with Wire(sidecar.port) as wire:
                before(wire)
                sent(wire, words)
                wire.send(pack("SWAPDB", "0", "0"))
                audited.wait("command", command="swapdb")
                found = [r["command"] for r in audited.records("command")]
                assert found == [words[0].lower(), "swapdb"]
            path.write_text("")


@pytest.mark.parametrize("pooling", ["shared", "session"])
@pytest.mark.parametrize("kind", ["valkey", pytest.param("redis7", marks=pytest.mark.redis)])
@pytest.mark.parametrize("broken", [b"*1\r\n$4\r\nPINGxx", b"*1\rX$4\r\nPING\r\n"])
@pytest.mark.parametrize("state", [("CLIENT", "TRACKING", "ON"), ("SUBSCRIBE", "news")])
def test_nothing_passes_unseen_behind_a_bad_line_end(
    farm: Farm, tmp_path: Path, pooling: str, kind: str, state: tuple[str, ...], broken: bytes
) -> None:
    """Redis up to 8 does not look at those two bytes, so it would execute what follows. Where
    requests pass unmatched, the one with the bad end may be executed, and is noted."""
    unmatched = pooling == "session" or state[0] == "SUBSCRIBE"
    server = farm.server(kind)
    path = tmp_path / "audit.log"
    settings = {"audit.file": str(path), "upstream.pooling": pooling}
    with Sidecar(server.url, settings=settings) as sidecar:
        audited = Audited(sidecar, path)
        with Wire(sidecar.port) as wire, Wire(server.port) as direct:
            direct.cmd("SET", "kept", "v")
            wire.cmd("HELLO", 3)
            wire.cmd(*state)
            wire.send(broken + pack("FLUSHALL"))
            wire.read_to_end()
            assert direct.cmd("GET", "kept") == b"$1\r\nv\r\n"
        with Wire(sidecar.port) as wire, Wire(server.port) as direct:
            wire.cmd("HELLO", 3)
            wire.cmd(*state)
            wire.send(b"*1\r\n$8\r\nFLUSHALLxx")
            wire.read_to_end()
            if not unmatched:
                assert direct.cmd("GET", "kept") == b"$1\r\nv\r\n"
                with Wire(sidecar.port) as last:  # the first to be noted
                    assert last.cmd("FLUSHALL") == b"+OK\r\n"
        audited.wait("command", command="flushall")
        assert [r["command"] for r in audited.records("command")] == ["flushall"]


def test_a_login_that_passes_by_leaves_nobody_to_name(server: Server, tmp_path: Path) -> None:
    """Whose the next commands are is known to the server alone: the record does not guess."""
    path = tmp_path / "audit.log"
    settings = {"audit.file": str(path), "upstream.pooling": "session"}
    with Sidecar(f"redis://:s3cret@127.0.0.1:{server.port}", settings=settings) as sidecar:
        audited = Audited(sidecar, path)
        with Wire(sidecar.port) as wire:
            wire.cmd("KEYS", "none")
            wire.cmd("AUTH", "alice", "w0rd")
            assert wire.cmd("FLUSHALL").startswith(b"-NOPERM")
            wire.send(pack("SET", "k", "x" * 40_000))
            assert wire.read_reply() == b"+OK\r\n"
        audited.wait("denied", result="NOPERM", user="?")
    users = [(r["command"], r["user"]) for r in audited.records("command")]
    assert users == [("keys", "default"), ("auth", "default"), ("flushall", "?")]
    assert not [r for r in audited.records("command") if "db" in r]


def test_commands_that_come_very_fast_are_all_recorded(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    upstream = f"redis://:s3cret@127.0.0.1:{server.port}"
    with Sidecar(upstream, settings={"audit.file": str(path)}) as sidecar:
        with Wire(sidecar.port, deadline=20.0) as wire:
            wire.send(b"KEYS n\r\n" * 8_000)
            wire.read_replies(8_000)
        sidecar.stop()
    lines = path.read_text().splitlines()
    assert sum('"keys"' in line for line in lines) == 8_000
    assert not [line for line in lines if '"lost"' in line]


def test_refused_commands(audited: Audited) -> None:
    with Wire(audited.sidecar.port) as wire:
        assert wire.cmd("AUTH", "alice", "w0rd") == b"+OK\r\n"
        wire.send(pack("GET", "a") + pack("FLUSHALL") + pack("GET", "b"))
        assert [wire.read_reply()[:4] for _ in range(3)] == [b"$-1\r", b"-NOP", b"$-1\r"]
    record = audited.wait("denied", user="alice", command="flushall", result="NOPERM")
    assert record["client"]
    assert len(audited.records("denied")) == 1


def test_refused_commands_with_replies_that_wait_for_replicas(
    server: Server, tmp_path: Path
) -> None:
    path = tmp_path / "audit.log"
    settings: dict[str, str | int | float] = {"audit.file": str(path)}
    settings |= {"failover.min_replicas_ack": 1, "failover.ack_timeout": 0.2}
    with Sidecar(f"redis://:s3cret@127.0.0.1:{server.port}", settings=settings) as sidecar:
        with Wire(sidecar.port) as wire:
            assert wire.cmd("AUTH", "alice", "w0rd") == b"+OK\r\n"
            assert wire.cmd("FLUSHALL").startswith(b"-NOPERM")
        Audited(sidecar, path).wait("denied", user="alice", command="flushall", result="NOPERM")


def test_clients_that_have_not_logged_in(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    settings = {"audit.file": str(path)}
    with Sidecar(server.url, settings=settings) as sidecar:
        audited = Audited(sidecar, path)
        with Wire(sidecar.port) as wire:
            assert wire.cmd("GET", "k").startswith(b"-NOAUTH")
        audited.wait("denied", command="get", result="NOAUTH")


def test_administration(audited: Audited) -> None:
    url = f"http://{audited.sidecar.admin}"
    for path in ("/livez", "/metrics", "/api/hotkeys?count=3"):
        urllib.request.urlopen(url + path, timeout=5).close()
    record = audited.wait("admin", command="GET", detail="/api/hotkeys", result="200")
    assert record["address"] == "127.0.0.1"
    assert len(audited.records("admin")) == 1
    assert audited.records()[0]["event"] == "started"

    moved = audited.path.rename(audited.path.with_suffix(".1"))
    os.kill(audited.sidecar.pid, signal.SIGHUP)
    wait_until(lambda: audited.path.exists() and audited.records("reload"), "a new file")
    audited.sidecar.stop()
    assert audited.records()[-1]["event"] == "stopped"
    assert '"stopped"' not in moved.read_text()
    assert audited.path.stat().st_mode & 0o077 == 0


def test_on_standard_output(server: Server) -> None:
    upstream = f"redis://:s3cret@127.0.0.1:{server.port}"
    with Sidecar(upstream, settings={"audit.file": "-"}) as sidecar:
        with Wire(sidecar.port) as wire:
            wire.cmd("DEBUG", "SLEEP", "0")
        wait_until(
            lambda: '{"audit":true' in sidecar.log() and '"debug"' in sidecar.log(), "its line"
        )


def test_a_file_that_cannot_be_opened(server: Server, tmp_path: Path) -> None:
    settings = {"audit.file": str(tmp_path / "missing" / "audit.log")}
    with Sidecar(server.url, settings=settings, ready=False) as sidecar:
        wait_until(lambda: not sidecar.running, "it ends")
        assert sidecar.returncode == 1
        assert "check audit.file" in sidecar.log()
