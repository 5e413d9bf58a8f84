"""The trace context in a client name (sidecar/policy/trace_context.py)."""

from __future__ import annotations

import pytest

from sidecar.policy.trace_context import TraceContext, of_name, parse

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("flags", "sampled"), [("00", False), ("01", True), ("02", False), ("03", True), ("ff", True)]
)
def test_well_formed(flags: str, sampled: bool) -> None:
    found = of_name(f"tp:00-{TRACE}-{SPAN}-{flags}".encode())
    assert found == TraceContext(bytes.fromhex(TRACE), bytes.fromhex(SPAN), sampled)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01-",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01 ",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN[:-1]}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"0x-{TRACE}-{SPAN}-01",
    ],
)
def test_malformed(text: str) -> None:
    assert parse(text.encode()) is None


def test_later_versions_may_say_more() -> None:
    assert parse(f"01-{TRACE}-{SPAN}-01-more".encode()) == parse(f"00-{TRACE}-{SPAN}-01".encode())


@pytest.mark.parametrize(
    "name", [b"", b"worker", b"fresh", b"tp", f"00-{TRACE}-{SPAN}-01".encode()]
)
def test_ordinary_names(name: bytes) -> None:
    assert of_name(name) is None
