"""HELLO's reply: whose connection id it tells, and which server's version."""

from __future__ import annotations

import pytest

from sidecar.policy.server_version import ServerVersion
from sidecar.proxy.links.hello_reply import server_id, version_of, with_id

RESP2 = b"*4\r\n$6\r\nserver\r\n$5\r\nredis\r\n$2\r\nid\r\n:42\r\n"
RESP3 = b"%2\r\n$2\r\nid\r\n:7\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n"


@pytest.mark.parametrize(("reply", "number"), [(RESP2, 42), (RESP3, 7), (b"+OK\r\n", 0), (None, 0)])
def test_the_server_s_id(reply: bytes | None, number: int) -> None:
    assert server_id(reply) == number


@pytest.mark.parametrize("reply", [RESP2, RESP3])
def test_only_the_id_is_replaced(reply: bytes) -> None:
    told = with_id(reply, 1 << 40)
    assert server_id(told) == 1 << 40
    assert with_id(told, server_id(reply)) == reply


def test_a_reply_without_an_id_stays() -> None:
    assert with_id(b"-NOPROTO no\r\n", 5) == b"-NOPROTO no\r\n"


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (
            b"*4\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n",
            ("redis", "7.0.15"),
        ),
        (b"%1\r\n$6\r\nserver\r\n$6\r\nvalkey\r\n", ("valkey", "")),
        (b"-NOPROTO no\r\n", ("", "")),
        (None, ("", "")),
    ],
)
def test_name_and_version(reply: bytes | None, expected: tuple[str, str]) -> None:
    assert version_of(reply) == ServerVersion(*expected)
