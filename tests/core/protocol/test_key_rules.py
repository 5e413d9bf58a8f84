"""Finding keys by any rule, in any arguments, and in bytes that are no request.

The oracle is plain Python. Nothing may be read or written where it should not be: `make asan`.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core.protocol.commands import FINDS, FORMS, READ, ROUTES, CommandTable
from sidecar.core.protocol.keys import ANY, TOO_MANY, UNDECLARED, UNKNOWN, first_key_of, found_keys
from tests.core.protocol.test_keys import CODES, NAMED
from tests.native.shell import request, table

# Any rule, any arguments

SMALL = st.integers(0, 5)
WORD = st.sampled_from([b"k", b"a", b"w", b"W", b"0", b"1", b"2", b"3", b"x1", b""])
RANGE = st.tuples(
    st.sampled_from([b"", b"w"]), st.integers(1, 4), st.just(FINDS["range"]), st.integers(0, 1),
    st.integers(-3, 3), st.integers(1, 3), st.sampled_from([0, 2, 3]), st.just(0), st.just(0),
).map(lambda s: s if s[6] == 0 else (*s[:4], -1, *s[5:]))  # fmt: skip
KEYNUM = st.tuples(
    st.sampled_from([b"", b"w"]), st.integers(1, 4), st.just(FINDS["keynum"]), st.integers(0, 3),
    st.just(0), st.integers(1, 3), st.just(0), st.integers(0, 2), st.integers(0, 3),
)  # fmt: skip
SPECS = st.lists(RANGE | KEYNUM, min_size=1, max_size=4).map(tuple)


def oracle(specs: tuple[Any, ...], args: list[bytes]) -> list[tuple[bytes, bool]] | int:
    """What keys.pyx says of specifications, said again with lists and slices."""
    found: list[tuple[bytes, bool]] = []
    for keyword, at, find, flags, last, step, limit, count_at, first_after in specs:
        first = at
        if keyword:
            words = [i for i in range(at, len(args)) if args[i].lower() == keyword]
            if not words:
                continue
            first = words[0] + 1
        if find == FINDS["range"]:
            if first >= len(args):
                continue
            if last >= 0:
                end = first + last
            elif limit:
                end = first + (len(args) - first) // limit - 1
            else:
                end = len(args) + last
        else:
            if first + count_at >= len(args) or args[first + count_at] not in b"0 1 2 3".split():
                return UNKNOWN
            count = int(args[first + count_at])
            if count == 0:
                return UNDECLARED if flags & 2 else UNKNOWN
            first += first_after
            end = first + (count - 1) * step
        if end >= len(args):
            return UNKNOWN
        found += [(key, bool(flags & 1)) for key in args[first : end + 1 : step]]
    return found


@given(SPECS, st.lists(WORD, max_size=9))
@settings(max_examples=500)
def test_any_rule(specs: tuple[Any, ...], args: list[bytes]) -> None:
    commands = CommandTable(1, ["other"])
    rule = (FORMS["specs"], specs, ())
    plain = (ROUTES["shared"], READ, 0, -1, rule, ())
    box = (ROUTES["shared"], READ, 0, -1, (FORMS["container"], (), ((b"sub", rule),)), ())
    commands.update({b"do": plain, b"box": box})
    assert found_keys(commands, request("DO", *args)) == oracle(specs, [b"DO", *args])
    whole = [b"box", b"SUB", *args]
    assert found_keys(commands, request(*whole)) == oracle(specs, whole)


# What is no request

NAME = st.sampled_from([name.split()[0] for name in (*NAMED, *CODES)])
OPTION = st.sampled_from(
    b"STORE STOREDIST STREAMS KEYS AUTH AUTH2 LIMIT GET BY 0 1 2 -1 ENCODING CREATE".split()
)
ARGUMENTS = st.lists(OPTION | st.binary(max_size=9), max_size=9)


def check(raw: bytes) -> None:
    for most in (0, 1, 1024):
        found = found_keys(table(), raw, most)
        if isinstance(found, list):
            assert len(found) <= most
            assert all(key in raw for key, _ in found)
        else:
            assert found in (UNKNOWN, TOO_MANY, UNDECLARED, ANY)
    first_key_of(table(), raw)


@given(st.binary(max_size=200))
def test_any_bytes(raw: bytes) -> None:
    check(raw)


@given(NAME, ARGUMENTS)
def test_any_arguments(name: str, args: list[bytes]) -> None:
    check(request(name, *args))


@given(NAME, ARGUMENTS, st.data())
@settings(max_examples=300)
def test_damaged_requests(name: str, args: list[bytes], data: st.DataObject) -> None:
    """One byte changed, or cut off anywhere."""
    raw = bytearray(request(name, *args))
    at = data.draw(st.integers(0, len(raw) - 1))
    check(bytes(raw[:at]))
    raw[at] = data.draw(st.sampled_from(b"0129$*-\r\n\0\xff"))
    check(bytes(raw))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"*",
        b"*2",
        b"*2\r\n",
        b"*2\r\n$3\r\nGET\r\n",
        b"*2\r\n$3\r\nGET\r\n$",
        b"*2\r\n$3\r\nGET\r\n$1\r\nk",
        b"*2\r\n$3\r\nGET\r\n$1\r\nk\r",
        b"*2\r\n$3\r\nGET\r\n$99999999999999999999\r\nk\r\n",
        b"*2\r\n$3\r\nGET\r\n$18446744073709551615\r\nk\r\n",
        b"*2\r\n$3\r\nGET\r\n$-1\r\n",
        b"*9223372036854775807\r\n$3\r\nDEL\r\n$1\r\nk\r\n",
        b"*99999999999999999999999\r\n$3\r\nDEL\r\n",
        b"*-1\r\n",
        b"GET k\r\n",
    ],
)
def test_what_is_cut_short(raw: bytes) -> None:
    assert found_keys(table(), raw) == UNKNOWN
    assert first_key_of(table(), raw) is None
