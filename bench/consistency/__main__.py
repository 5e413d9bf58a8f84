"""`python -m bench.consistency`: run the load, check what it saw, print, write.

Exit status 1: something was violated, or a run failed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import command_line
from bench.consistency import plots
from bench.consistency.faults import FAULTS
from bench.consistency.runner import Options, Outcome, run


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.consistency", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--calm", type=float, default=0.25, help="share before the first fault")
    parser.add_argument("--server", choices=("valkey", "redis7"), default="valkey")
    parser.add_argument("--sidecars", type=int, choices=(1, 2), default=2)
    parser.add_argument("--clients", type=int, default=5, help="at each site")
    parser.add_argument("--max-staleness", type=float, default=0.5)
    parser.add_argument("--slack", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", action="append", metavar="NAME", help="only these")
    parser.add_argument("--no-faults", action="store_true")
    parser.add_argument("--no-pinned", action="store_true", help="no clients that track themselves")
    parser.add_argument(
        "--operations", type=int, default=0, help="go on with other seeds until there were as many"
    )
    parser.add_argument("--failovers", type=int, default=2, help="in a second run, on a cluster")
    parser.add_argument(
        "--cluster", type=float, default=20.0, help="seconds of a third run, on a cluster (20)"
    )
    parser.add_argument("--sidecar-set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, help="folder (bench/results/consistency-TIME)")
    parser.add_argument("--list", action="store_true", help="name the faults and stop")
    args = parser.parse_args(argv)
    if unknown := set(args.faults or ()) - set(FAULTS):
        parser.error(f"unknown faults {sorted(unknown)}; there are {', '.join(FAULTS)}")
    return args


def options_of(args: argparse.Namespace) -> list[Options]:
    """The runs that are wanted."""
    faults = args.faults or (() if args.no_faults else tuple(FAULTS))
    common = {
        "server": args.server,
        "clients": args.clients,
        "max_staleness": args.max_staleness,
        "slack": args.slack,
        "seed": args.seed,
        "pinned": not args.no_pinned,
        "settings": command_line.settings(args.sidecar_set),
        "say": lambda text: print(f"  {text}", flush=True),
    }
    found = []
    if args.seconds:
        found.append(
            Options(
                seconds=args.seconds,
                calm=args.calm,
                sidecars=args.sidecars,
                faults=faults,
                **common,
            )
        )
    if args.failovers and not args.faults and not args.no_faults:
        found.append(Options(failovers=args.failovers, **common))
    if args.cluster and not args.faults and not args.no_faults:
        found.append(Options(seconds=args.cluster, calm=args.calm, cluster=True, **common))
    return found


def run_all(args: argparse.Namespace) -> list[Outcome]:
    """The runs, again with the next seed until there have been enough operations."""
    outcomes: list[Outcome] = []
    while not outcomes or sum(one.operations for one in outcomes) < args.operations:
        for options in options_of(args):
            what = "planned failovers" if options.failovers else f"{options.seconds:g} s"
            what += " of a cluster" if options.cluster else ""
            print(f"{what}, seed {options.seed}", flush=True)
            if outcomes and outcomes[-1].good:
                outcomes[-1].samples.clear()  # of many runs, the last is drawn
            outcomes.append(run(options))
            show(outcomes[-1])
        if not all(one.good for one in outcomes):
            break
        args.seed += 1
    return outcomes


def show(outcome: Outcome) -> None:
    """Print it."""
    hits = "" if outcome.hits is None else f", hit ratio {outcome.hits:.1%}"
    rate = outcome.operations / outcome.seconds
    print(f"{outcome.operations:,} operations in {outcome.seconds:.0f} s ({rate:,.0f}/s){hits}")
    print(f"  {outcome.figures}")
    print(f"  faults: {outcome.faults or 'none'}")
    for weather, found in outcome.staleness.items():
        print(
            f"  foreign writes, {weather}: {found['writes']:,.0f}, seen late by "
            f"p50 {found['p50']:.2f}, p90 {found['p90']:.2f}, p99 {found['p99']:.2f}, "
            f"max {found['max']:.2f} ms"
        )
    print(f"  violations: {outcome.violations or 0}")
    for text in outcome.explained:
        print("    " + text.replace("\n", "\n    "))


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is wanted."""
    args = parse(argv)
    if args.list:
        print("\n".join(FAULTS))
        return 0
    outcomes = run_all(args)
    folder = command_line.results_folder(args.out, "consistency")
    found = [outcome.as_json() for outcome in outcomes]
    (folder / "consistency.json").write_text(json.dumps(found, indent=1) + "\n")
    for number, outcome in enumerate(outcomes):
        for site, text in enumerate(outcome.sidecar_logs, 1):
            (folder / f"sidecar-{number + 1}-{site}.log").write_text(text)
    plots.draw(folder, outcomes)
    print(command_line.shown(folder))
    total = sum(outcome.operations for outcome in outcomes)
    broken = sum(sum(outcome.violations.values()) for outcome in outcomes)
    print(f"{total:,} operations in {len(outcomes)} runs, {broken} violations")
    return 0 if outcomes and all(outcome.good for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
