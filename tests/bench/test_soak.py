"""What a soak calls wrong, how it judges memory, and one short run of everything."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.soak import samples, verdicts
from bench.soak.__main__ import main
from bench.soak.samples import Rest, Sample
from bench.soak.values import LOST, Key, Wrong, make, number_of
from tests.harness.resp import Refused

MIB = 1 << 20
UNCERTAIN, REFUSED = Refused("UNCERTAIN x"), Refused("UNAVAILABLE x")


@pytest.mark.parametrize("size", [0, 30, 5000])
def test_a_value_tells_whose_it_is(size: int) -> None:
    value = make("a", 7, size)
    assert len(value) >= size * 0.9
    assert number_of("a", value) == 7
    with pytest.raises(Wrong, match="the value of a"):
        number_of("b", value)


@pytest.mark.parametrize("at", [0, 2, 20, -1])
def test_a_torn_value_is_noticed(at: int) -> None:
    torn = bytearray(make("a", 7, 100))
    torn[at] ^= 1
    for wrong in (bytes(torn), torn[:-1], b"OK", None, 7):
        with pytest.raises(Wrong):
            number_of("a", bytes(wrong) if isinstance(wrong, bytearray) else wrong)


@pytest.mark.parametrize(
    ("replies", "right"),
    [
        ([b"OK", b"OK"], {2}),
        ([b"OK", REFUSED], {1}),
        ([b"OK", UNCERTAIN], {1, 2}),
        ([b"OK", LOST], {1, 2}),
        ([UNCERTAIN, b"OK"], {2}),
        ([LOST, UNCERTAIN], {0, 1, 2}),
        ([REFUSED, LOST], {0, 2}),
    ],
)
def test_what_a_writer_may_find(replies: list[object], right: set[int]) -> None:
    for found in range(4):
        key = Key("a")
        for reply in replies:
            key.next()
            key.told(key.tried, reply, done=reply == b"OK")
        value = make("a", found) if found else None
        if found in right:
            key.check_own(value)
            key.check_own(value)
        else:
            with pytest.raises(Wrong):
                key.check_own(value)


def test_what_others_may_find() -> None:
    key = Key("a", tried=5, known=3)
    for found in (3, 4, 5):
        key.check_foreign(make("a", found), 3)
    for found in (2, 6):
        with pytest.raises(Wrong):
            key.check_foreign(make("a", found), 3)
    with pytest.raises(Wrong):
        key.check_foreign(None, 3)


def _samples(rss: Sequence[float]) -> list[Sample]:
    return [Sample(at, int(each * MIB), 30, 10, 0, 0, 0.0) for at, each in enumerate(rss)]


def test_growth_is_that_of_a_line_through_medians() -> None:
    steady = [100 + (900 if at % 7 == 0 else at % 3) for at in range(200)]
    assert abs(samples.growth(_samples(steady), 0, 200) or 1) < 0.01
    rising = [100 + at / 10 for at in range(200)]
    assert samples.growth(_samples(rising), 0, 200) == pytest.approx(0.19, abs=0.01)
    assert samples.growth(_samples(rising), 100, 200) == pytest.approx(0.086, abs=0.01)
    assert samples.growth(_samples(rising), 150, 200) is None, "too short"


REST = Rest(0.0, 100 * MIB, 30, 10)


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({}, set()),
        ({"growth": -0.03}, {"memory: change after the warm-up"}),
        ({"after": Rest(9.0, 100 * MIB, 31, 10)}, {"descriptors at rest: growth"}),
        ({"after": Rest(9.0, 100 * MIB, 30, 11)}, {"tasks at rest: growth"}),
        ({"after": Rest(9.0, 100 * MIB, 29, 9), "missed": None}, set()),
        ({"before": Rest(9.0, 100 * MIB, 30, 10, 1)}, {"clients left at rest"}),
        ({"wrong": 1}, {"wrong replies"}),
        ({"missed": 1}, {"keys missed by SCAN"}),
        ({"errors": {"ERR": 1, "lost": 4}}, {"errors of other kinds than those listed"}),
        ({"failed_faults": 1}, {"faults that did not end well"}),
        ({"commands": 0}, {"commands answered"}),
        ({"before": None, "after": None, "growth": None}, set()),
    ],
)
def test_each_target_can_be_missed(changes: dict[str, object], missed: set[str]) -> None:
    good: dict[str, object] = {
        "growth": 0.01,
        "before": REST,
        "after": REST,
        "wrong": 0,
        "missed": 0,
        "errors": {"UNCERTAIN": 2},
        "failed_faults": 0,
        "commands": 1000,
    }
    found = verdicts.judge(verdicts.Found(**{**good, **changes}), "plain")  # type: ignore[arg-type]
    assert {each.target for each in found if each.state == "MISSED"} == missed


def test_a_run(tmp_path: Path) -> None:
    """A few seconds of everything: every role and every kind of guest, on every door."""
    status = main(["--smoke", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "results.json").read_text())
    assert status == 0, found
    assert len(found["ledger"]["done"]) == 12
    assert all((tmp_path / f"soak.{kind}").stat().st_size > 10_000 for kind in ("png", "svg"))
