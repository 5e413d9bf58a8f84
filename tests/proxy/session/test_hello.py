"""HELLO: which requests are surely right."""

from __future__ import annotations

import pytest

from sidecar.proxy.session.hello import beginning_of_hello, is_plain_word, parse_hello


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


@pytest.mark.parametrize(
    ("line", "done", "before_login"),
    [
        (b"HELLO 3 AUTH bob secret NOSUCH", 5, 2),
        (b"HELLO 3 SETNAME n AUTH bob secret", 7, 4),
        (b"HELLO 3 SETNAME AUTH bob secret", 4, 4),
        (b"HELLO 3 setname n auth bob", 4, 4),
        (b"HELLO 3 SETNAME", 2, 2),
        (b"HELLO 4 SETNAME n", 0, 0),
        (b"HELLO", 1, 1),
    ],
)
def test_the_beginning_of_hello(line: bytes, done: int, before_login: int) -> None:
    """How many words a server that acts word by word has done before a fault, or a login."""
    words = line.split(b" ")
    assert list(beginning_of_hello(words)) == words[:done]
    assert list(beginning_of_hello(words, before_login=True)) == words[:before_login]
