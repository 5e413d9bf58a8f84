"""Reading a client's bytes: cut anywhere, too large to be kept, or no requests at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.rewrite.client import RULES, Talk, bulks, cut, packed, rules, unpacked
from tests.core.rewrite.test_requests import REFUSED, REWRITTEN

LINES = [*(line.split(" | ")[0] for line in REWRITTEN.strip().splitlines()), *REFUSED.split("\n")]
LINES = [line for line in LINES if line]


@given(st.lists(st.sampled_from(LINES), max_size=6), st.lists(st.integers(0, 999), max_size=9))
def test_wherever_the_bytes_are_cut(lines: list[str], at: list[int]) -> None:
    """The server gets the same."""
    whole, parts = Talk(), Talk()
    data = packed(*lines)
    expected = whole.rewriter.requests(data)
    assert b"".join(parts.rewriter.requests(piece) for piece in cut(data, at)) == expected


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_hostile_bytes(pieces: list[bytes]) -> None:
    """They are rewritten, kept or refused; nothing that is no request gets through."""
    talk = Talk()
    for piece in pieces:
        unpacked(talk.rewriter.requests(piece))


def test_inline_requests() -> None:
    """The server gets them as others; blank lines and empty requests are none."""
    talk = Talk()
    assert talk.sends_bytes(b'GET a\r\n\r\n*0\r\n  \nset "a b" c\n') == ["GET p:a", "set p:a b c"]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"*1\r\n!4\r\n", b"-ERR Protocol error: expected '$', got '!'\r\n"),
        (b'GET "a\r\n', b"-ERR Protocol error: unbalanced quotes in request\r\n"),
        (b"*2\r\n$3\r\nDEL\r\n$1\r\naXX", b"-ERR Protocol error: invalid CRLF in request\r\n"),
    ],
)
def test_protocol_errors(data: bytes, error: bytes) -> None:
    """The client gets the error in its turn and is hung up on; the server gets nothing of it."""
    talk = Talk()
    assert talk.sends_bytes(packed("GET a") + data + packed("GET b")) == ["GET p:a", "GET", "QUIT"]
    assert talk.rewriter.broken
    assert talk.sends("GET c") == []
    own = b"-ERR wrong number of arguments for 'get' command\r\n"
    assert talk.gets(b":1\r\n", own, b"+OK\r\n") == b":1\r\n" + error


# Large requests


def large(line: str, at: list[int], most: int = 64, talk: Talk | None = None) -> list[list[bytes]]:
    """What the server gets of a request of which `most` bytes are kept."""
    talk = talk or Talk()
    data = packed(line)
    got = b"".join(talk.rewriter.requests(piece, True, most) for piece in cut(data, at))
    return unpacked(got)


VALUE = "v" * 300
LARGE = [
    (f"SET a {VALUE}", f"SET p:a {VALUE}"),
    (f"MSET a {VALUE} b {VALUE}", f"MSET p:a {VALUE} p:b {VALUE}"),
    (
        "DEL " + " ".join(f"k{i}" for i in range(99)),
        "DEL " + " ".join(f"p:k{i}" for i in range(99)),
    ),
    (f"EVAL s 2 a b {VALUE}", f"EVAL s 2 p:a p:b {VALUE}"),
    (f"PUBLISH a {VALUE}", f"PUBLISH p:a {VALUE}"),
    (f"ECHO {VALUE}", f"ECHO {VALUE}"),
    (f"SET {VALUE} a", f"SET p:{VALUE} a"),
    (f"LMOVE {VALUE} b LEFT LEFT", f"LMOVE p:{VALUE} p:b LEFT LEFT"),
    (f"XADD a * f {VALUE}", f"XADD p:a * f {VALUE}"),
]


@pytest.mark.parametrize(("line", "expected"), LARGE)
@given(at=st.lists(st.integers(0, 2000), max_size=12))
def test_large_requests(line: str, expected: str, at: list[int]) -> None:
    """Their keys are found by where they stand; what comes behind them is rewritten."""
    talk = Talk()
    assert large(line, at, talk=talk) == [expected.encode().split(b" ")]
    assert talk.sends("GET a") == ["GET p:a"]


@pytest.mark.parametrize(
    "line",
    [
        f"SORT a GET {VALUE}*",
        f"XREAD STREAMS {VALUE} 0",
        f"EVAL {VALUE} 1 a",
        f"FLUSHALL {VALUE}",
        f"{VALUE} a",
        f"nothing a {VALUE}",
    ],
)
@given(at=st.lists(st.integers(0, 400), min_size=3, max_size=6))
def test_large_requests_that_are_refused(line: str, at: list[int]) -> None:
    """If it can't be told where the keys are; what comes behind them is rewritten."""
    talk = Talk()
    assert large(line, [65, *at], talk=talk) == [[b"GET"]]
    assert talk.sends("GET a") == ["GET p:a"]
    own = b"-ERR wrong number of arguments for 'get' command\r\n"
    got = talk.gets(own, b":1\r\n")
    assert got.endswith(b":1\r\n")
    assert own not in got
    assert got[:1] == b"-"


