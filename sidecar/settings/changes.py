"""What differs between two configurations, and what of it a running sidecar can take over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from sidecar.settings.fields import Row
from sidecar.settings.schema import Settings, describe


@dataclass(frozen=True)
class Changes:
    """`settings` are the old ones with all that can be taken over: the settings `taken`, of which
    `switches` need a planned switch of the upstream. Those in `restart` differ as well, and need a
    restart, for the reason given."""

    settings: Settings
    taken: Sequence[str]
    switches: Sequence[str]
    restart: Mapping[str, str]


def changes(old: Settings, new: Settings, fixed: Mapping[str, str] | None = None) -> Changes:
    """Compare two configurations, setting by setting. `fixed` are settings that cannot be taken
    over now, with the reason."""
    fixed = fixed or {}
    differing = [row for row in describe() if value_of(old, row) != value_of(new, row)]
    taken = [row for row in differing if row.reloadable and row.path not in fixed]
    merged = with_values(old, {row.path: value_of(new, row) for row in taken})
    restart = {row.path: fixed.get(row.path, row.restart) for row in differing if row not in taken}
    switches = [row.path for row in taken if row.switches]
    return Changes(merged, [row.path for row in taken], switches, restart)


def value_of(settings: Settings, row: Row) -> object:
    """The value of one setting."""
    found: Any = settings
    for name in row.path.split("."):
        found = getattr(found, name)
    return found


def with_values(section: Any, values: dict[str, object], prefix: str = "") -> Any:
    """A copy of settings, or of the section at `prefix`, with these values by path."""
    changed: dict[str, object] = {}
    for field in msgspec.structs.fields(section):
        path = prefix + field.name
        inner = getattr(section, field.name)
        if isinstance(inner, msgspec.Struct):
            if _any_below(path, values):
                changed[field.name] = with_values(inner, values, f"{path}.")
        elif path in values:
            changed[field.name] = values[path]
    return msgspec.structs.replace(section, **changed)


def _any_below(path: str, paths: Iterable[str]) -> bool:
    return any(each.startswith(f"{path}.") for each in paths)
