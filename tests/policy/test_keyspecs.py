"""What becomes of the server's key specifications."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.core.protocol.commands import FINDS, FORMS, SPEC_OPTIONAL, SPEC_WRITES
from sidecar.policy.routing import rows_from_command

ONE, UNKNOWN, NONE, ANY = ((FORMS[form], (), ()) for form in ("one", "unknown", "none", "any"))
ONE_WRITTEN = (FORMS["one"] | FORMS["writes"], (), ())


def spec(flags: str, begin: list[Any], find: list[Any]) -> list[Any]:
    """A key specification in the form that COMMAND has in RESP2."""
    names = {
        "index": ["index"],
        "keyword": ["keyword", "startfrom"],
        "range": ["lastkey", "keystep", "limit"],
        "keynum": ["keynumidx", "firstkey", "keystep"],
        "unknown": [],
    }

    def search(kind: str, *values: Any) -> list[Any]:
        pairs = zip(names[kind], values, strict=True)
        return ["type", kind, "spec", [item for pair in pairs for item in pair]]

    parts = ["begin_search", search(*begin), "find_keys", search(*find)]
    return ["notes", "whatever", "flags", flags.split(), *parts]


def rule(flags: str, *specs: list[Any], name: str = "x", subs: list[Any] | None = None) -> Any:
    entry = [name, -2, flags.split(), 1, 1, 1, [], [], list(specs), subs or []]
    return rows_from_command([entry])[name.encode()][4]


FIRST = ["range", 0, 1, 0]
AT_1 = spec("RO access", ["index", 1], FIRST)


def test_the_commonest_rules_are_short() -> None:
    assert rule("readonly", AT_1) == ONE
    assert rule("write", spec("OW", ["index", 1], FIRST)) == ONE_WRITTEN
    every = spec("RM delete", ["index", 1], ["range", -1, 1, 0])
    assert rule("write", every) == (FORMS["rest"] | FORMS["writes"], (), ())
    assert rule("fast") == NONE
    assert rule("write") == ANY
    assert rule("", spec("not_key", ["index", 1], FIRST)) == NONE
    assert rule("write", spec("not_key", ["index", 1], FIRST)) == NONE


def test_specifications_become_rules() -> None:
    streams = spec("RO", ["keyword", "STREAMS", 1], ["range", -1, 1, 2])
    assert rule("readonly", streams)[1] == ((b"streams", 1, FINDS["range"], 0, -1, 1, 2, 0, 0),)
    counted = spec("OW", ["index", 2], ["keynum", 0, 1, 2])
    found = (b"", 2, FINDS["keynum"], SPEC_WRITES, 0, 2, 0, 0, 1)
    assert rule("write", counted) == (FORMS["specs"], (found,), ())
    optional = rule("write no_mandatory_keys", counted)[1][0]
    assert optional[3] == SPEC_WRITES | SPEC_OPTIONAL


def test_what_counts_as_written() -> None:
    """What the specification says; the command's flags when that says nothing, or is a module's."""
    unsaid = spec("access", ["index", 1], FIRST)
    assert rule("write", AT_1) == rule("", AT_1) == rule("readonly", unsaid) == ONE
    assert rule("write", unsaid) == rule("", unsaid) == ONE_WRITTEN
    assert rule("readonly", spec("RW access", ["index", 1], FIRST)) == ONE_WRITTEN
    assert rule("module write", AT_1) == ONE_WRITTEN
    assert rule("module readonly", AT_1) == ONE


@pytest.mark.parametrize(
    "bad",
    [
        spec("RW incomplete", ["index", 1], FIRST),
        spec("RO", ["unknown"], FIRST),
        spec("RO", ["index", 1], ["unknown"]),
        spec("RO", ["index", 0], FIRST),
        spec("RO", ["index", 40000], FIRST),
        spec("RO", ["keyword", "KEYS", -2], FIRST),
        spec("RO", ["keyword", "MORETHANTWELVE", 1], FIRST),
        spec("RO", ["index", 1], ["range", 0, 0, 0]),
        spec("RO", ["index", 1], ["range", -2, 1, 2]),
        spec("RO", ["index", 1], ["keynum", -1, 1, 1]),
        spec("RO", ["index", 1], ["keynum", 0, 1, 0]),
    ],
)
def test_what_can_not_be_followed_is_unknown(bad: list[Any]) -> None:
    assert rule("readonly", bad) == rule("readonly", AT_1, bad) == UNKNOWN


def test_too_many_specifications_and_modules_with_their_own_ways() -> None:
    many = [spec("RO", ["index", 2 * i + 1], FIRST) for i in range(5)]
    assert len(rule("readonly", *many[:4])[1]) == 4
    assert rule("readonly", *many) == UNKNOWN
    assert rule("readonly module movablekeys", AT_1) == rule("module readonly") == UNKNOWN
    # What is ours by name is not a module's.
    assert rule("write", name="sort")[0] == FORMS["specs"]
    assert rule("write module", name="sort") == UNKNOWN
    assert rule("admin", name="debug") == ANY


def test_containers_keep_their_subcommands_apart() -> None:
    def sub(name: str, flags: str, *specs: list[Any]) -> list[Any]:
        return [name, -2, flags.split(), 0, 0, 0, [], [], list(specs), []]

    subs = [sub("x|set", "write", spec("RW", ["index", 2], FIRST)), sub("x|help", "fast")]
    at_2 = (b"", 2, FINDS["range"], SPEC_WRITES, 0, 1, 0, 0, 0)
    inner = ((b"help", NONE), (b"set", (FORMS["specs"], (at_2,), ())))
    assert rule("", subs=subs) == (FORMS["container"], (), inner)
    assert rule("", subs=[sub("x|help", "fast")]) == NONE
    assert rule("", subs=[sub("x|wipe", "write")])[2] == ((b"wipe", ANY),)
    assert rule("", name="function", subs=[sub("function|flush", "write")]) == NONE
    assert rule("", subs=[sub("x|" + "y" * 29, "write")]) == UNKNOWN
    assert rule("module", subs=[sub("x|set", "module")])[2] == ((b"set", UNKNOWN),)


def test_servers_without_specifications() -> None:
    def old(name: str, flags: str, *keys: int) -> Any:
        return rows_from_command([[name, -2, flags.split(), *keys, []]])[name.encode()][4]

    assert old("get", "readonly", 1, 1, 1) == ONE
    assert old("mget", "readonly", 1, -1, 1) == (FORMS["rest"], (), ())
    assert old("rename", "write", 1, 2, 1)[1][0][3:5] == (SPEC_WRITES, 1)
    assert old("mset", "write", 1, -1, 2)[1][0][4:6] == (-1, 2)
    assert old("object", "readonly", 2, 2, 1)[1][0][1] == 2
    assert old("ping", "fast", 0, 0, 0) == NONE
    assert old("flushall", "write", 0, 0, 0) == ANY
    assert old("m.get", "readonly module", 0, 0, 0) == UNKNOWN
    assert old("m.get", "readonly module movablekeys", 1, 1, 1) == UNKNOWN
    # The table keeps what it knows.
    assert old("eval", "movablekeys", 0, 0, 0) is None
