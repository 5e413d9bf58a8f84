"""The inputs that guided runs have kept, once more; and what a guided run needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import guided, targets
from tests.fuzz.targets import CORPUS, TARGETS, kept, seeds
from tests.native.chance import on_tape
from tests.native.fuzz_decoders import sample

ROOT = Path(__file__).resolve().parents[2]
MOST = 300_000
"""Bytes of the whole corpus."""


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_that_are_kept(name: str) -> None:
    """In a process of its own, since what they once found may be a crash."""
    code = (
        "from tests.fuzz.targets import TARGETS, kept\n"
        f"for data in kept({name!r}):\n"
        f"    TARGETS[{name!r}](data)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-4000:]
    assert len(kept(name)) > 20


def test_the_corpus_is_small() -> None:
    assert sum(path.stat().st_size for path in CORPUS.iterdir()) < MOST
    assert {path.stem for path in CORPUS.iterdir()} == set(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_good_inputs(name: str) -> None:
    for data in seeds(name)[:20]:
        TARGETS[name](data)


def test_a_tape_decides() -> None:
    """Chance comes from the bytes while there are some, and then from the generator again."""
    usual = sample(7, 20, False)
    assert on_tape(b"", sample, 7, 20, False) == usual
    taped = on_tape(bytes(range(200)), sample, 7, 20, False)
    assert taped == on_tape(bytes(range(200)), sample, 7, 20, False)
    assert taped[0] != usual[0]
    assert sample(7, 20, False) == usual


def test_a_tape_ends_with_an_error() -> None:
    def fail() -> None:
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        on_tape(b"x" * 100, fail)
    assert on_tape(b"", sample, 7, 2, False) == sample(7, 2, False)


def test_what_is_kept_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "CORPUS", tmp_path / "corpus")
    targets.keep("requests", [b"abc", b"\x00\xff"])
    assert kept("requests") == [b"\x00\xff", b"abc"]
    assert kept("replies") == []


def test_without_clang_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="apt-get install clang"):
        guided.main(["--seconds", "1"])
