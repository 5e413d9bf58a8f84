"""The reply framer: where replies end, for every type of both protocols."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core.protocol.reply import ReplyDecoder
from tests.core.protocol.test_request import split
from tests.harness import refreplies
from tests.native.fuzz_decoders import fuzz_replies, sample
from tests.native.shell import bulk

LINES = st.sampled_from([b"+OK\r\n", b"-ERR x\r\n", b":1\r\n", b"_\r\n", b"#t\r\n", b",1.5\r\n"])
BULKS = st.binary(max_size=30).map(bulk)
NULLS = st.sampled_from([b"$-1\r\n", b"*-1\r\n"])
VERBATIM = st.binary(max_size=9).map(lambda b: b"=%d\r\ntxt:%s\r\n" % (len(b) + 4, b))
CHUNKED = st.lists(st.binary(min_size=1, max_size=9), max_size=3).map(
    lambda parts: b"$?\r\n" + b"".join(b";%d\r\n%s\r\n" % (len(p), p) for p in parts) + b";0\r\n"
)


def _aggregates(values: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    many = st.lists(values, max_size=3)
    pairs = st.lists(st.tuples(values, values).map(b"".join), max_size=2)
    return st.one_of(
        many.map(lambda v: b"*%d\r\n" % len(v) + b"".join(v)),
        many.map(lambda v: b"~%d\r\n" % len(v) + b"".join(v)),
        pairs.map(lambda v: b"%%%d\r\n" % len(v) + b"".join(v)),
        many.map(lambda v: b"*?\r\n" + b"".join(v) + b".\r\n"),
        st.tuples(pairs, values).map(lambda v: b"|%d\r\n" % len(v[0]) + b"".join(v[0]) + v[1]),
    )


REPLIES = st.recursive(LINES | BULKS | NULLS | VERBATIM | CHUNKED, _aggregates, max_leaves=8)
STREAMS = st.lists(REPLIES, max_size=5).map(b"".join)


def decode(pieces: list[bytes]) -> list[tuple[str, bytes]] | None:
    """What the pieces hold; None when they are no replies."""
    decoder = ReplyDecoder()
    found: list[tuple[str, bytes]] = []
    try:
        for piece in pieces:
            found += decoder.feed(piece)
    except ValueError:
        return None
    return found


def frames(data: bytes) -> list[bytes]:
    """The replies before the first error, fed byte by byte so that none is missed."""
    decoder = ReplyDecoder()
    found: list[bytes] = []
    for i in range(len(data)):
        try:
            found += [raw for _, raw in decoder.feed(data[i : i + 1])]
        except ValueError:
            break
    return found


def oracle(data: bytes) -> tuple[list[bytes], bool]:
    """The replies by the reference decoder, and whether it objects to what follows them."""
    found: list[bytes] = []
    at = 0
    try:
        while at < len(data) and (end := refreplies.reply_end(data, at)) is not None:
            found.append(data[at:end])
            at = end
    except refreplies.ProtocolError:
        return found, True
    return found, False


def spelt_unlike_a_server(data: bytes) -> bool:
    """Leniences that cost a link nothing, since no server writes such bytes.

    A line ends at its line feed; a `.` may be followed by text and end an aggregate early; a
    length may have leading zeros; a push inside a push is one of its elements.
    """
    return bool(re.search(rb"[^\r]\n|\.|[$*%~>|!=;]0\d|\r[^\n]|>.*>", data, re.DOTALL))


class TestTranscripts:
    """Replies and where they end."""

    @pytest.mark.parametrize(
        "reply",
        [
            b"+OK\r\n",
            b"$-1\r\n",
            b"*-1\r\n",
            b"*0\r\n",
            b"$0\r\n\r\n",
            b"$4\r\n\r\n\r\n\r\n",
            b"*2\r\n*1\r\n:1\r\n$1\r\na\r\n",
            b"%1\r\n+k\r\n*2\r\n:1\r\n:2\r\n",
            b"|1\r\n+ttl\r\n:3600\r\n$1\r\nv\r\n",
            b"*1\r\n|1\r\n+ttl\r\n:3600\r\n:1\r\n",
            b"$?\r\n;4\r\nHell\r\n;0\r\n",
            b"*?\r\n:1\r\n*?\r\n.\r\n%?\r\n+a\r\n:1\r\n.\r\n.\r\n",
            b"=7\r\ntxt:abc\r\n",
            b"!3\r\nERR\r\n",
            b"(3492890328409238509324850943850943825024385\r\n",
        ],
    )
    def test_one_reply(self, reply: bytes) -> None:
        assert decode([reply]) == [("reply", reply)]
        assert decode([reply[:-1]]) == []
        assert decode([reply * 2]) == [("reply", reply)] * 2

    def test_a_push_is_no_reply(self) -> None:
        push = b">2\r\n+invalidate\r\n*1\r\n+k\r\n"
        assert decode([b"+a\r\n" + push + b"+b\r\n"]) == [
            ("reply", b"+a\r\n"),
            ("push", push),
            ("reply", b"+b\r\n"),
        ]

    def test_a_push_between_the_values_of_a_reply_is_none_of_them(self) -> None:
        """Redis 7 does that in the reply to EXEC of a client that gets another's invalidations."""
        push = b">2\r\n+invalidate\r\n*1\r\n+k\r\n"
        for reply in (b"*2\r\n:1\r\n%b:4\r\n", b"*2\r\n%b:1\r\n:4\r\n", b"*1\r\n*1\r\n%b:4\r\n"):
            assert decode([reply % push + b"+b\r\n"]) == [
                ("reply", reply % push),
                ("reply", b"+b\r\n"),
            ]

    def test_an_attribute_does_not_hide_a_push(self) -> None:
        push = b"|1\r\n+k\r\n+v\r\n>1\r\n+x\r\n"
        assert decode([push]) == [("push", push)]

    @pytest.mark.parametrize(
        "data",
        [
            b"x",
            b"$a\r\n",
            b"$\r\n",
            b"$-2\r\n",
            b"%-1\r\n",
            b"$1\n",
            b"*1000000000000000000000\r\n",
            b".\r\n",
            b"$?\r\n+a\r\n",
            b"*?\r\n" * 17,
        ],
    )
    def test_errors(self, data: bytes) -> None:
        assert decode([data]) is None

    def test_counts_can_not_overflow(self) -> None:
        assert decode([b"%999999999999999999\r\n" * 3]) == []
        assert decode([b"%999999999999999999\r\n" * 100]) is None


class TestProperties:
    """For any bytes at all."""

    @given(STREAMS | st.binary(max_size=100), st.lists(st.integers(0, 500), max_size=8))
    def test_any_split_gives_the_same_replies(self, data: bytes, cuts: list[int]) -> None:
        assert decode(split(data, cuts)) == decode([data])

    @given(STREAMS)
    def test_valid_streams_agree_with_the_oracle(self, data: bytes) -> None:
        assert [raw for _, raw in decode([data]) or []] == refreplies.replies(data)

    @given(st.integers(0, 2**40))
    @settings(max_examples=200)
    def test_damaged_streams_agree_with_the_oracle(self, seed: int) -> None:
        for data in sample(seed, 20, True):
            if not spelt_unlike_a_server(data):
                expected, objected = oracle(data)
                got = frames(data)
                assert got[: len(expected)] == expected
                assert objected or got == expected

    @given(st.binary(max_size=60).filter(lambda b: not spelt_unlike_a_server(b)))
    def test_random_bytes_agree_with_the_oracle(self, data: bytes) -> None:
        expected, objected = oracle(data)
        got = frames(data)
        assert got[: len(expected)] == expected
        assert objected or got == expected

    def test_native_fuzzing(self) -> None:
        fuzz_replies(20, 200_000)
