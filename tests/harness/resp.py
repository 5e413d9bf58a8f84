"""The codec of every client here: requests by hiredis, replies as raw bytes or as values.

Raw replies are cut by the reference decoder (`refreplies.reply_end`) and not interpreted, so that
a test which compares what two peers said compares every byte. Whoever wants to know what a reply
means asks for its value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import hiredis

from .refreplies import reply_end

__all__ = ["Arg", "Refused", "bulk", "elements", "pack", "pack_all", "pairs", "reply_end", "value"]

Arg: TypeAlias = bytes | str | int | float


class Refused(hiredis.ReplyError):
    """The server answered with an error; the text is the server's."""


def pack(*args: Arg) -> bytes:
    """One request as a client library would send it."""
    packed: bytes = hiredis.pack_command(args)
    return packed


def pack_all(requests: Iterable[Sequence[Arg]]) -> bytes:
    """Several requests as one piece."""
    return b"".join(pack(*request) for request in requests)


def bulk(data: bytes) -> bytes:
    """A bulk string."""
    return b"$%d\r\n%b\r\n" % (len(data), data)


def value(reply: bytes, *, text: bool = True) -> Any:
    """The value of one reply: strings as text (or bytes), an error as a `Refused`."""
    reader = hiredis.Reader(
        replyError=Refused, encoding="utf-8" if text else None, errors="replace"
    )
    reader.feed(reply)
    return reader.gets()


def elements(reply: bytes) -> tuple[bytes, list[bytes]]:
    """The header of an aggregate, and its elements, all raw."""
    pos = reply.index(b"\r\n") + 2
    head, found = reply[:pos], []
    while pos < len(reply):
        end = reply_end(reply, pos)
        assert end is not None
        found.append(reply[pos:end])
        pos = end
    return head, found


def pairs(flat: Sequence[Any]) -> dict[Any, Any]:
    """A flat list of names and values, as Sentinels answer."""
    return dict(zip(flat[::2], flat[1::2], strict=True))
