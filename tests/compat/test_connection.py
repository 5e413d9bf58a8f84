"""State of a connection: HELLO, SELECT, RESET, QUIT and the CLIENT commands."""

from __future__ import annotations

import re
from contextlib import ExitStack

import pytest

from tests.harness.farm import Farm
from tests.harness.pair import Pair, Session, masked, pipeline
from tests.harness.process import wait_until
from tests.harness.servers import Sidecar, valkey
from tests.harness.wire import Wire, pack

_ID = masked(rb"id\r\n:\d+")
_NUMBER = masked(rb":\d+")


def test_protocol_back_and_forth(pair: Pair) -> None:
    """HELLO 2 and 3 in turn; the form of every later reply follows, also within one write."""

    def script(session: Session) -> None:
        client = session.open()
        client.run("HSET h f 1.5", "SADD s 1", "ZADD z 1.5 m")
        shape = ["HGETALL h", "SMEMBERS s", "ZSCORE z m", "GET missing", "ZRANGE z 0 -1 WITHSCORES"]
        client.run(*shape)
        for protocol in (3, 2, 3, 3, 2, 2):
            client.cmd("HELLO", protocol, mask=_ID)
            client.run(*shape)
        client.send(pipeline(["HELLO 3", "HGETALL h", "HELLO 2", "HGETALL h", "HELLO 3"]))
        client.read(5, mask=_ID)
        client.run(*shape)

    pair.same(script)


HELLOS = ["HELLO", "HELLO 2", "HELLO 3", "HELLO 1", "HELLO 4", "HELLO x", "HELLO 3 BOGUS"]
HELLOS += ["HELLO 3 SETNAME", "HELLO 3 SETNAME a\nb", "HELLO 3 AUTH x", "HELLO 3 AUTH nosuch x"]
HELLOS += ["HELLO 3 SETNAME me", "HELLO 03", "HELLO 3 SETNAME me AUTH default x", "hello 3"]


@pytest.mark.parametrize("line", HELLOS)
def test_hello(pair: Pair, line: str) -> None:
    """Every form of HELLO, and what the connection is afterwards."""

    def script(session: Session) -> None:
        client = session.open()
        client.send(pipeline([line]))
        client.read(mask=_ID)
        client.run("CLIENT GETNAME", "HGETALL missing", "PING")

    pair.same(script)


HALF_RIGHT = ["SETNAME n AUTH bob bad", "AUTH bob bad SETNAME n", "AUTH bob secret NOSUCH"]
HALF_RIGHT += ["SETNAME n NOSUCH", "AUTH bob secret SETNAME a\nb", "SETNAME AUTH bob secret"]
HALF_RIGHT += ["SETNAME n AUTH bob secret SETNAME", "AUTH AUTH AUTH", "SETNAME n SETNAME a\nb"]


@pytest.mark.parametrize("options", HALF_RIGHT)
def test_hello_with_a_fault(pair: Pair, options: str) -> None:
    """What stands before the fault: Redis 7.0 has done it by then, later servers have not."""

    def script(session: Session) -> None:
        client = session.open()
        client.run("ACL SETUSER bob on >secret ~* &* +@all", "CLIENT SETNAME before")
        client.send(pipeline([f"HELLO 3 {options}"]))
        client.read(mask=_ID)
        client.run("CLIENT GETNAME", "ACL WHOAMI", "HGETALL missing", "RESET", "ACL DELUSER bob")

    pair.same(script)


def test_two_protocols_at_once(pair: Pair) -> None:
    """Clients of both protocols side by side never get each other's form."""

    def script(session: Session) -> None:
        clients = [session.open(2 + number % 2) for number in range(6)]
        clients[0].run("HSET h f v")
        for _ in range(50):
            for client in clients:
                client.send_command("HGETALL", "h")
            for client in clients:
                client.read()

    pair.same(script)


