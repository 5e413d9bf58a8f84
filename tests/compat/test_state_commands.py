"""Commands that begin or end state of a connection, one behind the other, in every order.

Each dialogue is had with a server alone and with one behind a sidecar, command by command and again
as one write. Then a probe shows what state the connection is in: another client changes the key
that may be watched, and MULTI, SET, EXEC follow. Every reply must be the direct server's, byte for
byte, and so must what is in the databases afterwards.

State follows what the server answers, not what it was asked: `EXEC` without MULTI and `UNWATCH`
that ACL refuses end no WATCH, `EXEC x` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import pytest

from tests.harness.pair import Pair, pipeline, words
from tests.harness.process import wait_until
from tests.harness.wire import Wire, pack

COMMANDS = (
    "WATCH k", "WATCH", "UNWATCH", "UNWATCH x", "MULTI", "MULTI x", "EXEC", "EXEC x", "DISCARD",
    "DISCARD x", "RESET", "RESET x", "SELECT 1", "SELECT x", "SET w 1", "GET k", "BLPOP none 0.001",
    "CLIENT SETNAME n", "AUTH wrong", "NOSUCH", "QUIT",
)  # fmt: skip

# What stands before each pair: what there is to end.
OPENINGS = (("WATCH k",), ("MULTI",), ("WATCH k", "MULTI"), ("WATCH k", "MULTI", "SET w 2"))
ENDINGS = (
    "WATCH k", "UNWATCH", "UNWATCH x", "MULTI", "MULTI x", "EXEC", "EXEC x", "DISCARD", "DISCARD x",
    "RESET", "RESET x", "SELECT 1", "SET w 1",
)  # fmt: skip

PROBE = ("MULTI", "SET probe 1", "EXEC")


class Side:
    """A server, direct or behind a sidecar, with two clients that stay."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.other, self.second = Wire(port), Wire(port)
        assert self.second.cmd("SELECT", 1) == b"+OK\r\n"
        self.turn = 0

    def close(self) -> None:
        """Close the connections."""
        self.other.close()
        self.second.close()

    def converse(
        self, lines: Sequence[str], *, at_once: bool, protocol: int = 2, user: str = ""
    ) -> list[bytes]:
        """The replies to these commands, to the probe, and what is there afterwards."""
        self.turn += 1
        with Wire(self.port) as client:
            if user:
                assert client.cmd("AUTH", user, "secret") == b"+OK\r\n"
            if protocol == 3:
                client.cmd("HELLO", 3)
            found = self.ask(client, lines, at_once)
            found.append(self.other.cmd("SET", "k", self.turn))
            if "QUIT" in lines:
                assert client.read_to_end() == b""
            else:
                found += self.ask(client, PROBE, at_once)
        for wire in (self.other, self.second):
            found += [wire.cmd("MGET", "w", "probe"), wire.cmd("DEL", "w", "probe")]
        return found

    @staticmethod
    def ask(client: Wire, lines: Sequence[str], at_once: bool) -> list[bytes]:
        """Send commands one after the other, or all of them, and read what comes until QUIT."""
        count = lines.index("QUIT") + 1 if "QUIT" in lines else len(lines)
        if at_once:
            client.send(pipeline(lines))
            return client.read_replies(count)
        return [client.cmd(*words(line)) for line in lines[:count]]


Sides = tuple[Side, Side]


@pytest.fixture
def sides(pair: Pair) -> Iterator[Sides]:
    """A server alone, and one behind a sidecar."""
    direct, behind = Side(pair.direct.port), Side(pair.sidecar.port)
    yield direct, behind
    direct.close()
    behind.close()


def compare(sides: Sides, lines: Sequence[str], *, protocol: int = 2, user: str = "") -> None:
    """Both sides say the same."""
    for at_once in (False, True):
        direct, behind = (
            side.converse(lines, at_once=at_once, protocol=protocol, user=user) for side in sides
        )
        how = "one write" if at_once else "command by command"
        assert behind == direct, f"{lines}, {how}, RESP{protocol}, user {user or 'default'}"


