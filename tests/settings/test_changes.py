"""What differs between two configurations, and what of it is taken over."""

from __future__ import annotations

import msgspec
import pytest

from sidecar.settings.changes import changes, value_of
from sidecar.settings.fields import Row
from sidecar.settings.load import load
from sidecar.settings.schema import Settings, describe

ROWS = list(describe())


def test_what_can_be_taken_over_is() -> None:
    old = load(None, {"cache.memory": "8MiB"}, {})
    new = load(None, {"cache.memory": "9MiB", "log.format": "json", "limits.memory": "1GiB"}, {})
    found = changes(old, new)
    assert found.taken == ["cache.memory", "limits.memory"]
    assert found.restart == {"log.format": "all lines of one run have one form"}
    assert (found.settings.cache.memory, found.settings.limits.memory) == (9 << 20, 1 << 30)
    assert found.settings.log == old.log


def test_nothing_differs() -> None:
    settings = load(None, {"cache.memory": "8MiB"}, {})
    found = changes(settings, load(None, {"cache.memory": "8MiB"}, {}))
    assert (found.settings, found.taken, found.restart) == (settings, [], {})


def test_what_cannot_be_taken_over_now_says_why() -> None:
    old, new = load(None, {"cache.memory": "8MiB"}, {}), load(None, {"cache.memory": "9MiB"}, {})
    found = changes(old, new, fixed={"cache.memory": "it is full"})
    assert (found.settings, found.restart) == (old, {"cache.memory": "it is full"})


def test_the_reason_is_the_end_of_a_sentence() -> None:
    for row in ROWS:
        assert not row.restart.endswith("."), row.path
        assert row.restart[:1].islower() or not row.restart, row.path


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.path)
def test_each_setting_is_taken_over_or_not(row: Row) -> None:
    """As it is declared, and no other one with it."""
    old = Settings()
    name, _, key = row.path.rpartition(".")
    assert value_of(old, row) == row.default
    changed = _with(old, name.split(".") if name else [], key, object())
    found = changes(old, changed)
    assert [*found.taken, *found.restart] == [row.path]
    assert bool(found.taken) == row.reloadable
    assert bool(found.switches) == row.switches
    assert found.restart.get(row.path, "") == row.restart
    assert (value_of(found.settings, row) != row.default) == row.reloadable


def _with(section: object, path: list[str], key: str, value: object) -> Settings:
    if not path:
        return msgspec.structs.replace(section, **{key: value})  # type: ignore[type-var,no-any-return]
    inner = _with(getattr(section, path[0]), path[1:], key, value)
    return msgspec.structs.replace(section, **{path[0]: inner})  # type: ignore[type-var,no-any-return]
