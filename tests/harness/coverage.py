"""Which lines of the Cython modules the tests and the fuzzers reach.

    python tests/harness/coverage.py            build, run, print a table
    python tests/harness/coverage.py --missed   and the lines that nothing reached

What has sockets is reached by sidecars of that build, which the compatibility tests of `make asan`
start; they write their counters when they end. The modules are compiled with the compiler's own
coverage (gcov), and with line numbers that point into the .pyx and .pxd files. The build goes into
`build/coverage`. Exit status 1: a file lies below LEAST. The files are those of the tree, so a new
one is asked for by itself.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from asan import STAGES as SANITIZED
from instrumented import ROOT, RUN, Build

BUILD = Build(ROOT / "build" / "coverage", "SIDECAR_COVERAGE")
LEAST = {"sidecar/core": 0.7, "sidecar/proxy": 0.3}
"""Of the lines of each file in these rooms."""

PYTEST = ["pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not slow"]
STAGES = [
    [*RUN, *PYTEST, "tests/core", "tests/native", "tests/proxy/io"],
    [*RUN, "tests.fuzz.fuzz_core", "--seconds", "20", "--seed", "1"],
    SANITIZED["compat"],
]

DECLARES = re.compile(r"\s*(#|\"|from |cimport |import |cdef class |cdef extern |cdef enum|$)")
"""Lines that are executed when a module is loaded, or never."""

Lines = dict[int, int]
"""How often each line was executed."""


def counted() -> dict[str, Lines]:
    """The lines of each source file, as the build's counters tell."""
    found: dict[str, Lines] = defaultdict(dict)
    counters = [str(path) for path in BUILD.folder.rglob("*.gcda")]
    with tempfile.TemporaryDirectory() as out:
        for at in range(0, len(counters), 20):
            command = ["gcov", "--json-format", "--preserve-paths", *counters[at : at + 20]]
            subprocess.run(command, cwd=out, check=True, stdout=subprocess.DEVNULL)
        for path in Path(out).glob("*.gcov.json.gz"):
            for file in json.loads(gzip.decompress(path.read_bytes()))["files"]:
                if file["file"].endswith((".pyx", ".pxd")):
                    add(found[source(file["file"])], file["lines"])
    return found


def source(name: str) -> str:
    """A source file's place in the tree."""
    path = Path(name)
    return str(path.relative_to(ROOT)) if path.is_absolute() else name


def add(lines: Lines, counted_lines: list[dict[str, int]]) -> None:
    """Count these lines too: one file is compiled into several modules if it is a header."""
    for line in counted_lines:
        number = line["line_number"]
        lines[number] = lines.get(number, 0) + line["count"]


def files() -> list[str]:
    """The files that are to be reached: every module of the tree."""
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / "sidecar").rglob("*.pyx"))


def spans(numbers: list[int]) -> str:
    """Numbers in a row, shortened: 3-5, 9."""
    rows: list[list[int]] = []
    for number in sorted(numbers):
        if rows and number == rows[-1][-1] + 1:
            rows[-1].append(number)
        else:
            rows.append([number])
    return ", ".join(f"{row[0]}-{row[-1]}" if len(row) > 1 else str(row[0]) for row in rows)


def of_the_source(name: str, lines: Lines) -> Lines:
    """Without what Cython adds behind the last line, which is counted as lines that follow it, and
    without declarations."""
    text = (ROOT / name).read_text().splitlines()
    return {
        number: count
        for number, count in lines.items()
        if number <= len(text) and not DECLARES.match(text[number - 1])
    }


def show(found: dict[str, Lines], *, missed: bool) -> list[str]:
    """Print the table: the files that lie too low."""
    low = []
    total = reached = 0
    for name in files():
        lines = of_the_source(name, found.get(name, {}))
        hit = sum(count > 0 for count in lines.values())
        total, reached = total + len(lines), reached + hit
        share = hit / len(lines) if lines else 0.0
        if share < next(least for room, least in LEAST.items() if name.startswith(room)):
            low.append(name)
        print(f"{name:50} {hit:5} of {len(lines):5} {share:7.1%}")
        if missed:
            print(f"    {spans([number for number, count in lines.items() if not count])}")
    print(f"{'all':50} {reached:5} of {total:5} {reached / max(total, 1):7.1%}")
    return low


def main(arguments: list[str]) -> int:
    """Build, run, tell."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--missed", action="store_true", help="print the lines that were not reached"
    )
    options = parser.parse_args(arguments)
    BUILD.make()
    for path in BUILD.folder.rglob("*.gcda"):
        path.unlink()
    for command in STAGES:
        environment = {**os.environ, "PYTHONMALLOC": "", "TESTED_ENDS_IN_ORDER": "1"}
        environment |= BUILD.environment() if command[: len(RUN)] == RUN else BUILD.program()
        if code := subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode:
            return code
    low = show(counted(), missed=options.missed)
    if low:
        print(f"too low: {', '.join(low)}", file=sys.stderr)
    return 1 if low else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
