"""`python -m bench.nearcache`: what the near cache is worth (see bench/README.md)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from bench import command_line
from bench.command_line import names
from bench.load import loadgen
from bench.load.loadgen import LoadFailed
from bench.nearcache import lanes, news, probes, python, report
from bench.nearcache.cases import FULL, LANES, Case, choose
from bench.nearcache.lanes import Options
from bench.nearcache.targets import Found, judge
from bench.report import machine, tables
from bench.report.rounds import LaneResult, Tick
from tests.harness.errors import Unavailable

PARTS = ("loads", "python", "stampede", "memory", "staleness", "news")


@dataclass(frozen=True)
class Sizes:
    """How much of everything but the loads."""

    python: Sequence[str] = tuple(python.CASES)
    clients: int = 1000
    values: Sequence[int] = (16, 128, 1024)
    entries: int = 100_000
    writes: int = 2000
    news: int = 100_000


QUICK_SIZES = Sizes(("95/5",), 100, (16,), 5000, 100, 200)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.nearcache", description=__doc__)
    parser.add_argument("--set", dest="set_name", choices=("core", "full"), default="core")
    parser.add_argument("--only", type=names, default=[], metavar="NAME,...", help="or a glob")
    parser.add_argument("--quick", action="store_true", help="a smoke run of under 30 s")
    parser.add_argument("--lanes", type=names, default=list(LANES), metavar="A,B,...")
    parser.add_argument("--parts", type=names, metavar="A,B,...", help=", ".join(PARTS))
    parser.add_argument("--repeat", type=int, help="rounds (5)")
    parser.add_argument("--seconds", type=float, help="length of one measurement (2)")
    parser.add_argument("--server", choices=("redis", "valkey", "redis8"), default="redis")
    parser.add_argument("--sidecar-set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, help="folder for the results (bench/results/TIME)")
    parser.add_argument("--plots", action=argparse.BooleanOptionalAction, help="draw the plots")
    parser.add_argument("--list", action="store_true", help="name the cases and stop")
    args = parser.parse_args(argv)
    # Whoever names cases wants these, not the rest.
    args.parts = args.parts or (["loads"] if args.only else list(PARTS))
    for given, known in ((args.lanes, LANES), (args.parts, PARTS)):
        if unknown := set(given) - set(known):
            parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return args


def _options(args: argparse.Namespace) -> Options:
    quick = args.quick
    return Options(
        seconds=args.seconds or (0.3 if quick else 2.0),
        warmup=0.1 if quick else 0.3,
        heat=0.3 if quick else 1.0,
        repeat=args.repeat or (1 if quick else 5),
        server=args.server,
        lanes=args.lanes,
        settings=command_line.settings(args.sidecar_set),
    )


class Run:
    """One run: its parts, one after the other; what each found is shown at once."""

    def __init__(self, args: argparse.Namespace, cases: Sequence[Case], console: Console) -> None:
        self.options, self.cases, self.console = _options(args), cases, console
        self.parts: list[str] = args.parts
        self.sizes = QUICK_SIZES if args.quick else Sizes()
        self.program = loadgen.compile_loadgen()
        self.found = Found()

    def measure(self) -> Found:
        """Everything that is wanted; a part that cannot be measured says why."""
        with command_line.progress(self.console) as bar:
            task = bar.add_task("starting", total=self._ticks())
            for part in PARTS:
                if part not in self.parts:
                    continue
                try:
                    getattr(self, f"_{part}")(
                        lambda text: bar.update(task, advance=1, description=text)
                    )
                except (Unavailable, LoadFailed, OSError) as error:
                    self.found.problems.append(f"{part}: {error}")
        for page in report.other_pages(self.found):
            report.show(self.console, page)
        tables.print_problems(self.console, self.found.problems)
        return self.found

    def _ticks(self) -> int:
        repeat = self.options.repeat
        ticks = {
            "loads": repeat * len(self.cases) * len(self.options.lanes),
            "python": repeat * len(self.sizes.python) * len(python.LANES),
            "stampede": repeat * len(lanes.SETTINGS),
            "memory": len(self.sizes.values),
            "staleness": repeat * 2,
            "news": 4,
        }
        return sum(ticks[part] for part in self.parts)

    def _loads(self, tick: Tick) -> None:
        for case in self.cases:
            try:
                results = lanes.run(self.program, case, self.options, tick)
            except (Unavailable, LoadFailed) as error:
                results = [
                    LaneResult(name, case.name, problem=str(error)) for name in self.options.lanes
                ]
            self.found.loads[case.name] = results
            report.show(self.console, report.case_page(case, results))

    def _python(self, tick: Tick) -> None:
        options = self.options
        self.found.python = python.run(
            self.program, self.sizes.python, options.seconds, options.repeat, tick
        )

    def _stampede(self, tick: Tick) -> None:
        options = self.options
        self.found.stampede = probes.stampede(
            self.sizes.clients, options.repeat, options.server, tick
        )

    def _memory(self, tick: Tick) -> None:
        self.found.memory = probes.memory(
            self.program, self.sizes.values, self.sizes.entries, self.options.server, tick
        )

    def _staleness(self, tick: Tick) -> None:
        options = self.options
        self.found.staleness = probes.staleness(
            self.sizes.writes, options.repeat, options.server, tick
        )

    def _news(self, tick: Tick) -> None:
        self.found.news = news.news(self.sizes.news, 1, self.options.server, tick)


def main(argv: list[str] | None = None) -> int:
    """Run the bench; 1 if the sidecar failed or nothing was measured, 130 if interrupted."""
    args = parse(argv)
    if args.list:
        print("\n".join(f"{case.name:26} {case.title}" for case in FULL))
        return 0
    console = command_line.terminal(160)
    cases = choose("quick" if args.quick and not args.only else args.set_name, args.only)
    with command_line.measuring(console):
        facts = machine.facts(args.server)
        run = Run(args, cases, console)
        found = run.measure()
    verdicts = judge(found)
    shown = [v for v in verdicts if v.measured is not None or not args.only]
    if shown and not args.quick:
        tables.print_verdicts(console, shown)
    folder = command_line.results_folder(args.out, "nearcache")
    report.write(folder, facts, run.options, cases, found, [] if args.quick else verdicts)
    if args.plots if args.plots is not None else not (args.only or args.quick):
        from bench.nearcache import plots

        plots.draw(folder, found, cases, facts)
    console.print(command_line.shown(folder))
    measured = [lane for results in found.loads.values() for lane in results] + found.python
    failed = any(lane.problem for lane in measured if lane.peer not in ("direct", "envoy"))
    return 1 if failed or found.problems else 0


if __name__ == "__main__":
    sys.exit(main())
