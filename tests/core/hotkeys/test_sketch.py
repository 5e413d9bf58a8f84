"""Hot keys: what is ranked, what is named, what is sampled. Streams are seeded; time is told."""

from __future__ import annotations

import itertools
import random
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core.hotkeys.sketch import HotKeys, name_of

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


# Ranking.


@pytest.mark.parametrize("rate", [50_000, 200_000, 1_000_000])
@pytest.mark.parametrize("exponent", [0.99, 1.2])
def test_the_first_twenty_after_a_second(rate: int, exponent: float) -> None:
    stream = Stream(HotKeys(7), rate)
    stream.run(1, zipf(exponent))
    precision, recall = precision_and_recall(stream.hot, stream.seen)
    assert precision >= 0.95
    assert recall >= 0.95


def test_unsampled_counts_are_all_but_exact() -> None:
    stream = Stream(HotKeys(7), 50_000)
    stream.run(1 - TICK, zipf(0.99))
    for key, count in stream.seen.most_common(20):
        assert count <= stream.hot.estimate(0, name_of(key)) <= count + 2


def test_shares_and_rates_of_sampled_traffic() -> None:
    stream = Stream(HotKeys(7), 1_000_000)
    stream.run(1, zipf(0.99))
    top = {key: (share, rate) for _, key, share, rate, *_ in stream.hot.top(5)}
    for key, count in stream.seen.most_common(5):
        share, rate = top[name_of(key)]
        assert share == pytest.approx(count / 1_000_000, rel=0.05)
        assert rate == pytest.approx(count, rel=0.05)


def test_the_ranking_follows_the_traffic() -> None:
    stream = Stream(HotKeys(7), 50_000)
    stream.run(3, zipf(0.99))
    stream.seen.clear()
    turned = zipf(0.99)
    stream.run(4, lambda rng, n: array("I", [KEYS - 1 - i for i in turned(rng, n)]))
    precision, _ = precision_and_recall(stream.hot, stream.seen)
    assert precision >= 0.9


def test_estimates_keep_their_bound() -> None:
    """Half of the commands are of a hundred keys, which one row could not tell from others."""
    hot = HotKeys(7, width=1024, depth=4, top=1)
    stream = Stream(hot, 200_000)

    def source(rng: random.Random, n: int) -> array[int]:
        return array("I", [rng.randrange(rng.choice((100, 20_000))) for _ in range(n)])

    stream.run(0.95, source)
    stats = hot.stats()
    assert stats["error"] == pytest.approx(2.71828 / 1024 * 190_000, rel=1e-4)
    assert stats["error_probability"] == pytest.approx(0.0183, rel=1e-2)
    excess = [hot.estimate(0, name_of(k)) - count for k, count in stream.seen.items()]
    assert min(excess) >= 0
    assert sum(e > stats["error"] for e in excess) <= stats["error_probability"] * len(excess)
    # Conservative update: were every counter raised, it would be this much on average.
    print(sum(excess) / len(excess))
    assert sum(excess) / len(excess) < 0.6 * 190_000 / 1024


def test_a_key_that_leaves_the_table_leaves_its_count() -> None:
    hot = HotKeys(7, top=1)
    now = itertools.count()
    for key, count in ((b"first", 50), (b"second", 60), (b"first", 20)):
        for _ in range(count):
            hot.add(0, key)
        for _ in range(3):  # what has just jumped keeps its place for a while
            hot.tick(next(now) * TICK)
    assert [key for _, key, *_ in hot.top(9)] == [b"first"]
    assert (hot.estimate(0, b"first"), hot.estimate(0, b"second")) == (70, 60)


