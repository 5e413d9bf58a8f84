"""`python -m bench.nearcache.writer PORT COUNT`: counts a key up; prints when each was answered.

Moments are those of CLOCK_MONOTONIC in nanoseconds, which all processes of a machine share.
"""

from __future__ import annotations

import json
import random
import sys
import time

from tests.harness.wire import Wire

PAUSE = (0.001, 0.003)
"""Long enough that the reader has the value in the cache again before the next write."""


def main() -> None:
    """Write, wait for the answer, pause."""
    answered = []
    with Wire(int(sys.argv[1])) as wire:
        for number in range(1, int(sys.argv[2]) + 1):
            time.sleep(random.uniform(*PAUSE))
            wire.cmd("SET", "counter", number)
            answered.append(time.monotonic_ns())
    print(json.dumps(answered))


if __name__ == "__main__":
    main()
