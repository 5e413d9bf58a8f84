"""Patterns of keys mean what they mean to the server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core.protocol.glob import matches
from tests.harness.servers import valkey
from tests.harness.wire import Wire

ALPHABET = b"ab*?[]^-\\"
TEXTS = st.lists(st.sampled_from([ALPHABET[i : i + 1] for i in range(len(ALPHABET))])).map(b"".join)


@pytest.fixture(scope="module")
def server() -> Iterator[Wire]:
    with valkey() as running, Wire(running.port) as client:
        yield client


@pytest.mark.parametrize(
    ("pattern", "key", "fits"),
    [
        (b"", b"", True),
        (b"*", b"", True),
        (b"shop:*", b"shop:", True),
        (b"shop:*", b"shoP:x", False),
        (b"a*b*c", b"axbxbxc", True),
        (b"a*b*c", b"axbxbx", False),
        (b"[^a]", b"a", False),
        (b"[b-a]", b"a", True),
        (b"[a-", b"a", True),
        (b"\\*", b"*", True),
        (b"\\*", b"a", False),
        (b"a\\", b"a\\", True),
        (b"?", b"", False),
        (b"\xff*", b"\xff\x00", True),
    ],
)
def test_what_fits(pattern: bytes, key: bytes, fits: bool) -> None:
    assert matches(pattern, key) is fits


@settings(max_examples=500, deadline=None)
@given(pattern=TEXTS, key=TEXTS.filter(bool))
def test_as_the_server_finds_it(server: Wire, pattern: bytes, key: bytes) -> None:
    server.call("FLUSHALL")
    server.call("SET", key, "x")
    assert matches(pattern, key) is bool(server.call("KEYS", pattern))


def test_stars_do_not_take_for_ever() -> None:
    assert not matches(b"*a" * 200 + b"b", b"a" * 20000)
