"""What the drill of a changing cluster calls wrong; and one run of it, with a client that knows
clusters."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.cluster import moves
from bench.cluster.clients import Client, Judged, judge
from tests.harness.resp import Refused


class Answering:
    """Gives these replies, one after the other."""

    def __init__(self, *replies: Any) -> None:
        self.replies = list(replies)

    def run(self, commands: Sequence[tuple[str, ...]]) -> list[Any]:
        return [self.replies.pop(0) for _ in commands]

    def close(self) -> None:
        """Nothing is open."""


def client(*replies: Any) -> Client:
    """A client with one list, which has pushed as many numbers as there are replies."""
    made = Client(1, Answering(*replies))
    del made.lists[1:]
    made._push(len(replies))
    return made


@pytest.mark.parametrize(
    ("replies", "there", "wrong"),
    [
        ([1, 2, 3], [1, 2, 3], {}),
        ([1, 2, 3], [1, 3], {"lost": 1}),
        ([1, 2, 3], [1, 2, 2, 3], {"twice": 1}),
        ([1, 2, 3], [1, 3, 2], {"disordered": 1}),
        ([1, Refused("UNCERTAIN x"), 3], [1, 3], {"uncertain": 1, "acknowledged": 2}),
        ([1, Refused("UNCERTAIN x"), 3], [1, 2, 3], {"uncertain": 1, "acknowledged": 2}),
        ([1, Refused("UNAVAILABLE x"), 3], [1, 3], {"acknowledged": 2}),
        ([1, Refused("MOVED x"), 3], [1, 2, 3], {"refused_yet_done": 1, "acknowledged": 2}),
        ([1, OSError("gone"), 3], [1, 2, 3], {"uncertain": 1, "acknowledged": 2}),
    ],
)
def test_what_is_wrong(replies: list[Any], there: list[int], wrong: dict[str, int]) -> None:
    found = judge(one := client(*replies), {one.lists[0].key: there})
    assert found == Judged(**{"acknowledged": 3, **wrong})
    assert bool(found.wrong) == bool(wrong.keys() - {"uncertain", "acknowledged"})


def test_what_the_killed_primary_alone_had() -> None:
    one = client(1, 2)
    one.crashed[one.lists[0].slot] = time.monotonic()
    one.lists[0].acknowledged[3] = time.monotonic() + 1
    found = judge(one, {one.lists[0].key: [1]})
    assert (found.lost_in_crash, found.lost) == (1, 1)


def test_a_read_that_is_behind_is_noticed() -> None:
    one = client(1, 2)
    one._connection = Answering(1)
    one._read()
    assert one.faults == [f"{one.lists[0].key} has 1 of 2 numbers"]


@pytest.mark.slow
def test_the_drill(tmp_path: Path) -> None:
    """Every step of it; a client that knows clusters loses nothing and does nothing twice."""
    assert moves.main(["--peer", "redis-py", "--seconds", "10", "--out", str(tmp_path)]) in (0, 1)
    said = (tmp_path / "moves.json").read_text()
    assert '"twice": 0' in said
    assert '"lost": 0' in said
    assert said.count("is removed") == 1
