"""Differences of single commands that today's build has: `tests/compat/test_every_command.py`
fails when one of them no longer differs, so that its entry goes with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .forms import Form
from .table import Found, Setup


@dataclass(frozen=True)
class KnownForm:
    """`matches` tells whether a difference is this one; `form` shows it, in `setup`."""

    name: str
    what: str
    setup: Setup
    form: Form
    matches: Callable[[Found], bool]


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
