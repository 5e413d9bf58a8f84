"""The user of the server that a tenant is: its rules, and how an existing user differs from them.

A user that `sidecar tenants` has made carries a *mark*: a pattern of a channel (or of a key) that
nothing else uses and that names the tenant. Users without it are somebody else's. What a user may
do is compared by meaning: command rules are evaluated to the set of commands that they allow, since
servers write them down in another form than they were given in.

Pure: what servers have answered goes in, rules and differences come out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

MARK = "redis-sidecar:tenant:"

# What a tenant may do unless its `commands` say otherwise: whatever names its keys and channels, so
# that the server can judge it by them. Left out is what reaches beyond: the keyspace as a whole,
# what all users share (functions, the script cache), other clients, the server. ROLE it may ask:
# the sidecar makes sure on each link that it leads to the master.
DEFAULT_COMMANDS = (
    "-@all", "+@string", "+@hash", "+@list", "+@set", "+@sortedset", "+@stream", "+@bitmap",
    "+@hyperloglog", "+@geo", "+@keyspace", "+@pubsub", "+@transaction", "+@connection",
    "+@scripting", "-@admin", "-@dangerous", "-scan", "-clusterscan", "-randomkey", "-dbsize",
    "-pubsub", "-function", "-fcall", "-fcall_ro", "-script|flush", "-script|kill",
    "-script|debug", "-script|show", "+role", "+time",
)  # fmt: skip


@dataclass(frozen=True)
class WantedUser:
    """A user as a tenant wants it. `keys` and `channels` are ACL patterns with their sign ("~a:*");
    `commands` are rules in order."""

    tenant: str
    name: str
    password: bytes = field(repr=False)
    keys: frozenset[str]
    channels: frozenset[str]
    commands: tuple[str, ...]

    @property
    def digest(self) -> str:
        """The password as servers keep it."""
        return hashlib.sha256(self.password).hexdigest()

    def rules(self, *, secret: bool) -> list[str]:
        """The arguments of ACL SETUSER behind the name; without the password unless `secret`."""
        password = f"#{self.digest}" if secret else "#***"
        return [
            "reset", "on", password,
            "resetkeys", *sorted(self.keys),
            "resetchannels", *sorted(self.channels),
            *self.commands,
        ]  # fmt: skip


@dataclass(frozen=True)
class Actual:
    """A user as a server has it (ACL GETUSER)."""

    flags: frozenset[str]
    passwords: frozenset[str]
    keys: frozenset[str]
    channels: frozenset[str]
    commands: str
    selectors: int

    def owner(self) -> str:
        """The tenant that it was made for; empty: it was not made by `sidecar tenants`."""
        for pattern in sorted(self.keys | self.channels):
            if pattern[1:].startswith(MARK):
                return pattern[1 + len(MARK) :]
        return ""


# What the sidecar needs of a user that identities act as, and for the near cache
# (docs/identities.md).
NEEDED = ("+ping", "+role", "+client|setinfo")
NEEDED_TO_CACHE = ("+client|tracking", "+pttl", "+touch")
NEEDED_TO_CACHE_A_CLUSTER = ("+ssubscribe",)
OWN_CHANNELS = "&sidecar:{*}:"


def wanted(
    tenant: str,
    name: str,
    password: bytes,
    keys: Iterable[str],
    channels: Iterable[str],
    commands: Sequence[str],
    prefix: str,
    *,
    caches: bool,
    in_cluster: bool,
) -> WantedUser:
    """The user of a tenant, with what the sidecar itself needs; `caches`: there is a near cache,
    `in_cluster`: the upstream is a cluster. Raises ValueError if it cannot be marked: where all
    keys and all channels are its own, nothing is apart."""
    own = [escaped(prefix) + "*"] if prefix else []
    key_patterns = {key if key[:1] in ("~", "%") else f"~{key}" for key in keys or own}
    channel_patterns = {f"&{channel}" for channel in channels or own}
    if "&*" not in channel_patterns:
        channel_patterns.add(f"&{MARK}{tenant}")
    elif "~*" not in key_patterns:
        key_patterns.add(f"~{MARK}{tenant}")
    else:
        raise ValueError(f"tenants.{tenant}: all keys and all channels: narrow one of them")
    rules = tuple(commands) if commands else DEFAULT_COMMANDS
    if commands:
        rules += NEEDED + (NEEDED_TO_CACHE if caches else ())
    if caches and in_cluster:
        if "&*" not in channel_patterns:
            channel_patterns.add(f"{OWN_CHANNELS}{escaped(name)}")
        rules += NEEDED_TO_CACHE_A_CLUSTER if commands else ()
    if rules[0] not in ("-@all", "nocommands", "+@all", "allcommands"):
        rules = ("-@all", *rules)
    return WantedUser(
        tenant, name, password, frozenset(key_patterns), frozenset(channel_patterns), rules
    )


def is_tenants_own(pattern: str) -> bool:
    """Whether a pattern of a user, with its sign, is of the tenant's own keys or channels, and not
    for the sidecar."""
    return MARK not in pattern and not pattern.startswith(OWN_CHANNELS)


def escaped(text: str) -> str:
    """A pattern that matches this text only."""
    return "".join(f"\\{char}" if char in "*?[]\\^" else char for char in text)


@dataclass(frozen=True)
class Commands:
    """The commands of a server by category, subcommands as "config|set"."""

    categories: Mapping[str, frozenset[str]]

    @property
    def all(self) -> frozenset[str]:
        """Every command."""
        return frozenset().union(*self.categories.values())

    def knows(self, rule: str) -> bool:
        """Whether the server has the command or category of a rule."""
        name = rule[1:].lower()
        if rule in ("allcommands", "nocommands") or name == "@all":
            return True
        if name.startswith("@"):
            return name[1:] in self.categories
        return bool(self._named(name))

    def usable(self, rules: Iterable[str]) -> list[str]:
        """The rules without those that take away what the server does not have. Raises ValueError
        for one that allows what it does not have."""
        out = []
        for rule in rules:
            if self.knows(rule):
                out.append(rule)
            elif rule.startswith("+") and rule[1:] not in OPTIONAL:
                raise ValueError(f"the server has no command or category {rule[1:]!r}")
        return out

    def allowed(self, rules: Iterable[str]) -> frozenset[str]:
        """The commands that rules allow, applied in order."""
        found: set[str] = set()
        for rule in rules:
            name = rule[1:].lower()
            if rule == "allcommands" or name == "@all":
                found = set(self.all) if rule[0] != "-" else set()
            elif rule == "nocommands":
                found = set()
            else:
                of = self.categories.get(name[1:], frozenset()) if name[:1] == "@" else None
                meant = of if of is not None else self._named(name)
                found = found | meant if rule[0] == "+" else found - meant
        return frozenset(found)

    def _named(self, name: str) -> frozenset[str]:
        """A command with its subcommands, or one subcommand."""
        return frozenset(c for c in self.all if c == name or c.startswith(f"{name}|"))


# What some servers lack, or have under another name.
OPTIONAL = frozenset({"@bitmap", "@hyperloglog", "@geo", "@stream", "client|setinfo"})


def differences(want: WantedUser, actual: Actual | None, commands: Commands) -> list[str]:
    """How an existing user differs, in words; none: it is as wanted."""
    if actual is None:
        return ["missing"]
    found = []
    if "on" not in actual.flags:
        found.append("off")
    if "nopass" in actual.flags:
        found.append("needs no password")
    elif actual.passwords != {want.digest}:
        found.append("password")
    for what, wants, has in (
        ("keys", want.keys, actual.keys),
        ("channels", want.channels, actual.channels),
    ):
        more, less = sorted(has - wants), sorted(wants - has)
        signs = [f"+{each}" for each in less] + [f"-{each}" for each in more]
        if signs:
            found.append(f"{what} {' '.join(signs)}")
    if actual.selectors:
        found.append("selectors")
    may = commands.allowed(actual.commands.split())
    should = commands.allowed(want.commands)
    if may != should:
        more, less = sorted(may - should), sorted(should - may)
        parts = [f"-{_some(more)}"] if more else []
        parts += [f"+{_some(less)}"] if less else []
        found.append(f"commands {' '.join(parts)}")
    return found


def _some(names: Sequence[str]) -> str:
    shown = ",".join(names[:5])
    return f"{shown},… ({len(names)})" if len(names) > 5 else shown
