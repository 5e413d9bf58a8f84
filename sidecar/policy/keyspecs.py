"""From the server's key specifications to the rules by which the core finds a request's keys.

Since Redis 7, COMMAND says of each command and subcommand where its keys are, as a list of
specifications: where to begin (an argument, or behind a word), which arguments from there on (a
range, or as many as a count says), and what is done with them. `rule_of` makes of them what the
command table takes (`Rule`; `core/protocol/keys.pyx` follows it). Wherever the server admits that
they
don't tell everything, the rule is "unknown" and any key has to be taken for touched:

* a specification is marked incomplete or its kind is unknown, and the command is not in OWN;
* a module's command that has none, or that finds its keys by code of its own (movablekeys);
* more or larger specifications than the table has room for.

Older servers give only the first key, the last and the step. Where they say that this is not all
(movablekeys), the rule is None: the table keeps what the shipped snapshot told about that name.

Pure: replies in, tuples out. `ServerSpec` is a specification as the snapshot has it: (flags,
(kind, ...), (kind, ...)), in the server's own words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from sidecar.core.protocol.commands import (
    FINDS,
    FORMS,
    LONGEST_KEYWORD,
    LONGEST_SUBCOMMAND,
    MOST_SPECS,
    SPEC_OPTIONAL,
    SPEC_WRITES,
)

Spec: TypeAlias = tuple[bytes, int, int, int, int, int, int, int, int]
Rule: TypeAlias = "tuple[int, tuple[Spec, ...], tuple[tuple[bytes, Rule], ...]]"
ServerSpec: TypeAlias = tuple[Sequence[str], Sequence[Any], Sequence[Any]]

UNKNOWN: Rule = (FORMS["unknown"], (), ())
NONE: Rule = (FORMS["none"], (), ())
ANY: Rule = (FORMS["any"], (), ())
LARGEST = 32767
WRITES = {"RW", "OW", "RM"}

# The flags of a command that matter to its rule.
KEY_FLAGS = frozenset(("readonly", "write", "module", "movablekeys", "no_mandatory_keys"))


def _own(find: str) -> Spec:
    return (b"", 1, FINDS[find], SPEC_WRITES, 0, 1, 0, 0, 0)


_READ_KEY: Spec = (b"", 1, FINDS["range"], 0, 0, 1, 0, 0, 0)

# What the server itself finds by code, since specifications can't say it. BY and GET patterns of
# SORT name keys only once the sorted elements are known: they are read, never written.
OWN: dict[str, Rule] = {
    "sort": (FORMS["specs"], (_READ_KEY, _own("sort_store")), ()),
    "sort_ro": (FORMS["one"], (), ()),
    "georadius": (FORMS["specs"], (_READ_KEY, _own("geo_store")), ()),
    "georadiusbymember": (FORMS["specs"], (_READ_KEY, _own("geo_store")), ()),
    "migrate": (FORMS["specs"], (_own("migrate"),), ()),
}

# Not flagged as writing, but they may exchange the whole data set.
REPLACING = ("debug", "replicaof", "slaveof")

# Their subcommands write, but no keys.
KEYLESS = ("function", "script")


@dataclass(frozen=True, slots=True)
class Described:
    """What a server says of a command; `specs` is None when it is too old to tell its keys."""

    name: str
    flags: frozenset[str]
    legacy: tuple[int, int, int]
    specs: Sequence[ServerSpec] | None
    subcommands: Sequence[Described] = ()
    arity: int = 0  # 0: not known


def rule_of(command: Described) -> Rule | None:
    """The rule for a command's keys; None: keep what is known of it."""
    module = "module" in command.flags
    if command.name in REPLACING:
        return ANY
    if command.name in OWN and not module:
        return OWN[command.name]
    if command.specs is None:
        return _legacy_rule(command)
    if command.subcommands:
        return _container_rule(command)
    return _specs_rule(command)


def _container_rule(command: Described) -> Rule:
    if command.specs:
        return UNKNOWN
    rules = {}
    for sub in command.subcommands:
        rule = _specs_rule(sub)
        if rule == ANY and command.name in KEYLESS:
            rule = NONE
        rules[sub.name.encode("latin-1")] = rule
    if all(rule == NONE for rule in rules.values()) and "module" not in command.flags:
        return NONE
    if len(rules) > 255 or any(len(name) > LONGEST_SUBCOMMAND for name in rules):
        return UNKNOWN
    return (FORMS["container"], (), tuple(sorted(rules.items())))


def _specs_rule(command: Described) -> Rule:
    flags = command.flags
    specs = [s for s in command.specs or () if "not_key" not in s[0]]
    if "module" in flags and ("movablekeys" in flags or not specs):
        return UNKNOWN
    if not specs:
        named = bool(command.specs)  # they name something else: channels
        return ANY if "write" in flags and not named else NONE
    compiled = [_compile(spec, flags) for spec in specs]
    found = tuple(spec for spec in compiled if spec is not None)
    if len(found) != len(compiled):
        return UNKNOWN
    return _shortest(found)


