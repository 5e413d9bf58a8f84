"""A server that is busy with a script: an operator can always end it, from wherever they sit.

A busy server answers AUTH, HELLO, SCRIPT KILL, FUNCTION KILL and STATS, and SHUTDOWN NOSAVE. To all
else it says BUSY, SELECT included. What the script is to be ended with must not wait behind it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import KINDS
from tests.harness.farm import BINARIES
from tests.harness.process import wait_until
from tests.harness.servers import Server, Sidecar
from tests.harness.wire import Wire

LOOP = "while true do end"
LIBRARY = (
    "#!lua name=busy\nredis.register_function{function_name='busy', callback=function(k, a) "
    "while true do end end, flags={'no-writes'}}"
)
KILLS = (("SCRIPT", "KILL"), ("FUNCTION", "KILL"))
FORBIDDEN = ("-script|kill", "-function|kill")
ENDED = {"script": b"Script killed by user", "function": b"Script killed by user"}
WHOSE = ["db 0", "db 9", "fresh", "fresh in RESP3", "bob", "fresh bob", "watching", "kept"]


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """One that is busy soon."""
    with BINARIES[request.param]({"busy-reply-threshold": 50}) as server:
        with Wire(server.port) as wire:
            assert wire.cmd("FUNCTION", "LOAD", LIBRARY) == b"$4\r\nbusy\r\n"
            bob = ("bob", "on", ">secret", "~*", "+@all")
            assert wire.cmd("ACL", "SETUSER", *bob) == b"+OK\r\n"
        yield server


@pytest.fixture(scope="module", params=["shared", "session"])
def sidecar(request: pytest.FixtureRequest, server: Server) -> Iterator[Sidecar]:
    """In both modes."""
    with Sidecar(server.url, settings={"upstream.pooling": request.param}) as sidecar:
        yield sidecar


def _ready(wire: Wire, who: str) -> None:
    """What a client has done before the script, or does when it comes."""
    if "bob" in who:
        assert wire.cmd("AUTH", "bob", "secret") == b"+OK\r\n"
    if "RESP3" in who:
        wire.cmd("HELLO", 3)
    if who == "db 9":
        assert wire.cmd("SELECT", 9) == b"+OK\r\n"
    if who == "watching":
        assert wire.cmd("WATCH", "k") == b"+OK\r\n"
    if who == "kept":
        assert wire.cmd("CLIENT", "NO-EVICT", "ON") == b"+OK\r\n"
    if "fresh" not in who:
        assert wire.cmd("GET", "k") == b"$-1\r\n"


def _is_busy(server: Server) -> bool:
    with Wire(server.port) as direct:
        return direct.cmd("PING").startswith(b"-BUSY")


@pytest.mark.parametrize("db", [0, 9])
@pytest.mark.parametrize("kind", ["script", "function"])
@pytest.mark.parametrize("who", WHOSE)
def test_a_script_is_ended(sidecar: Sidecar, server: Server, who: str, kind: str, db: int) -> None:
    """By a client of any kind, whichever link it runs on."""
    with Wire(sidecar.port, deadline=10) as busy, Wire(sidecar.port, deadline=10) as operator:
        assert busy.cmd("SELECT", db) == b"+OK\r\n"
        if "fresh" not in who:
            _ready(operator, who)
        if kind == "script":
            busy.send_command("EVAL", LOOP, 0)
        else:
            busy.send_command("FCALL", "busy", 0)
        wait_until(lambda: _is_busy(server), "the server is busy")
        if "fresh" in who:
            _ready(operator, who)
        if kind == "function":
            assert b"FCALL" in operator.cmd("FUNCTION", "STATS")
        assert operator.cmd(kind, "KILL") == b"+OK\r\n"
        assert ENDED[kind] in busy.read_reply()
        assert operator.cmd("GET", "k") == (b"_\r\n" if "RESP3" in who else b"$-1\r\n")


@pytest.mark.parametrize("db", [0, 9])
def test_others_are_told(sidecar: Sidecar, server: Server, db: int) -> None:
    """Clients that share a link with the script get BUSY while it runs, in every database."""
    with (
        Wire(sidecar.port, deadline=10) as busy,
        Wire(sidecar.port, deadline=10) as other,
        Wire(sidecar.port, deadline=10) as operator,
    ):
        for wire in (busy, other):
            assert wire.cmd("SELECT", db) == b"+OK\r\n"
            assert wire.cmd("GET", "k") == b"$-1\r\n"
        busy.send_command("EVAL", LOOP, 0)
        wait_until(lambda: _is_busy(server), "the server is busy")
        for words in (("PING",), ("GET", "k"), ("SET", "k", 1), ("GET", "k")):
            assert other.cmd(*words).startswith(b"-BUSY"), words
        assert operator.cmd("SCRIPT", "KILL") == b"+OK\r\n"
        assert ENDED["script"] in busy.read_reply()
        assert other.cmd("GET", "k") == b"$-1\r\n"


def test_nothing_to_end(sidecar: Sidecar, server: Server) -> None:
    """The server's own words, also to one who may not."""
    with Wire(server.port) as admin:
        assert admin.cmd("ACL", "SETUSER", "no", "on", ">secret", "+@all", *FORBIDDEN) == b"+OK\r\n"
    with Wire(server.port) as direct, Wire(sidecar.port) as client:
        for words in (*KILLS, ("SCRIPT", "KILL", "x"), ("AUTH", "no", "secret"), *KILLS):
            assert client.cmd(*words) == direct.cmd(*words)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("who", ["db 0", "db 9", "fresh", "bob"])
def test_shutdown(kind: str, who: str) -> None:
    """SHUTDOWN NOSAVE ends a server whose script has written, which nothing else can."""
    with (
        BINARIES[kind]({"busy-reply-threshold": 50}) as server,
        Sidecar(server.url, settings={"upstream.pool_spare": 0}) as sidecar,
        Wire(sidecar.port, deadline=10) as busy,
        Wire(sidecar.port, deadline=10) as operator,
    ):
        with Wire(server.port) as wire:
            assert wire.cmd("ACL", "SETUSER", "bob", "on", ">secret", "~*", "+@all") == b"+OK\r\n"
        if "fresh" not in who:
            _ready(operator, who)
        busy.send_command("EVAL", "redis.call('SET', KEYS[1], 1) " + LOOP, 1, "w")
        wait_until(lambda: _is_busy(server), "the server is busy")
        assert operator.cmd("SCRIPT", "KILL").startswith(b"-UNKILLABLE")
        assert operator.cmd("SHUTDOWN").startswith(b"-BUSY")
        operator.send_command("SHUTDOWN", "NOSAVE")
        wait_until(lambda: not server.running, "the server has ended")
