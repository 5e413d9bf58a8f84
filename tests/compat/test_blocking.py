"""Blocking commands: woken by others, by time, by CLIENT UNBLOCK, and by data already there."""

from __future__ import annotations

import pytest

from tests.harness.pair import Pair, Session, masked, pipeline, words
from tests.harness.process import wait_until
from tests.harness.wire import Wire

_NUMBER = masked(rb":\d+")

WAKERS = {
    "BLPOP q 0": ["RPUSH q a b"],
    "BRPOP q 0": ["RPUSH q a b"],
    "BLPOP p q 0": ["RPUSH q a"],
    "BLMOVE q r LEFT RIGHT 0": ["RPUSH q a", "LRANGE r 0 -1"],
    "BRPOPLPUSH q r 0": ["RPUSH q a", "LRANGE r 0 -1"],
    "BLMPOP 0 2 p q LEFT COUNT 2": ["RPUSH q a b c"],
    "BZPOPMIN z 0": ["ZADD z 1 a 2 b"],
    "BZPOPMAX z 0": ["ZADD z 1 a 2 b"],
    "BZMPOP 0 1 z MAX COUNT 2": ["ZADD z 1 a 2 b"],
    "XREAD BLOCK 0 STREAMS x $": ["XADD x 1-1 f v"],
    "XREAD COUNT 1 BLOCK 0 STREAMS w x 0 0": ["XADD x 1-1 f v"],
    "XREADGROUP GROUP g me BLOCK 0 STREAMS y >": ["XADD y 9-1 f v"],
}

SETUP = ["XGROUP CREATE y g $ MKSTREAM", "SET str v"]


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("line", WAKERS)
def test_woken(pair: Pair, line: str, protocol: int) -> None:
    """Blocks until another client brings data; that one and a third are served meanwhile."""

    def script(session: Session) -> None:
        blocked, other, third = (session.open(protocol) for _ in range(3))
        other.run(*SETUP)
        blocked.send(pipeline([line, "ECHO behind"]))
        session.wait_blocked(1)
        third.run("GET str")
        blocked.wire.expect_silence()
        other.run(*WAKERS[line])
        blocked.read(2)
        third.run("GET str")

    pair.same(script)


TIMED = ["BLPOP q 0.05", "BRPOP q p 0.05", "BLMOVE q r LEFT LEFT 0.05", "BLMPOP 0.05 1 q LEFT"]
TIMED += ["BRPOPLPUSH q r 0.05", "BZPOPMIN z 0.05", "BZPOPMAX z 0.05", "BZMPOP 0.05 1 z MIN"]
TIMED += ["XREAD BLOCK 50 STREAMS x $", "XREADGROUP GROUP g me BLOCK 50 STREAMS y >"]


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("line", TIMED)
def test_timed_out(pair: Pair, line: str, protocol: int) -> None:
    """Null after the time, in the protocol's own spelling; pipelined commands keep their place."""

    def script(session: Session) -> None:
        client = session.open(protocol)
        client.run(*SETUP)
        client.send(pipeline(["ECHO before", line, "ECHO between", line, "ECHO behind"]))
        client.read(5)
        client.run(line, "PING")

    pair.same(script)


BAD = ["BLPOP q", "BLPOP q -1", "BLPOP q x", "BLPOP str 0", "BLPOP q 1e400", "BLMOVE q r UP UP 0"]
BAD += ["BLMPOP 0 0 q LEFT", "BLMPOP 0 1 q UP", "BZPOPMIN str 0", "XREAD BLOCK x STREAMS x $"]
BAD += ["XREAD BLOCK -1 STREAMS x $", "XREADGROUP GROUP no me BLOCK 0 STREAMS x >", "BLMPOP 0"]
BAD += ["XREAD BLOCK 0 STREAMS str $", "WAIT x 0", "WAIT 0 -1", "WAITAOF 1 0 0", "WAITAOF 0 0 0"]


def test_errors_and_data_at_once(pair: Pair) -> None:
    """What need not block answers at once, errors and data alike."""

    def script(session: Session) -> None:
        client = session.open()
        client.run(*SETUP)
        client.run(*BAD)
        client.run("RPUSH q a b c d e f", "BLPOP q 0", "BRPOP q 0", "BLMOVE q r LEFT LEFT 0")
        client.run("BLMPOP 0 1 q LEFT COUNT 2", "BRPOPLPUSH q r 0", "LRANGE r 0 -1")
        client.run("XADD x 1-1 f v", "XREAD BLOCK 0 STREAMS x 0", "ZADD z 1 a", "BZPOPMIN z 0")

    pair.same(script)


def test_wait(pair: Pair) -> None:
    """WAIT without replicas: at once for none, after the time for one."""

    def script(session: Session) -> None:
        client, other = session.open(), session.open()
        client.run("WAIT 0 0", "SET k 1", "WAIT 0 10", "WAIT 1 50")
        client.send(pipeline(["INCR k", "WAIT 1 50", "INCR k", "WAIT 0 0", "GET k"]))
        other.run("GET nothing")
        client.read(5)

    pair.same(script)


