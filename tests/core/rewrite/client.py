"""A client with the prefix `p:`, for tests of its rewriter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from hiredis import pack_command

from sidecar.core.protocol.request import split_arguments
from sidecar.core.rewrite.rewriter import Rewriter
from sidecar.core.rewrite.rules import RewriteRules
from sidecar.policy.prefixing import GIVEN
from sidecar.proxy.learning import shipped_table
from tests.harness.refdecoder import requests

TABLE = shipped_table()
PREFIX = b"p:"


def rules(
    prefix: bytes = PREFIX,
    renames: Mapping[bytes, bytes] | None = None,
    *,
    from_start: bool = False,
) -> RewriteRules:
    """The rules of these clients."""
    return RewriteRules(TABLE, GIVEN, prefix, renames, from_start)


RULES = rules()


def words(line: str) -> list[bytes]:
    """The arguments of a request, split at single spaces."""
    return line.encode().split(b" ")


def packed(*lines: str) -> bytes:
    """Requests as their bytes."""
    return b"".join(pack_command(tuple(words(line))) for line in lines)


def unpacked(data: bytes) -> list[list[bytes]]:
    """Whole requests as their arguments."""
    found = list(requests(data))
    assert found[-1] == ("need_more",) or not found, found[-1]
    return [event[1] for event in found if event[0] == "args"]


class Talk:
    """What one client sends and is sent, through its rewriter."""

    def __init__(self, by: RewriteRules = RULES, protocol: int = 2) -> None:
        self.rewriter = Rewriter(by, 1234567, protocol)

    def sends(self, *lines: str) -> list[str]:
        """What the server gets for these requests."""
        return self.sends_bytes(packed(*lines))

    def sends_bytes(self, data: bytes, **limits: int) -> list[str]:
        """What the server gets of these bytes."""
        got = unpacked(self.rewriter.requests(data, **limits))
        return [b" ".join(args).decode("latin-1") for args in got]

    def resumes(self) -> list[str]:
        """What the server gets of what has waited."""
        got = unpacked(self.rewriter.resumed())
        return [b" ".join(args).decode("latin-1") for args in got]

    def gets(self, *replies: bytes) -> bytes:
        """What the client gets of these replies."""
        return b"".join(self.rewriter.shown(reply) for reply in replies)


def bulks(*values: bytes | None) -> bytes:
    """An array of strings."""
    return b"*%d\r\n" % len(values) + b"".join(map(bulk, values))


def bulk(value: bytes | None) -> bytes:
    """A string, or the null string."""
    return b"$-1\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value)


def array(*values: bytes) -> bytes:
    """An array of replies."""
    return b"*%d\r\n" % len(values) + b"".join(values)


def push(*values: bytes) -> bytes:
    """A message of RESP3, of replies."""
    return b">%d\r\n" % len(values) + b"".join(values)


def cut(data: bytes, places: Sequence[int]) -> Iterable[bytes]:
    """The data in pieces, cut at these places."""
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(ends)]


__all__ = ["PREFIX", "RULES", "TABLE", "Talk", "array", "bulk", "bulks", "cut", "packed", "push"]
__all__ += ["rules", "split_arguments", "unpacked", "words"]