@pytest.mark.parametrize("top", [1, 3, 8, 50])
def test_no_count_is_lost_however_often_keys_come_and_go(top: int) -> None:
    hot, rng = HotKeys(7, width=256, depth=2, top=top), random.Random(top)
    true: Counter[bytes] = Counter()
    for i in range(20_000):
        key = b"%d" % (rng.randrange(40) + i // 200)
        hot.add(0, key)
        true[key] += 1
        if i % 500 == 0:
            assert all(hot.estimate(0, key) >= count for key, count in true.items())
            named = [key for _, key, *_ in hot.top(100)]
            assert len(named) == len(set(named)) <= top
            assert named[0] in true
    assert hot.stats()["admitted"] > top


# Hot and cool.


def detection(seed: int, background: list[array[int]], rate: int) -> float:
    """Milliseconds from a key's jump to 1 % of the traffic to its name."""
    rng = random.Random(seed)
    stream = Stream(HotKeys(seed), rate)
    jump = 1.5 + rng.random() * TICK
    for picks in background:
        begin = stream.ticks * TICK
        changed = array("I", picks)
        for i in range(max(0, round((jump - begin) * rate)), len(picks)):
            if rng.random() < 0.01:
                changed[i] = JUMPER
        for kind, _, key, _ in stream.tick(changed):
            if (kind, key) == ("hot", name_of(JUMPER)):
                return 1000 * (stream.ticks * TICK - jump)
    return float("inf")


def test_a_jump_is_named_within_100_ms() -> None:
    rate, rng = 50_000, random.Random(5)
    background = [zipf(0.99)(rng, round(rate * TICK)) for _ in range(40)]
    found = sorted(detection(seed, background, rate) for seed in range(50))
    assert found[0] > 0
    assert found[25] <= 75
    assert found[-1] <= 100


@pytest.mark.parametrize("rate", [200_000, 1_000_000])
def test_a_jump_is_named_when_sampled(rate: int) -> None:
    stream = Stream(HotKeys(7), rate)
    stream.run(0.5, uniform(KEYS))
    events = stream.mixed(0.1, JUMPER, 0.01)
    assert [(kind, key) for kind, _, key, _ in events] == [("hot", name_of(JUMPER))]


def test_a_jump_is_named_though_the_table_is_full_of_keys_as_frequent() -> None:
    stream = Stream(HotKeys(7), 50_000)
    assert stream.run(2, uniform(350)) == []
    events = stream.mixed(0.1, JUMPER, 0.01, others=350)
    assert [(kind, key) for kind, _, key, _ in events] == [("hot", name_of(JUMPER))]


def test_a_jump_across_a_tick_is_added_up() -> None:
    stream = Stream(HotKeys(7), 20_000)
    assert stream.run(2, uniform(350)) == []
    assert stream.mixed(TICK, JUMPER, 0.012, others=350) == []
    assert [e[0] for e in stream.mixed(TICK, JUMPER, 0.012, others=350)] == ["hot"]


@pytest.mark.parametrize("keys", [400, 1000, 30_000, KEYS])
@pytest.mark.parametrize("rate", [100, 5_000, 200_000])
def test_no_key_of_a_uniform_load_is_hot(keys: int, rate: int) -> None:
    stream = Stream(HotKeys(7), rate)
    assert stream.run(3, uniform(keys)) == []
    assert stream.hot.stats()["hot"] == 0


def test_no_key_of_a_sampled_uniform_load_is_hot() -> None:
    stream = Stream(HotKeys(7, samples_per_second=2000), 100_000)
    assert stream.run(5, uniform(400)) == []
    assert stream.hot.stats()["interval"] > 40


def test_the_hot_keys_of_a_zipf_load_are_those_with_the_share() -> None:
    stream = Stream(HotKeys(7), 50_000)
    stream.run(3, zipf(0.99))
    hot = {key for _, key, *_, is_hot in stream.hot.top(256) if is_hot}
    shares = {name_of(k): count / 150_000 for k, count in stream.seen.most_common(40)}
    assert {key for key, share in shares.items() if share > 0.006} <= hot
    assert hot <= {key for key, share in shares.items() if share > 0.004}


def test_between_the_shares_a_key_stays_what_it_is() -> None:
    stream = Stream(HotKeys(7), 50_000)
    key = name_of(JUMPER)
    stream.run(1, uniform(KEYS))
    assert stream.mixed(4, JUMPER, 0.0035) == []
    [(kind, space, name, share)] = stream.mixed(1, JUMPER, 0.01)
    assert (kind, space, name) == ("hot", 0, key)
    assert 0.005 <= share <= 0.012
    assert stream.hot.is_hot(0, key)
    assert stream.mixed(4, JUMPER, 0.0035) == []
    assert stream.hot.is_hot(0, key)
    [(kind, _, name, share)] = stream.mixed(4, JUMPER, 0.001)
    assert (kind, name) == ("cool", key)
    assert share < 0.0025
    assert not stream.hot.is_hot(0, key)
    assert stream.mixed(4, JUMPER, 0.0035) == []


def test_a_short_burst_is_hot_shortly() -> None:
    stream = Stream(HotKeys(7), 50_000)
    stream.run(2, uniform(KEYS))
    assert [e[0] for e in stream.mixed(0.1, JUMPER, 0.01)] == ["hot"]
    assert [e[0] for e in stream.run(0.2, uniform(KEYS))] == ["cool"]


def test_a_pipeline_is_not_a_hot_key() -> None:
    stream = Stream(HotKeys(7), 2_000)
    stream.run(2, uniform(KEYS))
    for _ in range(15):
        stream.hot.add(0, b"pipelined")
    assert stream.run(1, uniform(KEYS)) == []


def test_a_hot_key_cools_when_all_traffic_ceases() -> None:
    stream = Stream(HotKeys(7), 50_000)
    assert [e[0] for e in stream.mixed(1, JUMPER, 0.1)] == ["hot"]
    assert [e[0] for e in stream.run(30, lambda rng, n: array("I"))] == ["cool"]
    assert stream.hot.top(10) == []


def test_events_take_turns_even_if_not_fetched() -> None:
    stream = Stream(HotKeys(7), 50_000)
    hot = stream.hot
    stream.mixed(1, JUMPER, 0.1)
    rng = random.Random(2)
    for i in range(400):
        hot.drive(array("I", rng.choices(range(KEYS), k=2500)))
        hot.tick((stream.ticks + i + 1) * TICK)
    assert [(e[0], e[2]) for e in hot.take_events()] == [("cool", name_of(JUMPER))]
    assert hot.take_events() == []


# Time.


def test_counts_are_halved_once_per_window() -> None:
    hot = HotKeys(7, window=2.0)
    hot.tick(10.0)
    hot.drive(array("I", [1] * 800))
    hot.tick(11.9)
    assert hot.estimate(0, name_of(1)) == 800
    hot.tick(12.0)
    assert hot.estimate(0, name_of(1)) == 400
    assert hot.stats()["window_total"] == 400
    hot.tick(16.0)
    assert hot.estimate(0, name_of(1)) == 100
    assert hot.top(1)[0][2] == 1
    assert hot.stats()["total"] == 800


def test_cells_are_halved_like_the_table() -> None:
    hot = HotKeys(7, top=1)
    hot.tick(0)
    for key, count in ((b"first", 50), (b"second", 40)):
        for _ in range(count):
            hot.add(0, key)
    hot.tick(1)
    assert hot.estimate(0, b"first") == 25
    assert hot.estimate(0, b"second") == 20


def test_the_rate_is_that_of_the_time_counted() -> None:
    stream = Stream(HotKeys(7), 20_000)
    for seconds in (0.5, 0.5, 1.3, 2.0):
        stream.mixed(seconds, JUMPER, 0.1)
        [(_, _, share, rate, reads, writes, _)] = stream.hot.top(1)
        assert share == pytest.approx(0.1, rel=0.01)
        assert rate == pytest.approx(2000, rel=0.01)
        assert (reads, writes) == (pytest.approx(rate), 0)


def test_a_clock_that_stands_or_leaps_does_no_harm() -> None:
    stream = Stream(HotKeys(7), 50_000)
    stream.mixed(1, JUMPER, 0.1)
    for now in (1.0, 0.5, 0.0, 1e9, 1e9, 2e9):
        stream.hot.tick(now)
        stream.hot.drive(array("I", [5] * 1000))
    assert stream.hot.top(1)[0][1] == name_of(5)
    with pytest.raises(ValueError, match="now"):
        stream.hot.tick(float("nan"))


# Sampling.


def test_every_command_is_counted_below_the_limit() -> None:
    stream = Stream(HotKeys(7), 200_000)
    stream.run(1, uniform(KEYS))
    stats = stream.hot.stats()
    assert (stats["interval"], stats["sampled"], stats["total"]) == (1, 200_000, 200_000)


@pytest.mark.parametrize(("rate", "interval"), [(1_000_000, 5), (3_200_000, 16)])
def test_the_interval_follows_the_rate(rate: int, interval: int) -> None:
    stream = Stream(HotKeys(7), rate)
    cheap = array("I", range(stream.step))
    stream.run(0.2, lambda rng, n: cheap)
    before = stream.hot.stats()
    stream.run(1, lambda rng, n: cheap)
    after = stream.hot.stats()
    assert after["interval"] == interval
    assert after["sampled"] - before["sampled"] == pytest.approx(200_000, rel=0.05)
    assert after["total"] - before["total"] == pytest.approx(rate, rel=0.01)
    stream.step = 2500
    stream.run(0.1, uniform(KEYS))
    assert stream.hot.stats()["interval"] == 1


def test_a_burst_does_not_wait_for_a_tick() -> None:
    hot = HotKeys(7)
    hot.tick(0.0)
    hot.drive(array("I", range(5_000_000)))
    stats = hot.stats()
    assert stats["sampled"] < 200_000
    assert stats["total"] == pytest.approx(5_000_000, rel=0.01)
    hot.tick(0.05)


def test_when_a_burst_is_over_the_next_command_counts() -> None:
    hot = HotKeys(7, samples_per_second=100)
    hot.tick(0.0)
    hot.drive(array("I", range(1_000_000)))
    assert hot.stats()["interval"] > 1000
    hot.tick(0.05)
    hot.tick(0.10)
    sampled = hot.stats()["sampled"]
    for _ in range(5):
        hot.add(0, b"key")
    assert hot.stats()["sampled"] == sampled + 5


@pytest.mark.parametrize("period", [2, 5, 8, 9, 10, 50])
def test_periodic_traffic_does_not_fall_in_step(period: int) -> None:
    stream = Stream(HotKeys(7), 1_000_000)
    cycle = array("I", itertools.islice(itertools.cycle(range(period)), stream.step))
    stream.run(2, lambda rng, n: cycle)
    assert stream.hot.stats()["interval"] == 5
    assert len(stream.hot.top(100)) == period
    for _, _, share, *_ in stream.hot.top(100):
        assert share == pytest.approx(1 / period, rel=0.1)


def test_a_seed_repeats_a_run() -> None:
    def run(seed: int) -> list[object]:
        stream = Stream(HotKeys(seed), 1_000_000)
        stream.run(0.2, uniform(1000))
        return [stream.hot.top(50), stream.hot.stats()]

    assert run(3) == run(3)
    assert run(3) != run(4)


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
