"""Short runs of the fuzzer: in a process of its own, since what it looks for may be a crash."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.fuzz_core import CACHES, KINDS, main
from tests.native.fuzz_cache_world import fuzz_cache_world
from tests.native.fuzz_world import fuzz_world
from tests.native.shell import table

ROOT = Path(__file__).resolve().parents[2]


def test_smoke() -> None:
    command = [sys.executable, "-m", "tests.fuzz.fuzz_core", "--seconds", "2", "--seed", "1"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "no promise broken" in run.stdout


def test_a_seed_repeats_a_run() -> None:
    assert fuzz_world(table(), 5, 500) == fuzz_world(table(), 5, 500)
    assert fuzz_world(table(), 5, 500) != fuzz_world(table(), 6, 500)


@pytest.mark.parametrize(("losses", "follows", "holds", "acks"), KINDS)
def test_every_kind_of_world(losses: bool, follows: bool, holds: bool, acks: int) -> None:
    for seed in range(8):
        fuzz_world(table(), seed, 2000, losses=losses, follows=follows, holds=holds, acks=acks)


@pytest.mark.parametrize(("mode", "losses", "follows", "acks"), CACHES)
def test_every_kind_of_cache(mode: str, losses: bool, follows: bool, acks: int) -> None:
    options = {"mode": mode, "losses": losses, "follows": follows, "acks": acks}
    found = [fuzz_cache_world(table(), seed, 1500, **options) for seed in range(6)]
    assert fuzz_cache_world(table(), 0, 1500, **options) == found[0]
    assert (sum(hits for _, hits in found) > 0) == (mode != "observe")


class _Arena(ctypes.Structure):
    """What malloc says of itself: struct mallinfo2."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd",
            "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


def test_worlds_give_their_memory_back() -> None:
    """Records of clients that went, rings that grew, lines and replies that were kept; values,
    those that were being read included."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        pytest.skip("this C library does not count its memory")
    libc.mallinfo2.restype = _Arena

    def used_after(worlds: range) -> int:
        for seed in worlds:
            fuzz_world(table(), seed, 1500, follows=True, holds=True, acks=seed % 2)
            fuzz_cache_world(table(), seed, 500, mode=("rules", "hot")[seed % 2], acks=seed % 3 % 2)
        return libc.mallinfo2().uordblks

    before = used_after(range(300))
    assert used_after(range(300, 900)) - before < 100_000


def test_inputs_bound_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--inputs", "1", "--seed", "9", "--only", "requests"]) == 0
    assert capsys.readouterr().out.startswith("seed 9\n100,000 inputs")


def test_memory_that_runs_out() -> None:
    """At each allocation of a few programs in turn, once and three times in a row."""
    for times in ("1", "3"):
        command = [sys.executable, "-m", "tests.fuzz.failing_memory", "--seeds", "4"]
        command += ["--times", times]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr[-4000:]
        assert "nothing was lost" in run.stdout
