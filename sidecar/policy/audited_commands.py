"""Which commands are recorded in the audit stream, and which of their words may be shown.

Pure tables: core/observe/audit_notes notes these commands, telemetry/audit.py writes the records.
"""

from __future__ import annotations

# Destroy data, change the server or its users, reach other servers, or stall it.
DANGEROUS = frozenset({
    "flushall", "flushdb", "swapdb", "keys", "shutdown", "failover", "replicaof", "slaveof",
    "migrate", "monitor", "sync", "psync", "save", "bgsave", "bgrewriteaof",
})  # fmt: skip

# Logins, where they are passed through: elsewhere the sidecar knows how they end, and says so.
LOGINS = frozenset({"auth", "hello"})

# The same for commands with subcommands: those that are recorded. Of these the name is shown;
# any other word in its place might be anything, and is not.
CONTAINERS: dict[str, frozenset[str]] = {
    "config": frozenset({"get", "set", "resetstat", "rewrite"}),
    "acl": frozenset({"setuser", "deluser", "getuser", "list", "users", "load", "save", "log",
                      "genpass", "dryrun"}),
    "debug": frozenset({"sleep", "object", "reload", "segfault", "restart", "crash-and-recover",
                        "loadaof", "set-active-expire", "jmap", "panic", "populate",
                        "change-repl-id"}),
    "script": frozenset({"load", "flush", "kill", "debug"}),
    "function": frozenset({"load", "delete", "flush", "restore", "kill"}),
    "module": frozenset({"load", "loadex", "unload"}),
    "cluster": frozenset({"addslots", "addslotsrange", "delslots", "delslotsrange", "failover",
                          "flushslots", "forget", "meet", "replicate", "reset", "setslot",
                          "set-config-epoch", "bumpepoch", "saveconfig"}),
}  # fmt: skip

# Subcommands that change nothing and that clients send by themselves.
HARMLESS: dict[str, frozenset[str]] = {
    "acl": frozenset({"whoami", "cat", "help"}),
    "config": frozenset({"help"}),
    "debug": frozenset({"help"}),
    "script": frozenset({"exists", "show", "help"}),
    "function": frozenset({"list", "stats", "dump", "help"}),
    "module": frozenset({"list", "help"}),
    "cluster": frozenset({"info", "nodes", "slots", "shards", "myid", "myshardid", "keyslot",
                          "countkeysinslot", "getkeysinslot", "links", "slaves", "replicas",
                          "count-failure-reports", "slot-stats", "help"}),
}  # fmt: skip

UNKNOWN = "?"


def audited(name: str) -> bool:
    """Whether the core has to note commands of this name."""
    return name in DANGEROUS or name in LOGINS or name in CONTAINERS


def shown(name: str, second: str) -> str | None:
    """What is shown of the second word of an audited command: "" for one without subcommands,
    UNKNOWN for what might be a secret, None when it need not be recorded."""
    known = CONTAINERS.get(name)
    if known is None:
        return ""
    second = second.lower()
    if second in HARMLESS[name]:
        return None
    return second if second in known else UNKNOWN
