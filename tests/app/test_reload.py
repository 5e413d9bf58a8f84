"""Certificates that are read again: which parts take part, and that one that fails keeps all."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sidecar.app.reload import take_over
from sidecar.settings.load import load
from tests.harness.certificates import Authority


class Part:
    """Stands for a part, and notes what is asked of it."""

    uses_tls = True

    def __init__(self, fails: bool = False) -> None:
        self.done: list[str] = []
        self._fails = fails

    def use_context(self, context: ssl.SSLContext | None) -> None:
        assert context is not None
        self.done.append("sentinels")


class Admin(Part):
    """Stands for the admin endpoint."""

    def reload(self, settings: object) -> None:
        if self._fails:
            raise ssl.SSLError("no certificate")
        self.done.append("admin")


class DataPlane(Part):
    """Stands for the data plane."""

    def reload(self, settings: object, others: Callable[[], None]) -> None:
        others()
        self.done.append("proxy")


def _settings(tmp_path: Path) -> Any:
    authority = Authority(tmp_path, "ca")
    url, ca = "rediss+sentinel://localhost:26379/mymaster", str(authority.cert_file)
    return load(None, {"upstream.url": url, "upstream.tls.ca_file": ca}, environ={})


def test_all_take_part(tmp_path: Path) -> None:
    plane, sentinels, admin = DataPlane(), Part(), Admin()
    parts: Any = (plane, sentinels, admin)
    assert take_over(_settings(tmp_path), *parts) == ["upstream.tls", "admin.tls"]
    assert [part.done for part in parts] == [["proxy"], ["sentinels"], ["admin"]]


def test_none_is_new_where_one_is_bad(tmp_path: Path) -> None:
    settings = _settings(tmp_path)
    parts: Any = (DataPlane(), Part(), Admin(fails=True))
    with pytest.raises(ssl.SSLError):
        take_over(settings, *parts)
    Path(settings.upstream.tls.ca_file).write_text("no certificate")
    others: Any = (DataPlane(), Part(), Admin())
    with pytest.raises(ssl.SSLError):
        take_over(settings, *others)
    assert [part.done for part in (*parts, *others)] == [[]] * 6


def test_nothing_is_read_before_it_serves(tmp_path: Path) -> None:
    assert take_over(_settings(tmp_path), None, None, None) == []
