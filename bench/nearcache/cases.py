"""What is measured: loads, each with a distance to the server, declared once."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.load.shape import Load

LANES = ("direct", "off", "hot", "rules", "envoy")
"""`off`, `hot` and `rules` are the sidecar's, by cache.mode; `rules` caches every key."""

EXPONENT = 0.99
KEYS = (10_000, 100_000)
GETS = (100, 95)
PIPELINES = (1, 16, 64)
TRIPS = (None, 0.0, 0.0005, 0.001)
"""Seconds that a round trip to the server takes longer. None: nothing is in between."""


@dataclass(frozen=True)
class Case:
    """One load, and how far away the server is."""

    name: str
    load: Load
    trip: float | None = None

    @property
    def title(self) -> str:
        load = self.load
        keys = f"{'zipf ' + format(load.zipf, 'g') if load.zipf else 'uniform'}, {load.keys:,} keys"
        mix = "reads only" if load.get == 100 else f"{load.get}/{100 - load.get}"
        far = "" if self.trip is None else f", round trip + {1000 * self.trip:g} ms"
        return f"{keys}, {mix}, pipeline {load.pipeline}{far}"


def case(
    keys: int, get: int, pipeline: int, *, zipf: bool = True, trip: float | None = None
) -> Case:
    """The case of these figures; its name says them all."""
    far = "" if trip is None else f"-{1e6 * trip:.0f}us"
    name = f"{'zipf' if zipf else 'uniform'}{keys // 1000}k-{get}-p{pipeline}{far}"
    load = Load(pipeline=pipeline, get=get, keys=keys, zipf=EXPONENT if zipf else 0.0)
    return Case(name, load, trip)


FULL = tuple(
    case(keys, get, pipeline, zipf=zipf, trip=trip)
    for trip in TRIPS
    for zipf in (True, False)
    for keys in KEYS
    for get in GETS
    for pipeline in PIPELINES
)
CORE = (
    *(case(10_000, get, pipeline) for get in GETS for pipeline in PIPELINES),
    case(100_000, 95, 16),
    *(case(keys, 95, 16, zipf=False) for keys in KEYS),
    *(case(10_000, 100, pipeline, trip=trip) for trip in TRIPS[1:] for pipeline in (1, 16)),
)
QUICK = (case(10_000, 100, 1), case(10_000, 95, 16), case(10_000, 100, 1, trip=0.001))


def choose(set_name: str, only: Sequence[str]) -> list[Case]:
    """The cases of a set, or all whose names match one of the patterns."""
    sets = {"core": CORE, "full": FULL, "quick": tuple(map(tiny, QUICK))}
    if not only:
        return list(sets[set_name])
    found = [one for one in FULL if any(fnmatch.fnmatch(one.name, each) for each in only)]
    if not found:
        raise SystemExit(f"no case matches {', '.join(only)}; --list names them")
    return found


def tiny(one: Case) -> Case:
    """The same with few keys and connections, for a smoke run."""
    return replace(one, load=replace(one.load, keys=1000, conns=10))
