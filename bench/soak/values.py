"""Values that tell whose they are: a torn one, or another key's, is noticed by whoever reads it.

    key | number | padding | CRC-32 of all before

`Key` is one that a single client writes, with ever higher numbers, so that what a read may find is
known: the last number that was acknowledged, or a later one whose fate is unknown.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Any

from tests.harness.resp import Refused

LOST = object()
"""In the place of a reply: the connection was lost before it came."""


class Wrong(Exception):
    """A reply that must not be; the text says why."""


def make(key: str, number: int, size: int = 0) -> bytes:
    """A value of about `size` bytes."""
    head = b"%b|%d|" % (key.encode(), number)
    filler = b"%d." % number
    body = head + filler * (max(size - len(head), 0) // len(filler)) + b"|"
    return body + b"%08x" % zlib.crc32(body)


def number_of(key: str, value: Any) -> int:
    """The number within a value of this key. Raises Wrong."""
    if not isinstance(value, bytes):
        raise Wrong(f"{key}: not a value but {value!r:.80}")
    body, crc = value[:-8], value[-8:]
    if crc != b"%08x" % zlib.crc32(body):
        raise Wrong(f"{key}: torn: {value[:60]!r}...{value[-20:]!r}, {len(value)} bytes")
    owner, number, _ = body.split(b"|", 2)
    if owner != key.encode():
        raise Wrong(f"{key}: the value of {owner.decode(errors='replace')}")
    return int(number)


def may_be_done(reply: Any) -> bool:
    """Whether a reply that is no success leaves open what has become of its command."""
    return reply is LOST or (isinstance(reply, Refused) and str(reply).startswith("UNCERTAIN"))


@dataclass
class Key:
    """A key and what its writer knows of it. Number 0: there is nothing yet."""

    name: str
    size: int = 0
    tried: int = 0
    known: int = 0
    """The last number that was acknowledged, or read."""
    unsure: set[int] = field(default_factory=set)
    """Later ones that may have been written."""

    def next(self) -> bytes:
        """The value to be written next; its number is `tried`."""
        self.tried += 1
        return make(self.name, self.tried, self.size)

    def told(self, number: int, reply: Any, *, done: bool) -> None:
        """What was answered to the write of a number."""
        if done:
            self._know(number)
        elif may_be_done(reply):
            self.unsure.add(number)

    def check_own(self, value: Any) -> None:
        """A read by the writer itself, all of whose earlier commands are answered. Raises Wrong."""
        number = 0 if value is None else number_of(self.name, value)
        if number != self.known and number not in self.unsure:
            raise Wrong(f"{self.name}: {number} where {self.known} or {sorted(self.unsure)} is due")
        self._know(number)

    def check_foreign(self, value: Any, least: int) -> None:
        """A read by somebody else, who asked when `least` was known. Raises Wrong."""
        number = 0 if value is None else number_of(self.name, value)
        if not least <= number <= self.tried:
            raise Wrong(f"{self.name}: {number} where {least} to {self.tried} is due")

    def _know(self, number: int) -> None:
        self.known = number
        self.unsure = {each for each in self.unsure if each > number}
