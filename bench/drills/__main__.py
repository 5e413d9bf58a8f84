"""`python -m bench.drills`: choose drills, run them, print, write.

Exit status 1: a run failed, or a promise (a count that has to be zero) was broken through the
sidecar. A time above its target is shown as MISSED, and is no failure of the command.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import command_line
from bench.command_line import names
from bench.drills import page, report, targets
from bench.drills.catalogue import DRILLS, choose
from bench.drills.drill import Drill
from bench.drills.runner import LaneResult, run_lane
from bench.drills.scene import LANES
from bench.drills.spec import CLIENT_TIMEOUT
from bench.drills.world import Options
from bench.report import machine, tables

PRODUCTION_DOWN_AFTER = 5000
PRODUCTION_TIMEOUT = 15.0
"""A client has to be more patient than the outage it is to survive (s)."""

SMOKE = {"1": ("direct",), "3": ("sidecar",), "9": ("sidecar",), "10a": ("sidecar",)}
"""Drill -> lanes of a smoke run."""


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.drills", description=__doc__)
    parser.add_argument("--only", type=names, default=[], metavar="N,...", help="drills")
    parser.add_argument("--lanes", type=names, default=list(LANES), metavar="A,B")
    parser.add_argument("--list", action="store_true", help="name the drills and stop")
    parser.add_argument("--server", choices=("valkey", "redis"), default="valkey")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each drill and lane (1)")
    parser.add_argument("--smoke", action="store_true", help="four short drills, < 50 s")
    parser.add_argument(
        "--switch-on", choices=("announcement", "promotion"), default="announcement"
    )
    parser.add_argument("--min-replicas-ack", type=int, default=0, metavar="N")
    parser.add_argument("--down-after", type=int, metavar="MS", help="of the Sentinels (1000)")
    parser.add_argument(
        "--production",
        action="store_true",
        help=f"down-after {PRODUCTION_DOWN_AFTER} ms, clients wait {PRODUCTION_TIMEOUT:g} s",
    )
    parser.add_argument("--client-timeout", type=float, metavar="S", help=f"({CLIENT_TIMEOUT:g})")
    parser.add_argument("--direct-retries", type=int, default=0, metavar="N")
    parser.add_argument("--sidecar-set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, help="folder (bench/results/drills-TIME)")
    parser.add_argument("--plots", action=argparse.BooleanOptionalAction, help="draw pictures")
    args = parser.parse_args(argv)
    if unknown := set(args.lanes) - set(LANES):
        parser.error(f"unknown lanes {sorted(unknown)}; there are {', '.join(LANES)}")
    return args


def _options(args: argparse.Namespace) -> Options:
    usual = PRODUCTION_DOWN_AFTER if args.production else 1000
    patience = PRODUCTION_TIMEOUT if args.production else CLIENT_TIMEOUT
    return Options(
        server=args.server,
        switch_on=args.switch_on,
        min_replicas_ack=args.min_replicas_ack,
        down_after=args.down_after or usual,
        client_timeout=args.client_timeout or patience,
        direct_retries=args.direct_retries,
        repeat=max(1, args.repeat),
        short=args.smoke,
        sidecar_settings=command_line.settings(args.sidecar_set),
    )


def _lanes(drill: Drill[Any], args: argparse.Namespace) -> list[str]:
    wanted = drill.lanes
    if args.smoke and not args.only:
        wanted = SMOKE[drill.number]
    return [lane for lane in wanted if lane in args.lanes]


def _list(options: Options) -> None:
    for drill in DRILLS:
        print(f"{drill.number:3} {drill.name} ({', '.join(drill.lanes)}): {drill.about}")
        print(f"    must hold: {'; '.join(targets.promises(drill.number, options))}\n")


def _run(
    console: Console, drill: Drill[Any], lanes: Sequence[str], options: Options
) -> list[LaneResult]:
    results = []
    for lane in lanes:
        begin = time.monotonic()

        def say(text: str, lane: str = lane, begin: float = begin) -> None:
            since = time.monotonic() - begin
            line = f"{drill.number:>3} {lane:8}{since:6.1f} s  {text}"
            console.print(line, style="dim", markup=False, highlight=False)

        results.append(run_lane(drill, lane, options, say))
    report.print_drill(console, results)
    return results


def _facts(options: Options) -> dict[str, Any]:
    facts = machine.facts(options.server)
    versions = facts["versions"]
    assert isinstance(versions, dict)
    kept = {name: versions[name] for name in (options.server, "sidecar") if name in versions}
    return {**facts, "versions": {**kept, "redis-py": importlib.metadata.version("redis")}}


def _save_logs(folder: Path, drills: Sequence[Sequence[LaneResult]]) -> None:
    """What the sidecar logged, for whoever wants to know why."""
    for results in drills:
        for result in results:
            for turn, run in enumerate(result.runs):
                if run.sidecar_log:
                    name = f"drill-{result.drill.number}-sidecar-{turn + 1}.log"
                    (folder / name).write_text(run.sidecar_log)


def main(argv: list[str] | None = None) -> int:
    """Run the drills."""
    args = parse(argv)
    options = _options(args)
    if args.list:
        _list(options)
        return 0
    console = command_line.terminal(170)
    with command_line.measuring(console):
        facts = _facts(options)
        chosen = choose(args.only or (list(SMOKE) if args.smoke else []))
        wanted = [(drill, lanes) for drill in chosen if (lanes := _lanes(drill, args))]
        drills = [_run(console, drill, lanes, options) for drill, lanes in wanted]
    return _finish(console, args, options, facts, drills)


def _finish(
    console: Console,
    args: argparse.Namespace,
    options: Options,
    facts: dict[str, Any],
    drills: list[list[LaneResult]],
) -> int:
    everything = [result for results in drills for result in results]
    verdicts = targets.judge(everything, options)
    report.print_summary(console, everything, verdicts)
    folder = command_line.results_folder(args.out, "drills")
    pictures = args.plots if args.plots is not None else not args.smoke
    tables.write(
        folder,
        page.markdown(facts, options, drills, verdicts, pictures),
        report.as_json(facts, options, everything, verdicts),
    )
    _save_logs(folder, drills)
    if pictures:
        from bench.drills import plots

        plots.draw(folder, drills, facts)
    console.print(command_line.shown(folder))
    failed = any(result.problems for result in everything) or not everything
    return 1 if failed or any(verdict.broken for verdict in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
