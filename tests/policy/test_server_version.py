"""What each server's version says of it."""

from __future__ import annotations

import pytest

from sidecar.policy.server_version import ServerVersion, told_by_info


@pytest.mark.parametrize(
    ("name", "version", "expected"),
    [
        ("redis", "6.2.14", "words"),
        ("redis", "7.0.15", "tracks words"),
        ("redis", "7.2.0", "tracks"),
        ("redis", "10.0.0", "tracks"),
        ("redis", "unstable", ""),
        ("valkey", "7.2.4", "tracks adds"),
        ("valkey", "8.1.0", "tracks adds"),
        ("valkey", "9.0.0", "tracks adds once joins"),
        ("valkey", "10.1.0", "tracks adds once joins"),
        ("valkey", "", "tracks adds"),
        ("keydb", "9.0.0", "tracks"),
        ("", "9.0.0", ""),
    ],
)
def test_facts(name: str, version: str, expected: str) -> None:
    server = ServerVersion(name, version)
    facts = {
        "tracks": server.can_track,
        "adds": server.adds_ids_up,
        "once": server.lists_ids_once,
        "joins": server.joins_quotes,
        "words": server.reads_hello_by_word,
    }
    assert " ".join(word for word, so in facts.items() if so) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"redis_version": "7.2.4", "valkey_version": "9.1.2"}, ("valkey", "9.1.2")),
        ({"redis_version": "7.2.4"}, ("redis", "7.2.4")),
        ({}, ("", "")),
    ],
)
def test_info(fields: dict[str, str], expected: tuple[str, str]) -> None:
    assert told_by_info(fields) == ServerVersion(*expected)