def test_select(pair: Pair) -> None:
    """Databases are kept apart, per connection, and in one write with others in between."""

    def script(session: Session) -> None:
        one, two = session.open(), session.open()
        one.run("SET k zero", "SELECT 1", "SET k one", "SELECT 15", "SET k fifteen", "GET k")
        two.run("GET k", "SELECT 1", "GET k", "SELECT 16", "GET k", "SELECT -1", "SELECT x")
        two.run("SELECT", "SELECT 1 2", "GET k", "SELECT 00", "SELECT 0", "GET k")
        lines = [f"SELECT {n % 5}" if n % 3 else f"INCR n{n % 2}" for n in range(300)]
        one.send(pipeline(lines))
        two.send(pipeline(lines[::-1]))
        one.read(300, mask=masked(rb":\d+"))
        two.read(300, mask=masked(rb":\d+"))
        one.run("MGET n0 n1", "SELECT 1", "MGET n0 n1", "SELECT 4", "MGET n0 n1", "SELECT 0")
        one.run("GET k", "MOVE k 2", "SWAPDB 0 2", "GET k")
        two.run("GET k")

    pair.same(script)


def test_select_pipelined_writes_land_where_they_should(pair: Pair) -> None:
    """One write that visits all databases; each then holds exactly its own value."""

    def script(session: Session) -> None:
        client = session.open()
        for _ in range(3):
            lines = [line for n in range(16) for line in (f"SELECT {n}", f"APPEND k {n}.")]
            client.send(pipeline(lines))
            client.read(32)
        for number in range(16):
            client.run(f"SELECT {number}", "GET k", "DBSIZE")

    pair.same(script)


def test_reset(pair: Pair) -> None:
    """RESET gives back a fresh connection, whatever it was doing."""

    def script(session: Session) -> None:
        client = session.open()
        client.run("SET k zero", "SELECT 3", "SET k three", "CLIENT SETNAME me")
        client.cmd("HELLO", 3, mask=_ID)
        client.run("MULTI", "SET k x", "RESET", "GET k", "CLIENT GETNAME", "HGETALL missing")
        client.run("EXEC", "RESET x", "WATCH k", "RESET", "MULTI", "EXEC", "CLIENT TRACKINGINFO")
        client.send(pipeline(["SELECT 3", "GET k", "RESET", "GET k", "SELECT 3", "RESET", "GET k"]))
        client.read(7)

    pair.same(script)


RESETS = {
    "skipped": ["CLIENT REPLY SKIP", "RESET"],
    "off": ["CLIENT REPLY OFF", "SET k 1", "RESET"],
    "off-and-skipped": ["CLIENT REPLY OFF", "CLIENT REPLY SKIP", "RESET"],
    "skipped-in-multi": ["MULTI", "CLIENT REPLY SKIP", "RESET"],
    "wrong": ["CLIENT REPLY SKIP", "RESET x", "RESET", "GET k"],
    "said-by-a-script": ["CLIENT REPLY ON", "EVAL return{ok='RESET'} 0", "SET k 2", "RESET"],
    "twice": ["CLIENT REPLY SKIP", "RESET", "RESET", "CLIENT REPLY SKIP", "RESET", "GET k"],
}


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("lines", RESETS.values(), ids=RESETS)
def test_reset_where_replies_do_not_tell(pair: Pair, lines: list[str], protocol: int) -> None:
    """The server says nothing, or something that looks like it before."""

    def script(session: Session) -> None:
        client = session.open(protocol)
        client.run("SELECT 1", "CLIENT SETNAME me")
        client.send(pipeline(lines))
        client.drain()
        client.run("CLIENT GETNAME", "SET k 3", "HGETALL missing", "SELECT 1", "GET k")

    pair.same(script)


def test_quit(pair: Pair) -> None:
    """QUIT answers OK and hangs up; what came behind it in the same write is not done."""

    def script(session: Session) -> None:
        client, other, third = session.open(), session.open(), session.open()
        client.send(pipeline(["SET k 1", "INCR k", "QUIT", "SET after 1", "INCR k"]))
        client.to_end()
        third.run("QUIT")
        third.to_end()
        other.run("GET k", "EXISTS after", "QUIT x y")

    pair.same(script)


def test_names(pair: Pair) -> None:
    """CLIENT SETNAME, GETNAME and SETINFO with their error texts."""

    def script(session: Session) -> None:
        client, other = session.open(), session.open()
        client.run("CLIENT GETNAME", "CLIENT SETNAME me", "CLIENT GETNAME", "CLIENT SETNAME")
        client.cmd("CLIENT", "SETNAME", "with space")
        client.cmd("CLIENT", "SETNAME", "with\nnewline")
        client.cmd("CLIENT", "SETNAME", b"high\xff")
        client.run("CLIENT SETNAME a b", "CLIENT GETNAME", "CLIENT GETNAME x", "client getname")
        other.run("CLIENT GETNAME")
        client.cmd("CLIENT", "SETNAME", "")
        client.run("CLIENT GETNAME", "CLIENT SETINFO lib-name test", "CLIENT SETINFO LIB-VER 1.0")
        client.run("CLIENT SETINFO lib-what x", "CLIENT SETINFO lib-name", "CLIENT SETINFO")
        client.cmd("CLIENT", "SETINFO", "lib-name", "with space")
        client.run("CLIENT NOSUCH", "CLIENT HELP")
        client.cmd("HELLO", 3, mask=_ID)
        client.run("CLIENT GETNAME", "CLIENT SETNAME x", "CLIENT GETNAME")

    pair.same(script)


