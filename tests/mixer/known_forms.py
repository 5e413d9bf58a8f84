"""Differences of single commands that today's build has: `tests/compat/test_every_command.py`
fails when one of them no longer differs, so that its entry goes with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .forms import Form
from .table import Found, Setup

LINK_NAME = b"$13\r\nredis-sidecar\r\n"


@dataclass(frozen=True)
class KnownForm:
    """`matches` tells whether a difference is this one; `form` shows it, in `setup`."""

    name: str
    what: str
    setup: Setup
    form: Form
    matches: Callable[[Found], bool]


def _link_name(found: Found) -> bool:
    """All that differs is that the connection has the sidecar's name in the place of none."""

    def without(frame: bytes) -> bytes:
        frame = frame.replace(b" lib-name=redis-sidecar lib-ver=0.1.0", b" lib-name= lib-ver=")
        frame = frame.replace(b"name=redis-sidecar", b"name=")
        return frame.replace(LINK_NAME, b"<no name>")

    def none(frame: bytes) -> bytes:
        return frame.replace(b"$-1\r\n", b"<no name>").replace(b"_\r\n", b"<no name>")

    return all(
        len(d.direct) == len(d.sidecar)
        and all(
            none(a) == none(without(b)) for a, b in zip(d.direct, d.sidecar, strict=True)
        )
        for d in found.differences
    )  # fmt: skip


def _form(command: str, kind: str, *words: bytes) -> Form:
    return Form(command, kind, words)


def _command(*commands: str, kind: str = "", where: str = "") -> Callable[[Found], bool]:
    return lambda found: (
        found.form.command in commands
        and found.form.kind.startswith(kind)
        and found.where.startswith(where)
    )


KNOWN_FORMS = [
    KnownForm(
        "link-name",
        "a client without a name that has a connection of its own is told that it is called"
        " redis-sidecar (CLIENT GETNAME, CLIENT INFO): always with session pooling, otherwise after"
        " SUBSCRIBE, CLIENT TRACKING, WATCH ..., and inside of MULTI",
        Setup("valkey"),
        _form("client tracking", "right", b"CLIENT", b"TRACKING", b"ON"),
        _link_name,
    ),
    KnownForm(
        "id-in-multi",
        "CLIENT ID and HELLO inside of MULTI tell the id of the connection to the server",
        Setup("valkey"),
        _form("client id", "in MULTI", b"CLIENT", b"ID"),
        _command("client id", "hello", kind="in MULTI"),
    ),
    KnownForm(
        "client-list-id",
        "CLIENT LIST ID with a number that is none: the server refuses it, the list is empty here",
        Setup("valkey"),
        _form("client list", "large number", b"CLIENT", b"LIST", b"ID", b"9" * 25),
        _command("client list", kind="large number"),
    ),
    KnownForm(
        "client-list-pinned",
        "CLIENT LIST on a connection of the client's own (always so with session pooling) lists the"
        " sidecar's connections, spare ones included, not its clients",
        Setup("valkey", "off", "session"),
        _form("client list", "bare", b"CLIENT", b"LIST"),
        _command("client list", kind="bare"),
    ),
]


def known_form(found: Found) -> KnownForm | None:
    """Which known difference this is."""
    return next((known for known in KNOWN_FORMS if known.matches(found)), None)
