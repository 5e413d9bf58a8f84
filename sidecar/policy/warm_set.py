"""Warm start: what is remembered of the hot set, where it comes from, and in what order. Pure.

An `Entry` is one read that the near cache has answered: whose it is, its database, command and
arguments. Values are never remembered. How entries are loaded is sidecar.policy.warmup's.

What has been seen fades. An entry that is the r-th most used now is worth 1 / (1 + r), as in a
Zipf distribution, and half as much HALF_LIFE later; of several sightings the best counts. As a
logarithm, with the time added instead of faded (`score`), this needs no rewriting of what was not
seen, and merging is taking the larger number. So many sidecars can share a sorted set through
`ZADD GT`, and a snapshot that is saved while the cache happens to be empty keeps what it had.

A snapshot is one line (name, version, SHA-256 of what follows) and MessagePack. Whatever is wrong
with it, `decode` raises SnapshotError.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple

import msgspec

from sidecar.core.protocol.request import normalise_inline, split_arguments

NAME = b"redis-sidecar-warm"
VERSION = 1
# An entry not seen for so long counts half; after so many halvings it is forgotten.
HALF_LIFE = 600.0
FADED = 20
# The only read that gives all of a key of this type. A sorted set has several.
READS: Mapping[bytes, tuple[bytes, ...]] = {
    b"string": (b"get",),
    b"hash": (b"hgetall",),
    b"set": (b"smembers",),
    b"list": (b"lrange", b"0", b"-1"),
}

Place = tuple[bytes | None, int]
"""(user, database); user None is the sidecar's own."""


class SnapshotError(Exception):
    """A snapshot that cannot be used; the message says why."""


class Entry(NamedTuple):
    """One read. `arguments` is a row of RESP bulk strings, the key first."""

    user: bytes | None
    db: int
    command: bytes
    arguments: bytes

    @classmethod
    def of(cls, user: bytes | None, db: int, command: bytes, *arguments: bytes) -> Entry:
        """An entry of plain arguments."""
        packed = b"".join(b"$%d\r\n%b\r\n" % (len(a), a) for a in arguments)
        return cls(user, db, command.lower(), packed)

    @property
    def place(self) -> Place:
        """Whose it is, and where."""
        return (self.user, self.db)

    @property
    def key(self) -> bytes:
        """The first argument."""
        head, _, rest = self.arguments.partition(b"\r\n")
        return rest[: int(head[1:])]

    @property
    def request(self) -> bytes:
        """The request as a client would send it."""
        count = 1 + len(bulks(self.arguments))
        head = b"*%d\r\n$%d\r\n%b\r\n" % (count, len(self.command), self.command)
        return head + self.arguments

    def check(self) -> None:
        """Raises ValueError unless it can be what it says."""
        if self.db < 0 or not self.command or not bulks(self.arguments):
            raise ValueError("no read")


def bulks(data: bytes) -> list[bytes]:
    """The bulk strings that `data` is a row of. Raises ValueError."""
    found = []
    at = 0
    while at < len(data):
        end = data.find(b"\r\n", at, at + 16)
        size = int(data[at + 1 : end]) if end > 0 and data[at + 1 : end].isdigit() else -1
        stop = end + 2 + size
        if data[at : end + 2] != b"$%d\r\n" % size or data[stop : stop + 2] != b"\r\n":
            raise ValueError("not a row of bulk strings")
        found.append(data[end + 2 : stop])
        at = stop + 2
    return found


# Snapshots

_Row = tuple[bytes | None, int, bytes, bytes, float]
_read_rows = msgspec.msgpack.Decoder(list[_Row]).decode
_read_member = msgspec.msgpack.Decoder(tuple[int, bytes, bytes]).decode


def encode(weights: Iterable[tuple[Entry, float]]) -> bytes:
    """A snapshot of entries with their weights."""
    body = msgspec.msgpack.encode([(*entry, weight) for entry, weight in weights])
    return _head(body) + body


def _head(body: bytes) -> bytes:
    return b"%b %d %b\n" % (NAME, VERSION, hashlib.sha256(body).hexdigest().encode())


