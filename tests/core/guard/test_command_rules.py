"""What a policy allows: by command, subcommand and key, however a request is written."""

from __future__ import annotations

import pytest

from sidecar.core.guard.command_rules import Policy
from tests.native.shell import request, table


def judged(policy: Policy, *args: str) -> str:
    return policy.judge(request(*args))


@pytest.fixture
def policy() -> Policy:
    return Policy(table())


def test_commands(policy: Policy) -> None:
    policy.put([b"KEYS", b"no-such-command"], {})
    assert judged(policy, "KEYS", "*") == judged(policy, "kEYs", "*") == "denied"
    assert judged(policy, "NO-such-COMMAND") == "denied"
    assert judged(policy, "another") == judged(policy, "GET", "k") == "allowed"


def test_what_is_put_again_takes_the_place_of_the_rules_before(policy: Policy) -> None:
    policy.put([b"keys"], {b"config": {b"set": True}}, deny_keys=[b"a"])
    policy.put([b"get"], {})
    assert judged(policy, "KEYS", "*") == judged(policy, "CONFIG", "SET", "a", "b") == "allowed"
    assert judged(policy, "SET", "a", "b") == "allowed"
    assert judged(policy, "GET", "k") == "denied"


@pytest.mark.parametrize("others", [False, True])
def test_subcommands(policy: Policy, others: bool) -> None:
    policy.put([], {b"config": {b"set": True, b"get": False, b"": others}})
    assert judged(policy, "CONFIG", "sEt", "a", "b") == "denied"
    assert judged(policy, "CONFIG", "GET", "a") == "allowed"
    assert judged(policy, "CONFIG", "SETS") == ("denied" if others else "allowed")
    assert judged(policy, "CONFIG") == "allowed"  # the server says what it lacks
    assert judged(policy, "CLIENT", "SET") == "allowed"


def test_unknown_commands(policy: Policy) -> None:
    policy.put([], {}, unknown_denied=True)
    assert judged(policy, "NOSUCH") == "denied"
    assert judged(policy, "GET", "k") == "allowed"


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        ("GET secret:1", "denied key"),
        ("GET SECRET:1", "allowed"),
        ("MGET a secret:1", "denied key"),
        ("SET a secret:1", "allowed"),
        ("PING", "allowed"),
        ("KEYS secret:*", "allowed"),
        ("FLUSHALL", "denied key"),
        ("EVAL x 1 secret:1", "denied key"),
        ("EVAL x 1 a secret:1", "allowed"),
        ("EVAL x 0", "denied key"),
        ("NOSUCH a", "denied key"),
        ("SORT a", "allowed"),
        ("SORT a BY w_*", "denied key"),
        ("SORT a GET #", "denied key"),
        ("SORT_RO a get x*", "denied key"),
        ("SORT a STORE secret:1", "denied key"),
        ("SORT a STORE by", "allowed"),
        ("SORT a STORE get BY w_*", "denied key"),
        ("XREAD STREAMS a secret:1 0 0", "denied key"),
        ("OBJECT ENCODING secret:1", "denied key"),
        ("COPY a secret:1", "denied key"),
        ("GET", "denied key"),
    ],
)
def test_keys(policy: Policy, line: str, verdict: str) -> None:
    policy.put([], {}, deny_keys=[b"secret:*", b"another"])
    assert judged(policy, *line.split()) == verdict


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        ("GET config:1", "allowed"),
        ("SET config:1 x", "denied key"),
        ("COPY config:1 a", "allowed"),
        ("COPY a config:1", "denied key"),
        ("EVAL x 0", "denied key"),
        ("EVAL_RO x 0", "allowed"),
        ("FLUSHDB", "denied key"),
        ("DEL a config:1", "denied key"),
    ],
)
def test_read_only_keys(policy: Policy, line: str, verdict: str) -> None:
    policy.put([], {}, read_only_keys=[b"config:*"])
    assert judged(policy, *line.split()) == verdict


def test_more_keys_than_are_looked_at_without_memory(policy: Policy) -> None:
    policy.put([], {}, deny_keys=[b"secret:*"])
    many = [f"k{i}" for i in range(1000)]
    assert judged(policy, "DEL", *many) == "allowed"
    assert judged(policy, "DEL", *many, "secret:1") == "denied key"
