"""The table of every command for a client with a key prefix: it answers as a server that has the
same keys without a prefix, and the server behind it gets no key that lacks it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from sidecar.core.rewrite.rules import ACTS
from sidecar.policy.prefixing import GIVEN

from .duo import Duo, Side
from .forms import Form
from .table import Table

PREFIX = b"p:"
LOGIN = ("shop", "secret")
NAMED_IN_SCRIPT = re.compile(rb"call\('\w+','|\{keys")
OWN_FUNCTIONS = ((b"fset", b"0"), (b"fother", b"1"))
REFUSED = frozenset(
    name for name, (act, _, _) in GIVEN.items() if act in (ACTS["refuse"], ACTS["raw"])
)
SUBSCRIBING = frozenset(n for n, (act, _, _) in GIVEN.items() if act == ACTS["subscribe"])
SKIPPED = {
    "auth": "the sidecar judges logins", "hello": "the same", "reset": "the same",
    "restore-asking": "refused",
}  # fmt: skip


class PrefixedSide(Side):
    """Clients that log in, and a server whose keys and channels have the prefix."""

    @staticmethod
    def _ask(peer: object, requests: Sequence[Sequence[bytes]]) -> list[bytes]:
        if list(requests[-1]) == [b"CLIENT", b"ID"]:
            login = [b"AUTH", *(word.encode() for word in LOGIN)]
            return Side._ask(peer, [login, *requests])[1:]  # type: ignore[arg-type]
        return Side._ask(peer, requests)  # type: ignore[arg-type]

    def counts(self) -> bytes:
        """As on the side without the prefix."""
        return re.sub(
            rb"\$(\d+)\r\n" + PREFIX,
            lambda m: b"$%d\r\n" % (int(m[1]) - len(PREFIX)),
            super().counts(),
        )


class PrefixedDuo(Duo):
    """A server alone, and a client with the prefix."""

    def __init__(self, direct: int, sidecar: int, behind: int, patience: float) -> None:
        super().__init__(direct, sidecar, behind, patience)
        self.sidecar.close()
        self.sidecar = PrefixedSide(sidecar, behind)
        self.sides = (self.direct, self.sidecar)

    def digests(self) -> tuple[bytes, bytes]:
        """The keys of each side without the prefix, with a digest of each value. One that lacks
        the prefix is marked."""
        return self._keys(self.direct, b""), self._keys(self.sidecar, PREFIX)

    @staticmethod
    def _keys(side: Side, prefix: bytes) -> bytes:
        told = side.ask("INFO", "keyspace")
        found = []
        for number in re.findall(rb"db(\d+):keys", told):
            side.ask("SELECT", number)
            names = _bulks(side.ask("KEYS", "*"))
            digests = side.ask("DEBUG", "DIGEST-VALUE", *names).split(b"\r\n")[1:-1]
            for name, digest in zip(names, [d for d in digests if d[:1] != b"$"], strict=True):
                known = name[len(prefix) :] if name.startswith(prefix) else b"<no prefix>" + name
                found.append(b"%b %b %b" % (number, known, digest))
        side.ask("SELECT", 0)
        return b"\n".join(sorted(found))


class PrefixedTable(Table):
    """Forms are compared with those of a client that has no prefix."""

    def pair_up(self, direct: int, sidecar: int, behind: int) -> Duo:
        """The second side's client has the prefix."""
        return PrefixedDuo(direct, sidecar, behind, 4.0)

    def empty(self) -> None:
        """Delete all keys: no client with a prefix may."""
        for side in self.duo.sides:
            side.ask("FLUSHALL")

    def forms(self) -> Iterator[Form]:
        """Those that a client with a prefix may send."""
        return (form for form in super().forms() if is_apart(form))


def is_apart(form: Form) -> bool:
    """Whether this form is not refused for its command or subcommand, and has no other meaning."""
    words = form.command.encode().lower().split()
    given = [word.lower() for word in form.words]
    name = words[0]
    if name in REFUSED or name.decode() in SKIPPED or given[:2] == [b"client", b"reply"]:
        return False
    if name in GIVEN and (allowed := GIVEN[name][2]) is not None and len(given) > 1:
        return given[1] in allowed and given[1] != b"keyslot"
    # A script that names a key by itself means the server's, and one that returns a key tells that.
    own = any(NAMED_IN_SCRIPT.search(word) for word in given) or tuple(given[1:3]) in OWN_FUNCTIONS
    return not (name.startswith((b"eval", b"fcall")) and own)


def _bulks(reply: bytes) -> list[bytes]:
    """The strings of an array."""
    found, at = [], reply.index(b"\r\n") + 2
    while at < len(reply):
        end = reply.index(b"\r\n", at)
        size = int(reply[at + 1 : end])
        found.append(reply[end + 2 : end + 2 + size])
        at = end + size + 4
    return found