def decode(data: bytes) -> list[tuple[Entry, float]]:
    """What `encode` was given. Raises SnapshotError, and nothing else."""
    head, _, body = data.partition(b"\n")
    words = head.split(b" ")
    if len(words) != 3 or words[0] != NAME:
        raise SnapshotError("not a snapshot of a sidecar")
    if words[1] != b"%d" % VERSION:
        version = words[1][:20].decode("ascii", "replace")
        raise SnapshotError(f"its version is {version}, and this sidecar reads {VERSION}")
    if data[: len(head) + 1] != _head(body):
        raise SnapshotError("damaged or cut short")
    try:
        found = [(Entry(*row[:4]), row[4]) for row in _read_rows(body)]
        for entry, weight in found:
            entry.check()
            if not math.isfinite(weight):
                raise ValueError("no weight")
    except (ValueError, RecursionError) as error:
        raise SnapshotError(f"it holds what no sidecar writes: {error}") from error
    return found


def member(entry: Entry) -> bytes:
    """An entry of the sidecar's own user, for other sidecars."""
    return msgspec.msgpack.encode(entry[1:])


def from_member(data: bytes) -> Entry | None:
    """The same back; None for what is none."""
    try:
        entry = Entry(None, *_read_member(data))
        entry.check()
    except (ValueError, RecursionError):
        return None
    return entry


# What has been seen


def score(rank: int, now: float) -> float:
    """What the entry used most but for `rank` others is worth: comparable at all times."""
    return now / HALF_LIFE - math.log2(1 + rank)


class HotSet:
    """The entries worth remembering, `most` at most. Times in seconds of one clock."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._scores: dict[Entry, float] = {}

    def restore(self, weights: Iterable[tuple[Entry, float]], now: float) -> None:
        """Take what was saved. The time since then does not count: nothing was seen in it."""
        found = list(weights)
        best = max((weight for _, weight in found), default=0.0)
        for entry, weight in found:
            self._see(entry, score(0, now) + weight - best)

    def seen(self, entries: Iterable[Entry], now: float, first: int = 0) -> None:
        """These are in use now, the most used first; of all that are, they begin at `first`."""
        for rank, entry in enumerate(entries, first):
            self._see(entry, score(rank, now))

    def weights(self, now: float) -> list[tuple[Entry, float]]:
        """Entries, the best first, with weights that `restore` understands. Forgets the rest."""
        best = sorted(self._scores.items(), key=itemgetter(1), reverse=True)[: self.most]
        floor = score(0, now) - FADED
        self._scores = {entry: found for entry, found in best if found >= floor}
        zero = score(0, now)
        return [(entry, found - zero) for entry, found in self._scores.items()]

    def _see(self, entry: Entry, found: float) -> None:
        self._scores[entry] = max(found, self._scores.get(entry, found))


# Sources


def merge(
    sources: Mapping[str, Sequence[Entry]], most: int, wanted: Callable[[Entry], bool]
) -> tuple[list[Entry], dict[str, int]]:
    """The entries to load, and how many of them each source has given; earlier ones first."""
    found: dict[Entry, None] = {}
    counts = {}
    for name, entries in sources.items():
        before = len(found)
        for entry in entries:
            if len(found) >= most:
                break
            if entry not in found and wanted(entry):
                found[entry] = None
        counts[name] = len(found) - before
    return list(found), counts


def read_of(kind: bytes, db: int, key: bytes) -> Entry | None:
    """The read that gives all of a key of this type; None when there is no such read."""
    read = READS.get(kind)
    return Entry.of(None, db, read[0], key, *read[1:]) if read else None


class KeyFile(NamedTuple):
    """What a file of keys says, in its order: a read, or a (database, key) whose type tells."""

    wants: list[Entry | tuple[int, bytes]]
    wrong: list[int]


def parse_key_file(text: bytes, cacheable: Callable[[bytes], bool]) -> KeyFile:
    """A key or a request on each line, quoted as redis-cli takes it; `SELECT n` changes the
    database of what follows, `#` begins a comment. `wrong` has the numbers of other lines."""
    found = KeyFile([], [])
    db = 0
    for number, line in enumerate(text.split(b"\n"), 1):
        packed = b"" if line.lstrip().startswith(b"#") else normalise_inline(line + b"\n")
        words = split_arguments(packed) if packed else []
        command = words[0].lower() if words else b""
        if len(words) == 1:
            found.wants.append((db, words[0]))
        elif command == b"select" and len(words) == 2 and words[1].isdigit():
            db = int(words[1])
        elif command == b"mget":
            found.wants.extend(Entry.of(None, db, b"get", key) for key in words[1:])
        elif words and cacheable(command):
            found.wants.append(Entry.of(None, db, *words))
        elif words or packed is None:
            found.wrong.append(number)
    return found
