"""Commands that look at or stop the whole server: MONITOR, CLIENT PAUSE, DEBUG SLEEP, SYNC."""

from __future__ import annotations

import re

import pytest

from tests.harness.pair import Client, Pair, Session, pipeline
from tests.harness.process import wait_until
from tests.harness.servers import Sidecar
from tests.harness.wire import Wire, pack

_STAMP = re.compile(rb"^\+\d+\.\d+ \[(\d+) [^\]]+\]")


def _monitored(client: Client, last: bytes) -> None:
    """Record the lines of one's own commands up to `last`, without times and addresses. What the
    sidecar itself says to the server is left out: it never touches a key called `seen`."""
    for reply in client.wire.read_until(last):
        if b"seen" in reply:
            client._got(_STAMP.sub(rb"+<time> [\1 <address>]", reply))


def test_monitor(pair: Pair) -> None:
    """MONITOR shows other clients' commands, also from scripts and in other databases."""

    def script(session: Session) -> None:
        watcher, other = session.open(), session.open()
        watcher.run("MONITOR")
        other.run("SET seen 1", "GET seen", "SELECT 3", "GET seen")
        other.cmd("EVAL", "return redis.call('GET', 'seen')", 0)
        other.cmd("SET", "seen", b'"quoted"\r\n\x00\xff')
        other.send(pipeline(["MULTI", "INCR seen:n", "EXEC"]))
        other.read(3)
        other.run("SET seen:last 1")
        _monitored(watcher, b"seen:last")

    pair.same(script)


@pytest.mark.parametrize("how", ["RESET", "QUIT"])
def test_leaving_monitor(pair: Pair, how: str) -> None:
    """RESET makes an ordinary client of it; QUIT hangs up. Others never see the stream."""

    def script(session: Session) -> None:
        watcher, other = session.open(), session.open()
        watcher.run("MONITOR")
        other.run("SET seen 1", "GET seen")
        watcher.send_command(how)
        last = b"+RESET\r\n" if how == "RESET" else b"+OK\r\n"
        watcher.read_until_reply(last)
        if how == "RESET":
            other.run("SET seen 2")
            watcher.run("GET seen", "PING")
        else:
            watcher.to_end()
        other.run("GET seen")

    pair.same(script)


def test_pause_of_everybody(pair: Pair) -> None:
    """A short CLIENT PAUSE delays everybody, even its own client, and changes no order.

    The server holds back CLIENT UNPAUSE, too, so there is no early end to test.
    """

    def script(session: Session) -> None:
        pauser, one, two = session.open(), session.open(), session.open()
        one.run("SET k 1")
        pauser.send(pipeline(["CLIENT PAUSE 150 ALL", "INCR k", "CLIENT UNPAUSE"]))
        pauser.read(3)
        pauser.run("CLIENT PAUSE 150")
        one.send(pipeline(["INCR k", "GET k"]))
        two.send(pipeline(f"ECHO {n}" for n in range(50)))
        one.read(2)
        two.read(50)
        pauser.run("CLIENT PAUSE", "CLIENT PAUSE x", "CLIENT PAUSE 1 X", "CLIENT UNPAUSE x")

    pair.same(script)


def test_write_pause_lets_reads_pass(pair: Pair) -> None:
    """CLIENT PAUSE WRITE holds one client's write; another's read is answered meanwhile."""

    def script(session: Session) -> None:
        pauser, writer, reader = session.open(), session.open(), session.open()
        reader.run("SET k 1")
        pauser.run("CLIENT PAUSE 3000 WRITE")
        reader.run("GET k")
        writer.send(pipeline(["GET k", "SET k 2", "GET k"]))
        writer.read(1)
        session.wait_blocked(1)
        writer.wire.expect_silence()
        pauser.run("CLIENT UNPAUSE")
        writer.read(2)
        reader.run("GET k")

    pair.same(script)


