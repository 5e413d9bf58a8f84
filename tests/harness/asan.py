"""Build the extension modules with AddressSanitizer and run the core's tests and fuzzer on them.

    python tests/harness/asan.py            build, the core's tests, the fuzzer for 20 seconds
    python tests/harness/asan.py -- CMD...  build, then CMD with the environment it needs

The build goes into `build/asan`, which comes first on the path of what is run; the installed
package is not touched. Undefined behaviour ends a run just as a bad access does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "build" / "asan" / "site"
OBJECTS = ROOT / "build" / "asan" / "objects"
HARNESS = ROOT / "build" / "asan" / "native"
FUZZ_SECONDS = "20"


def build() -> None:
    """Compile into TARGET; only what changed is compiled again."""
    shutil.rmtree(TARGET, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-build-isolation"]
    command += ["--no-deps", "--no-warn-conflicts", "--target", str(TARGET)]
    command += ["-C", "cmake.define.SIDECAR_ASAN=ON", "-C", f"build-dir={OBJECTS}", "."]
    subprocess.run(command, cwd=ROOT, check=True)
    native = ["make", "native", f"NATIVE_BUILD={HARNESS}", "NATIVE_FLAGS=-DSIDECAR_ASAN=ON"]
    subprocess.run(native, cwd=ROOT, check=True)


def runtime(name: str) -> str:
    """The path of one of the compiler's sanitizer libraries."""
    command = [os.environ.get("CC", "gcc"), f"-print-file-name={name}"]
    path = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    if not os.path.isabs(path):
        sys.exit(f"{command[0]} has no {name}")
    return path


def environment() -> dict[str, str]:
    """What a Python needs to run instrumented modules: no finder of the editable install."""
    return os.environ | {
        "LD_PRELOAD": f"{runtime('libasan.so')} {runtime('libubsan.so')}",
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:halt_on_error=1",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        "PYTHONMALLOC": "malloc",
        "SIDECAR_SITE": str(TARGET),
        "SIDECAR_NATIVE": str(HARNESS / "modules"),
    }


def main(arguments: list[str]) -> int:
    """Build, then run what was asked for."""
    build()
    python = [sys.executable, str(Path(__file__).with_name("asan_run.py"))]
    commands = [
        [*python, "pytest", "-q", "-p", "no:cacheprovider", "tests/core", "tests/native"],
        [*python, "tests.fuzz.fuzz_core", "--seconds", FUZZ_SECONDS],
    ]
    if arguments[:1] == ["--"]:
        commands = [[*python, *arguments[1:]]]
    for command in commands:
        code = subprocess.run(command, cwd=ROOT, env=environment(), check=False).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
