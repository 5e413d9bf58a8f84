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


def _ends_nothing(state: ClientState, words: Sequence[bytes]) -> bool:
    """UNWATCH with an argument; EXEC and DISCARD without MULTI or with an argument."""
    name = words[0].upper() if words else b""
    if name in (b"EXEC", b"DISCARD"):
        return len(words) > 1 or not state.multi
    return name == b"UNWATCH" and len(words) > 1


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


def _read_with_extra(state: ClientState, words: Sequence[bytes]) -> bool:
    """GET with an argument too many."""
    return len(words) > 2 and words[0].upper() == b"GET"


def _group_named_streams(state: ClientState, words: Sequence[bytes]) -> bool:
    """A group or consumer that is called as the option."""
    named = [w.upper() for w in words[2:4]]
    return words[0].upper() == b"XREADGROUP" and b"STREAMS" in named


def _odd_reset(state: ClientState, words: Sequence[bytes]) -> bool:
    """RESET with an argument inside of a transaction."""
    return state.multi and len(words) > 1 and words[0].upper() == b"RESET"


KNOWN: list[Known] = [
    Known(
        "reset-in-multi",
        "RESET with an argument inside of MULTI is refused, and EXEC must abort; it executes.",
        [_say(0, b"MULTI", b"SET k1 v", b"RESET x"), _say(0, b"EXEC")],
        _odd_reset,
    ),
    Known(
        "refused-discard",
        "a DISCARD, EXEC or UNWATCH that ACL refuses ends nothing; the session thinks it does,"
        " and the shared link stays inside of MULTI.",
        [
            _say(0, b"ACL SETUSER bob -discard"), _say(1, b"AUTH bob secret"),
            _say(2, b"AUTH bob secret"), _say(1, b"MULTI", b"DISCARD"), _say(2, b"INCR k1"),
        ],
        _takes_back,
        breaks=True,
    ),
    Known(
        "login-selects",
        "AUTH in db 9 of a user who may not SELECT is refused.",
        [_say(0, b"ACL SETUSER bob -select"), _say(1, b"SELECT 9"), _say(1, b"AUTH bob secret")],
        _selects_first,
    ),
    Known(
        "get-arity",
        "GET with an argument too many is answered from the cache.",
        [_say(0, b"SET k1 v"), *[_say(0, b"GET k1 x")] * 5],
        _read_with_extra,
        cache="rules",
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
        "script-debug",
        "SCRIPT DEBUG YES goes down the shared link: the next script of anybody is debugged.",
        [_say(0, b"SCRIPT DEBUG YES"), _say(1, b"EVAL return(1) 0")],
        breaks=True,
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
        "group-named-streams",
        "XREADGROUP in a group called streams blocks the shared link.",
        [
            _say(0, b"XGROUP CREATE k1 streams $ MKSTREAM"),
            Step(0, (b"XREADGROUP GROUP streams c BLOCK 0 STREAMS k1 >".split(),), blocks=True),
            _say(1, b"INCR k2"),
        ],
        _group_named_streams,
        breaks=True,
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
    Known(
        "watch-forgotten",
        "UNWATCH with an argument, and EXEC or DISCARD without MULTI, are refused and end no WATCH;"
        " the session thinks that they do: a lost update is committed, and the link goes back to"
        " the pool still watching.",
        [
            _say(0, b"WATCH k1"), _say(0, b"UNWATCH x"), _say(1, b"SET k1 new"),
            _say(0, b"MULTI", b"EXEC"),
        ],
        _ends_nothing,
    ),
]  # fmt: skip
