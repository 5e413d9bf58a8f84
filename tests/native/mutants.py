"""`python -m tests.native.mutants`: who notices when the near cache's core is broken?

A copy of the sources below `build/mutants` is changed by one bug of the table
(bench/consistency/bugs.py) at a time, compiled, and put before the transcripts of the unit tests
(tests/core/cache), the fuzzer of worlds with a near cache, and the random machine
(tests/core/cache/test_cache_machine.py). No server is needed. Exit status 1: nobody noticed a bug,
or the unchanged copy is not clean.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench.consistency.bugs import BUGS, Bug

ROOT = Path(__file__).resolve().parents[2]
COPY = ROOT / "build" / "mutants"
TREE, SITE = COPY / "tree", COPY / "site"
MACHINE = "tests/core/cache/test_cache_machine.py"

COPIED = ("sidecar", "tests", "bench", "CMakeLists.txt", "pyproject.toml")

PYTHON: list[str | Path] = [sys.executable, TREE / "tests" / "harness" / "asan_run.py"]
"""Runs a Python module on the packages of the copy."""


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


def by_pytest(env: dict[str, str], *tests: str) -> str:
    """The first test that fails, or nothing."""
    done = run(
        *PYTHON, "pytest", "-q", "-x", "-p", "no:cacheprovider", "--timeout", "600", *tests, env=env
    )
    if not done.returncode:
        return ""
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    return failed[0].split(" - ")[0].rpartition("::")[2] if failed else done.stdout[-200:]


def by_transcripts(env: dict[str, str], options: argparse.Namespace) -> str:
    """The transcripts of the unit tests: the one that fails."""
    return by_pytest(env, "tests/core/cache", f"--ignore={MACHINE}")


def by_fuzzer(env: dict[str, str], options: argparse.Namespace) -> str:
    """The fuzzer of worlds with a near cache, always with the same seeds: what it says is wrong."""
    seconds = str(options.seconds)
    fuzz = ["tests.fuzz.fuzz_core", "--only", "caches", "--seconds", seconds, "--seed", "1"]
    done = run(*PYTHON, *fuzz, env=env)
    said = done.stderr.strip().splitlines() or ["crash"]
    told = re.search(r"b['\"].*?['\"] (\w[^;]*)", said[-1])
    return (told[1] if told else said[-1][:60]) if done.returncode else ""


def by_machine(env: dict[str, str], options: argparse.Namespace) -> str:
    """The random machine: the test that fails."""
    return by_pytest(env, MACHINE) if options.examples else ""


WATCHERS: dict[str, Callable[[dict[str, str], argparse.Namespace], str]] = {
    "transcript": by_transcripts,
    "fuzzer": by_fuzzer,
    "machine": by_machine,
}
"""Who may notice a bug. The machine is slow, and asked only if nobody else has noticed."""


def noticed(options: argparse.Namespace, *, all_of_them: bool = False) -> list[str]:
    """What those say who notice that something is wrong, and after how long."""
    env = {
        "TESTED_SITE": str(SITE),
        "TESTED_NATIVE": str(COPY / "native" / "modules"),
        "TESTED_EXAMPLES": str(options.examples),
    }
    found: list[str] = []
    for name, watcher in WATCHERS.items():
        if name == "machine" and found and not all_of_them:
            continue
        begin = time.monotonic()
        if said := watcher(env, options):
            found.append(f"{name}, {time.monotonic() - begin:.0f} s: {said}")
    return found


def tried(bug: Bug, options: argparse.Namespace) -> list[str]:
    """What is noticed of one bug; the copy is as it was afterwards."""
    path = TREE / bug.file
    before = path.read_text()
    if before.count(bug.old) != 1:
        sys.exit(f"{bug.name}: found {before.count(bug.old)} times in {bug.file}")
    path.write_text(before.replace(bug.old, bug.new))
    try:
        if not build():
            sys.exit(f"{bug.name}: does not compile")
        return noticed(options)
    finally:
        path.write_text(before)


def main(argv: list[str] | None = None) -> int:
    """Try each bug of the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[], help="parts of names")
    parser.add_argument("--examples", type=int, default=200, help="of the machine; 0: without it")
    parser.add_argument("--seconds", type=float, default=20.0, help="of the fuzzer")
    options = parser.parse_args(argv)
    bugs = [bug for bug in BUGS if bug.file.startswith("sidecar/core/")]
    bugs = [b for b in bugs if not options.only or any(part in b.name for part in options.only)]
    refresh()
    found = noticed(options, all_of_them=True) if build() else ["does not compile"]
    if found:
        print(f"the unchanged copy: {found}")
        return 1
    missed = 0
    for bug in bugs:
        found = tried(bug, options)
        missed += not found
        print(f"| {bug.name} | {'; '.join(found) or 'MISSED'} |", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
