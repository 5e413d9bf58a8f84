"""The cursor: it reads what the reference decoder reads, and stops where anything is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.protocol.cursor import arguments_in, is_the_word, number_in
from sidecar.core.protocol.request import split_arguments
from tests.native.shell import request

WORDS = st.lists(st.binary(max_size=40) | st.sampled_from([b"\r\n", b"$1\r\na\r\n"]), max_size=5)


@given(WORDS)
def test_arguments_come_back(words: list[bytes]) -> None:
    assert arguments_in(request(*words)) == (len(words), words)
    assert split_arguments(request(*words)) == words


@given(WORDS.filter(len), st.data())
def test_the_beginning_of_a_request(words: list[bytes], data: st.DataObject) -> None:
    """Nothing beyond it is read; what is there as a whole is."""
    whole = request(*words)
    cut = data.draw(st.integers(0, len(whole) - 1))
    count, found = arguments_in(whole[:cut])
    head = whole.index(b"\n") + 1
    assert count == (len(words) if cut >= head else -1)
    assert found == [w for i, w in enumerate(words) if len(request(*words[: i + 1])) <= cut]


@given(st.binary(max_size=60))
def test_any_bytes(data: bytes) -> None:
    count, found = arguments_in(data)
    assert count >= -1
    assert b"".join(found) in data or len(found) > 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"*",
        b"*1",
        b"*1\r",
        b"*\r\n",
        b"*-1\r\n$1\r\na\r\n",
        b"*01\r\n$1\r\na\r\n",
        b"*+1\r\n$1\r\na\r\n",
        b"*1 \r\n$1\r\na\r\n",
        b"*1\rx$1\r\na\r\n",
        b"$1\r\na\r\n",
        b"*9999999999999999999\r\n",
    ],
)
def test_no_request(data: bytes) -> None:
    assert arguments_in(data) == (-1, [])


@pytest.mark.parametrize(
    "argument",
    [
        b"$1\r\na\r",
        b"$1\r\nab\r\n",
        b"$1\r\na\n\n",
        b"$1\ra\r\n",
        b"$01\r\na\r\n",
        b"$-1\r\na\r\n",
        b"$\r\na\r\n",
        b"$1 \r\na\r\n",
        b"+1\r\na\r\n",
        b"$999999999999999999\r\na\r\n",
        b"$18446744073709551617\r\na\r\n",
        b"$18446744073709551615\r\na\r\n",
    ],
)
def test_no_argument(argument: bytes) -> None:
    assert arguments_in(b"*3\r\n$1\r\nx\r\n" + argument + b"$1\r\ny\r\n") == (3, [b"x"])


@pytest.mark.parametrize("line", [False, True])
@given(number=st.integers(-(2**64), 2**64))
def test_numbers(line: bool, number: int) -> None:
    text = b"%d" % number + b"\r\nx" * line
    assert number_in(text, line) == (number if -(2**63) <= number < 2**63 else None)


@pytest.mark.parametrize(
    "text", [b"", b"-", b"+1", b"01", b"-0", b"-01", b" 1", b"1 ", b"1x", b"0x1", b"1" * 20]
)
def test_no_numbers(text: bytes) -> None:
    assert number_in(text) is None
    assert number_in(text + b"\r\n", line=True) is None


@pytest.mark.parametrize("text", [b"", b"1", b"1\r", b"1\n", b"1\rx", b"\r\n"])
def test_no_number_line(text: bytes) -> None:
    assert number_in(text, line=True) is None


@pytest.mark.parametrize(
    ("argument", "same"),
    [
        (b"block", True),
        (b"BLOCK", True),
        (b"bLoCk\0", True),
        (b"block\0and more", True),
        (b"blocks", False),
        (b"bloc", False),
        (b"bloc\0", False),
        (b"\0block", False),
        (b"", False),
        (b"BL\x0fCK", False),
    ],
)
def test_words(argument: bytes, same: bool) -> None:
    assert is_the_word(argument, b"block") is same
