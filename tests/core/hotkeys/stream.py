"""Seeded streams of keys for the sketch; time is told. What a stream was is remembered exactly."""

from __future__ import annotations

import itertools
import random
from array import array
from collections import Counter
from collections.abc import Callable
from functools import cache

from sidecar.core.hotkeys.detector import HotKeys, name_of

TICK = 0.05
KEYS = 1_000_000
JUMPER = 2_000_000
Event = tuple[str, int, bytes, float]
Source = Callable[[random.Random, int], "array[int]"]


@cache
def weights(exponent: float) -> list[float]:
    return list(itertools.accumulate((i + 1) ** -exponent for i in range(KEYS)))


def zipf(exponent: float) -> Source:
    """Keys by popularity: key 0 comes most often."""
    return lambda rng, n: array("I", rng.choices(range(KEYS), cum_weights=weights(exponent), k=n))


def uniform(keys: int) -> Source:
    return lambda rng, n: array("I", rng.choices(range(keys), k=n))


class Stream:
    """Traffic at a rate, a tick every 50 ms; what it was is remembered exactly."""

    def __init__(self, hot: HotKeys, rate: int, seed: int = 1) -> None:
        self.hot, self.step = hot, round(rate * TICK)
        self.rng = random.Random(seed)
        self.ticks = 0
        self.seen: Counter[int] = Counter()
        hot.tick(0.0)

    def tick(self, picks: array[int]) -> list[Event]:
        self.seen.update(picks)
        self.hot.drive(picks)
        self.ticks += 1
        self.hot.tick(self.ticks * TICK)
        return list(self.hot.take_events())

    def run(self, seconds: float, source: Source) -> list[Event]:
        found = []
        for _ in range(round(seconds / TICK)):
            found += self.tick(source(self.rng, self.step))
        return found

    def mixed(self, seconds: float, key: int, share: float, others: int = KEYS) -> list[Event]:
        """A number of keys alike, and one that has a share of the traffic, evenly spread."""
        found = []
        for _ in range(round(seconds / TICK)):
            picks = uniform(others)(self.rng, self.step)
            for i in range(round(self.step * share)):
                picks[round(i / share)] = key
            found += self.tick(picks)
        return found


def precision_and_recall(hot: HotKeys, seen: Counter[int], n: int = 20) -> tuple[float, float]:
    """Of the keys named, how many belong there; of those that belong there, how many are named.

    Keys that are as frequent as the last of the first n may be named in any order.
    """
    first = seen.most_common(n + 1)
    least, next_one = first[n - 1][1], first[n][1]
    named = {key for _, key, *_ in hot.top(n)}
    right = sum(name_of(k) in named for k, count in seen.items() if count >= least)
    certain = [name_of(k) for k, count in first if count > next_one]
    return right / n, sum(key in named for key in certain) / max(1, len(certain))
