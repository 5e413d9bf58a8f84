"""From the server's own command table to routes: which link each command goes down.

The rows come from `COMMAND`: a snapshot of the newest servers ships as data, and the upstream's
own reply is laid over it at start, so modules and newer servers work. What the server's flags
can't tell is named here, command by command, with the reason. Pure: rows in, rows out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sidecar.core.commands import READ, ROUTES, WRITES

Row = tuple[int, int, int, int, int, int, int]

# Latencies are kept for these groups, named after the server's ACL categories. The first that
# fits a command is its family.
FAMILIES = (
    "other", "transaction", "scripting", "pubsub", "stream", "geo", "hyperloglog", "bitmap",
    "sortedset", "hash", "set", "list", "string", "keyspace", "connection", "admin",
)  # fmt: skip

# Session state that the sidecar keeps itself.
LOCAL = ("auth", "hello", "select", "client")

# After these, replies no longer match requests one to one, or the connection's state outlives
# the command in a way only the server can tell.
PINNING = (
    "subscribe", "unsubscribe", "psubscribe", "punsubscribe", "ssubscribe", "sunsubscribe",
    "monitor", "sync", "psync", "replconf", "readonly", "readwrite", "asking",
)  # fmt: skip

# These hold the server, or its connection, for as long as they like.
ONCE = ("debug", "shutdown", "failover")

OWN_ROUTE = {
    "multi": "multi", "exec": "exec", "discard": "discard", "watch": "watch",
    "unwatch": "unwatch", "reset": "reset", "quit": "quit", "wait": "wait", "waitaof": "wait",
    # Not commands: the first words of an HTTP request that somebody was tricked into sending.
    "post": "hang_up", "host:": "hang_up",
}  # fmt: skip

# Blocking only when asked to.
MAYBE_BLOCKING = ("xread", "xreadgroup")

# Not flagged "readonly" by servers, since they read no key; doing them twice changes nothing.
EFFECTLESS = (
    "ping", "echo", "time", "info", "role", "lastsave", "lolwut", "command", "object", "xinfo",
)  # fmt: skip

# They change data, or begin or end what does, though old servers do not flag them.
WRITING = (
    "multi", "exec", "eval", "evalsha", "fcall", "publish", "spublish", "function", "script",
    "xgroup",
)  # fmt: skip


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def route_of(name: str, flags: Iterable[str]) -> str:
    """The route of one command, by its name and the server's flags for it."""
    if name in OWN_ROUTE:
        return OWN_ROUTE[name]
    if name in LOCAL:
        return "local"
    if name in PINNING:
        return "pin"
    if name in ONCE:
        return "once"
    if name in MAYBE_BLOCKING:
        return "maybe_blocking"
    # A module's command may hold back its reply as long as it likes, flagged or not.
    if "blocking" in flags or "module" in flags:
        return "blocking"
    return "shared"


def effects_of(name: str, flags: Iterable[str]) -> int:
    """READ: may be sent again. WRITES: may change data. Neither: an effect on the server itself."""
    flags = set(flags)
    if "readonly" in flags or name in EFFECTLESS:
        return READ
    if name in WRITING or flags & {"write", "may_replicate", "module"}:
        return WRITES
    return 0


def family_of(categories: Iterable[str]) -> int:
    """The index in FAMILIES for a command with these ACL categories."""
    names = {c.lstrip("@") for c in categories}
    if "dangerous" in names and "admin" in names:
        return FAMILIES.index("admin")
    for i, family in enumerate(FAMILIES):
        if family in names:
            return i
    return 0


def rows_from_command(reply: Sequence[Sequence[Any]]) -> dict[bytes, Row]:
    """Table rows from the reply to COMMAND (RESP2: a list of lists).

    Entries too short to understand are left out: such a command counts as unknown, which is
    slower but safe.
    """
    rows: dict[bytes, Row] = {}
    for entry in reply:
        if len(entry) < 7:
            continue
        name = _text(entry[0]).lower()
        flags = {_text(f).lower() for f in entry[2]}
        row = (
            ROUTES[route_of(name, flags)],
            effects_of(name, flags),
            family_of(_text(c).lower() for c in entry[6]),
            *(max(-32768, min(32767, int(entry[i]))) for i in (1, 3, 4, 5)),
        )
        rows[name.encode("latin-1")] = row  # type: ignore[assignment]
    return rows


def rows_from_data(data: Mapping[str, Sequence[Any]]) -> dict[bytes, Row]:
    """Table rows from the shipped snapshot: name -> [arity, flags, first, last, step, categories].

    The words of OWN_ROUTE that are no commands are added.
    """
    reply = [
        [name, arity, flags, first, last, step, categories]
        for name, (arity, flags, first, last, step, categories) in data.items()
    ]
    reply += [[n, -1, [], 0, 0, 0, []] for n, r in OWN_ROUTE.items() if r == "hang_up"]
    return rows_from_command(reply)


def subcommands_of(reply: Sequence[Sequence[Any]], container: str) -> frozenset[str]:
    """Names of a container command's subcommands ("client" -> {"id", "setinfo", ...})."""
    for entry in reply:
        if _text(entry[0]).lower() == container and len(entry) >= 10:
            return frozenset(_text(sub[0]).lower().partition("|")[2] for sub in entry[9])
    return frozenset()
