"""HELLO: which requests are surely right, and whose connection id the reply tells."""

from __future__ import annotations

import pytest

from sidecar.proxy.session.hello import is_plain_word, parse_hello, server_id, with_id

RESP2 = b"*4\r\n$6\r\nserver\r\n$5\r\nredis\r\n$2\r\nid\r\n:42\r\n"
RESP3 = b"%2\r\n$2\r\nid\r\n:7\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n"


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        (b"HELLO", (0, None, None)),
        (b"HELLO 2", (2, None, None)),
        (b"hello 3", (3, None, None)),
        (b"HELLO 3 AUTH bob secret", (3, (b"bob", b"secret"), None)),
        (b"HELLO 3 setname me", (3, None, b"me")),
        (b"HELLO 3 SETNAME me auth bob AUTH", (3, (b"bob", b"AUTH"), b"me")),
        (b"HELLO 3 AUTH SETNAME me", (3, (b"SETNAME", b"me"), None)),
        (b"HELLO 3 SETNAME a SETNAME b", (3, None, b"b")),
    ],
)
def test_what_is_surely_right(line: bytes, meaning: object) -> None:
    assert parse_hello(line.split(b" ")) == meaning


@pytest.mark.parametrize(
    "line",
    [b"HELLO 4", b"HELLO 03", b"HELLO x", b"HELLO AUTH bob secret", b"HELLO 3 AUTH bob",
     b"HELLO 3 SETNAME", b"HELLO 3 NOSUCH", b"HELLO 3 SETNAME me x"],
)  # fmt: skip
def test_what_the_server_is_asked(line: bytes) -> None:
    assert parse_hello(line.split(b" ")) is None


def test_a_name_with_a_blank_is_the_server_s_to_refuse() -> None:
    assert parse_hello([b"HELLO", b"3", b"SETNAME", b"a b"]) is None
    assert [is_plain_word(w) for w in (b"", b"!~", b"a b", b"a\n", b"\x7f", b"\xff")] == [
        True, True, False, False, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(("reply", "number"), [(RESP2, 42), (RESP3, 7), (b"+OK\r\n", 0), (None, 0)])
def test_the_server_s_id(reply: bytes | None, number: int) -> None:
    assert server_id(reply) == number


@pytest.mark.parametrize("reply", [RESP2, RESP3])
def test_only_the_id_is_replaced(reply: bytes) -> None:
    told = with_id(reply, 1 << 40)
    assert server_id(told) == 1 << 40
    assert with_id(told, server_id(reply)) == reply


def test_a_reply_without_an_id_stays() -> None:
    assert with_id(b"-NOPROTO no\r\n", 5) == b"-NOPROTO no\r\n"