@pytest.mark.one_worker("ids grow within a worker only")
def test_own_id(pair: Pair) -> None:
    """CLIENT ID stays the same, differs from others', grows, and is the one HELLO tells."""

    def script(session: Session) -> None:
        client, other = session.open(), session.open()
        first = client.cmd("CLIENT", "ID", mask=_NUMBER)
        client.run("SET k v", "SELECT 1", "RESET", "WATCH k", "UNWATCH")
        assert client.cmd("CLIENT", "ID", mask=_NUMBER) == first
        later = other.cmd("CLIENT", "ID", mask=_NUMBER)
        assert int(later[1:]) > int(first[1:])
        hello = client.cmd("HELLO", 3, mask=_ID)
        assert b"$2\r\nid\r\n" + first in hello
        client.run("CLIENT ID x")

    pair.same(script)


def test_client_info(pair: Pair) -> None:
    """CLIENT INFO tells this client's name, database, protocol, user and library."""

    def script(session: Session) -> None:
        client = session.open()
        client.run("CLIENT SETNAME me", "CLIENT SETINFO LIB-NAME lib", "SELECT 7")
        for _ in range(2):
            info = client.unrecorded("CLIENT", "INFO")
            for field in (b"name", b"db", b"resp", b"user", b"lib-name", b"multi"):
                found = re.search(rb" " + field + rb"=(\S*)", info)
                session.log.append(("a", "got", field + b"=" + (found[1] if found else b"absent")))
            client.cmd("HELLO", 3, mask=_ID)

    pair.same(script)


def test_kill_by_id(pair: Pair) -> None:
    """CLIENT KILL ID of a foreign client hangs up on that one alone."""

    def script(session: Session) -> None:
        killer, victim, bystander = session.open(), session.open(), session.open()
        number = victim.cmd("CLIENT", "ID", mask=_NUMBER)[1:-2]
        bystander.run("SET k v")
        killer.cmd("CLIENT", "KILL", "ID", number, mask=None)
        victim.to_end()
        bystander.run("GET k")
        killer.run("CLIENT KILL ID 999999999", "CLIENT KILL ID x", "CLIENT KILL", "GET k")
        killer.run("CLIENT KILL 1.2.3.4:5", "CLIENT KILL NOSUCH x")

    pair.same(_without_number(script))


def _without_number(script):  # type: ignore[no-untyped-def]
    """Mask the request that holds an id."""

    def run(session: Session) -> None:
        script(session)
        pattern = rb"(KILL\r\n\$2\r\nID\r\n)\$\d+\r\n\d+"
        session.log[:] = [
            (name, what, re.sub(pattern, rb"\1<id>", data)) for name, what, data in session.log
        ]

    return run


def test_no_evict_and_no_touch(pair: Pair) -> None:
    """Flags of a connection, and their error texts."""

    def script(session: Session) -> None:
        client = session.open()
        client.run("CLIENT NO-EVICT on", "CLIENT NO-EVICT off", "CLIENT NO-EVICT x", "GET k")
        client.run("CLIENT NO-TOUCH ON", "SET k v", "GET k", "CLIENT NO-TOUCH OFF", "GET k")
        client.run("CLIENT CACHING YES", "CLIENT GETREDIR", "CLIENT TRACKINGINFO")
        client.run("CLIENT UNBLOCK 999999999", "CLIENT UNBLOCK x", "CLIENT UNBLOCK 1 BOGUS")

    pair.same(script)


