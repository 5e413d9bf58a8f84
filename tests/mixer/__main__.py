"""make mixer: random programs on a direct server and through the sidecar, reply by reply."""

from __future__ import annotations

import argparse
import itertools
import sys
import time

from .runner import arena, program, report, shrink
from .table import CACHES, Setup

KINDS = ("valkey", "redis7", "redis8")


def setups(only: str) -> list[Setup]:
    """All kinds of servers, cache and pooling modes; clients choose protocol and database."""
    modes = [*itertools.product(CACHES, ["shared"]), ("off", "session")]
    made = [Setup(kind, *mode) for mode in modes for kind in KINDS]
    return [s for s in made if all(word in str(s).split("-") for word in only.split())]


def main() -> int:
    """Run, and say what differs."""
    parser = argparse.ArgumentParser(prog="mixer", description=__doc__)
    parser.add_argument("--commands", type=int, default=200_000, help="of all setups together")
    parser.add_argument("--seconds", type=float, default=1e9, help="end after this long")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help='words of a setup: "valkey hot shared"')
    parser.add_argument("--episode", type=int, help="only this one of each setup")
    parser.add_argument("--most", type=int, default=10, help="end after so many differences")
    options = parser.parse_args()
    chosen = setups(options.only)
    until = time.monotonic() + options.seconds
    total = differences = 0
    for at, setup in enumerate(chosen):
        if time.monotonic() > until or differences >= options.most:
            break
        share = (options.commands - total) // (len(chosen) - at)
        done, found = _run(setup, options, share, until, options.most - differences)
        total += done
        differences += found
        print(f"{setup}: {done} commands, {found} differences", flush=True)
    print(f"{total} commands, {differences} differences, seed {options.seed}")
    return int(differences > 0)


def _run(
    setup: Setup, options: argparse.Namespace, share: int, until: float, most: int
) -> tuple[int, int]:
    """One setup: commands and differences."""
    done = found = 0
    with arena(setup) as made:
        for number in itertools.count() if options.episode is None else [options.episode]:
            if done >= share or time.monotonic() > until or found >= most:
                break
            episode = made.play(program(made, options.seed, number), until)
            done += episode.commands
            if episode.differences:
                found += 1
                print(f"--- episode {number}, seed {options.seed}", flush=True)
                print(report(shrink(made, episode)), flush=True)
                made.renew()
    return done, found


if __name__ == "__main__":
    sys.exit(main())
