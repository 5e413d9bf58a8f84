"""How each read of the model server answers (see model_server.py).

A form is given a number (the event's or the version's; 0 while the key is missing), the protocol,
the request, and how many bytes the value has beside the number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from tests.native.shell import bulk

Args: TypeAlias = tuple[bytes, ...]
Form: TypeAlias = Callable[[int, int, Args, int], bytes]


def number(n: int) -> bytes:
    """An integer."""
    return b":%d\r\n" % n


def null(proto: int, array: bool = False) -> bytes:
    """The null of a protocol."""
    return b"_\r\n" if proto == 3 else b"*-1\r\n" if array else b"$-1\r\n"


def double(n: int, proto: int) -> bytes:
    """A score."""
    return b",%d\r\n" % n if proto == 3 else bulk(b"%d" % n)


def _text(n: int, proto: int, args: Args, pad: int) -> bytes:
    return bulk(b"%d" % n + b"x" * pad) if n else null(proto)


def _count(n: int, proto: int, args: Args, pad: int) -> bytes:
    return number(n)


def _map(n: int, proto: int, args: Args, pad: int) -> bytes:
    head = (b"%1\r\n" if n else b"%0\r\n") if proto == 3 else (b"*2\r\n" if n else b"*0\r\n")
    return head + (bulk(b"field") + bulk(b"%d" % n + b"x" * pad) if n else b"")


def _set(n: int, proto: int, args: Args, pad: int) -> bytes:
    head = b"~" if proto == 3 else b"*"
    return head + (b"1\r\n" + bulk(b"%d" % n) if n else b"0\r\n")


def _list(n: int, proto: int, args: Args, pad: int) -> bytes:
    return b"*2\r\n" + bulk(b"%d" % n) + bulk(b"x" * pad) if n else b"*0\r\n"


def _score(n: int, proto: int, args: Args, pad: int) -> bytes:
    return double(n, proto) if n else null(proto)


def _rank(n: int, proto: int, args: Args, pad: int) -> bytes:
    with_score = len(args) > 3
    if not n:
        return null(proto, with_score)
    return b"*2\r\n" + number(n) + double(7, proto) if with_score else number(n)


def _place(n: int, proto: int, args: Args, pad: int) -> bytes:
    point = b"*2\r\n" + double(n, proto) + double(1, proto) if n else null(proto, True)
    return b"*1\r\n" + point


def _status(n: int, proto: int, args: Args, pad: int) -> bytes:
    return b"+%d\r\n" % n


READS: dict[bytes, Form] = {
    b"GET": _text, b"STRLEN": _count, b"EXISTS": _count, b"HGETALL": _map, b"SMEMBERS": _set,
    b"LRANGE": _list, b"ZSCORE": _score, b"ZRANK": _rank, b"GEOPOS": _place, b"TYPE": _status,
    b"HGET": _text, b"DUMP": _text,
}  # fmt: skip

ALWAYS = (b"STRLEN", b"EXISTS", b"TYPE")
"""These tell their number whether the key is there or not."""
