"""Where a command that names no key goes on a cluster, and how the replies become one. Pure.

One server would do it for the whole data set, so on a cluster it is done for all shards, or by any
one of them where all would do the same. Servers give hints of that (`request_policy` and
`response_policy` in their replies to COMMAND). They are the ground of the table below, which says
it for each command and subcommand, and differs from them where a comment says why. What the table
does not know (a module's command, a newer server's) goes by the server's hints, and without any to
one node, which answers it or says that it does not know it.

Replicas are asked nothing: where servers hint at "all nodes", all primaries is meant here. What is
kept by each node for itself (scripts, ACL rules, configuration) is then missing on a replica that
takes over; scripts are made good when they are missed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum


class Where(Enum):
    """Who does it."""

    ANY = "any primary"
    ALL = "all primaries"
    SHELL = "code of its own"
    REFUSED = "nobody: it concerns one node, and it cannot be said which"


class Merge(Enum):
    """How replies become one. But for ONE, the first error is the reply if there is one."""

    FIRST = "the first"
    ONE = "the first that is no error"
    SUM = "numbers add up"
    MIN = "the least number, or the least at each place of an array"
    AND = "at each place of an array, 1 if all have 1"
    CONCAT = "arrays are put together"
    UNION = "arrays are put together, each element once"
    SUM_BY_NAME = "names and numbers in turn: the numbers of a name add up"
    NEWEST = "entries of a log are put together, the newest first, as many as were asked for"
    HISTORY = "times and numbers, the oldest first"
    LATEST = "for each event its latest time, and the greatest of the greatest"
    TEXT = "texts one below the other"
    RUNNING = "the first that tells of a script that is running, or the first"
    HISTOGRAM = "calls add up, and so do those that took no longer than each bound"
    MEMORY = "sizes add up, and of ratios the mean is taken"
    INFO = "counters and sizes add up; what is of one server is the first one's"
    XOR = "digests, which are put together as the server puts together those of its keys"


@dataclass(frozen=True, slots=True)
class Rule:
    """Where a command goes and, if that is to all primaries, how their replies are put together."""

    where: Where
    merge: Merge = Merge.FIRST


ANY, SHELL, REFUSED = Rule(Where.ANY), Rule(Where.SHELL), Rule(Where.REFUSED)
ALL = Rule(Where.ALL)
ONE = Rule(Where.ALL, Merge.ONE)
SUM = Rule(Where.ALL, Merge.SUM)
MIN = Rule(Where.ALL, Merge.MIN)


def _rules() -> Mapping[str, Rule]:
    """By name, and `name|subcommand`. A name alone is also what its other subcommands get."""
    table: dict[str, Rule] = {}

    def add(rule: Rule, *names: str) -> None:
        for name in names:
            assert name not in table, name
            table[name] = rule

    # The same wherever it is asked. PING: a sidecar that answers is what is asked for; servers hint
    # at all shards, of which one that is slow would then make health checks fail.
    add(ANY, "ping", "echo", "time", "lolwut", "role", "pfselftest")
    add(ANY, "command", "command|count", "command|docs", "command|getkeys", "command|info")
    add(ANY, "command|getkeysandflags", "command|list", "command|help", "object|help")
    add(ANY, "xinfo|help", "xgroup|help", "object", "xinfo", "xgroup")
    # A script without keys; with keys it goes where they are.
    add(ANY, "eval", "evalsha", "eval_ro", "evalsha_ro", "fcall", "fcall_ro")
    # Nodes tell each other what is published. The number of receivers is that of one node.
    add(ANY, "publish")
    # A cluster's nodes refuse them, each in the same words.
    add(ANY, "failover", "replicaof", "slaveof")

    # Users. What changes them goes to all, so that any can tell of them.
    add(ANY, "acl", "acl|cat", "acl|dryrun", "acl|genpass", "acl|getuser", "acl|help", "acl|list")
    add(ANY, "acl|users", "acl|whoami")
    add(ALL, "acl|deluser", "acl|setuser", "acl|save", "acl|load")
    add(Rule(Where.ALL, Merge.CONCAT), "acl|log")

    # Configuration. One node's is shown; where nodes have been given different ones, there is no
    # single answer.
    add(ANY, "config", "config|get", "config|help", "module", "module|list", "module|help")
    add(ALL, "config|set", "config|rewrite", "config|resetstat")
    add(ALL, "module|load", "module|loadex", "module|unload")

    # Data as a whole. SWAPDB: servers give no hint, as most refuse it.
    add(SUM, "dbsize")
    add(ALL, "flushall", "flushdb", "swapdb", "save", "bgsave", "bgrewriteaof")
    add(Rule(Where.ALL, Merge.CONCAT), "keys")
    # All that was there then is saved.
    add(MIN, "lastsave")
    # A cursor over all shards; a shard for each key as likely as any other.
    add(SHELL, "scan", "randomkey")
    # Replication is of one node; replies to WAIT are of those writes that this client has made.
    add(REFUSED, "sync", "psync", "replconf", "shutdown")
    add(MIN, "wait", "waitaof")

    # Scripts and functions. SHOW: EVAL has left the script at one shard only.
    add(ANY, "script", "script|help", "function", "function|help")
    add(ANY, "function|dump", "function|list")
    add(ALL, "script|load", "script|flush", "function|delete", "function|flush", "function|load")
    add(ALL, "function|restore")
    add(ONE, "script|kill", "function|kill", "script|show")
    add(Rule(Where.ALL, Merge.AND), "script|exists")
    add(Rule(Where.ALL, Merge.RUNNING), "function|stats")
    add(SHELL, "script|debug")

    # What each node counts for itself.
    add(Rule(Where.ALL, Merge.INFO), "info")
    add(ANY, "slowlog", "slowlog|help", "commandlog", "commandlog|help", "latency", "latency|help")
    add(ANY, "memory", "memory|help")
    add(Rule(Where.ALL, Merge.NEWEST), "slowlog|get", "commandlog|get")
    add(SUM, "slowlog|len", "commandlog|len", "latency|reset")
    add(ALL, "slowlog|reset", "commandlog|reset", "memory|purge")
    add(Rule(Where.ALL, Merge.HISTORY), "latency|history")
    add(Rule(Where.ALL, Merge.LATEST), "latency|latest")
    add(Rule(Where.ALL, Merge.HISTOGRAM), "latency|histogram")
    add(Rule(Where.ALL, Merge.TEXT), "latency|doctor", "latency|graph")
    add(Rule(Where.ALL, Merge.TEXT), "memory|doctor", "memory|malloc-stats")
    add(Rule(Where.ALL, Merge.MEMORY), "memory|stats")

    # Messages: servers give no hints, but each tells of its own subscribers only.
    add(ANY, "pubsub", "pubsub|help")
    add(Rule(Where.ALL, Merge.UNION), "pubsub|channels", "pubsub|shardchannels")
    add(Rule(Where.ALL, Merge.SUM_BY_NAME), "pubsub|numsub", "pubsub|shardnumsub")
    add(SUM, "pubsub|numpat")
    add(SHELL, "subscribe", "psubscribe", "unsubscribe", "punsubscribe", "monitor")
    # Without a channel: from all, and so from all shards.
    add(SHELL, "sunsubscribe")

    # Debugging: what it does to a server it does to all. What tells of one key goes to its shard.
    add(ALL, "debug")
    add(Rule(Where.ALL, Merge.XOR), "debug|digest")
    by_key = ("object", "digest-value", "listpack", "ziplist", "quicklist", "sdslen", "htstats-key")
    add(SHELL, *(f"debug|{name}" for name in by_key))

    # The session's own, and what is done for its client alone.
    add(SHELL, "auth", "hello", "quit", "reset", "select")
    add(SHELL, "multi", "exec", "discard", "watch", "unwatch")
    add(SHELL, "asking", "readonly", "readwrite")
    add(SHELL, "client")
    add(SHELL, *(f"client|{name}" for name in _OF_A_CLIENT))
    add(ALL, "client|pause", "client|unpause")
    add(SHELL, "post", "host:")

    # As `cluster.present` has it. What changes a cluster is done at a node that one chooses.
    add(SHELL, "cluster")
    add(SHELL, *(f"cluster|{name}" for name in _TOLD_OF_CLUSTERS))
    add(REFUSED, *(f"cluster|{name}" for name in _CHANGES_OF_CLUSTERS))
    return table


_OF_A_CLIENT = (
    "caching", "capa", "getname", "getredir", "help", "id", "import-source", "info", "kill", "list",
    "no-evict", "no-touch", "reply", "setinfo", "setname", "tracking", "trackinginfo", "unblock",
    "maint_notifications",
)  # fmt: skip

_TOLD_OF_CLUSTERS = (
    "count-failure-reports", "countkeysinslot", "flushslot", "getkeysinslot", "getslotmigrations",
    "help", "info", "keyslot", "links", "myid", "myshardid", "nodes", "replicas", "shards",
    "slaves", "slot-stats", "slots",
)  # fmt: skip

_CHANGES_OF_CLUSTERS = (
    "addslots", "addslotsrange", "bumpepoch", "cancelslotmigrations", "delslots", "delslotsrange",
    "failover", "flushslots", "forget", "meet", "migrateslots", "replicate", "reset", "saveconfig",
    "set-config-epoch", "setslot", "syncslots",
)  # fmt: skip

RULES = _rules()


def _concerning_shards() -> frozenset[str]:
    names = {name.partition("|")[0] for name, rule in RULES.items() if rule != ANY}
    return frozenset(names - _WITH_KEYS)


# Some of their subcommands name keys, and go where those are: the data path sees to that.
_WITH_KEYS = {"object", "xinfo", "xgroup"}

FANNING_OUT = _concerning_shards()
"""Commands that one node cannot answer for all, as a whole or by a subcommand."""

# What servers' hints mean; replies without a hint: arrays are put together.
_HINTS = {
    "all_succeeded": Merge.FIRST,
    "one_succeeded": Merge.ONE,
    "agg_sum": Merge.SUM,
    "agg_min": Merge.MIN,
    "agg_logical_and": Merge.AND,
    "": Merge.CONCAT,
}


def rule_of(name: str, subcommand: str = "", hints: Iterable[str] = ()) -> Rule:
    """The rule of a command without keys, in lower case; `hints` are the server's tips for it."""
    if rule := RULES.get(f"{name}|{subcommand}") or RULES.get(name):
        return rule
    policies = dict(hint.split(":", 1) for hint in hints if ":" in hint)
    request, response = policies.get("request_policy"), policies.get("response_policy", "")
    if request not in ("all_nodes", "all_shards"):
        return ANY
    return Rule(Where.ALL, _HINTS.get(response, Merge.FIRST))
