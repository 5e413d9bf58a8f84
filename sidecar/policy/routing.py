"""From the server's own command table to routes: which link each command goes down.

The rows come from `COMMAND`: a snapshot of the newest servers ships as data, and the upstream's
own reply is laid over it at start, so modules and newer servers work. What the server's flags
can't tell is named here, command by command, with the reason. Where a command's keys are is told
by `keyspecs`. Pure: rows in, rows out.

The snapshot, `commands.json`, is what `snapshot` makes of the replies of Valkey 9 and Redis 8, in
this order; `python -m tests.policy.test_routing` writes it anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from sidecar.core.protocol.commands import (
    AUDITED,
    BY_CHANNEL,
    CACHEABLE,
    CACHEABLE_EACH,
    FANS_OUT,
    MAY_BE_HELD,
    OPAQUE,
    READ,
    ROUTES,
    SPLIT,
    TELLS,
    WRITES,
)
from sidecar.policy.audited_commands import audited
from sidecar.policy.fan_out import FANNING_OUT
from sidecar.policy.keyspecs import KEY_FLAGS, NONE, Described, Rule, describe, rule_of

# Name, route, arity of a subcommand.
SubcommandRoute: TypeAlias = tuple[bytes, int, int]
# Route, effects and cacheability, family, arity, where the keys are, subcommands with own routes.
Row: TypeAlias = "tuple[int, int, int, int, Rule | None, tuple[SubcommandRoute, ...]]"

# Latencies are kept for these groups, named after the server's ACL categories. The first that
# fits a command is its family. Commands that wait for as long as their client asked have one of
# their own (BLOCKING_FAMILY): how long they take says nothing about the server.
FAMILIES = (
    "other", "blocking", "transaction", "scripting", "pubsub", "stream", "geo", "hyperloglog",
    "bitmap", "sortedset", "hash", "set", "list", "string", "keyspace", "connection", "admin",
)  # fmt: skip

# After these, replies no longer match requests one to one, or the connection's state outlives
# the command in a way only the server can tell.
PINNING = (
    "subscribe", "unsubscribe", "psubscribe", "punsubscribe", "ssubscribe", "sunsubscribe",
    "monitor", "sync", "psync", "replconf", "readonly", "readwrite", "asking",
)  # fmt: skip

# On a cluster these are split where their keys are in several slots.
SPLITTABLE = frozenset(("mget", "mset", "del", "unlink", "exists", "touch"))

# These hold the server, or its connection, for as long as they like.
ONCE = ("debug", "shutdown", "failover")

# Routes of commands that may concern all shards of a cluster.
FANNING_ROUTES = ("shared", "scripts", "once")

OWN_ROUTE = {
    # Session state that the sidecar keeps itself.
    "auth": "auth", "hello": "hello", "select": "session", "client": "client",
    "script": "scripts", "function": "scripts",
    "multi": "multi", "exec": "exec", "discard": "discard", "watch": "watch",
    "unwatch": "unwatch", "reset": "reset", "quit": "quit", "wait": "wait", "waitaof": "wait",
    # Not commands: the first words of an HTTP request that somebody was tricked into sending.
    "post": "hang_up", "host:": "hang_up",
}  # fmt: skip

# Never sent again, whatever the server's flags say.
BEGIN_OR_END_STATE = ("multi", "exec", "discard", "watch", "unwatch")

# Subcommands that do not take their command's route: the route, and the arity of the server that
# accepts most, for those that do not tell theirs (before Redis 7). With another number of arguments
# the server refuses them.
SUBCOMMAND_ROUTES = {
    # What they end, or tell of, may hold up the client's link.
    ("script", "kill"): ("session", 2),
    ("function", "kill"): ("session", 2),
    ("function", "stats"): ("session", 2),
    # From then on its connection is a debugger's, and nobody else's.
    ("script", "debug"): ("pin", -3),
    # Replies no longer match requests.
    ("client", "reply"): ("pin", 3),
    # A client must not be told to leave the sidecar, whatever link it has.
    ("client", "maint_notifications"): ("announcements", -3),
}

# Ordinary unless they have a BLOCK argument.
MAYBE_BLOCKING = ("xread", "xreadgroup")

# Not flagged "readonly" by servers, since they read no key; doing them twice changes nothing. Of
# CLIENT, HELLO and SELECT, shared links get only what changes nothing.
EFFECTLESS = (
    "ping", "echo", "time", "info", "role", "lastsave", "lolwut", "command", "object", "xinfo",
    "client", "hello", "select",
)  # fmt: skip

# Reads that change what is stored beside the value: the server holds them back as it does writes.
MAY_REPLICATE = ("pfcount",)

# They change data, or begin or end what does, though old servers do not flag them.
WRITING = (
    "multi", "exec", "eval", "evalsha", "fcall", "publish", "spublish", "function", "script",
    "xgroup",
)  # fmt: skip

# Whose replies the near cache may keep: reads that are a function of their arguments and of one
# key's value, and of nothing else. Not among them, though servers flag them readonly: what tells
# of time (TTL, EXPIRETIME, XPENDING), of chance (RANDOMKEY, SRANDMEMBER), of a cursor (SCAN), of
# several keys (SINTER, LCS), or of the server (OBJECT, MEMORY, DUMP); TOUCH and PFCOUNT, which
# change what they read; SORT_RO and EVAL_RO, which read keys they don't name; XREAD, which blocks.
# A hash's field may have a lifetime of its own (HEXPIRE), of which the key's TTL says nothing.
CACHED = (
    "get", "strlen", "getrange", "substr", "getbit", "bitcount", "bitpos", "bitfield_ro",
    "exists", "type",
    "hget", "hmget", "hgetall", "hexists", "hlen", "hstrlen", "hkeys", "hvals",
    "smembers", "sismember", "smismember", "scard",
    "zscore", "zmscore", "zcard", "zcount", "zlexcount", "zrank", "zrevrank",
    "zrange", "zrevrange", "zrangebyscore", "zrevrangebyscore", "zrangebylex", "zrevrangebylex",
    "lrange", "llen", "lindex", "lpos",
    "xlen", "xrange", "xrevrange",
    "geodist", "geohash", "geopos", "geosearch", "georadius_ro", "georadiusbymember_ro",
)  # fmt: skip

# The same for each of their keys: the reply is the list of what each key alone would give.
CACHED_EACH = ("mget",)

SCRIPTS = ("eval", "evalsha", "eval_ro", "evalsha_ro", "fcall", "fcall_ro")


# Their replies tell what others did: an item taken from a queue, the keyspace as a whole, keys that
# are found by patterns. So does whatever blocks, and every program (SCRIPTS, modules).
TELLING = (
    "lpop", "rpop", "lmpop", "lmove", "rpoplpush", "spop", "zpopmin", "zpopmax", "zmpop",
    "getdel", "xread", "xreadgroup", "xclaim", "xautoclaim",
    "keys", "scan", "randomkey", "dbsize", "sort", "sort_ro",
    "cluster", "debug", "migrate",
)  # fmt: skip


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def route_of(name: str, flags: Iterable[str]) -> str:
    """The route of one command, by its name and the server's flags for it."""
    if name in OWN_ROUTE:
        return OWN_ROUTE[name]
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


