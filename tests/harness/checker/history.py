"""What clients did to keys and saw of them: one row for each operation, in columns.

Every state of a key has a version, and versions grow in the order in which the states came about:

* a *register* has one writer at a time, who numbers what it writes: `WRITE` (a value), `DELETE`.
  Values name their version, so that a reader knows which it has seen;
* a *counter* is incremented by anybody at any time, and what an increment returns is its version
  (`COUNT`). No increment may be undone; once it is deleted (`WIPED`), nobody writes it any more;
* `EXPIRY` is the end of a value by its TTL: from `begin` on it may be gone, from `end` on it must.

Version 0 is "never written". A write that was not acknowledged ends `NEVER`: it may or may not
have happened, at any time after its beginning; an increment's version is `UNKNOWN` then.

Times are CLOCK_MONOTONIC in nanoseconds: `begin` is taken before the request is sent, `end` after
its reply has been received. Sites: 0 is the server itself, others are sidecars.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path
from typing import Any

DIRECT = 0
"""The site of those who talk to the server itself."""

ABSENT, PRESENT, GARBLED, UNKNOWN = -1, -2, -3, -4
"""In the place of a version: no value; some value; a value nobody wrote; not told."""

NEVER = (1 << 63) - 1
"""The end of what was not acknowledged."""

WIPED = 1 << 40
"""Version of a counter that was deleted for good."""


class Kind(IntEnum):
    """What a row is."""

    READ = 0
    WRITE = 1
    DELETE = 2
    EXPIRY = 3
    COUNT = 4


COLUMNS = {
    "key": "I", "client": "I", "site": "B", "kind": "B", "strict": "B", "what": "B",
    "begin": "q", "end": "q", "version": "q",
}  # fmt: skip


class History:
    """Rows, by column; keys and commands by number, their names beside."""

    def __init__(self) -> None:
        self.key = array("I")
        self.client = array("I")
        self.site = array("B")
        self.kind = array("B")
        self.strict = array("B")
        """1: a read that no cache may answer."""
        self.what = array("B")
        self.begin = array("q")
        self.end = array("q")
        self.version = array("q")
        self.names: list[str] = []
        self.counters: set[int] = set()
        self.commands: list[str] = []
        self.closed: dict[int, int] = {}
        """Key -> a time; what ended later says nothing of it (the server lost its data)."""

    def __len__(self) -> int:
        return len(self.key)

    def new_key(self, name: str, *, counter: bool = False) -> int:
        """A key that has never been written."""
        self.names.append(name)
        if counter:
            self.counters.add(len(self.names) - 1)
        return len(self.names) - 1

    def command(self, name: str) -> int:
        """The number of a command, for the column `what`."""
        if name not in self.commands:
            self.commands.append(name)
        return self.commands.index(name)

    def add(
        self,
        kind: int,
        key: int,
        begin: int,
        end: int,
        version: int,
        *,
        client: int = 0,
        site: int = DIRECT,
        what: int = 0,
        strict: bool = False,
    ) -> int:
        """One more row: its number. Rows of one client are added in the order of its requests."""
        self.key.append(key)
        self.client.append(client)
        self.site.append(site)
        self.kind.append(kind)
        self.strict.append(strict)
        self.what.append(what)
        self.begin.append(begin)
        self.end.append(end)
        self.version.append(version)
        return len(self.key) - 1

    def rows_by_key(self) -> list[array[int]]:
        """For each key its rows, in the order in which they were added."""
        found = [array("I") for _ in self.names]
        for row, key in enumerate(self.key):
            found[key].append(row)
        return found

    def describe(self, row: int, since: int = 0) -> str:
        """One row in words; times in milliseconds from `since`."""
        end = self.end[row]
        times = f"{(self.begin[row] - since) / 1e6:.3f}"
        times += " .. never" if end == NEVER else f" .. {(end - since) / 1e6:.3f}"
        site = "direct" if self.site[row] == DIRECT else f"sidecar {self.site[row]}"
        what = self.commands[self.what[row]] if self.commands else ""
        version = {ABSENT: "absent", PRESENT: "present", GARBLED: "garbled", UNKNOWN: "unknown"}
        seen = version.get(self.version[row], f"v{self.version[row]}")
        kind = Kind(self.kind[row]).name.lower()
        name = self.names[self.key[row]]
        return f"[{times} ms] {site} client {self.client[row]} {what} {kind} {name}: {seen}"

    # Files

    def save(self, path: Path) -> None:
        """Write it; complete or not at all."""
        head: dict[str, Any] = {
            "rows": len(self),
            "names": self.names,
            "counters": sorted(self.counters),
            "commands": self.commands,
            "closed": sorted(self.closed.items()),
        }
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            file.write(json.dumps(head).encode() + b"\n")
            for column in COLUMNS:
                getattr(self, column).tofile(file)
        partial.rename(path)

    @classmethod
    def load(cls, path: Path) -> History:
        """Read what `save` has written."""
        history = cls()
        with path.open("rb") as file:
            head = json.loads(file.readline())
            for column in COLUMNS:
                getattr(history, column).fromfile(file, head["rows"])
        history.names, history.commands = head["names"], head["commands"]
        history.counters = set(head["counters"])
        history.closed = dict(head["closed"])
        return history


def milliseconds(nanoseconds: Iterable[int]) -> list[float]:
    """For people."""
    return [n / 1e6 for n in nanoseconds]
