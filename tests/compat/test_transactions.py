"""MULTI, EXEC, DISCARD and WATCH, whole and in pieces."""

from __future__ import annotations

import re

import pytest

from tests.harness.pair import Pair, Session, pipeline
from tests.harness.wire import Wire, pack

BLOCKS = {
    "plain": ["MULTI", "SET k 1", "INCR k", "GET k", "EXEC", "GET k"],
    "empty": ["MULTI", "EXEC", "PING"],
    "discard": ["SET k 0", "MULTI", "SET k 1", "DISCARD", "GET k"],
    "runtime-error": ["MULTI", "SET k x", "INCR k", "LPUSH k y", "SET l 1", "EXEC", "GET l"],
    "arity-aborts": ["MULTI", "SET k 1", "GET", "EXEC", "GET k"],
    "unknown-aborts": ["MULTI", "SET k 1", "NOSUCH a", "EXEC", "EXISTS k"],
    "nested": ["MULTI", "MULTI", "SET k 1", "EXEC", "GET k"],
    "watch-inside": ["MULTI", "WATCH k", "SET k 1", "EXEC", "GET k"],
    "exec-alone": ["EXEC", "DISCARD", "PING"],
    "multi-arity": ["MULTI x", "EXEC x", "PING"],
    "exec-arity-inside": ["MULTI", "SET k 1", "EXEC x", "EXEC", "GET k"],
    "discard-arity-inside": ["MULTI", "DISCARD x", "EXEC", "PING"],
    "select-inside": ["MULTI", "SELECT 1", "SET k one", "EXEC", "GET k", "SELECT 0", "GET k"],
    "bad-select-inside": ["MULTI", "SELECT 99", "SET k one", "EXEC", "GET k"],
    "blocking-inside": ["MULTI", "BLPOP q 0", "BRPOP q 0", "XREAD BLOCK 0 STREAMS s $", "EXEC"],
    "script-inside": ["MULTI", "EVAL return(1) 0", "SET k 1", "EXEC"],
    "client-inside": ["MULTI", "CLIENT SETNAME x", "CLIENT GETNAME", "EXEC", "CLIENT GETNAME"],
    "reset-inside": ["MULTI", "SET k 1", "RESET", "GET k", "EXEC"],
    "hello-inside": ["MULTI", "HELLO 9", "SET k 1", "EXEC", "GET k"],
    "auth-inside": ["MULTI", "AUTH wrong", "SET k 1", "EXEC", "GET k"],
    "echo-inside": ["MULTI", "PING", "ECHO x", "TYPE k", "EXEC"],
    "two-blocks": ["MULTI", "INCR n", "EXEC", "MULTI", "INCR n", "EXEC", "GET n"],
    "unwatch-inside": ["WATCH k", "MULTI", "UNWATCH", "SET k 1", "EXEC"],
    "wait-inside": ["MULTI", "SET k 1", "WAIT 0 0", "EXEC"],
    "flushall-inside": ["SET k 1", "MULTI", "FLUSHALL", "DBSIZE", "EXEC"],
    "debug-inside": ["MULTI", "DEBUG SLEEP 0", "OBJECT ENCODING k", "EXEC"],
}


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("block", BLOCKS)
def test_block(pair: Pair, block: str, protocol: int) -> None:
    """Line by line, and again in one write."""

    def script(session: Session) -> None:
        client = session.open(protocol)
        client.run(*BLOCKS[block])
        other = session.open(protocol)
        other.cmd("FLUSHALL")
        other.send(pipeline(BLOCKS[block]))
        other.read(len(BLOCKS[block]))
        other.drain()

    pair.same(script)


@pytest.mark.parametrize("block", ["plain", "arity-aborts", "select-inside", "discard"])
def test_every_split_point(valkey_pair: Pair, block: str) -> None:
    """The block in two writes, cut at every byte; another client is served in between."""
    data = pipeline(BLOCKS[block])
    count = len(BLOCKS[block])
    with Wire(valkey_pair.direct.port) as wire:
        wire.send(data)
        expected = wire.read_replies(count)
    with Wire(valkey_pair.sidecar.port) as wire, Wire(valkey_pair.sidecar.port) as other:
        for cut in range(1, len(data)):
            assert other.cmd("FLUSHALL") == b"+OK\r\n"
            wire.send(data[:cut])
            assert other.cmd("PING") == b"+PONG\r\n"
            wire.send(data[cut:])
            assert wire.read_replies(count) == expected, f"cut at byte {cut}"


def test_block_in_many_writes_is_atomic(pair: Pair) -> None:
    """What another client does between the pieces is not inside the block."""

    def script(session: Session) -> None:
        client, other = session.open(), session.open()
        client.run("MULTI", "INCR n")
        other.run("INCR n", "GET n")
        client.run("INCR n")
        other.run("SET n 10", "MULTI", "INCR n")
        client.run("EXEC", "GET n")
        other.run("EXEC", "GET n")

    pair.same(script)


