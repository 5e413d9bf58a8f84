"""`sidecar identities hash`: the hash of a password, for `identities.file`."""

from __future__ import annotations

import sys

LONGEST = 1 << 16  # bytes


class NoPasswordError(Exception):
    """No password was given; the message is one line."""


def ask() -> bytes:
    """A password: typed twice at a terminal, where it is not shown, or else the first line of
    standard input. Raises NoPasswordError."""
    if sys.stdin is not None and sys.stdin.isatty():
        import getpass

        first = getpass.getpass("Password: ")
        if getpass.getpass("Again: ") != first:
            raise NoPasswordError("the two are not the same; nothing was made")
        password = first.encode()
    else:
        password = sys.stdin.buffer.readline(LONGEST + 1).rstrip(b"\r\n") if sys.stdin else b""
    if not password:
        raise NoPasswordError("no password: type one, or give it on standard input")
    if len(password) > LONGEST:
        raise NoPasswordError("a password has at most 65536 bytes")
    return password
