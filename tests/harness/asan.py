"""Build the extension modules with sanitizers, and run on them whatever reaches each of them.

    python tests/harness/asan.py            build, then everything in STAGES
    python tests/harness/asan.py NAME...    build, then these stages
    python tests/harness/asan.py -- CMD...  build, then CMD with the environment it needs

AddressSanitizer and UndefinedBehaviorSanitizer are compiled in, and the first report of either ends
the run. The build goes into `build/asan`, which comes first on the path of what is run; the
installed package is not touched. What is not looked for: leaks (Python keeps much until its end).

The core is driven by its own tests and by the fuzzers. The modules around sockets need a sidecar:
the compatibility tests named here start one from this build, in front of real servers. Some of
these bound its memory, so the sanitizer keeps less of what was freed than it would by default.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from instrumented import ROOT, RUN, Build

BUILD = Build(ROOT / "build" / "asan", "SIDECAR_ASAN")
REPORTS = BUILD.folder / "reports"

COMPAT = (
    "test_cluster.py",
    "test_pipelines.py",
    "test_transactions.py",
    "test_pubsub.py",
    "test_blocking.py",
    "test_tls.py",
    "test_nearcache.py",
    "test_nearcache_replies.py",
    "test_upstream_lost.py",
    "test_hostile.py",
    "test_hostile_readers.py",
    "test_protocol_errors.py",
    "test_connection.py",
    "test_tracking.py",
)
"""Plain and TLS connections, the near cache, subscribers, transactions, servers that fail and
clients that abuse them: what reaches every line of the reactor, the plane, its clients and
links."""

PYTEST = ["-q", "-x", "-p", "no:cacheprovider", "--timeout", "600"]
STAGES = {
    "tests": [*RUN, "pytest", *PYTEST, "tests/core", "tests/native", "tests/proxy/io"],
    "fuzz": [*RUN, "tests.fuzz.fuzz_core", "--seconds", "40"],
    "compat": [
        sys.executable,
        "-m",
        "pytest",
        *PYTEST,
        "-n",
        "2",
        "--dist",
        "loadfile",
        *(f"tests/compat/{name}" for name in COMPAT),
    ],
}


def build() -> None:
    """Compile what changed."""
    BUILD.make()


def runtime(name: str) -> str:
    """The path of one of the compiler's sanitizer libraries."""
    command = [os.environ.get("CC", "gcc"), f"-print-file-name={name}"]
    path = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    if not os.path.isabs(path):
        sys.exit(f"{command[0]} has no {name}")
    return path


def instrumented() -> dict[str, str]:
    """What a Python needs that runs instrumented modules."""
    report = f"halt_on_error=1:log_path={REPORTS}/report"
    return {
        "LD_PRELOAD": f"{runtime('libasan.so')} {runtime('libubsan.so')}",
        "ASAN_OPTIONS": f"detect_leaks=0:quarantine_size_mb=64:{report}",
        "UBSAN_OPTIONS": f"print_stacktrace=1:{report}",
        "PYTHONMALLOC": "malloc",
        **BUILD.environment(),
    }


def run(command: list[str]) -> int:
    """Run a command; a report of a process that it started fails it as well."""
    shutil.rmtree(REPORTS, ignore_errors=True)
    REPORTS.mkdir()
    environment = {**os.environ, **BUILD.program(**instrumented())}
    if command[: len(RUN)] == RUN:
        environment |= instrumented()
    code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    for report in sorted(REPORTS.iterdir()):
        print(report.read_text(), file=sys.stderr)
        code = code or 1
    return code


def main(arguments: list[str]) -> int:
    """Build, then run what was asked for."""
    if arguments[:1] != ["--"] and (unknown := set(arguments) - set(STAGES)):
        sys.exit(f"no such stage: {', '.join(sorted(unknown))}; there are {', '.join(STAGES)}")
    build()
    if arguments[:1] == ["--"]:
        return run([*RUN, *arguments[1:]])
    for name in arguments or STAGES:
        print(f"sanitizers: {name}", flush=True)
        if code := run(STAGES[name]):
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
