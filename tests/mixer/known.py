"""Differences that today's build has, and those that it had: the tests run every example, and fail
when one of the first no longer differs, or one of the second does again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .duo import id_of
from .masks import MASKS
from .program import Avoid, ClientState, Step


@dataclass(frozen=True)
class Known:
    """`steps` show the difference; `avoid` tells programs what not to do meanwhile."""

    name: str
    what: str
    steps: Sequence[Step]
    avoid: Avoid | None = None
    cache: str = "off"
    kind: str = "valkey"
    pooling: str = "shared"
    breaks: bool = False
    """Nothing works behind it."""


def _say(client: int, *lines: bytes, protocol: int = 2, db: int = 0) -> Step:
    return Step(client, tuple(line.split() for line in lines), protocol=protocol, db=db)


def _names_clients(state: ClientState, words: Sequence[bytes]) -> bool:
    """What tells ids, or lists clients, where replies pass unmatched; HELLO in MULTI, behind which
    they do, and whatever else has them do so, once an id has been asked for."""
    upper = [w.upper() for w in words]
    asks = upper[:1] == [b"CLIENT"] and upper[1:2] in _TELLING
    greets = upper[:1] == [b"HELLO"]
    lists = upper[:2] in ([b"CLIENT", b"INFO"], [b"CLIENT", b"LIST"])
    pins = upper[:1] in ([b"AUTH"], [b"HELLO"]) or upper[:2] == [b"CLIENT", b"REPLY"]
    pins = pins or upper[0].endswith(b"SUBSCRIBE") if upper else False
    # The masks do not look into lists in a reply to EXEC: tests/compat/test_transactions.py does.
    unmatched = (asks or greets) and state.pinned
    return unmatched or ((greets or lists or (pins and state.asked)) and state.multi)


_TELLING = [[b"ID"], [b"LIST"], [b"INFO"], [b"KILL"], [b"GETREDIR"], [b"TRACKINGINFO"]]

KNOWN: list[Known] = [
    Known(
        "pinned-id",
        "CLIENT ID of a client whose replies pass unmatched tells the server's id of its link.",
        [_say(0, b"SUBSCRIBE c", protocol=3), _say(0, b"CLIENT ID", protocol=3)],
        _names_clients,
    ),
    Known(
        "id-in-multi-pinned",
        "CLIENT ID in a transaction that pins its client tells the server's id.",
        [_say(0, b"MULTI", b"CLIENT ID", b"SUBSCRIBE c", b"EXEC")],
    ),
    Known(
        "pinned-list",
        "CLIENT LIST there lists the sidecar's links.",
        [
            _say(0, b"UNSUBSCRIBE"),
            Step(0, ((b"CLIENT", b"LIST", b"ID", id_of(0)),), mask=MASKS["client list"]),
        ],
    ),
    Known(
        "reset-evicts",
        "RESET ends CLIENT NO-EVICT, which Redis keeps.",
        [
            _say(0, b"CLIENT NO-EVICT on", b"RESET"),
            Step(0, ((b"CLIENT", b"LIST", b"ID", id_of(0)),), mask=MASKS["client list"]),
        ],
        lambda state, words: state.exempt and words[:1] == [b"RESET"],
        kind="redis7",
    ),
    Known(
        "reset-ends-redirection",
        "RESET of a client to which another redirects its tracking ends that.",
        [
            _say(1, b"PING"),
            Step(0, ((b"CLIENT", b"TRACKING", b"ON", b"REDIRECT", id_of(1)),), protocol=3),
            _say(0, b"GET k8", protocol=3),
            _say(1, b"RESET"),
            _say(0, b"SET k8 1", b"PING", protocol=3),
        ],
        lambda state, words: state.target and words[:1] == [b"RESET"],
    ),
    Known(
        "reset-renews",
        "RESET of a client of session pooling ends its link, and with it the id it was told.",
        [
            _say(1, b"RESET"),
            Step(0, ((b"CLIENT", b"TRACKING", b"ON", b"REDIRECT", id_of(1)),), protocol=3),
        ],
        pooling="session",
    ),
]
"""Programs avoid these; the last one in `program.Generator`, which knows whose ids are names."""

MENDED: list[Known] = [
    Known(
        "id-in-multi",
        "CLIENT ID in a transaction tells the server's id of its link.",
        [_say(0, b"MULTI", b"CLIENT ID", b"EXEC")],
    ),
    Known(
        "kill-in-multi",
        "CLIENT KILL in a transaction kills nobody whose id the sidecar gave out.",
        [
            _say(1, b"CLIENT NO-TOUCH ON"),
            Step(0, ((b"MULTI",), (b"CLIENT", b"KILL", b"ID", id_of(1)), (b"EXEC",))),
        ],
    ),
    Known(
        "redirect-in-multi",
        "CLIENT TRACKING ON REDIRECT in a transaction knows no client.",
        [
            _say(1, b"PING"), _say(0, b"MULTI", protocol=3),
            Step(0, ((b"CLIENT", b"TRACKING", b"ON", b"REDIRECT", id_of(1)),), protocol=3),
            _say(0, b"EXEC", protocol=3),
        ],
    ),
    Known(
        "flags-of-the-asker",
        "CLIENT LIST tells the asker's flags of a client that has no link (ACL SETUSER, RESET).",
        [
            _say(1, b"PING"), _say(0, b"CLIENT NO-TOUCH ON", b"ACL SETUSER bob &*"),
            _say(1, b"RESET"),
            Step(0, ((b"CLIENT", b"LIST", b"ID", id_of(1), id_of(0)),), mask=MASKS["client list"]),
        ],
    ),
    Known(
        "redirected-to-who-has-gone",
        "CLIENT LIST and TRACKINGINFO tell the server's number of a client that has gone.",
        [
            _say(1, b"PING"),
            Step(0, ((b"CLIENT", b"TRACKING", b"ON", b"REDIRECT", id_of(1)),), protocol=3),
            Step(1, what="drop"), _say(0, b"CLIENT GETREDIR"),
            Step(0, ((b"CLIENT", b"LIST", b"ID", id_of(0)),), mask=MASKS["client list"]),
        ],
    ),
    Known(
        "names-refused",
        "A client whose user may not run CLIENT is listed with the names of the sidecar's link.",
        [
            _say(0, b"ACL SETUSER bob -client"), _say(1, b"AUTH bob secret"),
            _say(1, b"CLIENT NO-EVICT on"),
            Step(0, ((b"CLIENT", b"LIST", b"ID", id_of(1)),), mask=MASKS["client list"]),
        ],
    ),
    Known(
        "login-selects",
        "AUTH in db 9 of a user who may not SELECT is refused.",
        [_say(0, b"ACL SETUSER bob -select"), _say(1, b"SELECT 9"), _say(1, b"AUTH bob secret")],
    ),
    Known(
        "answered-here",
        "CLIENT ID of a user who may no longer ask for it is answered.",
        [
            _say(0, b"ACL SETUSER bob -client|id"), _say(1, b"AUTH bob secret"),
            _say(1, b"CLIENT ID"),
        ],
    ),
    Known(
        "listed-twice",
        "CLIENT LIST ID with the same id twice lists the client once; Redis lists it twice.",
        [Step(0, ((b"CLIENT", b"LIST", b"ID", id_of(0), id_of(0)),), mask=MASKS["client list"])],
        kind="redis8",
    ),
    Known(
        "own-connection-rename",
        "CLIENT SETNAME on a connection of the client's own is not seen in others' CLIENT LIST.",
        [
            _say(0, b"CLIENT NO-TOUCH ON"), _say(0, b"CLIENT SETNAME n0"),
            Step(1, ((b"CLIENT", b"LIST", b"ID", id_of(0)),), mask=MASKS["client list"]),
        ],
    ),
    Known(
        "own-connection-id",
        "CLIENT ID on a connection of the client's own tells the server's id of it, not the one"
        " that was told before.",
        [_say(0, b"CLIENT NO-TOUCH ON"), _say(0, b"CLIENT ID")],
    ),
    Known(
        "own-connection-name",
        "CLIENT GETNAME there says redis-sidecar in the place of nil.",
        [_say(0, b"CLIENT NO-TOUCH ON"), _say(0, b"CLIENT GETNAME")],
    ),
    Known(
        "own-connection-kill",
        "CLIENT KILL ID from there kills nobody whose id the sidecar gave out.",
        [
            _say(0, b"CLIENT NO-TOUCH ON"), _say(1, b"PING"),
            Step(0, ((b"CLIENT", b"KILL", b"ID", id_of(1)),)),
        ],
    ),
    Known(
        "own-connection-list",
        "CLIENT LIST from there lists the sidecar's connections; CLIENT INFO has its name.",
        [
            _say(0, b"CLIENT NO-TOUCH ON"),
            Step(0, ((b"CLIENT", b"LIST", b"ID", id_of(0)),), mask=MASKS["client list"]),
        ],
    ),
    Known(
        "kill-filters",
        "CLIENT KILL ID with further filters does not know the ids that the sidecar gave out.",
        [
            _say(1, b"PING"),
            Step(0, ((b"CLIENT", b"KILL", b"ID", id_of(1), b"TYPE", b"normal"),)),
        ],
    ),
    Known(
        "own-connection-redirect",
        "CLIENT TRACKING ON REDIRECT after a transaction with SELECT knows no client.",
        [
            _say(0, b"MULTI", b"SELECT 9", b"DISCARD"), _say(1, b"PING"),
            Step(0, ((b"CLIENT", b"TRACKING", b"ON", b"REDIRECT", id_of(1)),), protocol=3),
        ],
    ),
    Known(
        "redirect-to-half",
        "CLIENT TRACKING ON REDIRECT to a client that has sent half a request knows no client.",
        [
            Step(1, (b"*2\r\n$4\r\nECHO\r\n",)),
            Step(0, ((b"CLIENT", b"TRACKING", b"ON", b"REDIRECT", id_of(1)),), protocol=3),
        ],
    ),
    Known(
        "redirect-behind-a-prefix",
        "CLIENT TRACKING whose PREFIX is called like an option knows no client.",
        [
            _say(1, b"PING"),
            Step(0, ([*b"CLIENT TRACKING ON BCAST PREFIX redirect REDIRECT".split(), id_of(1)],),
                 protocol=3),
            _say(0, b"CLIENT GETREDIR", b"CLIENT TRACKINGINFO", protocol=3),
        ],
    ),
    Known(
        "kill-many-in-multi",
        "CLIENT KILL with several ids in a transaction knows only the first; the others name whom"
        " the server calls so.",
        [
            _say(1, b"CLIENT NO-TOUCH ON"), _say(2, b"CLIENT NO-TOUCH ON"),
            Step(0, ((b"MULTI",), (b"CLIENT", b"KILL", b"ID", id_of(1), id_of(2)), (b"EXEC",))),
        ],
    ),
    Known(
        "kill-of-a-user-called-id",
        "CLIENT KILL USER id ID in a transaction kills nobody.",
        [
            _say(0, b"ACL SETUSER id on >secret ~* &* +@all"), _say(1, b"CLIENT NO-TOUCH ON"),
            _say(1, b"AUTH id secret"),
            Step(0, ((b"MULTI",), (b"CLIENT", b"KILL", b"USER", b"id", b"ID", id_of(1)),
                     (b"EXEC",))),
            _say(0, b"ACL DELUSER id"),
        ],
    ),
    Known(
        "unknown-is-no-command",
        "CLIENT LIST calls a command that the server does not know by a name.",
        [
            _say(1, b"NOSUCH"),
            Step(0, ((b"CLIENT", b"LIST", b"ID", id_of(1)),),
                 mask=lambda said: said[said.find(b" cmd="):][:9]),
        ],
    ),
    Known(
        "redirection-number",
        "CLIENT TRACKINGINFO and GETREDIR tell the server's number of the client that was named.",
        [
            _say(1, b"PING"),
            Step(0, ((b"CLIENT", b"TRACKING", b"ON", b"REDIRECT", id_of(1)),), protocol=3),
            _say(0, b"CLIENT TRACKINGINFO"),
        ],
    ),
]  # fmt: skip
