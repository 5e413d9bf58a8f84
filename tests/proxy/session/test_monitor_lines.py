"""What a monitoring client is shown."""

from __future__ import annotations

import pytest

from sidecar.proxy.links.own_connections import OwnConnections
from sidecar.proxy.session.monitor_lines import MonitorLines

KINDS = {b"1.1.1.1:1": "own", b"1.1.1.1:2": "link", b"1.1.1.1:3": "link"}


class Known(OwnConnections):
    """Three connections of the sidecar's."""

    def kind(self, address: bytes) -> str:
        return KINDS.get(address, "")


@pytest.fixture
def lines() -> MonitorLines:
    return MonitorLines(Known())


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


def test_other_commands_of_a_link_are_clients(lines: MonitorLines) -> None:
    for command in ('"PING"', '"SELECT" "1"', '"ROLE"', '"CLIENT" "SETNAME" "me"'):
        assert lines(line(2, command)) == line(2, command)


def test_what_goes_before_wait_is_left_out(lines: MonitorLines) -> None:
    wait = line(2, '"WAIT" "1" "0"') + line(2, '"PING"')
    assert lines(line(2, '"PUBLISH" "__redis-sidecar__:wait" ""') + wait) == wait


def test_two_greetings_at_once(lines: MonitorLines) -> None:
    """What follows another link's greeting is no part of it."""
    assert lines(line(2, '"HELLO" "2"') + line(3, '"PING"')) == line(3, '"PING"')


def test_strangers_greetings_stay(lines: MonitorLines) -> None:
    assert lines(line(4, '"HELLO" "2"')) == line(4, '"HELLO" "2"')


def test_whatever_is_no_line_stays(lines: MonitorLines) -> None:
    for data in (b"+OK\r\n", b"+PONG\r\n", b"-ERR no\r\n", b'+1.2 [0 lua] "set"\r\n'):
        assert lines(data) == data


def test_lines_in_pieces(lines: MonitorLines) -> None:
    data = line(1, '"PING"') + line(2, '"GET" "k"')
    assert b"".join(lines(data[at : at + 1]) for at in range(len(data))) == line(2, '"GET" "k"')