def subcommand_routes(command: Described) -> tuple[SubcommandRoute, ...]:
    """The subcommands of this command that have a route of their own, with the server's arity."""
    told = {sub.name: sub.arity for sub in command.subcommands}
    return tuple(
        (sub.encode(), ROUTES[route], told.get(sub) or arity)
        for (name, sub), (route, arity) in SUBCOMMAND_ROUTES.items()
        if name == command.name
    )


def effects_of(name: str, flags: Iterable[str]) -> int:
    """READ: may be sent again. WRITES: may change data. Neither: an effect on the server itself.

    OPAQUE as well: its error replies are a program's, or (MIGRATE) another server's, and do not
    say that nothing was done.
    """
    flags = set(flags)
    opaque = OPAQUE if name in (*SCRIPTS, "migrate") or "module" in flags else 0
    if name not in BEGIN_OR_END_STATE and ("readonly" in flags or name in EFFECTLESS):
        held = MAY_BE_HELD * (name in MAY_REPLICATE or "may_replicate" in flags)
        return READ | held | opaque
    if name in WRITING or flags & {"write", "may_replicate", "module"}:
        return WRITES | opaque
    return opaque


def telling(name: str, flags: Iterable[str]) -> int:
    """Whether its reply may tell of changes to keys that it does not name."""
    program = name in SCRIPTS or "module" in flags
    return TELLS * (program or "blocking" in flags or name in TELLING)


