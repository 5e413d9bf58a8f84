"""The request scanner: where requests end, whatever way their bytes arrive."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from sidecar.core.protocol.request import RequestDecoder, normalise_inline, split_arguments
from tests.harness import refdecoder
from tests.native.fuzz_decoders import fuzz_requests, sample
from tests.native.shell import request

ARGUMENTS = st.lists(st.binary(max_size=40), min_size=1, max_size=5)
LINES = st.sampled_from([b"PING\r\n", b"get k\n", b'set k "a\\x41\\n"\r\n', b"set 'a b' c\r\n"])
BLANK = st.sampled_from([b"\r\n", b"\n", b"  \r\n", b"*0\r\n", b"*-1\r\n"])
STREAMS = st.lists(ARGUMENTS.map(lambda a: request(*a)) | LINES | BLANK, max_size=6).map(b"".join)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data` in pieces, cut at these places."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


def decode(pieces: list[bytes], **options: int) -> list[tuple]:
    """All events; nothing is fed after an error."""
    decoder = RequestDecoder(**options)
    events: list[tuple] = []
    for piece in pieces:
        events += decoder.feed(piece)
        if events and events[-1][0] == "error":
            break
    return events


def visible(events: list[tuple]) -> list[tuple]:
    """Events a server would answer, as the oracle names them."""
    return [event[:2] for event in events if event[0] != "empty"]


def oracle(data: bytes, **options: int) -> list[tuple]:
    """The same by the reference decoder."""
    found: list[tuple] = []
    for event in refdecoder.requests(data, **options):
        if event[0] == "args":
            found.append(("request", event[1]))
        elif event[0] == "error":
            found.append(("error", b"-ERR " + event[1].encode("latin-1") + b"\r\n"))
    return found


def assert_agreed(data: bytes, **options: int) -> None:
    """Scanner and oracle agree."""
    got = visible(decode([data], **options))
    assert got in (oracle(data, **options), oracle_a_byte_early(data, **options))


def oracle_a_byte_early(data: bytes, **options: int) -> list[tuple]:
    """The same, but for a CR that is wrong whatever follows: the scanner objects to it at once."""
    found = oracle(data + b"\n", **options)
    at_once = found and found[-1][0] == "error" and found[-1][1].startswith(AT_ONCE)
    return found if at_once else oracle(data, **options)


AT_ONCE = (b"-ERR Protocol error: invalid CRLF", b"-ERR Protocol error: expected '$'")


def hidden_by_nul(data: bytes) -> bool:
    """Whether some inline line has a NUL: servers look no further, the oracle does."""
    return b"\0" in data


class TestTranscripts:
    """What a client sends, and what the scanner makes of it."""

    def test_pipeline(self) -> None:
        assert visible(decode([request("SET", "k", "v") + request("GET", "k")])) == [
            ("request", [b"SET", b"k", b"v"]),
            ("request", [b"GET", b"k"]),
        ]

    def test_the_raw_bytes_are_given_back(self) -> None:
        assert decode([request("GET", "k")])[0][2] == request("GET", "k")

    @pytest.mark.parametrize("data", [b"\r\n", b"\n", b"*0\r\n", b"*-5\r\n", b"   \r\n"])
    def test_empty_requests_get_no_reply(self, data: bytes) -> None:
        assert decode([data]) == [("empty",)]

    def test_a_payload_may_hold_anything(self) -> None:
        assert decode([request("SET", b"\r\n$1\r\n\0")])[0][1] == [b"SET", b"\r\n$1\r\n\0"]

    @pytest.mark.parametrize(
        ("data", "error"),
        [
            (b"*1\r\n$-1\r\n", b"invalid bulk length"),
            (b"*x\r\n", b"invalid multibulk length"),
            (b"*01\r\n", b"invalid multibulk length"),
            (b"*\r\n", b"invalid multibulk length"),
            (b"*9999999999999999999\r\n", b"invalid multibulk length"),
            (b"*2147483648\r\n", b"invalid multibulk length"),
            (b"*1\r\n:1\r\n", b"expected '$', got ':'"),
            (b"*1\r\n$1\r\nabc", b"invalid CRLF in request"),
            (b"*1\r\n$600000000\r\n", b"invalid bulk length"),
            (b'get "a\r\n', b"unbalanced quotes in request"),
            (b'get "a"b\r\n', b"unbalanced quotes in request"),
            (b"x" * 65537, b"too big inline request"),
            (b"*" + b"1" * 65537, b"too big mbulk count string"),
            (b"*1\r\n$" + b"1" * 65537, b"too big bulk count string"),
        ],
    )
    def test_errors(self, data: bytes, error: bytes) -> None:
        assert decode([data]) == [("error", b"-ERR Protocol error: " + error + b"\r\n")]

    @pytest.mark.parametrize(
        ("data", "error"),
        [
            (b"*11\r\n", b"unauthenticated multibulk length"),
            (b"*1\r\n$16385\r\n", b"unauthenticated bulk length"),
        ],
    )
    def test_limits_before_authentication(self, data: bytes, error: bytes) -> None:
        assert decode([data], authenticated=False) == [
            ("error", b"-ERR Protocol error: " + error + b"\r\n")
        ]
        assert decode([data]) == []

    def test_the_longest_bulk_is_a_setting(self) -> None:
        assert decode([b"*1\r\n$10\r\n"], max_bulk=9)[0][0] == "error"
        assert decode([b"*1\r\n$10\r\n"], max_bulk=10) == []


class TestInline:
    """Lines are split as Redis splits them, and become multibulk requests."""

    @pytest.mark.parametrize(
        ("line", "args"),
        [
            (b"get k\r\n", [b"get", b"k"]),
            (b'set k "a\\x41\\n\\q"\r\n', [b"set", b"k", b"aA\nq"]),
            (b"set k 'it\\'s'\n", [b"set", b"k", b"it's"]),
            (b"set k ''\n", [b"set", b"k", b""]),
            (b'set a"b"\n', [b"set", b"ab"]),
        ],
    )
    def test_words(self, line: bytes, args: list[bytes]) -> None:
        assert split_arguments(normalise_inline(line)) == args

    def test_blank_and_bad(self) -> None:
        assert normalise_inline(b"  \r\n") == b""
        assert normalise_inline(b"'\r\n") is None

    @given(st.binary(max_size=60).filter(lambda b: b"\n" not in b and b"\0" not in b))
    def test_agrees_with_the_oracle(self, line: bytes) -> None:
        try:
            expected = refdecoder.split_args(line.removesuffix(b"\r"))
        except refdecoder.ProtocolError:
            assert normalise_inline(line + b"\n") is None
        else:
            got = normalise_inline(line + b"\n")
            assert got is not None
            assert (split_arguments(got) if got else []) == expected


class TestProperties:
    """For any bytes at all."""

    @given(STREAMS | st.binary(max_size=200), st.lists(st.integers(0, 1000), max_size=8))
    def test_any_split_gives_the_same_events(self, data: bytes, cuts: list[int]) -> None:
        assert decode(split(data, cuts)) == decode([data])

    @given(st.integers(0, 2**40))
    @settings(max_examples=20)
    def test_byte_by_byte(self, seed: int) -> None:
        for data in sample(seed, 20, False):
            assert decode([data[i : i + 1] for i in range(len(data))]) == decode([data])

    @given(STREAMS)
    def test_valid_streams_agree_with_the_oracle(self, data: bytes) -> None:
        assert_agreed(data)

    @given(st.integers(0, 2**40), st.booleans())
    @settings(max_examples=200)
    def test_damaged_streams_agree_with_the_oracle(self, seed: int, authenticated: bool) -> None:
        for data in sample(seed, 20, False):
            if not hidden_by_nul(data):
                options = {"authenticated": authenticated, "max_bulk": 30}
                assert_agreed(data, **options)

    @given(st.binary(max_size=100))
    @example(b"*9999999999999999999\r\n")
    @example(b"*-9223372036854775808\r\n")
    def test_random_bytes_agree_with_the_oracle(self, data: bytes) -> None:
        assume(not hidden_by_nul(data))
        assert_agreed(data)

    @given(st.text("*-0123456789", min_size=1, max_size=24))
    def test_numbers_agree_with_the_oracle(self, text: str) -> None:
        data = b"*" + text.encode() + b"\r\n"
        assert_agreed(data)
        data = b"*1\r\n$" + text.encode() + b"\r\n"
        assert_agreed(data)

    @given(ARGUMENTS)
    def test_arguments_come_back(self, args: list[bytes]) -> None:
        assert split_arguments(request(*args)) == args

    def test_native_fuzzing(self) -> None:
        fuzz_requests(20, 200_000)
