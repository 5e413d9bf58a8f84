"""MONITOR through the sidecar shows what clients send, and nothing of the sidecar's own."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.harness.pair import Pair
from tests.harness.process import wait_until
from tests.harness.server_stats import calls
from tests.harness.wire import Arg, Wire

COMMANDS: tuple[tuple[Arg, ...], ...] = (
    ("SET", "foo", "bar"), ("APPEND", "foo", "x"), ("WATCH", "foo"), ("MULTI",), ("INCR", "n"),
    ("EXEC",),
    ("RPUSH", "list", "a b"), ("BLPOP", "list", 1), ("EVAL", "return redis.call('get','foo')", 0),
    ("PING",), ("SELECT", 9), ("SET", "quoted", b'"\r\n\x00'), ("WATCH", "foo"), ("UNWATCH",),
)  # fmt: skip


NAMING: tuple[tuple[Arg, ...], ...] = (
    ("CLIENT", "SETINFO", "LIB-NAME", "library"), ("CLIENT", "SETNAME", "me"), ("HELLO", 3),
)  # fmt: skip
FIRST: tuple[tuple[Arg, ...], ...] = (("PING",), ("SELECT", 0), ("ROLE",), ("INFO", "server"))


@pytest.mark.one_worker("MONITOR shows what other workers send by themselves")
@pytest.mark.parametrize("protocol", [2, 3])
def test_only_what_clients_send(pair: Pair, protocol: int) -> None:
    """The same lines as at the server itself, with links being made and heartbeats in between."""
    direct = shown(pair, pair.direct.port, protocol)
    assert shown(pair, pair.sidecar.port, protocol) == direct


@pytest.mark.one_worker("MONITOR shows what other workers send by themselves")
@pytest.mark.parametrize("naming", NAMING, ids=lambda words: " ".join(map(str, words[:2])))
def test_what_a_client_says_once_it_has_a_name(pair: Pair, naming: tuple[Arg, ...]) -> None:
    """Libraries name themselves first; names are left out here, what stands behind them is not."""
    commands = [each for first in FIRST for each in (naming, first, ("ECHO", "x"))]
    direct = shown(pair, pair.direct.port, 2, commands)
    left = [line for line in direct if b'"HELLO"' not in line and b'"SET' not in line]
    assert shown(pair, pair.sidecar.port, 2, commands) == left
    assert len(left) == 2 * len(FIRST) + 1


BEFORE: tuple[tuple[Arg, ...], ...] = (
    ("WATCH", "k"), ("SUBSCRIBE", "c"), ("CLIENT", "TRACKING", "ON"), ("CLIENT", "NO-EVICT", "ON"),
    ("READONLY",), ("REPLCONF", "listening-port", 1), ("CLIENT", "REPLY", "ON"),
)  # fmt: skip


@pytest.mark.one_worker("MONITOR shows what other workers send by themselves")
@pytest.mark.parametrize("before", BEFORE, ids=lambda words: " ".join(map(str, words)))
def test_a_client_that_has_a_link_already(pair: Pair, before: tuple[Arg, ...]) -> None:
    """It is shown as little of the sidecar's own."""
    commands = (("SET", "foo", "bar"), ("BLPOP", "list", 0.01), ("PING",))
    direct = shown(pair, pair.direct.port, 3, commands, before)
    assert shown(pair, pair.sidecar.port, 3, commands, before) == direct


def shown(
    pair: Pair,
    port: int,
    protocol: int,
    commands: Sequence[Sequence[Arg]] = COMMANDS,
    before: Sequence[Arg] = (),
) -> list[bytes]:
    """Database and command of each line that the commands lead to. The client that monitors has
    said something `before`."""
    with Wire(pair.behind.port) as server, Wire(port) as monitor, Wire(port) as client:
        for wire in (monitor, client):
            if protocol == 3:
                wire.cmd("HELLO", 3)
        if before:
            monitor.cmd(*before)
        assert monitor.cmd("MONITOR") == b"+OK\r\n"
        for command in commands:
            client.cmd(*command)
        if port == pair.sidecar.port:
            beats = calls(server, "ping") + 5
            wait_until(lambda: calls(server, "ping") >= beats, "heartbeats")
        client.cmd("ECHO", "the end")
        found: list[bytes] = []
        while not found or b"the end" not in found[-1]:
            line = monitor.read_reply()
            if b'"INFO" "commandstats"' not in line:  # of `calls`, which asks the server directly
                database = line.split(b"[")[1].split(b" ")[0]
                found.append(database + b" " + line.split(b"] ", 1)[1])
        return found


def test_after_reset_it_is_an_ordinary_client(pair: Pair) -> None:
    """A monitoring client ends it with RESET."""
    with Wire(pair.sidecar.port) as monitor, Wire(pair.sidecar.port) as other:
        monitor.cmd("MONITOR")
        other.cmd("SET", "k", "v")
        monitor.send_command("RESET")
        while monitor.read_reply() != b"+RESET\r\n":
            pass
        assert monitor.cmd("GET", "k") == b"$1\r\nv\r\n"
