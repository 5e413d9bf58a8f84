"""The reference decoders themselves: every frame type, every prefix, every split."""

from __future__ import annotations

import pytest

from tests.harness.refdecoder import ProtocolError, replies, reply_end, requests, split_args
from tests.harness.wire import pack

FRAMES = [
    b"+OK\r\n",
    b"-ERR text\r\n",
    b":-42\r\n",
    b"$5\r\nhello\r\n",
    b"$0\r\n\r\n",
    b"$-1\r\n",
    b"$4\r\n\r\n\r\n\r\n",
    b"*0\r\n",
    b"*-1\r\n",
    b"*2\r\n$1\r\na\r\n*1\r\n:1\r\n",
    b"_\r\n",
    b"#t\r\n",
    b",1.5\r\n",
    b",inf\r\n",
    b"(123456789012345678901234567890\r\n",
    b"!5\r\nERR x\r\n",
    b"=8\r\ntxt:text\r\n",
    b"%2\r\n+a\r\n:1\r\n+b\r\n*2\r\n:1\r\n:2\r\n",
    b"~2\r\n:1\r\n:2\r\n",
    b">2\r\n+message\r\n$1\r\nx\r\n",
    b"|1\r\n+ttl\r\n:5\r\n$1\r\nv\r\n",
    b"|0\r\n+OK\r\n",
    b"|1\r\n+a\r\n|1\r\n+b\r\n:1\r\n:2\r\n:3\r\n",
    b"*2\r\n|1\r\n+a\r\n:1\r\n:2\r\n:3\r\n",
    b"$?\r\n;4\r\nHell\r\n;5\r\no wor\r\n;0\r\n",
    b"$?\r\n;0\r\n",
    b"*?\r\n:1\r\n*2\r\n:2\r\n:3\r\n.\r\n",
    b"~?\r\n.\r\n",
    b"%?\r\n+a\r\n:1\r\n+b\r\n$?\r\n;1\r\nx\r\n;0\r\n.\r\n",
    b"*1\r\n" * 50 + b"*0\r\n",
]


@pytest.mark.parametrize("frame", FRAMES)
def test_reply_ends_where_it_ends(frame: bytes) -> None:
    """Whole, with more behind it, at an offset; and no proper prefix is whole."""
    assert reply_end(frame) == len(frame)
    assert reply_end(b"+x\r\n" + frame + b"+y\r\n", 4) == 4 + len(frame)
    for cut in range(len(frame)):
        assert reply_end(frame[:cut]) is None


def test_replies_in_a_row() -> None:
    """All frames one after the other come apart again."""
    assert replies(b"".join(FRAMES) + b"$3\r\nab") == FRAMES


BAD = [b"x\r\n", b"\r\n", b"$x\r\n", b"$-2\r\n", b"*-2\r\n", b"%-1\r\n", b"$1\r\nab\r\n", b">?\r\n"]
BAD += [b"$01\r\na\r\n", b"$?\r\n:1\r\n", b"*1\r\n.\r\n"]


@pytest.mark.parametrize("frame", BAD)
def test_broken_reply(frame: bytes) -> None:
    """What is no reply is refused."""
    with pytest.raises(ProtocolError):
        reply_end(frame)


STREAM = (
    pack("SET", "k", b"\r\n*1\r\n") + b"GET k\r\n\r\n*0\r\nECHO 'a b' \"\\x41\"\n" + pack("PING")
)


def test_requests() -> None:
    """Arguments and offsets; empty requests are passed over."""
    events = list(requests(STREAM))
    assert [event[1] for event in events[:-1]] == [
        [b"SET", b"k", b"\r\n*1\r\n"],
        [b"GET", b"k"],
        [b"ECHO", b"a b", b"A"],
        [b"PING"],
    ]
    assert events[-2][2] == len(STREAM)
    assert events[-1] == ("need_more",)


@pytest.mark.parametrize("tail", [b"", b"*x\r\n", b"*1\r\n+", b"*1\r\n$1\r\nab\r\n", b'GET "\r\n'])
def test_requests_do_not_depend_on_the_split(tail: bytes) -> None:
    """Every prefix gives a prefix of the events, and the same error or none."""
    data = STREAM + tail
    whole = list(requests(data))
    for cut in range(len(data)):
        events = list(requests(data[:cut]))
        count = len(events) - 1
        assert events[:count] == whole[:count]
        assert events[-1] in (("need_more",), whole[-1])


def first(data: bytes, **limits: int) -> tuple[object, ...]:
    """The first event of some bytes."""
    return next(iter(requests(data, **limits)))  # type: ignore[arg-type]


def test_limits() -> None:
    """Each length limit, and one below it."""
    assert first(b"A" * 65536) == ("need_more",)
    assert first(b"A" * 65537) == ("error", "Protocol error: too big inline request")
    assert first(b"*" + b"1" * 65535) == ("need_more",)
    assert first(b"*" + b"1" * 65536) == ("error", "Protocol error: too big mbulk count string")
    assert first(b"*1\r\n$5\r\n", max_bulk=4) == ("error", "Protocol error: invalid bulk length")
    assert first(b"*1\r\n$4\r\n", max_bulk=4) == ("need_more",)
    assert first(b"*10\r\n", authenticated=False) == ("need_more",)
    assert first(b"*11\r\n", authenticated=False)[0] == "error"
    assert first(b"*1\r\n$4\r\nPINGxx", strict=False) == ("args", [b"PING"], 14)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"", []),
        (b"  a\tb  ", [b"a", b"b"]),
        (b"'a b' \"c d\"", [b"a b", b"c d"]),
        (b"''", [b""]),
        (b'"\\n\\r\\t\\b\\a\\\\\\"\\x00\\xzz"', [b'\n\r\t\x08\x07\\"\x00xzz']),
        (b"'\\'\\n'", [b"'\\n"]),
        (b'a"b c"', [b"ab c"]),
    ],
)
def test_split_args(line: bytes, expected: list[bytes]) -> None:
    """Quotes and escapes."""
    assert split_args(line) == expected
