"""CLIENT LIST, INFO and KILL through a sidecar, against what its clients know of themselves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.harness.pair import Client, Pair, Session
from tests.harness.process import wait_until
from tests.harness.servers import Server, Sidecar
from tests.harness.wire import Wire
from tests.mixer.masks import client_lines


def _lines(wire: Wire, *args: str) -> list[dict[str, str]]:
    """What CLIENT LIST says, line by line."""
    text = wire.cmd("CLIENT", "LIST", *args).partition(b"\r\n")[2].decode()
    text = text.removeprefix("txt:").strip()
    return [dict(w.split("=", 1) for w in line.split(" ")) for line in text.split("\n")]


def test_client_list_and_kill(pair: Pair) -> None:
    """Each client once, as itself; no links; others as they are. KILL ADDR ends just the one."""
    port = pair.sidecar.port
    with Wire(port) as a, Wire(port) as b, Wire(port) as c, Wire(pair.behind.port) as foreign:
        wires = {"a": a, "b": b, "c": c, "foreign": foreign}
        for name, wire in wires.items():
            assert wire.cmd("CLIENT", "SETNAME", name) == b"+OK\r\n"
        ids = {name: wire.cmd("CLIENT", "ID")[1:-2].decode() for name, wire in wires.items()}
        assert c.cmd("SUBSCRIBE", "x").endswith(b":1\r\n")
        own = {(name, ids[name], wire.address) for name, wire in wires.items()}

        def ours(*args: str) -> list[tuple[str, str, str]]:
            return sorted((i["name"], i["id"], i["addr"]) for i in _lines(a, *args) if i["name"])

        assert ours() == sorted(own)
        assert {i["name"] for i in _lines(foreign)} >= {"foreign", "redis-sidecar", "c"}
        assert ours("ID", ids["a"], ids["b"]) == sorted(o for o in own if o[0] in "ab")
        assert [i["id"] for i in _lines(a, "ID", ids["foreign"])] == [ids["foreign"]]
        with Wire(port) as d:
            assert d.cmd("PING") == b"+PONG\r\n"
            assert a.cmd("CLIENT", "KILL", "ADDR", b.address) == b":1\r\n"
            b.expect_eof()
            gone = d.address
            assert a.cmd("CLIENT", "KILL", gone) == b"+OK\r\n"
            d.expect_eof()
        assert a.cmd("CLIENT", "KILL", gone) == b"-ERR No such client\r\n"
        assert ours() == sorted(o for o in own if o[0] != "b")
        assert a.cmd("PUBLISH", "x", "1") == b":1\r\n"
        assert c.read_reply().endswith(b"$1\r\n1\r\n")


def test_client_kill_user(pair: Pair) -> None:
    """That user's clients, pinned ones too, and nobody else."""
    port = pair.sidecar.port
    with Wire(port) as a, Wire(port) as bob, Wire(port) as bob_too, Wire(port) as other:
        assert a.cmd("ACL", "SETUSER", "bob", "on", ">p", "~*", "&*", "+@all") == b"+OK\r\n"
        for wire in (bob, bob_too):
            assert wire.cmd("AUTH", "bob", "p") == b"+OK\r\n"
        assert bob_too.cmd("SUBSCRIBE", "x").endswith(b":1\r\n")
        assert other.cmd("SET", "k", "v") == b"+OK\r\n"
        assert a.cmd("CLIENT", "KILL", "USER", "bob")[:1] == b":"
        bob.expect_eof()
        bob_too.expect_eof()
        assert other.cmd("GET", "k") == b"$1\r\nv\r\n"
        assert a.cmd("ACL", "DELUSER", "bob") == b":1\r\n"


@pytest.mark.parametrize("protocol", [2, 3])
def test_client_info(pair: Pair, protocol: int) -> None:
    """What CLIENT INFO says of a client is what the list says of it, and its own."""
    with Wire(pair.sidecar.port) as first, Wire(pair.sidecar.port) as a:
        assert first.cmd("PING") == b"+PONG\r\n"
        a.cmd("HELLO", protocol, "SETNAME", "me")
        own = a.cmd("CLIENT", "ID")[1:-2].decode()
        head, _, text = a.cmd("CLIENT", "INFO").partition(b"\r\n")
        assert head[:1] == (b"=" if protocol == 3 else b"$")
        assert int(head[1:]) == len(text) - 2
        info = dict(w.split("=", 1) for w in text.decode().removeprefix("txt:").split())
        assert (info["id"], info["name"], info["addr"]) == (own, "me", a.address)
        with Wire(pair.direct.port) as direct:
            assert f"cmd={info['cmd']} " in str(direct.ask("CLIENT", "INFO"))
        (listed,) = _lines(a, "ID", own)
        assert list(listed) == list(info)
        for field in ("id", "name", "addr", "db", "user", "resp"):
            assert listed.get(field) == info.get(field)
        # Both are differences of whole seconds: nobody is idle for longer than connected.
        assert all(int(line["age"]) >= int(line["idle"]) for line in _lines(a))


