"""`python -m bench.warm`: what a warm start is worth, beside a cold one.

Sessions in a server 3 ms away (a proxy delays its replies), read through a sidecar that is
restarted, each time on one connection, one GET after the other. Measured, in turns:

* hit ratio of 10,000 reads before a restart, and of the first 10,000 after it: the server's own
  count of GET says how many reached it. `sessions`: 5,000 users who come back, one read in fifty
  is of somebody new. `zipf`: 0.99 over 100,000 keys, of which more are in use than are kept.
* latency of the first GET of each of the 1,000 sessions used most;
* time from the start of the process, and from reaching the server, until /readyz says yes with
  10,000 keys to load, 3 ms away and on loopback.

Hits and latencies do not depend on how busy the machine is nearly as much as times to ready do.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench import command_line
from bench.report import machine
from bench.warm.measure import HOT, measure
from tests.harness.errors import Unavailable


def main(argv: list[str] | None = None) -> int:
    """Run it, print the table, write JSON and plot."""
    parser = argparse.ArgumentParser(prog="python -m bench.warm", description=__doc__)
    parser.add_argument("--repeat", type=int, default=3, help="rounds (3)")
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--out", type=Path, help="folder for the results")
    args = parser.parse_args(argv)
    from bench.warm import report

    rounds, count, hot = (1, 500, 100) if args.quick else (args.repeat, 10_000, HOT)
    try:
        found = measure(rounds, count, hot, lambda text: print(text, file=sys.stderr))
        facts = machine.facts("valkey")
    except Unavailable as error:
        print(error, file=sys.stderr)
        return 1
    folder = command_line.results_folder(args.out, "warm")
    report.write(folder, found, facts, judge=not args.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())
