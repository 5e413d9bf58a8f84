"""Hot keys: what is ranked, what is named, what is sampled. Streams are seeded; time is told."""

from __future__ import annotations

import itertools
import random
from array import array
from collections import Counter

import pytest

from sidecar.core.hotkeys.detector import HotKeys, name_of

from .stream import JUMPER, KEYS, TICK, Stream, precision_and_recall, uniform, zipf

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
