"""Certificates that are read again: which parts take part, and that one that fails keeps all."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sidecar.app.reload import read_certificates
from sidecar.settings.load import load
from tests.harness.certificates import Authority


class Part:
    """Stands for a part, and notes what is asked of it."""

    uses_tls = True

    def __init__(self, fails: bool = False) -> None:
        self.done: list[str] = []
        self._fails = fails

    def reload_certificates(self, others: Callable[[], None]) -> None:
        others()
        self.done.append("proxy")

    def reload(self) -> None:
        if self._fails:
            raise ssl.SSLError("no certificate")
        self.done.append("admin")

    def use_context(self, context: ssl.SSLContext | None) -> None:
        assert context is not None
        self.done.append("sentinels")


def _settings(tmp_path: Path) -> Any:
    authority = Authority(tmp_path, "ca")
    url, ca = "rediss+sentinel://localhost:26379/mymaster", str(authority.cert_file)
    return load(None, {"upstream.url": url, "upstream.tls.ca_file": ca}, environ={})


def test_all_take_part(tmp_path: Path) -> None:
    part: Any = Part()
    assert read_certificates(_settings(tmp_path), part, part, part) == ["upstream.tls", "admin.tls"]
    assert part.done == ["admin", "sentinels", "proxy"]


def test_none_is_new_where_one_is_bad(tmp_path: Path) -> None:
    settings, part, bad = _settings(tmp_path), Part(), Part(fails=True)
    parts: Any = (part, part, bad)
    with pytest.raises(ssl.SSLError):
        read_certificates(settings, *parts)
    Path(settings.upstream.tls.ca_file).write_text("no certificate")
    parts = (part, part, part)
    with pytest.raises(ssl.SSLError):
        read_certificates(settings, *parts)
    assert part.done == []


def test_nothing_is_read_before_it_serves(tmp_path: Path) -> None:
    assert read_certificates(_settings(tmp_path), None, None, None) == []