@pytest.mark.parametrize("protocol", [2, 3])
def test_watch_conflict(pair: Pair, protocol: int) -> None:
    """A foreign write between WATCH and EXEC makes EXEC answer null; otherwise it goes through."""

    def script(session: Session) -> None:
        client, other = session.open(protocol), session.open(protocol)
        client.run("SET k 1", "WATCH k", "GET k", "MULTI", "SET k 2")
        other.run("SET k 3")
        client.run("EXEC", "GET k")
        client.run("WATCH k", "MULTI", "SET k 4", "EXEC", "GET k")
        client.run("WATCH k")
        other.run("SET k 5")
        client.run("UNWATCH", "MULTI", "SET k 6", "EXEC")
        client.run("WATCH k")
        other.run("DEL k")
        client.run("DISCARD", "MULTI", "DISCARD", "MULTI", "SET k 7", "EXEC", "GET k")

    record = pair.same(script)
    assert any(data in (b"*-1\r\n", b"_\r\n") for _, _, data in record)


def test_watch_of_own_write_and_of_other_database(pair: Pair) -> None:
    """One's own write counts, too; the same name in another database does not."""

    def script(session: Session) -> None:
        client, other = session.open(), session.open()
        client.run("WATCH k", "SET k 1", "MULTI", "SET k 2", "EXEC", "GET k")
        other.run("SELECT 1")
        client.run("WATCH k", "MULTI", "SET k 3")
        other.run("SET k elsewhere")
        client.run("EXEC", "GET k")
        client.run("SELECT 1", "WATCH k", "SELECT 0", "MULTI", "GET k")
        other.run("SET k again")
        client.run("EXEC")

    pair.same(script)


def test_watch_across_pipeline(pair: Pair) -> None:
    """WATCH, read, MULTI..EXEC in one write."""

    def script(session: Session) -> None:
        client = session.open()
        lines = ["SET k 1", "WATCH k l", "GET k", "MULTI", "INCR k", "EXEC", "GET k", "WATCH k"]
        lines += ["INCR k", "MULTI", "INCR k", "EXEC", "GET k"]
        client.send(pipeline(lines))
        client.read(len(lines))

    pair.same(script)


def test_reset_and_quit_end_a_watch(pair: Pair) -> None:
    """RESET forgets the watched keys and the queued commands."""

    def script(session: Session) -> None:
        client, other = session.open(), session.open()
        client.run("WATCH k", "RESET")
        other.run("SET k 1")
        client.run("MULTI", "SET k 2", "EXEC", "MULTI", "SET k 3", "QUIT")
        client.to_end()
        other.run("GET k")

    pair.same(script)


def test_dropped_in_a_block(pair: Pair) -> None:
    """A client that goes away inside MULTI leaves no trace."""

    def script(session: Session) -> None:
        client, other = session.open(), session.open()
        client.run("MULTI", "SET k 1", "INCR n")
        client.wire.reset()
        other.run("GET k", "GET n", "MULTI", "SET k 2", "EXEC", "GET k")

    pair.same(script)


def test_large_block(pair: Pair) -> None:
    """5,000 queued commands, in one write, and with a big value among them."""

    def script(session: Session) -> None:
        client = session.open()
        client.send(pack("MULTI") + pack("INCR", "n") * 5000 + pack("EXEC"))
        client.read(5002)
        client.send(pack("MULTI") + pack("SET", "big", b"x" * 1_000_000) + pack("STRLEN", "big"))
        client.send(pack("GET", "big") + pack("EXEC"))
        client.read(5)

    pair.same(script)


def test_error_then_many_clients(pair: Pair) -> None:
    """An aborted block of one client does not disturb the blocks of others on the same link."""

    def script(session: Session) -> None:
        clients = [session.open() for _ in range(6)]
        for number, client in enumerate(clients):
            bad = ["NOSUCH"] if number % 2 else []
            client.send(pipeline(["MULTI", f"INCR n{number}", *bad, "INCR all", "EXEC"]))
        for number, client in enumerate(clients):
            client.read(3 + number % 2)
            replies = client.read(1, mask=lambda reply: reply.split(b"\r\n")[0])
            assert replies
        clients[0].run("GET all", *(f"GET n{number}" for number in range(6)))

    pair.same(script)


