"""The hot set: what is remembered of it, how it fades, how it is written and read."""

from __future__ import annotations

import hashlib
import math
import random
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.warm_set import (
    FADED,
    HALF_LIFE,
    NAME,
    Entry,
    HotSet,
    SnapshotError,
    bulks,
    decode,
    encode,
    from_member,
    member,
    merge,
    parse_key_file,
    read_of,
    score,
)
from sidecar.settings.load import ConfigError, load

entries = st.builds(
    lambda user, db, command, key, rest: Entry.of(user, db, command, key, *rest),
    st.none() | st.binary(max_size=8),
    st.integers(0, 1 << 31),
    st.sampled_from([b"get", b"hget", b"zrange"]),
    st.binary(max_size=40),
    st.lists(st.binary(max_size=8), max_size=3),
)
weighted = st.lists(st.tuples(entries, st.floats(-1e6, 0)), max_size=20)


def get(name: str, user: bytes | None = None, db: int = 0) -> Entry:
    """GET of a key."""
    return Entry.of(user, db, b"get", name.encode())


# Entries


def test_an_entry_is_a_request() -> None:
    entry = Entry.of(None, 3, b"HGET", b"a\r\n\x00", b"")
    assert entry.request == b"*3\r\n$4\r\nhget\r\n$4\r\na\r\n\x00\r\n$0\r\n\r\n"
    assert (entry.key, entry.place) == (b"a\r\n\x00", (None, 3))


@given(st.lists(st.binary(max_size=30), max_size=5))
def test_bulks_are_what_was_packed(arguments: list[bytes]) -> None:
    assert bulks(Entry.of(None, 0, b"get", *arguments).arguments) == arguments


@given(st.binary(max_size=30) | st.from_regex(rb"(\$[0-9]{1,3}\r\n[a-c]{0,3}(\r\n)?){1,3}"))
def test_bulks_take_their_own_form_only(data: bytes) -> None:
    """Any other form of the same arguments would be another value to the near cache."""
    try:
        found = bulks(data)
    except ValueError:
        return
    assert Entry.of(None, 0, b"get", *found).arguments == data


# Snapshots


@given(weighted)
def test_a_snapshot_holds_what_was_written(weights: list[tuple[Entry, float]]) -> None:
    assert decode(encode(weights)) == weights


@given(weighted, st.data())
def test_any_change_is_detected(weights: list[tuple[Entry, float]], data: st.DataObject) -> None:
    whole = bytearray(encode(weights))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] ^= data.draw(st.integers(1, 255))
    if bytes(whole) != encode(weights):
        with pytest.raises(SnapshotError):
            decode(bytes(whole))