def test_reply_off_on_skip(pair: Pair) -> None:
    """CLIENT REPLY: what is silent stays silent, what is not keeps its order."""

    def script(session: Session) -> None:
        client, other = session.open(), session.open()
        client.run("SET n 0", "CLIENT REPLY BOGUS", "CLIENT REPLY ON")
        client.send(pipeline(["CLIENT REPLY SKIP", "INCR n", "GET n", "INCR n"]))
        client.read(2)
        client.send(pipeline(["CLIENT REPLY OFF", "INCR n", "NOSUCH", "GET n", "CLIENT REPLY ON"]))
        client.read(1)
        client.run("GET n")
        client.send(pipeline(["CLIENT REPLY OFF", "INCR n", "CLIENT REPLY SKIP", "INCR n"]))
        client.send(pipeline(["CLIENT REPLY ON", "GET n"]))
        client.read(2)
        client.send(pipeline(["CLIENT REPLY OFF", "INCR n", "RESET"]))
        client.send(pipeline(["CLIENT REPLY ON"]))
        client.drain()
        other.run("GET n")

    pair.same(script)


def test_many_silent_writes(pair: Pair) -> None:
    """What a silent client sends is done, in order, and only that is answered which should be."""

    def script(session: Session) -> None:
        client, other = session.open(), session.open()
        client.send(pack("CLIENT", "REPLY", "OFF") + pack("INCR", "n") * 500)
        client.send(pack("CLIENT", "REPLY", "ON") + pack("GET", "n"))
        client.read(2)
        client.drain()
        other.run("GET n")

    pair.same(script)


def test_info_and_time_answer(pair: Pair) -> None:
    """Replies that differ by nature still have the right form."""
    with Wire(pair.sidecar.port) as wire:
        assert b"redis_version" in wire.cmd("INFO", "server")
        assert re.fullmatch(rb"\*2\r\n\$10\r\n\d+\r\n\$\d\r\n\d+\r\n", wire.cmd("TIME"))
        assert wire.cmd("LASTSAVE").startswith(b":1")
        assert wire.cmd("CLIENT", "LIST").count(b"\n") > 1


def test_dedicated_connections_end_on_the_server(pair: Pair) -> None:
    """Upstream connections of blocked clients do not outlive them, but for a few spare ones."""
    spare = 8

    def count(field: str) -> int:
        with Wire(pair.behind.port) as wire:
            found = re.search(rb"\r\n" + field.encode() + rb":(\d+)", wire.cmd("INFO", "clients"))
        assert found
        return int(found[1])

    with ExitStack() as stack:
        wires = [stack.enter_context(Wire(pair.sidecar.port)) for _ in range(40)]
        for number, wire in enumerate(wires):
            wire.send_command("BLPOP", f"nothing{number}", 0)
        wait_until(lambda: count("blocked_clients") == 40, "40 blocked clients")
        connected = count("connected_clients")
    wait_until(lambda: count("blocked_clients") == 0, "none blocked")
    left = connected - 40 + spare
    wait_until(lambda: count("connected_clients") <= left, "their connections closed")


@pytest.mark.redis
def test_connections_leave_no_errors_at_the_server(farm: Farm) -> None:
    """Redis 7.0 has no CLIENT SETINFO: one connection finds out, and the others do not try."""
    pair = farm.pair("redis7")
    with Wire(pair.behind.port) as direct:
        direct.cmd("CONFIG", "RESETSTAT")
        for _ in range(10):
            with Wire(pair.sidecar.port) as wire:
                assert wire.cmd("BLPOP", "nothing", "0.001") == b"*-1\r\n"
                assert wire.cmd("WATCH", "k") == b"+OK\r\n"
        assert "errorstat_" not in str(direct.ask("INFO", "errorstats"))


@pytest.mark.parametrize("protocol", ["2", "3"])
def test_hello_tells_what_the_server_says_now(protocol: str) -> None:
    """Not what it said when the client's link was made."""
    with valkey() as server, Sidecar(server.url) as sidecar:
        for setting, value in (
            ("availability-zone", "here"),
            ("availability-zone", "there"),
            ("extended-redis-compatibility", "yes"),
        ):
            with Wire(server.port) as direct, Wire(sidecar.port) as client:
                for hello in (("HELLO", protocol), ("HELLO",)):
                    said = [re.sub(rb"\nid\r\n:\d+", b"", w.cmd(*hello)) for w in (direct, client)]
                    assert said[0] == said[1]
                assert client.cmd("CONFIG", "SET", setting, value) == b"+OK\r\n"
                said = [re.sub(rb"\nid\r\n:\d+", b"", w.cmd("HELLO")) for w in (direct, client)]
                assert said[0] == said[1]
                assert (value.encode() if value != "yes" else b"redis") in said[0]
