"""Builds the wheel, checks what is in it, and tries it: `python release/wheel.py` (`make wheel`).

    dist/redis_sidecar-….whl              the wheel
    dist/redis-sidecar-….cdx.json         what it is installed with (CycloneDX)

The build is reproducible: the same commit, compiler and Cython give the same bytes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
SMOKE = ROOT / "release/smoke.py"

# With what a sidecar is installed to be tried.
EXTRAS = "embedded,otlp"
# 1980-01-01: what a zip file can say at the earliest.
EARLIEST = 315532800

# Run by an interpreter that has scikit-build-core; {0} is where the wheel goes, {1} the settings.
_BUILD = "from scikit_build_core.build import build_wheel; print(build_wheel({0!r}, {1!r}))"

_SOURCES = ("pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE")

# What may be in the wheel. All else is a mistake: tests, sources of what is compiled, fuzzers.
_ALLOWED = re.compile(
    r"sidecar/(?:\w+/)*(?:\w+\.py|\w+\.[\w-]+\.so)"
    r"|sidecar/policy/commands\.json"
    r"|sidecar/admin/web/[\w.]+\.(?:js|css|html|svg)"
    r"|redis_sidecar-[\w.]+\.dist-info/(?:METADATA|WHEEL|RECORD|entry_points\.txt|licenses/LICENSE)"
)
_NEVER = re.compile(r"test|fuzz|bench|asan|mutant|oracle|harness", re.IGNORECASE)


def epoch() -> int:
    """The time of all files (Unix time): SOURCE_DATE_EPOCH, or that of the latest commit; where
    there is neither, the earliest that a wheel can have."""
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not given:
        told = subprocess.run(
            ["git", "log", "-1", "--format=%ct"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        given = told.stdout.strip()
    return max(int(given or EARLIEST), EARLIEST)


def copy(source: Path, to: Path) -> None:
    """Copy what the wheel is made from. All files get the same mode, whatever the umask was when
    they were checked out: the wheel has it."""
    to.mkdir(parents=True)
    for name in _SOURCES:
        shutil.copyfile(source / name, to / name)
    made = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(source / "sidecar", to / "sidecar", ignore=made, copy_function=shutil.copyfile)
    for path in to.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def build(source: Path, folder: Path, **settings: str) -> Path:
    """Build the wheel of the project at `source` into `folder`, from a copy; its path. `settings`
    are those of scikit-build-core, with `_` for `.`. Raises RuntimeError with what the build
    said."""
    given = {name.replace("_", "."): value for name, value in settings.items()}
    with tempfile.TemporaryDirectory() as made:
        copy(source, Path(made) / "source")
        given = {"build-dir": f"{made}/build", **given}
        run = subprocess.run(
            [sys.executable, "-c", _BUILD.format(str(folder), given)],
            cwd=Path(made) / "source",
            env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch())},
            capture_output=True,
            text=True,
            check=False,
        )
    if run.returncode:
        raise RuntimeError(run.stdout + run.stderr)
    return folder / run.stdout.splitlines()[-1]


def strays(names: Iterable[str]) -> list[str]:
    """Which of these names have no place in the wheel."""
    return [name for name in names if not _ALLOWED.fullmatch(name) or _NEVER.search(name)]


def install(wheel: Path, folder: Path) -> Path:
    """Make an environment in `folder` with the wheel and its extras; its interpreter. Raises
    CalledProcessError."""
    venv.create(folder, clear=True, with_pip=True)
    python = folder / "bin/python"
    quiet = ["-q", "--disable-pip-version-check", "--no-input"]
    subprocess.run(
        [python, "-m", "pip", "install", *quiet, f"{wheel}[{EXTRAS}]"],
        check=True,
        env={**os.environ, "PIP_ROOT_USER_ACTION": "ignore"},
    )
    return python


def write_bill(python: Path, path: Path) -> None:
    """Write the bill of materials of this interpreter's environment. Raises CalledProcessError."""
    how = ["--pyproject", str(ROOT / "pyproject.toml"), "--output-reproducible"]
    subprocess.run(
        [sys.executable, "-m", "cyclonedx_py", "environment", str(python), *how, "-o", str(path)],
        check=True,
        env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch())},
    )


def main() -> None:
    """Build, check, try, describe."""
    shutil.rmtree(DIST, ignore_errors=True)
    DIST.mkdir()
    wheel = build(ROOT, DIST)
    with zipfile.ZipFile(wheel) as content:
        if wrong := strays(content.namelist()):
            sys.exit(f"{wheel.name} has what nobody runs: {', '.join(wrong)}")
    with tempfile.TemporaryDirectory() as folder:
        python = install(wheel, Path(folder) / "environment")
        # Somewhere else: the folder beside the sources has a package of the same name.
        subprocess.run([python, SMOKE], check=True, cwd=folder)
        version = wheel.name.split("-")[1]
        bill = DIST / f"redis-sidecar-{version}.cdx.json"
        write_bill(python, bill)
    for path in (wheel, bill):
        print(f"{path.relative_to(ROOT)}  {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
