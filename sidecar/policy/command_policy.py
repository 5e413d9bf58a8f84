"""From a command policy, as it is written, to rules by command and subcommand.

A policy names commands (`KEYS`), subcommands (`CONFIG|SET`) and ACL categories (`@dangerous`).
Which commands are in a category, and which write, only the server knows: its reply to COMMAND says
so, and until it has come the snapshot that ships with the sidecar does. That does not tell the
categories of subcommands, so a category denies the commands whole then. The result is what
core/guard/command_rules judges requests by; keys are its business alone.

Pure: replies and policies in, rules out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sidecar.policy.audited_commands import CONTAINERS
from sidecar.settings.sections.principals import CommandPolicy

# Off unless somebody asks for it: what an application does not need, and is an outage by accident.
PRODUCTION = CommandPolicy(
    deny=(
        # Whatever takes as long as the data set is large, or destroys it.
        "KEYS", "FLUSHALL", "FLUSHDB", "SWAPDB", "SCRIPT|FLUSH", "FUNCTION|FLUSH",
        "FUNCTION|DELETE", "FUNCTION|RESTORE",
        # The server and its users.
        "DEBUG", "SHUTDOWN", "FAILOVER", "REPLICAOF", "SLAVEOF", "SYNC", "PSYNC", "REPLCONF",
        "SAVE", "BGSAVE", "BGREWRITEAOF", "CONFIG|SET", "CONFIG|REWRITE", "CONFIG|RESETSTAT",
        "ACL|SETUSER", "ACL|DELUSER", "ACL|LOAD", "ACL|SAVE",
        "MODULE|LOAD", "MODULE|LOADEX", "MODULE|UNLOAD",
        "CLUSTER|ADDSLOTS", "CLUSTER|ADDSLOTSRANGE", "CLUSTER|BUMPEPOCH", "CLUSTER|DELSLOTS",
        "CLUSTER|DELSLOTSRANGE", "CLUSTER|FAILOVER", "CLUSTER|FLUSHSLOTS", "CLUSTER|FORGET",
        "CLUSTER|MEET", "CLUSTER|REPLICATE", "CLUSTER|RESET", "CLUSTER|SAVECONFIG",
        "CLUSTER|SET-CONFIG-EPOCH", "CLUSTER|SETSLOT",
        # Other clients, and other servers.
        "MONITOR", "CLIENT|PAUSE", "SCRIPT|KILL", "SCRIPT|DEBUG", "FUNCTION|KILL", "MIGRATE",
    )
)  # fmt: skip
BUILT_IN: Mapping[str, CommandPolicy] = {"production": PRODUCTION}

# They may change keys, though servers do not flag them as writing.
_WRITING = frozenset({
    "eval", "evalsha", "fcall", "debug", "replicaof", "slaveof", "xgroup",
})  # fmt: skip
# They show, or replace, what is at keys that they do not name.
_BEYOND_KEYS = frozenset({"monitor", "sync", "psync", "debug", "replicaof", "slaveof"})
EVERYTHING = "all"


@dataclass(frozen=True, slots=True)
class Known:
    """What a server says of a command or subcommand, as far as policies go by it."""

    flags: frozenset[str]
    categories: frozenset[str]
    subcommands: Mapping[str, Known] = field(default_factory=dict)
    whole: bool = True  # `subcommands` are all that it has

    @property
    def writes(self) -> bool:
        """Whether the server flags it so, or it is a module's and not flagged readonly."""
        return "write" in self.flags or (
            "module" in self.flags and not self.flags & {"readonly", "fast"}
        )


@dataclass(frozen=True, slots=True)
class Compiled:
    """The arguments of core.guard.command_rules.Policy.put."""

    denied: Sequence[bytes]
    subcommands: Mapping[bytes, Mapping[bytes, bool]]
    containers: Sequence[bytes]
    unknown_denied: bool


def catalogue_from_data(data: Mapping[str, Sequence[Any]]) -> dict[str, Known]:
    """What the shipped snapshot says (see routing.rows_from_data)."""
    return {
        name: Known(frozenset(flags), frozenset(categories), whole=name not in CONTAINERS)
        for name, (_, flags, _, _, _, categories, *_) in data.items()
    }