def cacheable(name: str, flags: Iterable[str]) -> int:
    """Whether replies may be kept. A module may have taken the name of one of ours."""
    if "readonly" not in flags or "module" in flags:
        return 0
    return CACHEABLE * (name in CACHED) | CACHEABLE_EACH * (name in CACHED_EACH)


def family_of(categories: Iterable[str]) -> int:
    """The index in FAMILIES for a command with these ACL categories."""
    names = {c.lstrip("@") for c in categories}
    if "dangerous" in names and "admin" in names:
        return FAMILIES.index("admin")
    for i, family in enumerate(FAMILIES):
        if family in names:
            return i
    return 0


def judged_here(rows: Mapping[bytes, Row]) -> dict[bytes, Row]:
    """These rows, for a sidecar that judges logins itself: it serves AUTH, HELLO and CLIENT on
    whatever link a client has, and none of them goes to a server unseen."""
    served, seen = ROUTES["announcements"], (b"auth", b"hello", b"client")
    return {name: (served, *row[1:]) if name in seen else row for name, row in rows.items()}


def rows_from_command(reply: Sequence[Sequence[Any]]) -> dict[bytes, Row]:
    """Table rows from the reply to COMMAND (RESP2: a list of lists).

    Entries too short to understand are left out: such a command counts as unknown, which is
    slower but safe.
    """
    rows: dict[bytes, Row] = {}
    for entry in reply:
        if len(entry) < 7:
            continue
        command = describe(entry)
        categories = [_text(c).lower() for c in entry[6]]
        rows[command.name.encode("latin-1")] = _row(command, categories)
    return rows


def _row(command: Described, categories: Iterable[str]) -> Row:
    name, flags = command.name, command.flags
    categories = [c.lstrip("@") for c in categories]
    if "blocking" in categories:
        flags |= {"blocking"}  # Redis 6.2 and earlier have the category, and no such flag
    return (
        ROUTES[route_of(name, flags)],
        effects_of(name, flags)
        | cacheable(name, flags)
        | telling(name, flags)
        | AUDITED * audited(name)
        | BY_CHANNEL * (name == "spublish")
        | SPLIT * (name in SPLITTABLE and "module" not in flags)
        | FANS_OUT * (name in FANNING_OUT and route_of(name, flags) in FANNING_ROUTES),
        family_of(c for c in categories if name not in MAYBE_BLOCKING or c != "blocking"),
        command.arity,
        rule_of(command),
        subcommand_routes(command),
    )


def rows_from_data(data: Mapping[str, Sequence[Any]]) -> dict[bytes, Row]:
    """Table rows from the shipped snapshot, which has for each name

    [arity, flags, first key, last, step, categories, key specifications, subcommands];
    subcommands are {name: [flags, key specifications]}, and left out when none touches keys.
    The words of OWN_ROUTE that are no commands are added.
    """
    rows: dict[bytes, Row] = {}
    for name, (arity, flags, *legacy, categories, specs, subcommands) in data.items():
        first, last, step = legacy
        subs = [Described(n, frozenset(f), (0, 0, 0), s) for n, (f, s) in subcommands.items()]
        command = Described(name, frozenset(flags), (first, last, step), specs, subs, arity)
        rows[name.encode("latin-1")] = _row(command, categories)
    for name, route in OWN_ROUTE.items():
        if route == "hang_up":
            rows[name.encode()] = _row(Described(name, frozenset(), (0, 0, 0), [], (), -1), [])
    return rows


def snapshot(*replies: Sequence[Sequence[Any]]) -> str:
    """The text of `commands.json` for the replies of several servers to COMMAND.

    Of a command that more than one of them has, the first one's description is taken.
    """
    lines: dict[str, str] = {}
    for reply in replies:
        for entry in reply:
            command = describe(entry)
            specs = command.specs
            subcommands = {}
            if rule_of(command) != NONE:
                for sub in sorted(command.subcommands, key=lambda sub: sub.name):
                    subcommands[sub.name] = (sorted(sub.flags & KEY_FLAGS), sub.specs)
            categories = sorted(_text(c).lstrip("@") for c in entry[6])
            row = (
                entry[1], sorted(command.flags), *command.legacy, categories, specs, subcommands
            )  # fmt: skip
            lines.setdefault(command.name, json.dumps(row, separators=(",", ":")))
    return "{" + ",\n".join(f"{json.dumps(n)}:{lines[n]}" for n in sorted(lines)) + "}\n"
