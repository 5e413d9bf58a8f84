"""The command table: names are found whatever their case, and unknown ones are safe."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core.protocol.commands import (
    CACHEABLE,
    CACHEABLE_EACH,
    FORMS,
    READ,
    ROUTES,
    CommandTable,
)
from tests.native.shell import table

ROW = (ROUTES["shared"], READ, 1, 2, (FORMS["one"], (), ()), ())
NAMES = st.binary(min_size=1, max_size=60)


def small() -> CommandTable:
    return CommandTable(7, ["other", "string"])


def test_a_row_comes_back() -> None:
    commands = small()
    commands.update({b"get": ROW})
    assert commands.lookup(b"GeT") == {
        "name": b"get",
        "route": ROUTES["shared"],
        "flags": READ,
        "family": "string",
        "arity": 2,
        "keys": FORMS["one"],
        "subcommands": (),
    }
    assert commands.name(1) == "get"
    assert commands.count == 2


def test_unknown_names() -> None:
    commands = small()
    assert commands.lookup(b"get") is None
    assert commands.lookup(b"") is None
    assert commands.lookup(b"x" * 1000) is None
    assert commands.name(0) == commands.name(5) == commands.name(-1) == "unknown"


def test_an_update_keeps_the_row() -> None:
    commands = small()
    commands.update({b"get": ROW, b"set": ROW})
    commands.update({b"GET": (ROUTES["blocking"], 0, 0, 3, None, ())})
    assert commands.count == 3
    assert commands.name(1) == "get"
    assert commands.lookup(b"get")["route"] == ROUTES["blocking"]
    assert commands.lookup(b"get")["keys"] == FORMS["one"]
    commands.update({b"new": (ROUTES["blocking"], 0, 0, 3, None, ())})
    assert commands.lookup(b"new")["keys"] == FORMS["unknown"]


def test_routes_of_subcommands_come_back_until_they_are_changed() -> None:
    commands = small()
    routes = ((b"kill", ROUTES["session"], 2), (b"debug", ROUTES["pin"], 3))
    commands.update({b"script": (*ROW[:5], routes)})
    assert commands.lookup(b"script")["subcommands"] == routes
    commands.update({b"script": (*ROW[:4], None, ())})
    assert commands.lookup(b"script")["subcommands"] == routes
    commands.update({b"script": ROW})
    assert commands.lookup(b"script")["subcommands"] == ()


@pytest.mark.parametrize("routes", [((b"x", 0, 2),) * 5, ((b"x" * 29, 0, 2),)])
def test_too_many_or_too_long_subcommands_are_an_error(routes: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="subcommand"):
        small().update({b"script": (*ROW[:5], routes)})


def test_names_too_long_and_rows_too_many_are_left_out() -> None:
    commands = small()
    commands.update({b"x" * 47: ROW, b"y" * 46: ROW})
    assert commands.lookup(b"x" * 47) is None
    assert commands.lookup(b"y" * 46) is not None
    commands.update({b"c%d" % i: ROW for i in range(3000)})
    assert commands.count == 2048
    assert commands.lookup(b"c2000") is not None
    assert commands.lookup(b"c2999") is None


def test_every_bit_of_the_flags_is_kept() -> None:
    commands = small()
    for bit in range(16):
        commands.update({b"get": (ROUTES["shared"], 1 << bit, 1, 2, None, ())})
        assert commands.lookup(b"get")["flags"] == 1 << bit


@given(st.lists(NAMES, max_size=60), st.integers(0, 2**32 - 1), NAMES)
@settings(max_examples=60)
def test_the_table_is_a_mapping(names: list[bytes], seed: int, other: bytes) -> None:
    commands = CommandTable(seed, ["other", "string"])
    commands.update(dict.fromkeys(names, ROW))
    known = {name.lower() for name in names if len(name) < 47}
    assert commands.count == len(known) + 1
    for name in [*names, other, *(name.upper() for name in names)]:
        assert (commands.lookup(name) is not None) == (name.lower() in known)


def test_what_ships() -> None:
    shipped = table()
    routes = {number: name for name, number in ROUTES.items()}
    found = {
        name: routes[shipped.lookup(name)["route"]]
        for name in (
            b"get",
            b"multi",
            b"blpop",
            b"subscribe",
            b"xread",
            b"auth",
            b"select",
            b"script",
            b"debug",
            b"wait",
        )
    }
    assert found == {
        b"get": "shared",
        b"multi": "multi",
        b"blpop": "blocking",
        b"subscribe": "pin",
        b"xread": "maybe_blocking",
        b"auth": "auth",
        b"select": "session",
        b"script": "scripts",
        b"debug": "once",
        b"wait": "wait",
    }
    assert shipped.lookup(b"get")["flags"] & READ
    assert not shipped.lookup(b"set")["flags"] & READ
    assert not shipped.lookup(b"publish")["flags"] & READ
    assert shipped.lookup(b"get")["flags"] & CACHEABLE
    assert not shipped.lookup(b"mget")["flags"] & CACHEABLE
    assert shipped.lookup(b"mget")["flags"] & CACHEABLE_EACH