_TELLING = ["CLIENT ID", "CLIENT GETNAME", "CLIENT INFO", "CLIENT LIST", "CLIENT LIST ID {} {}",
            "CLIENT LIST ID 0", "CLIENT LIST TYPE none", "CLIENT LIST TYPE normal",
            "CLIENT GETREDIR", "CLIENT TRACKINGINFO", "GET k"]  # fmt: skip


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("whole", [True, False])
def test_what_a_block_tells_of_clients(pair: Pair, protocol: int, whole: bool) -> None:
    """Ids and lists are those that its client is told outside; what is refused is refused."""

    def script(session: Session) -> None:
        other, client = session.open(), session.open(protocol)
        ids = [each.unrecorded("CLIENT", "ID")[1:-2] for each in (other, client)]
        client.run("CLIENT SETNAME me", "SET k 1")
        other.run("CLIENT SETNAME other")
        lines = [line.format(*(i.decode() for i in ids)) for line in _TELLING]
        block = ["MULTI", *lines, "EXEC"]
        if whole:
            client.wire.send(pipeline(block))
        else:
            for line in block[:-1]:
                client.unrecorded(*line.split())
            client.run("CLIENT ID x", "EXEC")
            for line in block[:-1]:
                client.wire.send(pipeline([line]))
            client.wire.send(pipeline(block[-1:]))
        queued = client.read(len(lines) + 1)
        assert queued == [b"+OK\r\n", *[b"+QUEUED\r\n"] * len(lines)]
        said = client.wire.read_reply()
        assert said.startswith(b"*%d\r\n:%b\r\n" % (len(lines), ids[1])), said
        assert said.count(b"id=%b " % ids[1]) == 4
        assert said.count(b"id=%b " % ids[0]) == 3
        assert said.count(b" multi=%d " % len(lines)) == 4
        assert said.count(b" name=me ") == 4
        assert said.count(b" cmd=exec ") == 4
        rest = said[said.rindex(b"-ERR Unknown client type") :]
        assert rest.endswith(b"$1\r\n1\r\n")
        client.run("CLIENT GETNAME", "PING")
        assert client.unrecorded("CLIENT", "ID") == b":%b\r\n" % ids[1]

    pair.same(script)


def test_invalidations_come_behind_what_a_block_tells(pair: Pair) -> None:
    """In the same write of the server as the reply to EXEC."""

    def script(session: Session) -> None:
        client = session.open(3)
        client.run("CLIENT TRACKING ON BCAST PREFIX k")
        number = client.unrecorded("CLIENT", "ID")
        for key in ("k1", "k2"):
            client.run("MULTI", "CLIENT ID", f"SET {key} 1")
            client.wire.send(pack("EXEC") + pack("PING"))
            replies = client.wire.read_replies(3)
            assert replies[0] == b"*2\r\n" + number + b"+OK\r\n"
            assert sorted(replies[1:])[0] == b"+PONG\r\n"
            assert sorted(replies[1:])[1].endswith(f"$2\r\n{key}\r\n".encode())

    pair.same(script)


def test_a_block_that_is_not_executed_tells_nothing(pair: Pair) -> None:
    """A change of a watched key, an error, a DISCARD; and what the next block tells is right."""

    def script(session: Session) -> None:
        client, other = session.open(), session.open()
        number = client.unrecorded("CLIENT", "ID")
        client.run("WATCH k", "MULTI", "CLIENT ID", "GET k")
        other.run("SET k 1")
        client.run("EXEC", "MULTI", "CLIENT ID", "NOSUCH", "EXEC", "MULTI", "CLIENT ID", "DISCARD")
        client.run("MULTI", "GET k", "GET k", "EXEC", "MULTI", "PING", "CLIENT ID")
        assert client.unrecorded("EXEC") == b"*2\r\n+PONG\r\n" + number
        client.run("MULTI", "CLIENT ID", "EXEC x", "EXEC", "MULTI", "PING", "PING", "EXEC")

    pair.same(script)


_PINNING = ["SUBSCRIBE news", "PSUBSCRIBE n*", "AUTH default x", "HELLO 3", "CLIENT REPLY OFF"]


@pytest.mark.parametrize("pinning", _PINNING)
@pytest.mark.parametrize("telling", ["CLIENT TRACKINGINFO", "CLIENT GETREDIR", "CLIENT ID"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_block_that_tells_of_clients_and_pins(
    pair: Pair, telling: str, pinning: str, whole: bool
) -> None:
    """Replies are no longer matched behind what pins. CLIENT ID is then the server's own."""
    block = ["MULTI", telling, pinning, "GET k", "EXEC", "QUIT"]

    def script(session: Session) -> None:
        client = session.open()
        client.run("SET k 1")
        if not whole:
            client.run(*block[:4])
        client.wire.send(pipeline(block if whole else block[4:]))
        said = client.wire.read_to_end()
        session.log.append((client.name, "got", re.sub(rb"(?m)^:\d+(?=\r$)", b":<n>", said)))

    pair.same(script)


@pytest.mark.parametrize("pinning", _PINNING)
def test_a_block_that_lists_clients_and_pins(pair: Pair, pinning: str) -> None:
    """The sidecar has queued a request of its own, whose reply it cannot take out: the connection
    ends before EXEC."""
    with Wire(pair.sidecar.port) as client, Wire(pair.behind.port) as server:
        number = client.cmd("CLIENT", "ID")[1:-2]
        for line in ["MULTI", "SET k executed", f"CLIENT LIST ID {number.decode()}", pinning]:
            client.cmd(*line.split())
        client.send_command("EXEC")
        assert client.read_to_end() == b""
        assert server.cmd("GET", "k") == b"$-1\r\n"
