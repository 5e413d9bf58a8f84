"""Counting instructions: each scenario does what its name says. Nothing is counted here."""

from __future__ import annotations

import pytest

from bench import instructions
from bench.instructions import BATCH, SCENARIOS
from tests.harness.errors import Unavailable


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_client_gets_its_replies(name: str) -> None:
    how, requests, replies, commands = SCENARIOS[name]
    got = how(requests, replies)
    assert requests.count(b"\r\n*") + 1 == commands
    assert got == (replies or instructions.BULK) * BATCH


def test_without_valgrind_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Unavailable, match="valgrind"):
        instructions.main([])
