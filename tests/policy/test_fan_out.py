"""Each command without keys has a rule."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sidecar.policy import routing
from sidecar.policy.fan_out import RULES, Merge, Rule, Where, rule_of

SHIPPED = json.loads((Path(routing.__file__).parent / "commands.json").read_text())
# The subcommands that name a key have it; the others stand in the table.
KEYLESS = [
    name for name, (_, _, first, _, _, _, specs, _) in SHIPPED.items() if not first + len(specs)
]


@pytest.mark.parametrize("name", [*KEYLESS, *routing.OWN_ROUTE])
def test_every_shipped_command_without_keys_has_a_rule(name: str) -> None:
    assert name in RULES


def test_names_are_those_of_commands() -> None:
    """In lower case; whatever has subcommands has a rule for those that are not known."""
    for name in RULES:
        command, _, subcommand = name.partition("|")
        assert name == name.lower()
        assert not subcommand or command in RULES
        assert command in SHIPPED or command in routing.OWN_ROUTE


def test_only_what_goes_to_all_is_merged() -> None:
    assert all(rule.where is Where.ALL or rule.merge is Merge.FIRST for rule in RULES.values())
    used = {rule.merge for rule in RULES.values()}
    assert used == set(Merge)


@pytest.mark.parametrize(
    ("name", "subcommand", "rule"),
    [
        ("dbsize", "", Rule(Where.ALL, Merge.SUM)),
        ("ping", "load", Rule(Where.ANY)),
        ("script", "load", Rule(Where.ALL)),
        ("script", "nonsense", Rule(Where.ANY)),
        ("client", "nonsense", Rule(Where.SHELL)),
        ("cluster", "slots", Rule(Where.SHELL)),
        ("cluster", "meet", Rule(Where.REFUSED)),
        ("never.heard", "", Rule(Where.ANY)),
    ],
)
def test_rules(name: str, subcommand: str, rule: Rule) -> None:
    assert rule_of(name, subcommand) == rule


@pytest.mark.parametrize(
    ("hints", "rule"),
    [
        ([], Rule(Where.ANY)),
        (["nondeterministic_output"], Rule(Where.ANY)),
        (["request_policy:multi_shard", "response_policy:agg_sum"], Rule(Where.ANY)),
        (["request_policy:all_shards"], Rule(Where.ALL, Merge.CONCAT)),
        (["request_policy:all_nodes", "response_policy:agg_sum"], Rule(Where.ALL, Merge.SUM)),
        (["request_policy:all_shards", "response_policy:special"], Rule(Where.ALL)),
    ],
)
def test_what_is_not_known_goes_by_the_servers_hints(hints: list[str], rule: Rule) -> None:
    assert rule_of("module.command", "", hints) == rule


def test_hints_do_not_count_where_there_is_a_rule() -> None:
    assert rule_of("ping", "", ["request_policy:all_shards"]) == Rule(Where.ANY)
