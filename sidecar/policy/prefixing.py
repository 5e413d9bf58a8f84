"""What becomes of each command of a client whose keys get a prefix, by name. Pure.

The prefix is invisible to the client: it goes before each key and channel of a request, and is
taken off where a reply tells keys or channels. What is not named here gets it at the keys that the
server's specifications tell, and has none in its reply; a command whose keys are not known, or that
is about keys without naming them, is refused. So a command is safe unless this table makes it
unsafe.

The acts and shapes are those of core/rewrite/rules.pxd.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from sidecar.core.rewrite.rules import ACTS, SHAPES

# What is done with the request, where the reply has names, which subcommands are allowed.
Given: TypeAlias = "tuple[int, int, frozenset[bytes] | None]"

# They name no key, and what they tell or change is not about keys.
KEYLESS = (
    "ping", "echo", "time", "info", "role", "lastsave", "lolwut", "command", "script", "function",
    "select", "quit", "unwatch", "wait", "waitaof", "latency", "asking", "readonly", "readwrite",
    "pfselftest", "post", "host:",
)  # fmt: skip

# They are about all keys of the server, or about what others do; or they would have the server do
# what all tenants feel.
REFUSED = (
    "flushall", "flushdb", "swapdb", "dbsize", "debug", "migrate", "save", "bgsave",
    "bgrewriteaof", "shutdown", "replicaof", "slaveof", "failover", "replconf", "clusterscan",
    "restore-asking",
)  # fmt: skip

# Of the rest of their subcommands the same is to be said.
SUBCOMMANDS = {
    "acl": "cat genpass help whoami",
    "config": "get help",
    "module": "help list",
    "slowlog": "help len",
    "commandlog": "help len",
}

# Where the replies of commands that name keys have them.
REPLIES = {
    "first": "blpop brpop bzpopmin bzpopmax blmpop lmpop bzmpop zmpop",
    "error": "xack xackdel xadd xautoclaim xcfgset xclaim xdel xdelex xgroup xinfo xlen xpending"
    " xrange xrevrange xsetid xtrim",
}

OWN = {
    "keys": ("pattern", "each"),
    "scan": ("scan", "scan"),
    "randomkey": ("random", "none"),
    "sort": ("sort", "none"),
    "sort_ro": ("sort", "none"),
    "xread": ("streams", "streams"),
    "xreadgroup": ("streams", "streams"),
    "publish": ("channel", "none"),
    "spublish": ("channel", "none"),
    "pubsub": ("pubsub", "none"),
    "client": ("client", "none"),
    "cluster": ("cluster", "none"),
    "multi": ("multi", "none"),
    "exec": ("exec", "none"),
    "discard": ("discard", "none"),
    "auth": ("login", "none"),
    "hello": ("login", "none"),
    "reset": ("reset", "none"),
}

SUBSCRIBING = "subscribe unsubscribe psubscribe punsubscribe ssubscribe sunsubscribe"
RAW = "monitor sync psync"

CLUSTER = "help info keyslot links myid myshardid nodes replicas shards slaves slots"


def _words(text: str) -> frozenset[bytes]:
    return frozenset(word.encode() for word in text.split())


def _given() -> dict[bytes, Given]:
    table: dict[bytes, Given] = {}

    def add(
        names: Iterable[str], act: str, shape: str = "none", subcommands: str | None = None
    ) -> None:
        allowed = None if subcommands is None else _words(subcommands)
        for name in names:
            assert name.encode() not in table, name
            table[name.encode()] = ACTS[act], SHAPES[shape], allowed

    add(KEYLESS, "keep")
    add(REFUSED, "refuse")
    add(SUBSCRIBING.split(), "subscribe")
    add(RAW.split(), "raw")
    for name, allowed in SUBCOMMANDS.items():
        add([name], "subcommands", subcommands=allowed)
    for shape, names in REPLIES.items():
        add(names.split(), "keys", shape)
    for name, (act, shape) in OWN.items():
        add([name], act, shape, CLUSTER if name == "cluster" else None)
    return table


# By name: for RewriteRules.
GIVEN = _given()
