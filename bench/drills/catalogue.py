"""All drills, and the choice among them."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from string import ascii_lowercase
from typing import Any

from bench.drills import failovers, maintenance, moves, restarts, rotations, switching
from bench.drills.drill import Drill
from tests.harness.errors import Unavailable

DRILLS: tuple[Drill[Any], ...] = (
    *failovers.DRILLS,
    *moves.DRILLS,
    *rotations.DRILLS,
    *restarts.DRILLS,
    *maintenance.DRILLS,
    *switching.DRILLS,
)


def choose(only: Sequence[str]) -> list[Drill[Any]]:
    """Drills by number or pattern (`6` is 6a, 6b and 6c); all of them if none is named."""
    for wanted in only:
        if not any(_is(drill, wanted) for drill in DRILLS):
            raise Unavailable(f"no drill {wanted}; there are {', '.join(d.number for d in DRILLS)}")
    return [drill for drill in DRILLS if not only or any(_is(drill, wanted) for wanted in only)]


def _is(drill: Drill[Any], wanted: str) -> bool:
    number = drill.number
    return fnmatch.fnmatch(number, wanted) or number.rstrip(ascii_lowercase) == wanted
