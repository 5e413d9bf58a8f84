"""The settings as the admin API shows them: nothing that is, or may contain, a secret."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sidecar.admin.answers import SettingShown
from sidecar.settings.schema import Settings, describe

HIDDEN = "***"


def shown(settings: Settings) -> Mapping[str, SettingShown]:
    """Every setting by its path: its value and whether it is the default."""
    return {
        row.path: SettingShown(
            value=_value(settings, row.path, row.secret),
            default=_get(settings, row.path) == row.default,
        )
        for row in describe()
    }


def _value(settings: Settings, path: str, secret: bool) -> Any:
    if path == "upstream.url":
        # Without password and user.
        return str(replace(settings.upstream_endpoint, username="", password=""))
    value = _get(settings, path)
    if secret:
        return HIDDEN if value else ""
    if path == "embedded.args":
        # Any argument may be a password; the names of the options are enough.
        return [word if word.startswith("--") and "=" not in word else HIDDEN for word in value]
    return list(value) if isinstance(value, tuple) else value


def _get(settings: Settings, path: str) -> Any:
    value: Any = settings
    for name in path.split("."):
        value = getattr(value, name)
    return value
