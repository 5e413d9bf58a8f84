"""Every Cython module of the tree is run under the sanitizers, and those of the core are fuzzed.

Which those are is asked of the stages themselves (asan.py): what they load. How much of each they
reach is for `make coverage` to say.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import instrumented

ROOT = Path(__file__).resolve().parents[2]
ASAN = (ROOT / "tests" / "harness" / "asan.py").read_text()

LOADED = "print(*(m for m in sys.modules if m.startswith('sidecar.')), sep='\\n')"
LOADERS = {
    "tests": "import sys, pytest; pytest.main(['--collect-only', '-qq', *sys.argv[1:]]); " + LOADED,
    "fuzz": "import sys, importlib; importlib.import_module(sys.argv[1]); " + LOADED,
}


NOT_FUZZED = {"sidecar.core.hotkeys.detector"}
"""What only the shell calls, and no bytes of anybody's reach: the stage `tests` drives it."""


def modules(folder: str) -> set[str]:
    """The Cython modules below a folder of the package."""
    paths = (ROOT / "sidecar" / folder).rglob("*.pyx")
    return {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths}


def stage(name: str) -> list[str]:
    """What a stage runs: folders of tests, or a module."""
    match = re.search(rf'"{name}": \[\*RUN, (.*?)\],', ASAN)
    assert match is not None, name
    return [word for word in re.findall(r'"([^"]+)"', match[1]) if re.match(r"tests[./]", word)]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "folder"), [("tests", ""), ("fuzz", "core")])
def test_a_stage_loads_every_module(name: str, folder: str) -> None:
    command = [sys.executable, "-c", LOADERS[name], *stage(name)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    missed = modules(folder) - set(run.stdout.split())
    assert missed == (NOT_FUZZED if name == "fuzz" else set())


def test_a_build_is_used_instead_of_what_is_installed() -> None:
    """What an instrumented build needs to be told does not name the installed package."""
    build = instrumented.Build(ROOT / "build" / "nothing", "SIDECAR_NOTHING")
    environment = build.environment()
    assert all(Path(path).is_relative_to(build.folder) for path in environment.values())
    # A sidecar that inherits them would take them for settings, and not start.
    assert not [name for name in environment if name.startswith("SIDECAR_")]
    run = subprocess.run(
        [*instrumented.RUN, "sidecar"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode != 0
    assert "the modules under test come from" in run.stderr or "No module" in run.stderr
