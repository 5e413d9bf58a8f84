"""Tokens of the admin port: who may do what, and how a file has them. Pure.

A file has one token in each line: the token, then the role (`read` or `operate`; operate if none is
written), then a name for the audit stream. Empty lines, and lines that begin with #, are left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal, get_args

Role = Literal["read", "operate"]
ROLES: tuple[str, ...] = get_args(Role)

# Fits into an HTTP header, and is too long to guess.
TOKEN = re.compile(r"[!-~]{16,512}")
_NAME = re.compile(r"[!-~]{1,64}")
MOST = 1000
LONGEST = 1 << 20  # bytes of a file


@dataclass(frozen=True)
class Token:
    """A secret, what whoever shows it may do, and how the audit stream calls them."""

    secret: str = field(repr=False)
    role: Role = "operate"
    name: str = ""


def parse_tokens(text: str) -> tuple[Token, ...]:
    """The tokens in the text of a file. Raises ValueError, which says the line and no token."""
    found: list[Token] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if words and not words[0].startswith("#"):
            found.append(_token(words, number))
    if not found:
        raise ValueError("it has no token; write one, such as that of `openssl rand -hex 32`")
    if len(found) > MOST:
        raise ValueError(f"it has more than {MOST} tokens")
    return tuple(found)


def _token(words: list[str], number: int) -> Token:
    secret, *rest = words
    if not TOKEN.fullmatch(secret):
        raise ValueError(
            f"line {number}: a token has 16 to 512 printable ASCII characters without blanks"
        )
    role = rest[0] if rest else "operate"
    if role not in ROLES:
        raise ValueError(f"line {number}: the second word is no role: write read or operate")
    if len(rest) > 2 or not all(_NAME.fullmatch(name) for name in rest[1:]):
        raise ValueError(f"line {number}: after the role stands one name, of 64 characters at most")
    name = rest[1] if len(rest) > 1 else ""
    return Token(secret, "read" if role == "read" else "operate", name)


def read_tokens(path: str) -> tuple[Token, ...]:
    """The tokens in a file. Raises OSError, ValueError (UnicodeDecodeError is one)."""
    with open(path, encoding="utf-8") as file:
        return parse_tokens(file.read(LONGEST))
