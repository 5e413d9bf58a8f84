"""Parses HELLO requests and names of clients. Pure: bytes in, values out."""

from __future__ import annotations

from collections.abc import Sequence


def is_plain_word(value: bytes) -> bool:
    """Whether the server allows it as a client or library name: printable ASCII, no blanks."""
    return all(33 <= byte <= 126 for byte in value)


def parse_hello(
    args: Sequence[bytes],
) -> tuple[int, tuple[bytes, bytes] | None, bytes | None] | None:
    """(version or 0, (user, password), name) of a certainly valid HELLO, else None."""
    if len(args) == 1:
        return 0, None, None
    if args[1] not in (b"2", b"3"):
        return None
    credentials = name = None
    i = 2
    while i < len(args):
        word = args[i].upper()
        if word == b"AUTH" and i + 2 < len(args):
            credentials = (args[i + 1], args[i + 2])
            i += 3
        elif word == b"SETNAME" and i + 1 < len(args) and is_plain_word(args[i + 1]):
            name = args[i + 1]
            i += 2
        else:
            return None
    return int(args[1]), credentials, name


def wants_fresh(name: bytes) -> bool:
    """Whether a client of this name wants no answer from the near cache: `fresh`, or any name that
    begins with `fresh:`. Every client library can set a name."""
    return name == b"fresh" or name.startswith(b"fresh:")


def fault_of_hello(args: Sequence[bytes]) -> bytes | None:
    """The server's error for a HELLO that `parse_hello` does not understand; None: there is no
    fault in it."""
    if len(args) > 1 and args[1] not in (b"2", b"3"):
        if args[1].isdigit() and (len(args[1]) == 1 or args[1][:1] != b"0") and len(args[1]) < 19:
            return b"-NOPROTO unsupported protocol version\r\n"
        return b"-ERR Protocol version is not an integer or out of range\r\n"
    i = 2
    while i < len(args):
        word, more = args[i].upper(), len(args) - i - 1
        if word == b"AUTH" and more >= 2:
            i += 3
        elif word == b"SETNAME" and more:
            if not is_plain_word(args[i + 1]):
                return (
                    b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n"
                )
            i += 2
        else:
            shown = args[i][:128].replace(b"\r", b" ").replace(b"\n", b" ")
            return b"-ERR Syntax error in HELLO option '%b'\r\n" % shown
    return None


def beginning_of_hello(args: Sequence[bytes], *, before_login: bool = False) -> Sequence[bytes]:
    """The words of a HELLO before the first fault in it, or before the first AUTH: what a server
    that acts word by word has done by then. Empty when the fault is the version."""
    i = 2
    while i < len(args) and not (before_login and args[i].upper() == b"AUTH"):
        option = args[: i + {b"AUTH": 3, b"SETNAME": 2}.get(args[i].upper(), 1)]
        if parse_hello((*args[:2], *option[i:])) is None:
            break
        i = len(option)
    return args[:i] if parse_hello(args[:2]) is not None else ()


def without_credentials(args: Sequence[bytes]) -> bool:
    """Whether a HELLO has no word that the server could take for AUTH."""
    return all(word.upper() != b"AUTH" for word in args[2:])
