"""What clients were told: one record a command, or a number and an error's code.

Times are CLOCK_MONOTONIC in seconds, which all processes of a machine share.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

MISSING = -1
"""Value of a key that does not exist."""
GARBLED = -2
"""Value that nobody wrote under that key."""

SHARED_COUNTER = "drill:count:all"
"""The counter all counting clients use; every other one belongs to one client."""


class Record(NamedTuple):
    """One command of one client, which sends the next only when this one is answered."""

    client: int
    op: str
    """`set`, `get` or `incr`."""
    key: str
    number: int
    """What a `set` writes: grows with every `set` of a key, and each key has one writer."""
    sent: float
    answered: float
    error: str
    """Empty, or the kind: a server's error code in capitals, else a failure of the network."""
    value: int
    """What a `get` read or an `incr` returned; MISSING, GARBLED."""

    @property
    def write(self) -> bool:
        """Whether the command changes anything."""
        return self.op != "get"

    @property
    def took(self) -> float:
        """Seconds from sending to the answer."""
        return self.answered - self.sent


def encode(key: str, number: int) -> str:
    """The value stored: it names its key, so that another key's value is noticed."""
    return f"{key}={number}"


def decode(key: str, value: str | None) -> int:
    """The number in a stored value of `key`."""
    if value is None:
        return MISSING
    name, _, number = value.rpartition("=")
    return int(number) if name == key and number.isdigit() else GARBLED


def save(path: Path, records: Iterable[Record]) -> None:
    """Write a history; complete or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(list(records)))
    partial.rename(path)


def load(path: Path) -> list[Record]:
    """Read a history, in the order in which the commands were sent."""
    records = [Record(*fields) for fields in json.loads(path.read_text())]
    return sorted(records, key=lambda record: record.sent)


@dataclass
class Told:
    """What one client was told, command by command: a number and an error's code, or none."""

    numbers: list[tuple[int, str]] = field(default_factory=list)

    @property
    def acknowledged(self) -> list[int]:
        """The numbers answered without an error."""
        return [number for number, error in self.numbers if not error]

    @property
    def errors(self) -> Counter[str]:
        """How many of which code."""
        return Counter(error for _, error in self.numbers if error)
