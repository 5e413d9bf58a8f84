"""A short run of the fuzzer: in a process of its own, since what it looks for may be a crash."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.core.fuzzworld import fuzz_world
from tests.fuzz.fuzz_core import main
from tests.support.exchange import table

ROOT = Path(__file__).resolve().parents[2]


def test_smoke() -> None:
    command = [sys.executable, "-m", "tests.fuzz.fuzz_core", "--seconds", "2", "--seed", "1"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "no promise broken" in run.stdout


def test_a_seed_repeats_a_run() -> None:
    assert fuzz_world(table(), 5, 500) == fuzz_world(table(), 5, 500)
    assert fuzz_world(table(), 5, 500) != fuzz_world(table(), 6, 500)


def test_inputs_bound_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--inputs", "1", "--seed", "9", "--only", "requests"]) == 0
    assert capsys.readouterr().out.startswith("seed 9\n100,000 inputs")
