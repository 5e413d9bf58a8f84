"""Reference decoder of replies in plain Python: where each RESP2 or RESP3 reply ends.

The oracle for the Cython reply framer, and what `support.wire.Wire` reads with. It knows every type
of RESP3, streamed ones included (`$?` with `;n` chunks, `*?` `%?` `~?` ended by `.`).
"""

from __future__ import annotations


class ProtocolError(ValueError):
    """The peer broke the protocol; the text is the one a server answers with."""


class Incomplete(Exception):
    """The frame goes on after the last byte given."""


def strict_int(text: bytes) -> int | None:
    """A signed 64-bit integer spelt the one way servers accept: no plus, space or leading zero."""
    if len(text) > 20:
        return None
    digits = text[1:] if text[:1] == b"-" else text
    if not digits.isdigit() or (digits[0] == ord("0") and text != b"0"):
        return None
    value = int(text)
    return value if -(2**63) <= value < 2**63 else None


_LINE_TYPES = b"+-:_#,("
_BULK_TYPES = b"$!="
_AGGREGATES = {ord("*"): 1, ord("~"): 1, ord(">"): 1, ord("%"): 2, ord("|"): 2}
_STREAMED_AGGREGATES = b"*~%"


def reply_end(data: bytes | bytearray, pos: int = 0) -> int | None:
    """The offset after the reply at `pos`, or None when it has not arrived whole.

    An attribute (`|`) belongs to the value behind it. A push (`>`) is a frame of its own; servers
    also put one between the values of a reply to EXEC, of which it is none.
    """
    pushed = data[pos : pos + 1] == b">"
    todo = [1]  # values missing at each depth; -1: streamed, until a `.` line
    while todo:
        if todo[-1] == 0:
            todo.pop()
            continue
        end = data.find(b"\r\n", pos)
        if end < 0:
            return None
        kind, text = data[pos], bytes(data[pos + 1 : end])
        pos = end + 2
        if todo[-1] < 0 and kind == ord(".") and not text:
            todo.pop()
            continue
        between = kind == ord(">") and len(todo) > 1 and not pushed
        if todo[-1] > 0 and kind != ord("|") and not between:
            todo[-1] -= 1
        if kind in _AGGREGATES:
            todo.append(_children(kind, text))
        elif kind in _BULK_TYPES:
            found = _bulk_end(data, pos, kind, text)
            if found is None:
                return None
            pos = found
        elif kind not in _LINE_TYPES:
            raise ProtocolError(f"unknown reply type {bytes([kind])!r}")
    return pos


def _children(kind: int, text: bytes) -> int:
    """How many values an aggregate header announces; -1 for a streamed one."""
    if text == b"?" and kind in _STREAMED_AGGREGATES:
        return -1
    count = strict_int(text)
    if count is None or count < (-1 if kind == ord("*") else 0):
        raise ProtocolError(f"invalid aggregate length {text!r}")
    return max(count, 0) * _AGGREGATES[kind]


def _bulk_end(data: bytes | bytearray, pos: int, kind: int, text: bytes) -> int | None:
    """The offset after a bulk's payload, whose header has been read."""
    if text == b"?" and kind == ord("$"):
        return _chunks_end(data, pos)
    length = strict_int(text)
    if length is None or length < (-1 if kind == ord("$") else 0):
        raise ProtocolError(f"invalid bulk length {text!r}")
    if length < 0:
        return pos
    if len(data) < pos + length + 2:
        return None
    if data[pos + length : pos + length + 2] != b"\r\n":
        raise ProtocolError("bulk is not followed by CRLF")
    return pos + length + 2


def _chunks_end(data: bytes | bytearray, pos: int) -> int | None:
    """The offset after the chunks `;n` of a streamed string, ended by `;0`."""
    while True:
        end = data.find(b"\r\n", pos)
        if end < 0:
            return None
        length = strict_int(bytes(data[pos + 1 : end]))
        if data[pos] != ord(";") or length is None or length < 0:
            raise ProtocolError(f"invalid chunk {bytes(data[pos:end])!r}")
        pos = end + 2
        if length == 0:
            return pos
        if len(data) < pos + length + 2:
            return None
        pos += length + 2


def replies(data: bytes | bytearray) -> list[bytes]:
    """The whole replies in `data`, in order; a last half one is left out."""
    found: list[bytes] = []
    pos = 0
    while pos < len(data) and (end := reply_end(data, pos)) is not None:
        found.append(bytes(data[pos:end]))
        pos = end
    return found
