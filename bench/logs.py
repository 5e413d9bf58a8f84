"""What a line of the log and of the audit stream costs the event loop: `python -m bench.logs`.

Measured where they are called, in microseconds, best and median of many rounds; the thread that
writes them runs meanwhile, as it does in the program. Lines go to /dev/null.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr

import structlog

from sidecar.telemetry import logs
from sidecar.telemetry.audit import Audit

ROUNDS = 40
LINES = 200
TARGETS = {"log line": 10.0, "log line, left out": 10.0, "audit line": 1.0}


def measure(call: Callable[[], object], pause: float = 0.05) -> list[float]:
    """Microseconds for one call, of each round."""
    found = []
    for _ in range(ROUNDS):
        time.sleep(pause)  # the thread writes what it has
        began = time.perf_counter()
        for _ in range(LINES):
            call()
        found.append((time.perf_counter() - began) / LINES * 1e6)
    return sorted(found)


def run() -> dict[str, list[float]]:
    """All measurements."""
    with open(os.devnull, "w") as null, redirect_stderr(null):
        original, sys.__stderr__ = sys.__stderr__, null  # type: ignore[misc]
        try:
            logs.configure("json", "info")
            log = structlog.get_logger()
            names = iter(f"event {number}" for number in range(10**9))
            told = measure(
                lambda: log.info(
                    next(names), client=281474976710657, upstream="10.0.0.1:6379", ms=1.25
                )
            )
            left_out = measure(lambda: log.info("again", client=281474976710657))
        finally:
            logs.close()
            sys.__stderr__ = original  # type: ignore[misc]
    audit = Audit(os.devnull)
    facts = ("config", "set", "alice", 0, 281474976710657, "10.0.0.7:51034")
    audited = measure(lambda: audit.command(*facts))
    audit.close()
    return {"log line": told, "log line, left out": left_out, "audit line": audited}


def main() -> int:
    """Print a table; fail when a median is above its target."""
    missed = False
    print(f"{'':20} {'best':>8} {'median':>8} {'worst':>8} {'target':>8}   (microseconds)")
    for name, found in run().items():
        middle = statistics.median(found)
        missed |= middle > TARGETS[name]
        print(f"{name:20} {found[0]:8.2f} {middle:8.2f} {found[-1]:8.2f} {TARGETS[name]:8.2f}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