def _shortest(specs: tuple[Spec, ...]) -> Rule:
    """Rules for what is commonest are short, so that it is found fast."""
    if len(specs) > MOST_SPECS:
        return UNKNOWN
    writes = FORMS["writes"] if specs[0][3] & SPEC_WRITES else 0
    if specs == (_range(1, 0, 1, 0, bool(writes)),):
        return (FORMS["one"] | writes, (), ())
    if specs == (_range(1, -1, 1, 0, bool(writes)),):
        return (FORMS["rest"] | writes, (), ())
    return (FORMS["specs"], specs, ())


def _range(at: int, last: int, step: int, limit: int, writes: bool, keyword: bytes = b"") -> Spec:
    return (keyword, at, FINDS["range"], SPEC_WRITES * writes, last, step, limit, 0, 0)


def _compile(spec: ServerSpec, command_flags: Iterable[str]) -> Spec | None:
    """One specification; None when it can't tell where the keys are."""
    flags, begin, find = spec
    writes = bool(WRITES.intersection(flags))
    if "readonly" not in command_flags and ("RO" not in flags or "module" in command_flags):
        writes = True
    if "incomplete" in flags or not all(_fits(v) for v in (*begin[1:], *find[1:])):
        return None
    keyword, at = b"", begin[-1] if len(begin) > 1 else 0
    if begin[0] == "keyword":
        keyword = begin[1].lower().encode("latin-1")
    if begin[0] not in ("index", "keyword") or at < 1 or len(keyword) > LONGEST_KEYWORD:
        return None
    if find[0] == "range":
        last, step, limit = find[1:]
        if step < 1 or (limit > 1 and last != -1):
            return None
        return _range(at, last, step, limit if limit > 1 else 0, writes, keyword)
    if find[0] == "keynum":
        count_at, first, step = find[1:]
        if step < 1 or count_at < 0 or first < 0:
            return None
        bits = SPEC_WRITES * writes | SPEC_OPTIONAL * ("no_mandatory_keys" in command_flags)
        return (keyword, at, FINDS["keynum"], bits, 0, step, 0, count_at, first)
    return None


def _fits(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, int) and abs(value) <= LARGEST)


def _legacy_rule(command: Described) -> Rule | None:
    """From the first key, the last and the step alone."""
    first, last, step = command.legacy
    if "movablekeys" in command.flags:
        return UNKNOWN if "module" in command.flags else None
    if first == 0:
        return _specs_rule(Described(command.name, command.flags, command.legacy, ()))
    access = ["RO"] if "readonly" in command.flags else ["RW"]
    relative = last - first if last >= 0 else last
    spec: ServerSpec = (access, ("index", first), ("range", relative, step, 0))
    return _specs_rule(Described(command.name, command.flags, command.legacy, [spec]))


# Reading COMMAND's reply


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _fields(value: Any) -> dict[str, Any]:
    """A map of RESP3, or what RESP2 has instead."""
    if not isinstance(value, Mapping):
        value = dict(zip(value[::2], value[1::2], strict=False))
    return {_text(key): field for key, field in value.items()}


# What each kind of search says, in the order in which ServerSpec has it.
_SEARCHES = {
    "index": ("index",), "keyword": ("keyword", "startfrom"),
    "range": ("lastkey", "keystep", "limit"), "keynum": ("keynumidx", "firstkey", "keystep"),
}  # fmt: skip


def _search(value: Any) -> tuple[Any, ...]:
    """("index", 1), ("keyword", "STREAMS", 1), ("range", -1, 1, 2), ("keynum", 0, 1, 1)."""
    fields = _fields(value)
    kind, says = _text(fields["type"]), _fields(fields["spec"])
    if kind not in _SEARCHES:
        return ("unknown",)
    found = [says[field] for field in _SEARCHES[kind]]
    return (kind, *(v if isinstance(v, int) else _text(v) for v in found))


def server_spec(value: Any) -> ServerSpec:
    """One specification of COMMAND's reply."""
    fields = _fields(value)
    flags = sorted(_text(flag) for flag in fields["flags"])
    return flags, _search(fields["begin_search"]), _search(fields["find_keys"])


def describe(entry: Sequence[Any]) -> Described:
    """One entry of COMMAND's reply, or one of its subcommands."""
    name = _text(entry[0]).lower()
    flags = frozenset(_text(flag).lower() for flag in entry[2])
    legacy = (int(entry[3]), int(entry[4]), int(entry[5]))
    arity = max(-LARGEST - 1, min(LARGEST, int(entry[1])))
    if len(entry) < 10:
        return Described(name, flags, legacy, None, (), arity)
    specs = [server_spec(spec) for spec in entry[8]]
    subcommands = [describe(sub) for sub in entry[9]]
    return Described(name.rpartition("|")[2], flags, legacy, specs, subcommands, arity)
