"""The shares of workers: they add up, and none is less than its setting may be."""

from __future__ import annotations

import pytest

from sidecar.settings.changes import value_of, with_values
from sidecar.settings.load import load
from sidecar.settings.schema import describe
from sidecar.settings.shares import share_of

DIVIDED = [row for row in describe() if row.divided]


@pytest.mark.parametrize("row", DIVIDED, ids=lambda row: row.path)
def test_shares_add_up(row: object) -> None:
    rate = {"warm.rate": 100.0, "limits.memory": 1 << 30}
    whole = with_values(load(None, {"workers": "3"}, {}), rate)
    shares = [value_of(share_of(whole, number), row) for number in (1, 2, 3)]  # type: ignore[arg-type]
    assert sum(shares) == pytest.approx(value_of(whole, row))  # type: ignore[arg-type]
    assert max(shares) - min(shares) <= 1  # type: ignore[type-var, operator]


def test_no_share_is_too_small() -> None:
    whole = load(None, {"workers": "4", "cache.memory": "1MiB", "listen.max_clients": "2"}, {})
    for number in (1, 2, 3, 4):
        share = share_of(whole, number)
        assert share.cache.memory == 1 << 20
        assert share.listen.max_clients == 1


def test_off_stays_off() -> None:
    whole = load(None, {"workers": "2", "upstream.pool_spare": "0"}, {})
    assert share_of(whole, 1).upstream.pool_spare == 0


def test_all_else_is_the_same() -> None:
    whole = load(None, {"workers": "2"}, {})
    share = share_of(whole, 1)
    for row in describe():
        if not row.divided:
            assert value_of(share, row) == value_of(whole, row)
