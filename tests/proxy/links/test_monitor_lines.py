"""What a monitoring client is shown."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from sidecar.proxy.links.monitor_lines import MonitorLines
from sidecar.proxy.links.own_connections import OwnConnection, OwnConnections

GREETING = [b"AUTH", b"HELLO", b"CLIENT", b"CLIENT", b"SELECT", b"ROLE", b"PING"]


class Known(OwnConnections):
    """Three connections of the sidecar's, by address; 2 and 3 are links."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self._found = {b"1.1.1.1:%d" % number: OwnConnection(sock) for number in (1, 2, 3)}

    def connect(self, *numbers: int) -> None:
        """They carry clients' commands from now on."""
        for number in numbers:
            found = self._found[b"1.1.1.1:%d" % number]
            found.carries, found.greeting = True, tuple(GREETING)


@pytest.fixture
def known() -> Iterator[Known]:
    with socket.socket() as sock:
        yield Known(sock)


@pytest.fixture
def lines(known: Known) -> MonitorLines:
    """Of a client that monitored before the links were made."""
    made = MonitorLines(known)
    known.connect(2, 3)
    return made


def line(number: int, command: str) -> bytes:
    """A line of MONITOR, of one of the connections."""
    return b"+1700000000.123456 [0 1.1.1.1:%d] %s\r\n" % (number, command.encode())


def test_own_connections_are_left_out(lines: MonitorLines) -> None:
    assert lines(line(1, '"PING"') + line(2, '"SET" "k" "v"') + line(4, '"GET" "k"')) == (
        line(2, '"SET" "k" "v"') + line(4, '"GET" "k"')
    )


def test_greetings_are_left_out(lines: MonitorLines) -> None:
    greeting = [
        '"AUTH" "(redacted)" "(redacted)"', '"HELLO" "3"', '"CLIENT" "SETNAME" "redis-sidecar"',
        '"CLIENT" "SETINFO" "LIB-NAME" "redis-sidecar"', '"SELECT" "9"', '"ROLE"', '"PING"',
    ]  # fmt: skip
    assert b"".join(lines(line(2, one)) for one in greeting) == b""
    assert lines(line(2, '"GET" "k"')) == line(2, '"GET" "k"')
    assert lines(line(2, '"PING"')) == line(2, '"PING"')


COMMANDS = ('"PING"', '"SELECT" "1"', '"ROLE"', '"CLIENT" "SETNAME" "me"')


def test_other_commands_of_a_link_are_clients(known: Known) -> None:
    """It has been greeted before."""
    known.connect(2)
    lines = MonitorLines(known)
    for command in COMMANDS:
        assert lines(line(2, command)) == line(2, command)


def test_what_follows_a_greeting_is_clients(lines: MonitorLines) -> None:
    """The server need not have shown all of it."""
    greeting = ['"HELLO" "3"', '"SELECT" "9"', '"PING"']
    assert b"".join(lines(line(2, one)) for one in greeting) == b""
    for command in COMMANDS:
        assert lines(line(2, command)) == line(2, command)


def test_a_greeting_that_was_shown_before_the_link_was_made(known: Known) -> None:
    """Its commands are those of a connection of the sidecar's own; then a client's follow."""
    lines = MonitorLines(known)
    greeting = ['"HELLO" "3"', '"SELECT" "9"', '"ROLE"', '"PING"']
    assert b"".join(lines(line(2, one)) for one in greeting) == b""
    known.connect(2)
    for command in COMMANDS:
        assert lines(line(2, command)) == line(2, command)


def test_what_follows_the_names_of_a_client_is_clients(known: Known) -> None:
    """A library says CLIENT SETINFO first, on a shared link with the sidecar's name in it."""
    known.connect(2)
    lines = MonitorLines(known)
    assert lines(line(2, '"CLIENT" "SETINFO" "LIB-NAME" "redis-sidecar"')) == b""
    for command in COMMANDS:
        assert lines(line(2, command)) == line(2, command)


def test_what_goes_before_wait_is_left_out(lines: MonitorLines) -> None:
    wait = line(2, '"WAIT" "1" "0"') + line(2, '"PING"')
    assert lines(line(2, '"PUBLISH" "__redis-sidecar__:wait" ""') + wait) == wait


def test_two_greetings_at_once(lines: MonitorLines) -> None:
    """What follows another link's greeting is no part of it."""
    mixed = line(2, '"HELLO" "2"') + line(3, '"GET" "k"') + line(3, '"PING"') + line(2, '"PING"')
    assert lines(mixed) == line(3, '"GET" "k"') + line(3, '"PING"')


def test_strangers_greetings_stay(lines: MonitorLines) -> None:
    assert lines(line(4, '"HELLO" "2"')) == line(4, '"HELLO" "2"')


def test_whatever_is_no_line_stays(lines: MonitorLines) -> None:
    for data in (b"+OK\r\n", b"+PONG\r\n", b"-ERR no\r\n", b'+1.2 [0 lua] "set"\r\n'):
        assert lines(data) == data


def test_lines_in_pieces(lines: MonitorLines) -> None:
    data = line(1, '"PING"') + line(2, '"GET" "k"')
    assert b"".join(lines(data[at : at + 1]) for at in range(len(data))) == line(2, '"GET" "k"')


def test_a_part_of_a_line_waits_and_a_part_of_a_reply_does_not(lines: MonitorLines) -> None:
    """A reply may be large; its parts pass at once, and what follows it is judged as ever."""
    shown = line(4, '"GET" "k"')
    assert lines(shown[:30]) == b""
    assert lines(shown[30:] + b"$10\r\n12345") == shown + b"$10\r\n12345"
    assert lines(b"67890\r") == b"67890"
    assert lines(b"\n" + line(1, '"PING"') + shown) == b"\r\n" + shown