def test_what_the_server_counts_are_links(pair: Pair) -> None:
    """INFO counts the sidecar's connections, and the logs of the server name them."""
    with Wire(pair.sidecar.port) as a:
        assert a.cmd("CLIENT", "SETNAME", "me") == b"+OK\r\n"

        def connected() -> int:
            found = re.search(rb"connected_clients:(\d+)", a.cmd("INFO", "clients"))
            assert found is not None
            return int(found[1])

        before = connected()
        wires = [Wire(pair.sidecar.port) for _ in range(30)]
        for wire in wires:
            assert wire.cmd("PING") == b"+PONG\r\n"
        assert connected() < before + 30
        for wire in wires:
            wire.close()
        a.cmd("CONFIG", "SET", "slowlog-log-slower-than", 0)
        a.cmd("SLOWLOG", "RESET")
        a.cmd("GET", "k")
        slow = a.cmd("SLOWLOG", "GET", 10)
        a.cmd("CONFIG", "SET", "slowlog-log-slower-than", 10_000)
        a.cmd("SLOWLOG", "RESET")
        assert b"\r\nredis-sidecar\r\n" in slow
        a.cmd("ACL", "LOG", "RESET")
        assert a.cmd("ACL", "SETUSER", "bob", "on", ">p", "~*", "+get") == b"+OK\r\n"
        with Wire(pair.sidecar.port) as bob:
            assert bob.cmd("AUTH", "nobody", "x")[:10] == b"-WRONGPASS"
            assert bob.cmd("AUTH", "bob", "p") == b"+OK\r\n"
            assert bob.cmd("GET", "k") == b"$-1\r\n"
        tracked = b"\r\nclient|tracking\r\n"
        wait_until(lambda: tracked in a.cmd("ACL", "LOG"), "the near cache's link is refused")
        failures = a.cmd("ACL", "LOG")
        assert b"username\r\n$6\r\nnobody" in failures
        for said in (slow, failures):
            assert a.address.encode() not in said
        assert a.cmd("ACL", "DELUSER", "bob") == b":1\r\n"


FILTERS = (
    "TYPE normal", "TYPE pubsub", "TYPE replica", "TYPE slave", "TYPE master", "TYPE nonsense",
    "TYPE", "ID 0", "ID x", "ID -1", "ID 1 x", "ID", "ID 99999999999999999999", "NOSUCH x",
    "USER default",
    "USER bob", "USER nosuch", "NAME a", "NAME nosuch", "NOT-NAME a", "DB 9", "DB 0", "NOT-DB 0",
    "DB x", "FLAGS N", "FLAGS P", "FLAGS ?", "NOT-FLAGS N", "LIB-NAME lib", "NOT-LIB-NAME lib",
    "IDLE 0", "IDLE 1000", "MAXAGE 0", "MAXAGE 1000", "MAXAGE x", "SKIPME yes", "SKIPME no",
    "SKIPME x", "IP 127.0.0.1", "NOT-IP 127.0.0.1", "CAPA r", "TYPE normal NAME a DB 9",
    "NAME b TYPE", "ADDR 1.2.3.4:5", "LADDR 1.2.3.4:5", "NAME a NAME b", "NAME b NAME nosuch",
    "TYPE pubsub TYPE normal USER bob", "FLAGS ? FLAGS P", "DB 0 DB 9", "LIB-NAME x LIB-NAME lib",
    "NAME a NOT-NAME a", "NOT-NAME a NOT-NAME b NAME a", "ID 1 ID 2", "ID 1 2 ID 3", "NOT-ID 1 2",
)  # fmt: skip


EVERYBODY = ("SKIPME no", "IDLE 0", "MAXAGE 0", "IP 127.0.0.1", "USER default", "NOT-ID 1 2")


def _clients(session: Session) -> list[Client]:
    """An operator; three clients in different states, one of them in RESP3."""
    operator, a, b, c = session.open(), session.open(), session.open(3), session.open()
    operator.run("ACL SETUSER bob on >secret ~* &* +@all")
    a.run("CLIENT SETNAME a", "SELECT 9", "SET k v")
    b.run("AUTH bob secret", "CLIENT SETNAME b", "CLIENT SETINFO LIB-NAME lib", "WATCH k")
    c.run("CLIENT SETNAME c", "SUBSCRIBE x")
    return [operator, a, b, c]


def test_filters_of_the_list(pair: Pair) -> None:
    """The same clients for each filter, the same errors for what is none."""

    def script(session: Session) -> None:
        operator, _, b, _ = _clients(session)
        for line in FILTERS:
            for client in (operator, b):
                client.cmd("CLIENT", "LIST", *line.split(), mask=client_lines)
        operator.run("ACL DELUSER bob")

    pair.same(script)


def test_filters_that_kill(pair: Pair) -> None:
    """The same ones are counted, and are gone; each time by somebody else."""

    def script(session: Session) -> None:
        for line in FILTERS:
            if line in EVERYBODY:
                continue  # the observers of this test are among them
            operator, *_ = _clients(session)
            said = operator.cmd("CLIENT", "KILL", *line.split())
            left = operator.cmd("CLIENT", "LIST", mask=client_lines)
            assert left[:1] == b"$", said
            operator.run("CLIENT KILL TYPE pubsub", "CLIENT KILL USER bob", "PING")
            for client in session.clients:
                client.wire.close()
            session.clients.clear()

    pair.same(script)


def test_a_client_on_a_unix_socket(plain_server: Server, tmp_path: Path) -> None:
    """Its address is the path, as servers tell it, and means it."""
    path = tmp_path / "sidecar.sock"
    with Sidecar(plain_server.url, listen=f"unix://{path}"), Wire(str(path)) as client:
        (line,) = _lines(client, "ID", str(client.ask("CLIENT", "ID")))
        assert line["addr"] == line["laddr"] == f"{path}:0"
        for args in (("ADDR", f"{path}:0"), (f"{path}:0",)):
            with Wire(str(path)) as other:
                assert other.cmd("PING") == b"+PONG\r\n"
                assert client.cmd("CLIENT", "KILL", *args)[:2] in (b":1", b"+O")
                gone = other if len(args) == 2 else client
                gone.expect_eof()