def catalogue_from_command(reply: Sequence[Sequence[Any]]) -> dict[str, Known]:
    """What a server says in its reply to COMMAND; Redis before 7 does not tell subcommands, and has
    the categories of all of them at the command."""
    return {_name(entry[0]): _known(entry) for entry in reply if len(entry) >= 7}


def _known(entry: Sequence[Any]) -> Known:
    subcommands = entry[9] if len(entry) > 9 else ()
    return Known(
        frozenset(_name(flag) for flag in entry[2]),
        frozenset(_name(category).lstrip("@") for category in entry[6]),
        {_name(sub[0]).partition("|")[2]: _known(sub) for sub in subcommands if len(sub) >= 7},
    )


def _name(value: object) -> str:
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return text.lower()


def compiled(policy: CommandPolicy, catalogue: Mapping[str, Known]) -> Compiled:
    """The rules for a policy, with a server that has these commands."""
    rules = _Denied(policy)
    denied: list[bytes] = [name.encode("latin-1") for name in rules.names]
    subcommands: dict[bytes, dict[bytes, bool]] = {}
    for name, known in catalogue.items():
        if name in rules.names:
            continue
        if name in rules.containers or known.subcommands:
            of_each = rules.of_subcommands(name, known)
            if any(of_each.values()):
                subcommands[name.encode("latin-1")] = of_each
        elif rules.denies(name, known):
            denied.append(name.encode("latin-1"))
    for name in rules.containers - catalogue.keys():
        subcommands[name.encode("latin-1")] = rules.of_subcommands(name, _NOTHING_KNOWN)
    containers = [n.encode("latin-1") for n, known in catalogue.items() if known.subcommands]
    return Compiled(denied, subcommands, containers, rules.unknown_denied)


_NOTHING_KNOWN = Known(frozenset(), frozenset())


class _Denied:
    """A policy's rules, by kind."""

    def __init__(self, policy: CommandPolicy) -> None:
        rules = [rule.lower() for rule in policy.deny]
        self.categories = {rule[1:] for rule in rules if rule.startswith("@")}
        self.pairs = {rule for rule in rules if "|" in rule and not rule.startswith("@")}
        self.containers = {pair.partition("|")[0] for pair in self.pairs}
        self.names = {rule for rule in rules if "|" not in rule and not rule.startswith("@")}
        if policy.deny_keys:
            self.names |= _BEYOND_KEYS
        self.read_only = policy.read_only
        # In which categories they are, and whether they write, is not known.
        self.unknown_denied = bool(self.categories) or policy.read_only

    def denies(self, name: str, known: Known) -> bool:
        """Whether a command without subcommands, or one subcommand, is denied by what the server
        says of it."""
        if EVERYTHING in self.categories or self.categories & known.categories:
            return True
        if self.categories and not known.whole:
            return True
        return self.read_only and (known.writes or name in _WRITING)

    def of_subcommands(self, name: str, known: Known) -> dict[bytes, bool]:
        """Of the subcommands of a command, which are denied; b"" is any other one. What the server
        does not know it refuses, unless it has not told them: then the command says."""
        found = {b"": self.denies(name, known) if not known.subcommands else self.unknown_denied}
        for sub, each in known.subcommands.items():
            found[sub.encode("latin-1")] = f"{name}|{sub}" in self.pairs or self.denies(sub, each)
        for pair in self.pairs:
            container, _, sub = pair.partition("|")
            if container == name:
                found[sub.encode("latin-1")] = True
        return found


def unknown_rules(policy: CommandPolicy, catalogue: Mapping[str, Known]) -> Iterable[str]:
    """The rules of a policy that mean nothing to a server with these commands: likely typing
    errors."""
    categories = {EVERYTHING}
    for known in catalogue.values():
        categories |= known.categories
        for each in known.subcommands.values():
            categories |= each.categories
    for rule in policy.deny:
        name, _, sub = rule.lower().partition("|")
        if name.startswith("@"):
            strange = name[1:] not in categories
        else:
            of_it = catalogue.get(name, _NOTHING_KNOWN).subcommands
            strange = name not in catalogue or bool(sub and of_it and sub not in of_it)
        if strange:
            yield rule
