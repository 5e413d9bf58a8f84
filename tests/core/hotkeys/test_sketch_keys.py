"""Hot keys: keys of every kind, hostile ones, memory, and whatever else comes."""

from __future__ import annotations

import itertools
import random
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core.hotkeys.detector import HotKeys, name_of

from .stream import KEYS, TICK, Stream, uniform

# Keys.


def test_spaces_are_kept_apart() -> None:
    hot = HotKeys(7)
    hot.tick(0)
    for space, count in ((0, 30), (1, 20), (2**32 - 1, 10)):
        for _ in range(count):
            hot.add(space, b"same")
    hot.tick(0.05)
    assert [(s, k, round(share * 60)) for s, k, share, *_ in hot.top(9)] == [
        (0, b"same", 30),
        (1, b"same", 20),
        (2**32 - 1, b"same", 10),
    ]


def test_reads_and_writes_are_counted_apart() -> None:
    hot = HotKeys(7)
    hot.tick(0)
    for i in range(400):
        hot.add(0, b"mixed", i % 4 == 0)
        hot.add(0, b"written", True)
    for now in (0.5, 1.0, 3.0):
        hot.tick(now)
        rates = {
            key: (reads / rate, writes / rate) for _, key, _, rate, reads, writes, _ in hot.top(2)
        }
        assert rates == {b"mixed": (0.75, 0.25), b"written": (0, 1)}


def test_binary_keys_of_every_length() -> None:
    keys = [b"", *(bytes(n) for n in range(1, 130)), *(b"\xff" * n for n in range(1, 120))]
    keys += [b"\r\n", b"a\x00b", b"a\x00c"]
    hot = HotKeys(7, key_max=128)
    hot.tick(0)
    for i, key in enumerate(keys):
        for _ in range(i + 1):
            hot.add(0, key)
    hot.tick(0.05)
    found = {key for _, key, *_ in hot.top(1000)}
    assert found == {k for k in keys if len(k) <= 128} | {bytes(128) + b"...(129 bytes)"}
    assert len({hot.hash(0, key) for key in keys}) == len(keys)


def test_long_keys_are_ranked_and_shown_cut() -> None:
    hot = HotKeys(7, key_max=16)
    hot.tick(0)
    whole, first, second = b"x" * 16, b"x" * 16 + b"a" * 1000, b"x" * 16 + b"b" * 1000
    for key, count in ((whole, 30), (first, 20), (second, 10)):
        for _ in range(count):
            hot.add(0, key)
    shown = b"x" * 16 + b"...(1016 bytes)"
    assert [key for _, key, *_ in hot.top(9)] == [whole, shown, shown]
    assert hot.estimate(0, first) == 20


def test_hashes_depend_on_every_byte_on_the_space_and_on_the_seed() -> None:
    hot, other = HotKeys(1), HotKeys(2)
    for n in (1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 48, 100):
        key = bytes(range(n))
        changed = [key[:i] + bytes([key[i] ^ 1]) + key[i + 1 :] for i in range(n)]
        assert len({hot.hash(0, k) for k in [key, *changed]}) == n + 1
    assert hot.hash(0, b"key") != hot.hash(1, b"key")
    assert hot.hash(0, b"key") != other.hash(0, b"key")
    assert hot.hash(0, b"key") == HotKeys(1).hash(0, b"key")


@pytest.mark.parametrize("shift", [0, 16, 32, 48])
def test_sixteen_bits_of_the_hash_spread_evenly(shift: int) -> None:
    hot = HotKeys(1)
    n = 65_536
    hits = Counter(hot.hash(0, b"user:%d" % i) >> shift & 0xFFFF for i in range(n))
    empty = 65_536 - len(hits)
    assert empty == pytest.approx(n / 2.71828, rel=0.03)
    assert max(hits.values()) <= 12


def test_one_bit_of_a_key_changes_half_of_its_hash() -> None:
    hot, rng = HotKeys(1), random.Random(1)
    changed = 0
    for _ in range(2000):
        key = bytearray(rng.randbytes(rng.randint(1, 40)))
        before = hot.hash(0, bytes(key))
        key[rng.randrange(len(key))] ^= 1 << rng.randrange(8)
        changed += (before ^ hot.hash(0, bytes(key))).bit_count()
    assert changed / 2000 == pytest.approx(32, abs=0.5)


# Hostile keys.