def test_wait_of_one_does_not_stop_another(pair: Pair) -> None:
    """A WAIT that lasts keeps only its own client waiting."""

    def script(session: Session) -> None:
        waiting, other = session.open(), session.open()
        waiting.send(pipeline(["SET k 1", "WAIT 1 3000", "ECHO behind"]))
        waiting.read()
        session.wait_blocked(1)
        other.run("GET k", "SET k 2")
        waiting.wire.expect_silence()
        number = _blocked_id(session.observe("CLIENT", "LIST"))
        assert session.observe("CLIENT", "UNBLOCK", number) == b":1\r\n"
        waiting.read(2)

    pair.same(script)


def _blocked_id(clients: bytes) -> bytes:
    """The id of the blocked client in a CLIENT LIST."""
    line = next(line for line in clients.splitlines() if b" cmd=wait" in line)
    return line.split(b"id=")[1].split(b" ")[0]


@pytest.mark.parametrize("how", ["", " TIMEOUT", " ERROR"])
def test_unblock_by_id(pair: Pair, how: str) -> None:
    """CLIENT UNBLOCK takes the id that CLIENT ID told the blocked client."""

    def script(session: Session) -> None:
        blocked, other = session.open(), session.open()
        number = blocked.cmd("CLIENT", "ID", mask=_NUMBER)[1:-2].decode()
        blocked.send(pipeline(["BLPOP q 0", "ECHO behind"]))
        session.wait_blocked(1)
        reply = other.unrecorded(*words(f"CLIENT UNBLOCK {number}{how}"))
        session.log.append(("b", "got", reply))
        blocked.read(2)
        reply = other.unrecorded(*words(f"CLIENT UNBLOCK {number}{how}"))
        session.log.append(("b", "got", reply))

    record = pair.same(script)
    assert ("b", "got", b":1\r\n") in record


def test_served_in_the_order_of_waiting(pair: Pair) -> None:
    """Who blocked first is served first."""

    def script(session: Session) -> None:
        waiting = [session.open() for _ in range(5)]
        for number, client in enumerate(waiting, start=1):
            client.send_command("BLPOP", "q", 0)
            session.wait_blocked(number)
        other = session.open()
        other.run("RPUSH q 1 2 3", "RPUSH q 4 5")
        for client in waiting:
            client.read()

    pair.same(script)


def test_blocked_client_disappears(pair: Pair) -> None:
    """What a vanished client would have popped stays in the list."""

    def script(session: Session) -> None:
        gone, other = session.open(), session.open()
        gone.send_command("BLPOP", "q", 0)
        session.wait_blocked(1)
        gone.wire.reset()
        session.wait_blocked(0)
        other.run("RPUSH q a", "LLEN q")

    pair.same(script)


def test_blocking_then_ordinary_work(pair: Pair) -> None:
    """After blocking, the client is an ordinary one again and sees its own writes in order."""

    def script(session: Session) -> None:
        client = session.open()
        for number in range(20):
            client.send(pipeline([f"RPUSH q {number}", "BLPOP q 0", "INCR n", "GET n"]))
            client.read(4)
        client.run("SELECT 2", "RPUSH q x", "BLPOP q 0", "SET k two", "GET k", "SELECT 0", "GET k")

    pair.same(script)


def test_blocking_in_the_selected_database(pair: Pair) -> None:
    """A blocking command waits in the client's database."""

    def script(session: Session) -> None:
        blocked, other = session.open(), session.open()
        blocked.run("SELECT 5")
        blocked.send_command("BLPOP", "q", 0)
        session.wait_blocked(1)
        other.run("RPUSH q wrong", "SELECT 5", "RPUSH q right")
        blocked.read()
        blocked.run("DBSIZE")

    pair.same(script)


def test_many_blocked_clients(pair: Pair) -> None:
    """A hundred blocked clients; ordinary traffic flows, and each gets its own element."""

    def script(session: Session) -> None:
        waiting = [session.open() for _ in range(100)]
        for number, client in enumerate(waiting):
            client.send_command("BLPOP", f"q{number}", 0)
        session.wait_blocked(100)
        other = session.open()
        other.run(*(f"RPUSH q{number} {number}" for number in range(100)))
        for client in waiting:
            client.read()

    pair.same(script)


@pytest.mark.parametrize("name", ["", "worker"])
@pytest.mark.parametrize(
    "command", [("BLPOP", "jobs", 0), ("XREAD", "BLOCK", 0, "STREAMS", "s", "$")]
)
def test_who_hangs_up_at_once_pops_nothing(
    pair: Pair, name: str, command: tuple[str | int, ...]
) -> None:
    """The sidecar's own requests may stand before the blocking one on the link."""
    with Wire(pair.behind.port) as server:

        def blocked() -> str:
            return str(server.ask("INFO", "clients")).split("blocked_clients:")[1].split()[0]

        for _ in range(20):
            with Wire(pair.sidecar.port) as wire:
                if name:
                    wire.cmd("CLIENT", "SETNAME", name)
                wire.send_command(*command)
        with Wire(pair.sidecar.port) as own:
            here = f" laddr=127.0.0.1:{pair.sidecar.port} "
            wait_until(lambda: str(own.ask("CLIENT", "LIST")).count(here) == 1, "they are gone")
        wait_until(lambda: blocked() == "0", "nobody waits any more")
        server.cmd("RPUSH", "jobs", "a")
        assert server.cmd("LRANGE", "jobs", 0, -1) == b"*1\r\n$1\r\na\r\n"
