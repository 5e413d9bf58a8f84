"""Reference decoder of requests in plain Python: the oracle for the Cython one.

`requests(data)` yields what a server makes of the bytes a client sent. No state and no speed: it
is written to be read beside the servers' `networking.c`. Its twin for replies is
`support/refreplies.py`, whose names are offered here too.

It decides from what is known so far, never from what has yet to arrive, so cutting a stream at
any byte and decoding again gives the same commands and the same first error. That is stricter than
the servers, which measure a header against the 64 KiB limit only when their read buffer holds no
line end: here a header line of more than 64 KiB is an error wherever its line end is.

Where servers differ, multibulk requests follow the strict one: Valkey 9.1 refuses a payload that is
not followed by CRLF, Redis skips those two bytes unread. Inline requests follow Redis: Valkey 9.1
splits lines in ways of its own (text right behind a closing quote is taken, a backslash before the
last byte is literal, the byte FF vanishes). `tests/compat/test_protocol_errors.py` has them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

from .refreplies import Incomplete, ProtocolError, replies, reply_end, strict_int

__all__ = ["MAX_BULK", "MAX_COUNT", "MAX_LINE", "Incomplete", "ProtocolError", "replies"]
__all__ += ["reply_end", "requests", "split_args", "strict_int"]

MAX_LINE = 64 * 1024
"""Longest header or inline line, without its end (PROTO_INLINE_MAX_SIZE)."""

MAX_BULK = 512 * 1024 * 1024
"""Longest argument (proto-max-bulk-len, its default)."""

MAX_COUNT = 2**31 - 1
"""Most arguments of one request (INT_MAX since Redis 7)."""

UNAUTHENTICATED_COUNT = 10
UNAUTHENTICATED_BULK = 16384

Event: TypeAlias = (
    tuple[Literal["args"], list[bytes], int]
    | tuple[Literal["need_more"]]
    | tuple[Literal["error"], str]
)

NEED_MORE: Event = ("need_more",)


def requests(
    data: bytes, *, max_bulk: int = MAX_BULK, authenticated: bool = True, strict: bool = True
) -> Iterator[Event]:
    """Yield every request in `data`, then how it ends: `need_more` or `error`.

    `("args", arguments, end)`: a request, `end` being the offset after its last byte. Empty
    requests (`*0`, a blank line) yield nothing: servers do not answer them. `strict=False` is
    Redis, which does not look at the two bytes after a payload or at the one after a header's CR.
    """
    pos = 0
    while pos < len(data):
        try:
            if data[pos] == ord("*"):
                args, pos = _multibulk(data, pos, max_bulk, authenticated, strict)
            else:
                args, pos = _inline(data, pos)
        except Incomplete:
            break
        except ProtocolError as error:
            yield ("error", f"Protocol error: {error}")
            return
        if args:
            yield ("args", args, pos)
    yield NEED_MORE


def _multibulk(
    data: bytes, pos: int, max_bulk: int, authenticated: bool, strict: bool
) -> tuple[list[bytes], int]:
    """One `*N` request: its arguments and the offset after it."""
    line, pos = _header(data, pos, "mbulk", strict)
    count = strict_int(line[1:])
    if count is None or count > MAX_COUNT:
        raise ProtocolError("invalid multibulk length")
    if count > UNAUTHENTICATED_COUNT and not authenticated:
        raise ProtocolError("unauthenticated multibulk length")
    args: list[bytes] = []
    for _ in range(count):
        line, pos = _header(data, pos, "bulk", strict)
        length = strict_int(line[1:])
        if length is None or not 0 <= length <= max_bulk:
            raise ProtocolError("invalid bulk length")
        if length > UNAUTHENTICATED_BULK and not authenticated:
            raise ProtocolError("unauthenticated bulk length")
        if len(data) < pos + length + 2:
            raise Incomplete
        if strict and data[pos + length : pos + length + 2] != b"\r\n":
            raise ProtocolError("invalid CRLF in request")
        args.append(data[pos : pos + length])
        pos += length + 2
    return args, pos


def _header(data: bytes, pos: int, kind: str, strict: bool) -> tuple[bytes, int]:
    """A `*` or `$` line without its CRLF, and the offset after it."""
    end = data.find(b"\r", pos, pos + MAX_LINE + 1)
    if end < 0:
        if len(data) - pos > MAX_LINE:
            raise ProtocolError(f"too big {kind} count string")
        raise Incomplete
    if end + 1 >= len(data):
        raise Incomplete
    if kind == "bulk" and data[pos] != ord("$"):
        got = " " if data[pos] in b"\r\n" else chr(data[pos])
        raise ProtocolError(f"expected '$', got '{got}'")
    if strict and data[end + 1] != ord("\n"):
        raise ProtocolError("invalid CRLF in request")
    return data[pos:end], end + 2


def _inline(data: bytes, pos: int) -> tuple[list[bytes], int]:
    """One inline request: a line split as a shell would."""
    end = data.find(b"\n", pos, pos + MAX_LINE + 1)
    if end < 0:
        if len(data) - pos > MAX_LINE:
            raise ProtocolError("too big inline request")
        raise Incomplete
    line = data[pos:end]
    if line.endswith(b"\r"):
        line = line[:-1]
    return split_args(line), end + 1


_SPACE = b" \n\r\t\v\f"
_ENDS_WORD = b" \n\r\t"
_HEX = b"0123456789abcdefABCDEF"
_ESCAPES = {ord("n"): 10, ord("r"): 13, ord("t"): 9, ord("b"): 8, ord("a"): 7}


def split_args(line: bytes) -> list[bytes]:
    """Split a line into arguments as servers do (`sdssplitargs`)."""
    args: list[bytes] = []
    pos = 0
    while True:
        while pos < len(line) and line[pos] in _SPACE:
            pos += 1
        if pos == len(line):
            return args
        current = bytearray()
        while pos < len(line) and line[pos] not in _ENDS_WORD:
            if line[pos] == ord('"'):
                pos = _double_quoted(line, pos + 1, current)
                break
            elif line[pos] == ord("'"):
                pos = _single_quoted(line, pos + 1, current)
                break
            else:
                current.append(line[pos])
                pos += 1
        args.append(bytes(current))


def _double_quoted(line: bytes, pos: int, out: bytearray) -> int:
    """Read up to the closing `"`; return the offset after it."""
    while pos < len(line):
        byte = line[pos]
        if byte == ord("\\") and _is_hex(line[pos + 1 : pos + 4]):
            out.append(int(line[pos + 2 : pos + 4], 16))
            pos += 4
        elif byte == ord("\\") and pos + 1 < len(line):
            out.append(_ESCAPES.get(line[pos + 1], line[pos + 1]))
            pos += 2
        elif byte == ord('"'):
            return _closing(line, pos)
        else:
            out.append(byte)
            pos += 1
    raise ProtocolError("unbalanced quotes in request")


def _single_quoted(line: bytes, pos: int, out: bytearray) -> int:
    """Read up to the closing `'`; return the offset after it."""
    while pos < len(line):
        if line[pos : pos + 2] == b"\\'":
            out.append(ord("'"))
            pos += 2
        elif line[pos] == ord("'"):
            return _closing(line, pos)
        else:
            out.append(line[pos])
            pos += 1
    raise ProtocolError("unbalanced quotes in request")


def _is_hex(text: bytes) -> bool:
    """Whether `text` is `xNN`."""
    return len(text) == 3 and text[:1] == b"x" and all(c in _HEX for c in text[1:])


def _closing(line: bytes, pos: int) -> int:
    """A closing quote must end its argument."""
    if pos + 1 < len(line) and line[pos + 1] not in _SPACE:
        raise ProtocolError("unbalanced quotes in request")
    return pos + 1
