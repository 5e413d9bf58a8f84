"""Addresses: `host:port` is split and joined without loss; the loopback is recognised."""

import pytest

from sidecar.settings.addresses import is_loopback, join_host_port, parse_host_port


def test_host_and_port_round_trip() -> None:
    for text in ("127.0.0.1:6381", "[::1]:6381", "localhost:0"):
        assert join_host_port(*parse_host_port(text)) == text
    with pytest.raises(ValueError, match="no port"):
        parse_host_port("127.0.0.1")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::1%lo", True),
        ("localhost", True),
        ("LOCALHOST.", True),
        ("0.0.0.0", False),
        ("::", False),
        ("localhost.example", False),
        ("redis.internal", False),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) == loopback