@pytest.mark.parametrize("first", COMMANDS)
def test_pairs(sides: Sides, first: str) -> None:
    for second in COMMANDS:
        compare(sides, (first, second))


@pytest.mark.parametrize("opening", OPENINGS, ids=" ".join)
def test_triples(sides: Sides, opening: tuple[str, ...]) -> None:
    for first, second in product(ENDINGS, ENDINGS):
        compare(sides, (*opening, first, second))


@pytest.mark.parametrize("opening", OPENINGS, ids=" ".join)
def test_resp3(sides: Sides, opening: tuple[str, ...]) -> None:
    for last in COMMANDS:
        compare(sides, (*opening, last), protocol=3)


REFUSED = {
    "nodiscard": ("-discard", "-unwatch"),
    "noexec": ("-exec",),
    "nomulti": ("-multi",),
    "nowatch": ("-watch", "-select"),
}


@pytest.fixture
def users(pair: Pair) -> Iterator[None]:
    """Users that may not use some of the commands, on both servers."""
    for port in (pair.direct.port, pair.behind.port):
        with Wire(port) as wire:
            for user, rules in REFUSED.items():
                everything = ("on", ">secret", "~*", "&*", "+@all")
                assert wire.cmd("ACL", "SETUSER", user, *everything, *rules) == b"+OK\r\n"
    yield
    for port in (pair.direct.port, pair.behind.port):
        with Wire(port) as wire:
            wire.cmd("ACL", "DELUSER", *REFUSED)


@pytest.mark.parametrize("user", REFUSED)
def test_refused_by_acl(sides: Sides, users: None, user: str) -> None:
    """What the server refuses begins and ends nothing."""
    for opening in OPENINGS:
        for last in ("UNWATCH", "EXEC", "DISCARD", "MULTI", "WATCH j", "SELECT 1"):
            compare(sides, (*opening, last), user=user)


def test_a_link_that_still_watches_is_not_given_to_another(pair: Pair) -> None:
    """EXEC without MULTI, DISCARD without MULTI and UNWATCH x leave the key watched."""
    for ending in ("EXEC", "DISCARD", "UNWATCH x"):
        with Wire(pair.sidecar.port) as ann, Wire(pair.sidecar.port) as bob:
            assert ann.cmd("WATCH", "k") == b"+OK\r\n"
            assert ann.cmd(*words(ending)).startswith(b"-ERR ")
            assert bob.cmd("SET", "k", ending) == b"+OK\r\n"
            assert bob.cmd("WATCH", "other") == b"+OK\r\n"
            bob.send(pipeline(["MULTI", "SET j 1", "EXEC"]))
            assert bob.read_replies(3)[-1] == b"*1\r\n+OK\r\n"
            ann.send(pipeline(["MULTI", "SET j 2", "EXEC"]))
            assert ann.read_replies(3)[-1] == b"*-1\r\n"


@pytest.mark.parametrize("user", REFUSED)
@pytest.mark.parametrize("end", ["DISCARD", "EXEC", "EXEC x", "DISCARD x"])
def test_a_transaction_never_swallows_the_writes_of_others(
    pair: Pair, users: None, user: str, end: str
) -> None:
    """One client's MULTI, however it ends, is not open on the link that others share."""
    block = pipeline(["MULTI", "SET a 1", end])
    with Wire(pair.sidecar.port) as ann, Wire(pair.sidecar.port) as bob:
        for wire in (ann, bob):
            assert wire.cmd("AUTH", user, "secret") == b"+OK\r\n"
        for number in range(1, 101):
            ann.send(block)
            bob.send(pack("INCR", "n") * 3)
            assert bob.read_replies(3) == [
                b":%d\r\n" % n for n in range(3 * number - 2, 3 * number + 1)
            ]
            assert len(ann.read_replies(3)) == 3
            if number % 10 == 0:
                ann.close()
                ann = Wire(pair.sidecar.port)
                assert ann.cmd("AUTH", user, "secret") == b"+OK\r\n"
        ann.close()
        wait_until(lambda: bob.cmd("GET", "n") == b"$3\r\n300\r\n", "every write is there")