def test_reads_pass_while_another_clients_write_is_paused(pair: Pair) -> None:
    """A write held back on a shared link must not hold back the reads behind it."""

    def script(session: Session) -> None:
        pauser, writer, reader = session.open(), session.open(), session.open()
        reader.run("SET k 1")
        writer.run("GET k")
        pauser.run("CLIENT PAUSE 3000 WRITE")
        writer.send(pipeline(["SET k 2"]))
        session.wait_blocked(1)
        try:
            reader.run("GET k", "MGET k l")
        finally:
            session.observe("CLIENT", "UNPAUSE")
        writer.read()

    pair.same(script)


def test_sleeping_server(pair: Pair) -> None:
    """DEBUG SLEEP on one client: everybody waits, nobody's replies change places."""

    def script(session: Session) -> None:
        sleeper, one, two = session.open(), session.open(), session.open()
        sleeper.send(pipeline(["ECHO before", "DEBUG SLEEP 0.2", "ECHO behind"]))
        one.send(pipeline(f"ECHO one{n}" for n in range(200)))
        two.send(pipeline(f"APPEND k {n}" for n in range(200)))
        sleeper.read(3)
        one.read(200)
        two.read(200)

    pair.same(script)


def test_debug_and_object(pair: Pair) -> None:
    """DEBUG subcommands with plain replies."""

    def script(session: Session) -> None:
        client = session.open()
        client.run("SET k v", "DEBUG SET-ACTIVE-EXPIRE 0", "DEBUG SET-ACTIVE-EXPIRE 1")
        client.run("DEBUG SLEEP 0", "DEBUG SLEEP", "DEBUG JMAP", "DEBUG STRINGMATCH-LEN 1 x")
        client.run("DEBUG DIGEST-VALUE k", "DEBUG LISTPACK k", "DEBUG ERROR custom", "GET k")
        client.cmd("DEBUG", "ERROR", "CUSTOM text with spaces")

    pair.same(script)


@pytest.mark.one_worker("SWAPDB empties the near cache of its own worker")
def test_swapdb_flush_and_functions_of_the_keyspace(pair: Pair) -> None:
    """FLUSHDB, FLUSHALL and SWAPDB of one client are seen at once by another."""

    def script(session: Session) -> None:
        one, two = session.open(), session.open()
        for flush in ("FLUSHDB", "FLUSHDB ASYNC", "FLUSHALL SYNC", "SWAPDB 0 9", "FLUSHALL"):
            one.run("SET k 1", "GET k", "GET k", "GET k")
            two.run("GET k", "GET k")
            one.run(flush, "GET k")
            two.run("GET k", "SET k 2")
            one.run("GET k", "DBSIZE")

    pair.same(script)


def test_server_killed_connection(pair: Pair) -> None:
    """CLIENT KILL TYPE normal by an operator on the server: clients come back, none is wrong."""
    with Wire(pair.sidecar.port) as wire:
        assert wire.cmd("SET", "k", "v") == b"+OK\r\n"
    with Wire(pair.behind.port) as operator:
        operator.send(pack("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))
        assert operator.read_reply().startswith(b":")

    def answers() -> bool:
        try:
            with Wire(pair.sidecar.port) as wire:
                return wire.cmd("GET", "k") == b"$1\r\nv\r\n"
        except AssertionError:
            return False

    wait_until(answers, "the sidecar is connected again")


@pytest.mark.parametrize("data", [b"PSYNC ? -1\r\n", pack("PSYNC", "?", "-1")])
def test_replication_as_the_first_command(pair: Pair, data: bytes) -> None:
    """Servers refuse it on a connection that has replies due, such as one that is being greeted."""
    for port in (pair.direct.port, pair.sidecar.port):
        with Wire(port) as replica:
            assert replica.replicate(data).startswith(b"+FULLRESYNC ")


def test_replication_as_the_first_command_with_session_pooling(pair: Pair) -> None:
    """The link that a client gets as it connects has its names already."""
    settings = {"upstream.pooling": "session"}
    with Sidecar(pair.behind.url, settings=settings) as sidecar:
        for _ in range(8):
            with Wire(sidecar.port) as replica:
                assert replica.replicate(b"PSYNC ? -1\r\n").startswith(b"+FULLRESYNC ")
