"""Differences that today's build has. Each entry goes when its difference is mended: the tests run
every example and fail when it no longer differs."""

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
    breaks: bool = False
    """Nothing works behind it."""


def _say(client: int, *lines: bytes, protocol: int = 2, db: int = 0) -> Step:
    return Step(client, tuple(line.split() for line in lines), protocol=protocol, db=db)


def _names_clients(state: ClientState, words: Sequence[bytes]) -> bool:
    """CLIENT ID, GETNAME and KILL, and HELLO, on a connection of the client's own."""
    if not (state.pinned or state.multi or state.watching):
        return False
    upper = [w.upper() for w in words]
    return upper[:1] == [b"HELLO"] or (
        upper[:1] == [b"CLIENT"]
        and (
            b"REDIRECT" in upper
            or upper[1:2] in ([b"ID"], [b"GETNAME"], [b"KILL"], [b"UNBLOCK"], [b"LIST"], [b"INFO"])
        )
    )


def _kills_by_filters(state: ClientState, words: Sequence[bytes]) -> bool:
    """CLIENT KILL ID with more than the id."""
    return [w.upper() for w in words[:3]] == [b"CLIENT", b"KILL", b"ID"] and len(words) > 4


def _tells_redirection(state: ClientState, words: Sequence[bytes]) -> bool:
    """CLIENT TRACKINGINFO and GETREDIR of who redirects."""
    told = [w.upper() for w in words[1:2]] in ([b"TRACKINGINFO"], [b"GETREDIR"])
    return state.redirecting and words[:1] == [b"CLIENT"] and told


def _takes_back(state: ClientState, words: Sequence[bytes]) -> bool:
    """A user may no longer end a transaction."""
    return words[:2] == [b"ACL", b"SETUSER"] and any(
        word in (b"-discard", b"-exec", b"-unwatch", b"-multi", b"-reset") for word in words
    )


def _selects_first(state: ClientState, words: Sequence[bytes]) -> bool:
    """A user may no longer SELECT, which the sidecar does for its clients."""
    return words[:2] == [b"ACL", b"SETUSER"] and any(w in (b"-select", b"-client") for w in words)


def _answered_here(state: ClientState, words: Sequence[bytes]) -> bool:
    """A user may no longer do what the sidecar answers by itself."""
    return words[:2] == [b"ACL", b"SETUSER"] and b"-client|id" in words


def _lists_twice(state: ClientState, words: Sequence[bytes]) -> bool:
    """CLIENT LIST with the same id twice."""
    return words[:3] == [b"CLIENT", b"LIST", b"ID"] and len(set(words)) < len(words)


def _renames(state: ClientState, words: Sequence[bytes]) -> bool:
    """CLIENT SETNAME and SETINFO on a connection of the client's own."""
    own = state.pinned or state.multi or state.watching
    return own and words[:1] == [b"CLIENT"] and words[1:2] in ([b"SETNAME"], [b"SETINFO"])


KNOWN: list[Known] = [
    Known(
        "login-selects",
        "AUTH in db 9 of a user who may not SELECT is refused.",
        [_say(0, b"ACL SETUSER bob -select"), _say(1, b"SELECT 9"), _say(1, b"AUTH bob secret")],
        _selects_first,
    ),
    Known(
        "answered-here",
        "CLIENT ID of a user who may no longer ask for it is answered.",
        [
            _say(0, b"ACL SETUSER bob -client|id"), _say(1, b"AUTH bob secret"),
            _say(1, b"CLIENT ID"),
        ],
        _answered_here,
    ),
    Known(
        "listed-twice",
        "CLIENT LIST ID with the same id twice lists the client once; Redis lists it twice.",
        [Step(0, ((b"CLIENT", b"LIST", b"ID", id_of(0), id_of(0)),), mask=MASKS["client list"])],
        _lists_twice,
        kind="redis8",
    ),
    Known(
        "own-connection-rename",
        "CLIENT SETNAME on a connection of the client's own is not seen in others' CLIENT LIST.",
        [
            _say(0, b"CLIENT NO-TOUCH ON"), _say(0, b"CLIENT SETNAME n0"),
            Step(1, ((b"CLIENT", b"LIST", b"ID", id_of(0)),), mask=MASKS["client list"]),
        ],
        _renames,
    ),
    Known(
        "own-connection-id",
        "CLIENT ID on a connection of the client's own tells the server's id of it, not the one"
        " that was told before.",
        [_say(0, b"CLIENT NO-TOUCH ON"), _say(0, b"CLIENT ID")],
        _names_clients,
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
        [_say(0, b"CLIENT NO-TOUCH ON"), Step(0, ((b"CLIENT", b"LIST", b"ID", id_of(0)),))],
    ),
    Known(
        "kill-filters",
        "CLIENT KILL ID with further filters does not know the ids that the sidecar gave out.",
        [
            _say(1, b"PING"),
            Step(0, ((b"CLIENT", b"KILL", b"ID", id_of(1), b"TYPE", b"normal"),)),
        ],
        _kills_by_filters,
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
        "redirection-number",
        "CLIENT TRACKINGINFO and GETREDIR tell the server's number of the client that was named.",
        [
            _say(1, b"PING"),
            Step(0, ((b"CLIENT", b"TRACKING", b"ON", b"REDIRECT", id_of(1)),), protocol=3),
            _say(0, b"CLIENT TRACKINGINFO"),
        ],
        _tells_redirection,
    ),
]  # fmt: skip
