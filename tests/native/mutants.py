"""`python -m tests.native.mutants`: does the near cache's machine notice when the code is broken?

A copy of the sources below `build/mutants` is changed by one bug of the table at a time, compiled,
and put before the machine (tests/core/cache/test_cache_machine.py) and the fuzzer of cached
worlds. Exit status 1: a bug was noticed by neither, or the unchanged copy is not clean.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from bench.consistency.bugs import BUGS, Bug

ROOT = Path(__file__).resolve().parents[2]
COPY = ROOT / "build" / "mutants"
TREE, SITE = COPY / "tree", COPY / "site"
MACHINE = "tests/core/cache/test_cache_machine.py"

COPIED = ("sidecar", "tests", "bench", "CMakeLists.txt", "pyproject.toml")

OWN = (
    Bug(
        "a value serves other spaces",
        "sidecar/core/cache/store.pxd",
        "v.args_size == n and v.space == space",
        "v.args_size == n",
    ),
)
"""Bugs that only these tests are to notice. A value's hash counts its space as well, so that the
first of them cannot be seen."""

UNSEEN = {
    "a value serves other spaces": "the space is part of the hash",
    "large requests pass unseen": "",
}


def run(*argv: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in the copy."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(
        [str(a) for a in argv], cwd=TREE, env=environment | (env or {}), capture_output=True,
        text=True, check=False,
    )  # fmt: skip


def checked(*argv: str | Path) -> str:
    """Run a command that must succeed."""
    done = run(*argv)
    if done.returncode:
        sys.exit(f"{argv[0]}: {(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def refresh() -> None:
    """Make the copy what the repository is; files that are the same keep their age."""
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", *COPIED],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    for name in names:
        source, target = ROOT / name, TREE / name
        if source.is_file() and not (
            target.is_file() and target.read_bytes() == source.read_bytes()
        ):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def build() -> bool:
    """Compile what has changed, both the package and the harness: whether that went well."""
    modules = checked(
        sys.executable, "-c", "import cython_cmake.cmake as c; print(c.__path__[0])"
    ).strip()
    for folder, harness in ((COPY / "package", "OFF"), (COPY / "native", "ON")):
        if not (folder / "build.ninja").exists():
            checked(
                "cmake", "-G", "Ninja", "-S", TREE, "-B", folder, "-DCMAKE_BUILD_TYPE=Release",
                f"-DSIDECAR_TEST_HARNESS={harness}", f"-DPython_EXECUTABLE={sys.executable}",
                f"-DCMAKE_MODULE_PATH={modules}",
            )  # fmt: skip
        if run("cmake", "--build", folder).returncode:
            return False
    checked("cmake", "--install", COPY / "package", "--prefix", SITE)
    shutil.copytree(
        TREE / "sidecar", SITE / "sidecar", dirs_exist_ok=True,
        ignore=shutil.ignore_patterns("*.pyx", "*.pxd"),
    )  # fmt: skip
    return True


def noticed(examples: int, seconds: float) -> list[str]:
    """What the first to notice that something is wrong says of it: the fuzzer, then the machine."""
    env = {
        "SIDECAR_SITE": str(SITE),
        "SIDECAR_NATIVE": str(COPY / "native" / "modules"),
        "SIDECAR_EXAMPLES": str(examples),
    }
    python: list[str | Path] = [sys.executable, TREE / "tests" / "harness" / "asan_run.py"]
    fuzz = run(
        *python, "tests.fuzz.fuzz_core", "--only", "caches", "--seconds", str(seconds), env=env
    )
    if fuzz.returncode:
        return ["fuzz: " + (fuzz.stderr.strip().splitlines() or ["crash"])[-1]]
    if not examples:
        return []
    machine = run(
        *python, "pytest", "-q", "-x", "-p", "no:cacheprovider", "--timeout", "600", MACHINE,
        env=env,
    )  # fmt: skip
    if machine.returncode:
        lines = [line[1:].strip() for line in machine.stdout.splitlines() if line.startswith("E  ")]
        return ["machine: " + (lines[0] if lines else machine.stdout[-200:])]
    return []


def main(argv: list[str] | None = None) -> int:
    """Try each bug of the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[], help="parts of names")
    parser.add_argument("--examples", type=int, default=200, help="of the machine; 0: without it")
    parser.add_argument("--seconds", type=float, default=20.0, help="of the fuzzer")
    options = parser.parse_args(argv)
    bugs = [bug for bug in (*BUGS, *OWN) if bug.file.startswith("sidecar/core/")]
    bugs = [b for b in bugs if not options.only or any(part in b.name for part in options.only)]
    refresh()
    if found := noticed(options.examples, options.seconds) if build() else ["does not compile"]:
        print(f"the unchanged copy: {found}")
        return 1
    missed = 0
    for bug in bugs:
        path = TREE / bug.file
        before = path.read_text()
        if before.count(bug.old) != 1:
            print(f"{bug.name:58} ERROR  found {before.count(bug.old)} times in {bug.file}")
            missed += 1
            continue
        path.write_text(before.replace(bug.old, bug.new))
        begin = 0.0
        try:
            if not build():
                sys.exit(f"{bug.name}: does not compile")
            begin = time.monotonic()
            found = noticed(options.examples, options.seconds)
        finally:
            path.write_text(before)
        missed += not found
        verdict = " / ".join(text[:90] for text in found) or "MISSED"
        print(f"{bug.name:58} {time.monotonic() - begin:4.0f} s  {verdict}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
