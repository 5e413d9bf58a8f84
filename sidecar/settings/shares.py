"""What one of several workers may take: its share of the settings that are divided.

A setting says of itself that it is divided (`setting(..., divided=True)`). The shares add up to the
setting where it can be divided so; none is below the least value that the setting may have, nor 0
where the setting is not (0 often means something else).
"""

from __future__ import annotations

from sidecar.settings.changes import value_of, with_values
from sidecar.settings.fields import Row
from sidecar.settings.schema import Settings, describe


def share_of(settings: Settings, number: int) -> Settings:
    """The settings of worker `number`, counted from 1, of `settings.workers`."""
    shares: dict[str, object] = {}
    for row in describe():
        whole = value_of(settings, row)
        if row.divided and isinstance(whole, int | float):
            shares[row.path] = _share(row, whole, number, settings.workers)
    share: Settings = with_values(settings, shares)
    return share


def _share(row: Row, whole: float, number: int, workers: int) -> float:
    if not whole:
        return whole
    if row.type == "number":
        return whole / workers
    share = int(whole) // workers + (number <= int(whole) % workers)
    return max(share, 1, int(row.ge or 0))
