"""What a mistyped setting may have been meant to be."""

from __future__ import annotations

import pytest

from sidecar.settings.schema import describe
from sidecar.settings.suggestions import MOST, suggested

KNOWN = [row.path for row in describe()] + sorted({row.section for row in describe()})


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("max_value", ["cache.max_value"]),
        ("upstream.max_value", ["cache.max_value"]),
        ("limits.max_valeu", ["cache.max_value"]),
        ("cache.memmory", ["cache.memory"]),
        ("listn.urls", ["listen.urls"]),
        ("upstream.urls", ["upstream.url"]),
        ("upstream.tls_ca_file", ["upstream.tls.ca_file"]),
        ("listen.cert_file", ["listen.tls.cert_file"]),
        ("cach", ["cache"]),
        ("a.b", []),
        ("something.else", []),
    ],
)
def test_what_is_meant(written: str, meant: list[str]) -> None:
    assert list(suggested(written, KNOWN)) == meant


def test_where_several_are_as_likely() -> None:
    """A certificate of what? All of them are named."""
    every = suggested("cert_file", KNOWN)
    assert set(every) == {"listen.tls.cert_file", "upstream.tls.cert_file", "admin.tls.cert_file"}
    assert len(every) <= MOST
    assert set(suggested("upstream.hold", KNOWN)) == {"failover.hold", "warm.hold"}


def test_every_setting_is_found_without_its_section() -> None:
    for row in describe():
        endings = {each.rpartition(".")[2] for each in suggested(row.key, KNOWN)}
        assert row.key in endings
