"""Fuzz the core guided by coverage: `python -m tests.fuzz.guided --seconds 60`.

libFuzzer (of clang) runs each target of targets.py in turn, on extension modules with its counters
and AddressSanitizer compiled in (`build/fuzz`): it changes inputs and keeps those that reach
something new. It begins with the inputs kept in tests/fuzz/corpus, which the default suite replays;
with `--keep` those that are needed to reach what this run has reached are kept in their place.

A finding ends the run with status 1. Its input is in `build/fuzz/findings`; to run it again:
`--again FILE --only TARGET`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.targets import TARGETS, keep, kept, seeds
from tests.harness.instrumented import ROOT, RUN, Build

BUILD = Build(ROOT / "build" / "fuzz", "SIDECAR_FUZZ", compiler="clang")
PROGRAM = BUILD.folder / "guided"
FINDINGS = BUILD.folder / "findings"
LONGEST = {"requests": 400, "replies": 400, "rewriter": 400, "worlds": 1200, "caches": 1200}
"""Bytes of an input."""
BUDGET = 56_000
"""Bytes of base64 that are kept for a target."""

NO_CLANG = """\
clang with libFuzzer is needed: gcc has none. On Debian: apt-get install clang libclang-rt-14-dev
(the number is that of `clang --version`). `make fuzz` needs no clang."""


def compile_program() -> None:
    """The program that libFuzzer is in. SystemExit: it cannot be compiled."""
    if shutil.which(BUILD.compiler) is None:
        sys.exit(NO_CLANG)
    PROGRAM.parent.mkdir(parents=True, exist_ok=True)
    library = sysconfig.get_config_var("LIBDIR")
    command = [BUILD.compiler, "-O1", "-g", "-fsanitize=fuzzer,address", "-Wl,--export-dynamic"]
    command += [f"-I{sysconfig.get_path('include')}", str(Path(__file__).with_name("guided.c"))]
    command += [f"-L{library}", f"-Wl,-rpath,{library}"]
    command += [f"-lpython{sysconfig.get_config_var('LDVERSION')}", "-o", str(PROGRAM)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stderr}\n{NO_CLANG}")


def run(name: str, arguments: Sequence[str], *, quiet: bool = False) -> int:
    """The program on a target: its exit status."""
    environment = {
        **os.environ,
        **BUILD.environment(),
        "FUZZ_TARGET": name,
        "FUZZ_PYTHON": sys.executable,
        "FUZZ_RUN": RUN[1],
        "ASAN_OPTIONS": "detect_leaks=0:quarantine_size_mb=16",
        "PYTHONMALLOC": "malloc",
    }
    command = [str(PROGRAM), *arguments]
    output = subprocess.DEVNULL if quiet else None
    return subprocess.run(command, cwd=ROOT, env=environment, check=False, stderr=output).returncode


def fill(folder: Path, inputs: Sequence[bytes]) -> None:
    """Inputs as files, as libFuzzer wants them."""
    folder.mkdir(parents=True, exist_ok=True)
    for each in inputs:
        (folder / hashlib.sha1(each).hexdigest()).write_bytes(each)


def fuzz(name: str, seconds: float) -> int:
    """One target for so long: the exit status."""
    folder = BUILD.folder / "corpus" / name
    fill(folder, kept(name) or seeds(name))
    FINDINGS.mkdir(exist_ok=True)
    limits = [f"-max_total_time={seconds:.0f}", f"-max_len={LONGEST[name]}", "-timeout=60"]
    limits += [f"-artifact_prefix={FINDINGS}/{name}-", "-print_final_stats=1", "-verbosity=1"]
    return run(name, [str(folder), *limits])


def minimise(name: str) -> None:
    """Keep the shortest inputs that together reach what all of the target's have reached; of a
    target whose inputs are more than BUDGET, as many as fit."""
    folder = BUILD.folder / "corpus" / name
    fewest = folder.with_name(f"{name}-fewest")
    shutil.rmtree(fewest, ignore_errors=True)
    fewest.mkdir()
    run(name, ["-merge=1", "-timeout=60", str(fewest), str(folder)], quiet=True)
    inputs, size = [], 0
    for path in sorted(fewest.iterdir(), key=lambda path: path.stat().st_size):
        size += path.stat().st_size * 4 // 3 + 5
        if size > BUDGET:
            break
        inputs.append(path.read_bytes())
    keep(name, inputs)
    print(f"{name}: {len(inputs)} of {len(list(fewest.iterdir()))} inputs kept")


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of all targets together (60)")
    parser.add_argument("--only", choices=TARGETS, nargs="+", default=list(TARGETS))
    parser.add_argument("--keep", action="store_true", help="renew tests/fuzz/corpus")
    parser.add_argument("--again", metavar="FILE", help="run one input, of the target in --only")
    options = parser.parse_args(arguments)
    compile_program()
    BUILD.make()
    if options.again:
        return run(options.only[0], [options.again])
    for name in options.only:
        print(f"guided: {name}", flush=True)
        if code := fuzz(name, options.seconds / len(options.only)):
            print(f"a finding: {FINDINGS}", file=sys.stderr)
            return code
    for name in options.only if options.keep else ():
        minimise(name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
