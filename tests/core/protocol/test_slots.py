"""Which slot a key has: against the specification's vector, and redis-py's own implementation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from sidecar.core.protocol.slots import slot


def test_the_vector_of_the_specification() -> None:
    assert slot(b"123456789") == 0x31C3


@pytest.mark.parametrize(
    ("key", "same_as"),
    [
        (b"{user}.following", b"user"),
        (b"a{user}b", b"user"),
        (b"foo{{bar}}zap", b"{bar"),
        (b"foo{bar}{zap}", b"bar"),
    ],
)
def test_only_what_stands_in_braces_counts(key: bytes, same_as: bytes) -> None:
    assert slot(key) == slot(same_as)


@pytest.mark.parametrize("key", [b"foo{}{bar}", b"foo{bar", b"foo}bar{", b"{", b"{}", b"", b"}{"])
def test_braces_that_do_not_count(key: bytes) -> None:
    assert slot(key) == key_slot(key)


@given(st.binary(max_size=40) | st.text("{}ab", max_size=12).map(str.encode))
def test_any_key(key: bytes) -> None:
    assert slot(key) == key_slot(key)
