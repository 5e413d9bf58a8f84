"""Drive the core with random inputs for a while: `python -m tests.fuzz.fuzz_core --seconds 60`.

The fuzzers take turns, most as native loops with a generator of their own (tests/native/fuzz_*):
damaged requests; damaged replies; both through the rewriter of a client with a key prefix
(fuzz_rewriter.py); worlds of clients and servers, with and without broken links, masters that lose
their role, replicas to wait for, and writes that are held back; and worlds with a near cache, in
each of its modes.
The first broken promise ends the run with status 1 and the seed that repeats it.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator

from tests.fuzz.fuzz_rewriter import fuzz_rewriter
from tests.native.fuzz_cache_world import fuzz_cache_world
from tests.native.fuzz_decoders import fuzz_replies, fuzz_requests
from tests.native.fuzz_world import fuzz_world
from tests.native.shell import table

BATCH = 100_000
STEPS = 3000
# Whether connections break, masters change and writes are held, and how many replicas are needed.
KINDS = list(itertools.product((False, True), (False, True), (False, True), (0, 1, 2)))
# The near cache's mode, whether connections break and masters change, and the replicas.
CACHES = [("observe", True, False, 0)]
CACHES += itertools.product(("rules", "hot"), (False, True), (False, True), (0, 1))


def decoder(fuzz: Callable[[int, int], None]) -> Callable[[int], int]:
    """A batch for one of the decoders, by seed: how many inputs it was."""

    def batch(seed: int) -> int:
        fuzz(seed, BATCH)
        return BATCH

    return batch


def worlds(seed: int) -> int:
    """A batch of worlds, one of each kind: how many pieces of input their clients sent."""
    return sum(
        fuzz_world(
            table(),
            seed * len(KINDS) + i,
            STEPS,
            losses=losses,
            follows=follows,
            holds=holds,
            acks=acks,
        )
        for i, (losses, follows, holds, acks) in enumerate(KINDS)
    )


def caches(seed: int) -> int:
    """A batch of worlds with a near cache, one of each kind: likewise."""
    return sum(
        fuzz_cache_world(
            table(),
            seed * len(CACHES) + i,
            STEPS,
            mode=mode,
            losses=losses,
            follows=follows,
            acks=acks,
        )[0]
        for i, (mode, losses, follows, acks) in enumerate(CACHES)
    )


FUZZERS = {
    "requests": decoder(fuzz_requests),
    "replies": decoder(fuzz_replies),
    "rewriter": fuzz_rewriter,
    "worlds": worlds,
    "caches": caches,
}


def turns(names: list[str], seed: int) -> Iterator[tuple[str, int]]:
    """Which fuzzer runs next, and with which seed; no end."""
    while True:
        for name in names:
            yield name, seed
        seed += 1


def run(options: argparse.Namespace) -> int:
    """Fuzz until time or inputs are used up: the exit status."""
    counts = dict.fromkeys(options.only, 0)
    deadline = time.monotonic() + options.seconds
    print(f"seed {options.seed}", flush=True)
    for name, seed in turns(options.only, options.seed):
        if time.monotonic() >= deadline or sum(counts.values()) >= options.inputs:
            break
        try:
            counts[name] += FUZZERS[name](seed)
        except AssertionError as error:
            print(f"{name}, --seed {seed}: {error}", file=sys.stderr)
            return 1
    each = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    print(f"{sum(counts.values()):,} inputs ({each}), no promise broken")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="stop after so long")
    parser.add_argument("--inputs", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    parser.add_argument("--only", choices=FUZZERS, nargs="+", default=list(FUZZERS))
    return run(parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