def test_keys_that_are_all_different_displace_no_hot_key() -> None:
    hot = HotKeys(7)
    stream = Stream(hot, 200_000)
    flood = itertools.count(10)
    memory = hot.stats()["memory"]
    rng = random.Random(4)
    named = []
    for _ in range(60):
        picks = array("I", itertools.islice(flood, stream.step))
        for i in range(0, len(picks), 20):
            picks[i] = rng.randrange(3)
        named += stream.tick(picks)
    assert sorted(e[2] for e in named) == [name_of(i) for i in range(3)]
    assert [key in map(name_of, range(3)) for _, key, *_ in hot.top(4)] == [True] * 3 + [False]
    stats = hot.stats()
    assert stats["admitted"] < stats["sampled"] / 10
    assert stats["memory"] == memory


def test_collisions_under_one_seed_are_none_under_another() -> None:
    attacked = HotKeys(1, width=256, depth=2, top=8)
    target = attacked.hash(0, b"target") & 0xFFFF
    keys = (b"k%d" % i for i in itertools.count())
    hostile = list(itertools.islice((k for k in keys if attacked.hash(0, k) & 0xFFFF == target), 9))
    excess = []
    for hot in (attacked, HotKeys(2, width=256, depth=2, top=8)):
        for _ in range(100):
            for i in range(8):
                hot.add(1, b"%d" % i)
        for key in hostile:
            for _ in range(20):
                hot.add(0, key)
        excess.append(hot.estimate(0, b"target"))
    assert excess[0] >= 20
    assert excess[1] == 0


def test_more_hot_keys_than_the_table_holds() -> None:
    hot = HotKeys(7, top=8, hot_share=0.02, cool_share=0.01)
    stream = Stream(hot, 50_000)
    named = stream.run(2, uniform(40))
    assert {e[0] for e in named} == {"hot"}
    assert len(named) == hot.stats()["hot"] == 8
    cooled = stream.run(3, lambda rng, n: array("I", rng.choices(range(100, 140), k=n)))
    assert Counter(e[0] for e in cooled) == {"hot": 8, "cool": 8}


# Memory.


def virtual_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * 4096


def test_memory_is_given_back() -> None:
    size = HotKeys(1).stats()["memory"]
    assert size < 400_000
    stream = Stream(HotKeys(1), 50_000)
    stream.run(1, uniform(KEYS))
    assert stream.hot.stats()["memory"] == size
    before = virtual_bytes()
    for seed in range(4000):
        HotKeys(seed).add(0, b"key")
    assert virtual_bytes() - before < 4000 * size / 2


@pytest.mark.parametrize(
    "bad",
    [
        {"width": 1000},
        {"width": 128},
        {"width": 131_072},
        {"depth": 0},
        {"depth": 5},
        {"depth": 9, "width": 256},
        {"top": 0},
        {"top": 5000},
        {"key_max": 0},
        {"window": 0.0},
        {"hot_share": 0.001},
        {"hot_share": 1.5},
        {"cool_share": 0.0},
        {"samples_per_second": 0},
    ],
    ids=str,
)
def test_settings_that_make_no_sense(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"\d"):
        HotKeys(1, **bad)  # type: ignore[arg-type]


# Whatever comes.

ADD = st.tuples(st.integers(0, 1), st.integers(0, 20), st.booleans(), st.integers(1, 40))
WAIT = st.sampled_from([1, 1, 1, 7, 20, 45])


def decayed(steps: Iterable[int]) -> Iterator[int]:
    """How often the window of 20 ticks ends with each step."""
    now = 0
    for step in steps:
        yield (now % 20 + step) // 20
        now += step


@settings(max_examples=200)
@given(st.lists(st.one_of(ADD, WAIT), max_size=150), st.integers(0, 2**64 - 1))
def test_estimates_and_names(script: list[tuple[int, int, bool, int] | int], seed: int) -> None:
    hot = HotKeys(seed, width=256, depth=2, top=8, key_max=4)
    hot.tick(0.0)
    true: dict[tuple[int, bytes], float] = {}
    now, halvings = 0, decayed([w for w in script if isinstance(w, int)])
    for entry in script:
        if isinstance(entry, int):
            now += entry
            hot.tick(now * TICK)
            ended = next(halvings)
            true = {key: count / 2**ended for key, count in true.items()}
            hot.take_events()
            continue
        space, number, write, times = entry
        key = b"%d" % number
        true[space, key] = true.get((space, key), 0) + times
        for _ in range(times):
            hot.add(space, key, write)
    total = sum(true.values())
    assert hot.stats()["window_total"] == pytest.approx(total)
    for (space, key), count in true.items():
        assert count - 1 < hot.estimate(space, key) <= total + 1
    top = hot.top(100)
    assert len({(space, key) for space, key, *_ in top}) == len(top) <= 8
    for space, key, share, *_, is_hot in top:
        assert (space, key) in true
        assert share * total == pytest.approx(hot.estimate(space, key))
        assert hot.is_hot(space, key) == is_hot