def test_a_large_request_that_breaks_the_protocol() -> None:
    """The session sees what is wrong; of one that is refused, nothing goes on."""
    talk = Talk()
    head = b"*4\r\n$3\r\nSET\r\n$1\r\na\r\n$300\r\n" + b"v" * 300
    got = talk.rewriter.requests(head, True, 64) + talk.rewriter.requests(b"\r\n!\r\nGET", True, 64)
    assert got == head.replace(b"$1\r\na", b"$3\r\np:a") + b"\r\n!\r\nGET"
    assert talk.rewriter.broken
    refused = Talk()
    head = b"*3\r\n$8\r\nFLUSHALL\r\n$300\r\n" + b"v" * 300
    assert refused.rewriter.requests(head, True, 64) == b""
    got = refused.rewriter.requests(b"\r\n!\r\n", True, 64)
    assert unpacked(got) == [[b"GET"], [b"QUIT"]]


def test_a_header_that_does_not_end() -> None:
    """Of a large request: it is none, and is not waited for."""
    talk = Talk()
    head = b"*4\r\n$3\r\nSET\r\n$1\r\na\r\n$300\r\n" + b"v" * 300 + b"\r\n"
    talk.rewriter.requests(head, True, 64)
    assert talk.rewriter.requests(b"$11", True, 64) == b""
    assert talk.rewriter.requests(b"x" * 30, True, 64) == b"$11" + b"x" * 30
    assert talk.rewriter.broken


# Logins


def test_what_follows_a_large_login_waits_for_it() -> None:
    talk = Talk()
    data = packed(f"AUTH a {VALUE}", "GET a")
    got = b"".join(talk.rewriter.requests(piece, True, 64) for piece in cut(data, [100, 200]))
    assert unpacked(got) == [[b"AUTH", b"a", VALUE.encode()]]
    assert talk.gets(b"+OK\r\n") == b"+OK\r\n"
    assert talk.resumes() == ["GET p:a"]


def test_what_follows_a_login_waits_for_it() -> None:
    """Other rules may hold then."""
    for login, reply in [
        ("AUTH a b", b"+OK\r\n"), ("HELLO 3", b"%0\r\n"), ("RESET", b"+RESET\r\n"),
    ]:  # fmt: skip
        talk = Talk()
        assert talk.sends("GET a", login, "GET a") == ["GET p:a", login]
        assert talk.sends("GET b") == []
        assert talk.rewriter.waits
        assert talk.gets(b":1\r\n") == b":1\r\n"
        assert talk.resumes() == []
        talk.rewriter.use(rules(b"q:"))
        assert talk.gets(reply) == reply
        assert talk.resumes() == ["GET q:a", "GET q:b"]
        assert not talk.rewriter.waits


def test_replies_that_are_due_before_a_login() -> None:
    """They are about the names that held when they were asked for."""
    talk = Talk()
    talk.sends("KEYS *", "AUTH a b", "KEYS *")
    talk.rewriter.use(rules(b"q:"))
    assert talk.gets(bulks(b"p:a", b"q:a"), b"+OK\r\n") == bulks(b"a", b"q:a") + b"+OK\r\n"
    assert talk.resumes() == ["KEYS q:*"]
    assert talk.gets(bulks(b"p:a", b"q:a")) == bulks(b"p:a", b"a")


def test_a_login_before_there_was_a_rewriter() -> None:
    """Its reply has no prefix, and what follows waits for it."""
    talk = Talk(RULES)
    talk.rewriter.expect_login()
    assert talk.sends("KEYS *") == []
    assert talk.gets(b"+OK\r\n") == b"+OK\r\n"
    assert talk.resumes() == ["KEYS p:*"]
