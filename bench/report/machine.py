"""Facts about the machine and the programs measured, for the head of every report."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import re
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.harness.errors import Unavailable
from tests.harness.programs import ROOT, SERVERS, find

_VERSION = re.compile(r"\d+\.\d+(\.\d+)?")
_COMMANDS = {"envoy": "--version", "nutcracker": "-V", "haproxy": "-v"}


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _output(argv: list[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False, cwd=ROOT)
    return done.stdout + done.stderr


def _version(argv: list[str]) -> str:
    found = _VERSION.search(_output(argv))
    return found[0] if found else "unknown"


def _version_of(find_it: Callable[[], str], flag: str) -> str:
    """The version of a program; why not, if it is missing."""
    try:
        return _version([find_it(), flag])
    except Unavailable as error:
        return str(error)


def versions(server: str) -> dict[str, str]:
    """Version of every program that can be found; a missing one says so."""
    servers = [kind for kind in ("redis", "valkey") if kind in ("redis", server)]
    result: dict[str, str] = {kind: _version_of(SERVERS[kind], "--version") for kind in servers}
    for name, flag in _COMMANDS.items():
        label = "twemproxy" if name == "nutcracker" else name
        result[label] = _version_of(partial(find, name), flag)
    with contextlib.suppress(OSError):
        commit = _output(["git", "rev-parse", "--short", "HEAD"]).strip()
        result["sidecar"] = commit if re.fullmatch(r"[0-9a-f]{7,}", commit) else "working tree"
    return result


def facts(server: str) -> dict[str, object]:
    """Everything a reader needs to judge the figures."""
    return {
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": _cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
        "server": server,
        "versions": versions(server),
    }