@given(weighted, st.data())
def test_any_cut_and_any_addition_is_detected(
    weights: list[tuple[Entry, float]], data: st.DataObject
) -> None:
    whole = encode(weights)
    with pytest.raises(SnapshotError):
        decode(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(SnapshotError):
        decode(whole + data.draw(st.binary(min_size=1, max_size=9)))


@given(st.binary(max_size=200))
def test_what_is_no_snapshot_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(SnapshotError):
        decode(data)


def sealed(body: bytes, version: int = 1) -> bytes:
    """A body with a right checksum."""
    return b"%b %d %b\n" % (NAME, version, hashlib.sha256(body).hexdigest().encode()) + body


@given(st.binary(max_size=100))
def test_a_right_checksum_is_no_proof(body: bytes) -> None:
    """The body may be anything: it is refused, or it is entries."""
    try:
        found = decode(sealed(body))
    except SnapshotError:
        return
    assert all(isinstance(entry, Entry) and entry.request for entry, _ in found)


@pytest.mark.parametrize(
    "row",
    [
        (None, 0, b"get", b"$1\r\nk\r\n"),
        (None, -1, b"get", b"$1\r\nk\r\n", 0.0),
        (None, 0, b"", b"$1\r\nk\r\n", 0.0),
        (None, 0, b"get", b"", 0.0),
        (None, 0, b"get", b"$01\r\nk\r\n", 0.0),
        (None, 0, b"get", b"$2\r\nk\r\n", 0.0),
        (None, 0, b"get", b"$1\r\nk\r\n", math.nan),
        ("user", 0, b"get", b"$1\r\nk\r\n", 0.0),
    ],
)
def test_rows_that_no_sidecar_writes(row: tuple[object, ...]) -> None:
    with pytest.raises(SnapshotError, match="no sidecar writes"):
        decode(sealed(msgspec.msgpack.encode([row])))


def test_the_reason_is_said() -> None:
    whole = encode([(get("k"), 0.0)])
    with pytest.raises(SnapshotError, match="its version is 2, and this sidecar reads 1"):
        decode(sealed(b"\x90", 2))
    with pytest.raises(SnapshotError, match="not a snapshot of a sidecar"):
        decode(b"REDIS0011")
    with pytest.raises(SnapshotError, match="damaged or cut short"):
        decode(whole[:-1])


@given(entries)
def test_members_come_back_as_the_own_user(entry: Entry) -> None:
    assert from_member(member(entry)) == entry._replace(user=None)


@given(st.binary(max_size=60))
def test_a_member_of_somebody_else_is_none(data: bytes) -> None:
    found = from_member(data)
    assert found is None or found.request


# What has been seen


def test_the_most_used_come_first() -> None:
    hot = HotSet(10)
    hot.seen([get("a"), get("b"), get("c")], 100.0)
    assert [entry.key for entry, _ in hot.weights(100.0)] == [b"a", b"b", b"c"]


def test_what_is_not_seen_fades_by_half() -> None:
    hot = HotSet(10)
    hot.seen([get("old")], 0.0)
    hot.seen([get("new"), get("newer")], HALF_LIFE / 2)
    assert [entry.key for entry, _ in hot.weights(0.0)] == [b"new", b"old", b"newer"]
    assert score(1, HALF_LIFE) == score(0, 0.0)


def test_an_empty_cache_forgets_nothing_at_once() -> None:
    hot = HotSet(10)
    hot.seen([get("a")], 0.0)
    assert hot.weights(HALF_LIFE * FADED)
    assert not hot.weights(HALF_LIFE * FADED + 1)


def test_a_pause_does_not_count() -> None:
    """Saved with weights relative to then, restored as if it had been now."""
    hot, later = HotSet(10), HotSet(10)
    hot.seen([get("a"), get("b")], 5.0)
    later.restore(hot.weights(5.0 + 3 * HALF_LIFE), 1e6)
    assert dict(later.weights(1e6)) == pytest.approx({get("a"): 0.0, get("b"): -1.0})
    later.seen([], 1e6 + HALF_LIFE)
    assert len(later.weights(1e6)) == 2


@given(st.integers(1, 5), st.lists(st.lists(st.integers(0, 9), unique=True), max_size=6))
def test_no_more_than_allowed(most: int, looks: list[list[int]]) -> None:
    hot = HotSet(most)
    best: dict[Entry, float] = {}
    for when, look in enumerate(looks):
        hot.seen([get(str(n)) for n in look], float(when))
        for rank, n in enumerate(look):
            best[get(str(n))] = max(best.get(get(str(n)), -1e9), score(rank, float(when)))
        kept = hot.weights(float(when))
        assert len(kept) <= most
        for entry, weight in kept:
            assert weight + when / HALF_LIFE == pytest.approx(best[entry])


def test_two_sidecars_agree_in_any_order() -> None:
    """Merging is taking the larger number: what ZADD GT does."""
    looks = [(float(t), [get(str((t * k) % 17)) for k in range(1, 9)]) for t in range(9)]
    seen = []
    for order in (looks, random.Random(1).sample(looks, len(looks))):
        hot = HotSet(100)
        for when, look in order:
            hot.seen(look, when)
        seen.append(dict(hot.weights(9.0)))
    assert seen[0] == pytest.approx(seen[1])


# Sources


def test_sources_are_merged_without_duplicates() -> None:
    sources = {
        "snapshot": [get("a"), get("b")],
        "fleet": [get("b"), get("c"), get("no")],
        "scan": [get("d"), get("e")],
    }
    found, counts = merge(sources, 4, lambda entry: entry.key != b"no")
    assert [entry.key for entry in found] == [b"a", b"b", b"c", b"d"]
    assert counts == {"snapshot": 2, "fleet": 1, "scan": 1}


def test_the_read_of_a_type() -> None:
    assert read_of(b"string", 2, b"k") == Entry.of(None, 2, b"get", b"k")
    assert read_of(b"hash", 0, b"k") == Entry.of(None, 0, b"hgetall", b"k")
    assert read_of(b"set", 0, b"k") == Entry.of(None, 0, b"smembers", b"k")
    assert read_of(b"list", 0, b"k") == Entry.of(None, 0, b"lrange", b"k", b"0", b"-1")
    assert read_of(b"zset", 0, b"k") is read_of(b"none", 0, b"k") is None


def test_a_key_file() -> None:
    text = (
        b"# keys\n\nplain\r\n  HGET h f\n"
        b'"with space\\x00"\nSELECT 2\nother\nMGET a b\nSET a 1\nunbalanced"\n'
        b"get\nselect x\n"
    )
    found = parse_key_file(text, lambda command: command in (b"get", b"hget"))
    assert found.wants == [
        (0, b"plain"),
        Entry.of(None, 0, b"hget", b"h", b"f"),
        (0, b"with space\0"),
        (2, b"other"),
        Entry.of(None, 2, b"get", b"a"),
        Entry.of(None, 2, b"get", b"b"),
        (2, b"get"),
    ]
    assert found.wrong == [9, 10, 12]


@given(st.binary(max_size=200))
def test_any_file_is_a_key_file(text: bytes) -> None:
    for want in parse_key_file(text, lambda command: True).wants:
        assert bulks(want.arguments) if isinstance(want, Entry) else want[1] is not None


# Settings


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"warm.scan": "*", "cache.mode": "off"}, 'warm.scan: set, but cache.mode is "off"'),
        ({"warm.scan": "*", "cache.mode": "observe"}, 'warm.scan: set, but cache.mode is "obs'),
        ({"warm.scan": "*", "upstream.pooling": "session"}, "warm.scan: set, but upstream.pool"),
        ({"warm.rate": "5"}, "warm.rate: set without warm.fleet or warm.key_file or warm.scan"),
        ({"warm.scan_count": "5"}, "warm.scan_count: set without warm.scan"),
        ({"warm.fleet_key": "x"}, "warm.fleet_key: set without warm.fleet"),
        ({"warm.scan": "*", "warm.interval": "5s"}, "warm.interval: set without warm.fleet or"),
        ({"warm.key_file": "/nowhere"}, "warm.key_file: no file '/nowhere'"),
        ({"warm.snapshot": "/nowhere/x"}, "warm.snapshot: '/nowhere/x' cannot be a file"),
        ({"warm.snapshot": "/"}, "warm.snapshot: '/' cannot be a file"),
        ({"warm.fleet": "true", "warm.fleet_key": ""}, "warm.fleet_key: empty"),
    ],
)
def test_settings_that_make_no_sense(overrides: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, overrides, {})
    assert says in str(caught.value)


def test_settings_that_make_sense(tmp_path: Path) -> None:
    overrides = {"warm.snapshot": str(tmp_path / "new"), "warm.fleet": "true", "warm.rate": "5"}
    warm = load(None, overrides, {}).warm
    assert (warm.fleet, warm.rate, warm.keys, warm.deadline) == (True, 5.0, 10_000, 5.0)
