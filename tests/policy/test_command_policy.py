"""Command policies: what they deny by the server's own categories and flags."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest

from sidecar.policy.command_policy import (
    PRODUCTION,
    Known,
    catalogue_from_command,
    catalogue_from_data,
    compiled,
    unknown_rules,
)
from sidecar.settings.sections.principals import CommandPolicy
from tests.harness.servers import HAVE_REDIS7, Server, redis7, valkey
from tests.harness.wire import Wire


@pytest.fixture(scope="module", params=["valkey", "redis7"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    if request.param == "redis7" and not HAVE_REDIS7:
        pytest.skip("Redis 7 is not installed")
    with valkey() if request.param == "valkey" else redis7() as running:
        yield running


@pytest.fixture(scope="module")
def commands(server: Server) -> list[Any]:
    with Wire(server.port) as wire:
        found: list[Any] = wire.call("COMMAND", text=False)
        return found


@pytest.fixture(scope="module")
def catalogue(commands: list[Any]) -> dict[str, Known]:
    return catalogue_from_command(commands)


def denied(policy: CommandPolicy, catalogue: dict[str, Known]) -> set[str]:
    """All commands and subcommands that a policy denies."""
    rules = compiled(policy, catalogue)
    found = {name.decode() for name in rules.denied}
    for name, subs in rules.subcommands.items():
        found |= {f"{name.decode()}|{sub.decode()}" for sub, no in subs.items() if no and sub}
    return found


@pytest.mark.parametrize("category", ["dangerous", "admin", "write", "scripting", "keyspace"])
def test_a_category_has_what_the_server_says(
    server: Server, catalogue: dict[str, Known], category: str
) -> None:
    with Wire(server.port) as wire:
        names = set(wire.call("ACL", "CAT", category))
    # Of a command with subcommands these are what counts.
    names = {name for name in names if not getattr(catalogue.get(name), "subcommands", None)}
    assert denied(CommandPolicy(deny=(f"@{category}",)), catalogue) == names


def test_a_category_denies_what_is_not_known(catalogue: dict[str, Known]) -> None:
    rules = compiled(CommandPolicy(deny=("@dangerous",)), catalogue)
    assert rules.unknown_denied
    assert rules.subcommands[b"config"][b""]
    assert not compiled(CommandPolicy(deny=("KEYS",)), catalogue).unknown_denied


def test_a_subcommand_leaves_the_others(catalogue: dict[str, Known]) -> None:
    rules = compiled(CommandPolicy(deny=("CONFIG|SET",)), catalogue)
    assert [sub for sub, no in rules.subcommands[b"config"].items() if no] == [b"set"]


def test_before_redis_7_subcommands_are_not_told() -> None:
    old = {"config": Known(frozenset(), frozenset({"admin", "dangerous"}))}
    pair = compiled(CommandPolicy(deny=("CONFIG|SET",)), old)
    assert pair.subcommands[b"config"] == {b"": False, b"set": True}
    whole = compiled(CommandPolicy(deny=("@dangerous",)), old)
    assert whole.denied == [b"config"]


def test_until_the_server_has_spoken_a_category_denies_containers_whole() -> None:
    data = json.loads(files("sidecar.policy").joinpath("commands.json").read_text())
    found = denied(CommandPolicy(deny=("@dangerous",)), catalogue_from_data(data))
    assert {"config", "acl", "keys", "flushall"} <= found
    assert not {"get", "set", "config|get"} & found


def test_read_only(catalogue: dict[str, Known]) -> None:
    found = denied(CommandPolicy(read_only=True), catalogue)
    assert {"set", "flushall", "eval", "xgroup|create", "debug", "getex", "migrate"} <= found
    assert not found & {
        "get", "multi", "exec", "watch", "ping", "auth", "eval_ro", "pfcount", "publish",
        "subscribe", "config|get", "select", "hello", "client|setname", "wait", "script|load",
    }  # fmt: skip


def test_everything(catalogue: dict[str, Known]) -> None:
    found = denied(CommandPolicy(deny=("@all",)), catalogue)
    subcommands = {
        f"{name}|{sub}" for name, known in catalogue.items() for sub in known.subcommands
    }
    plain = {name for name, known in catalogue.items() if not known.subcommands}
    assert found == plain | subcommands


def test_rules_for_keys_deny_what_shows_all_of_them(catalogue: dict[str, Known]) -> None:
    found = denied(CommandPolicy(deny_keys=("secret:*",)), catalogue)
    assert {"monitor", "sync", "psync", "debug"} <= found


def test_production_names_what_servers_know(catalogue: dict[str, Known]) -> None:
    strange = set(unknown_rules(PRODUCTION, catalogue))
    assert strange <= {"CLUSTER|BUMPEPOCH", "SLAVEOF"}
    assert not denied(PRODUCTION, catalogue) & {"get", "scan", "config|get", "eval", "info"}


def test_typing_errors_are_found(catalogue: dict[str, Known]) -> None:
    policy = CommandPolicy(deny=("GTE", "CONFIG|SAT", "@dangerus", "GET", "@read", "CONFIG|GET"))
    assert list(unknown_rules(policy, catalogue)) == ["GTE", "CONFIG|SAT", "@dangerus"]
