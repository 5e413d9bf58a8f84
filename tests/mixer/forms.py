"""Argument forms of every command: the right ones of the tables in `tests/compat/forms`, and from
each of them the wrong, odd and hostile ones.

A word that is a key is a `Key`, one that is a name of the user's own a `Name`; everything else is
a number or one of the command's own words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import hiredis

from tests.harness.refdecoder import split_args

FOLDER = Path(__file__).parents[1] / "compat" / "forms"
BINARY = bytes(range(256))
OPTIONS = (b"STREAMS", b"BLOCK", b"STORE", b"KEYS", b"LIMIT", b"REDIRECT", b"GROUP", b"count")
"""Words of the commands' own that clients may use as names of keys, groups and consumers."""


class Key(bytes):
    """A word that is a key."""


class Name(bytes):
    """A word that is a name of the user's own."""


@dataclass(frozen=True)
class Form:
    """One request: what it is about (`kind`), and its words."""

    command: str
    kind: str
    words: tuple[bytes, ...]

    def __str__(self) -> str:
        shown = b" ".join(w if len(w) < 60 else w[:20] + b"..." for w in self.words)
        return f"{self.command} ({self.kind}): {shown!r}"


def names(text: str) -> frozenset[str]:
    """Names, written as one text."""
    return frozenset(text.split())


def prepared() -> list[list[bytes]]:
    """The commands that make the keys of the tables."""
    return [line.split() for line in (FOLDER / "keys.txt").read_bytes().splitlines()]


@cache
def right_forms() -> dict[str, list[list[bytes]]]:
    """The arguments of each command (`name` or `name subcommand`), in the right forms."""
    found: dict[str, list[list[bytes]]] = {}
    for file in ("data.txt", "server.txt"):
        for line in (FOLDER / file).read_text().splitlines():
            if line and not line.startswith("#"):
                name, _, rest = line.partition(":")
                forms = f"{rest} ".split("| ") if rest.strip() else [""]
                found[name.lower()] = [_words(form) for form in forms]
    return found


def _words(text: str) -> list[bytes]:
    words: list[bytes] = []
    for word in split_args(text.strip().encode()) or []:
        if word[:1] == b"@" and len(word) > 1:
            words.append(Key(word[1:]))
        elif word[:1] == b"%" and len(word) > 1:
            words.append(Name(word[1:]))
        else:
            words.append(word)
    return words


def commands_of(reply: bytes) -> dict[str, str]:
    """All commands and subcommands of a server's reply to COMMAND, each with its type of key."""
    reader = hiredis.Reader()
    reader.feed(reply)
    entries: Any = reader.gets()
    found = {}
    for entry in entries:
        found[entry[0].decode().lower()] = ""
        for sub in entry[9]:
            found[sub[0].decode().lower().replace("|", " ")] = ""
    return found


def forms_of(command: str, rights: Sequence[Sequence[bytes]], container: bool) -> list[Form]:
    """Every form of one command, none twice."""
    name = [word.encode() for word in command.upper().split()]
    seen: set[tuple[bytes, ...]] = set()
    found = []
    for kind, words in _all(name, rights, container):
        if tuple(words) not in seen:
            seen.add(tuple(words))
            found.append(Form(command, kind, tuple(bytes(w) for w in words)))
    return found


def _all(
    name: list[bytes], rights: Sequence[Sequence[bytes]], container: bool
) -> Iterator[tuple[str, list[bytes]]]:
    for right in rights:
        yield "right", [*name, *right]
    first = max(rights, key=len) if rights else []
    yield "bare", list(name)
    for right in rights[:2]:
        if right:
            yield "one too few", [*name, *right[:-1]]
        yield "one too many", [*name, *right, b"extra"]
    yield "far too many", [*name, *rights[0], *(b"k%d" % i for i in range(70))]
    yield "odd case", [_odd(w) if not isinstance(w, (Key, Name)) else w for w in [*name, *first]]
    if container:
        yield "unknown subcommand", [*name, b"nonsense"]
        yield "unknown subcommand", [*name, b"nonsense", b"s", b"x"]
        yield "empty subcommand", [*name, b""]
    for right in (rights[0], first):
        yield from _keys(name, right)
    yield from _odd_words(name, first)
    for at, word in enumerate(first):
        if word.lstrip(b"-").isdigit():
            yield "no number", [*name, *first[:at], b"x", *first[at + 1 :]]
            yield "large number", [*name, *first[:at], b"9" * 25, *first[at + 1 :]]
            break


def _odd(word: bytes) -> bytes:
    """gEt. What has a lower-case letter is a value."""
    if word != word.upper():
        return word
    return bytes(c + 32 if i % 2 == 0 and 65 <= c < 91 else c for i, c in enumerate(word))


def _keys(name: list[bytes], right: Sequence[bytes]) -> Iterator[tuple[str, list[bytes]]]:
    """With keys of another type, missing, empty, binary and long ones."""
    if not any(isinstance(w, Key) for w in right):
        return
    for kind, other in [
        ("list instead", b"l"), ("string instead", b"s"), ("hash instead", b"h"),
        ("missing key", b"e"), ("empty key", b""), ("binary key", BINARY),
    ]:  # fmt: skip
        yield kind, [*name, *(other if isinstance(w, Key) else w for w in right)]


def _odd_words(name: list[bytes], right: Sequence[bytes]) -> Iterator[tuple[str, list[bytes]]]:
    """Keys and names that look like options. A number too, where one is expected."""
    if not any(isinstance(w, (Key, Name)) for w in right):
        return
    turn = sum(b"".join(name))
    # Who looks for words finds some among these; a command without any needs one only.
    words = OPTIONS if any(w.isalpha() and w.isupper() for w in right) else ()
    for word in words or [OPTIONS[turn % len(OPTIONS)]]:
        yield "odd words", [*name, *(word if isinstance(w, (Key, Name)) else w for w in right)]
