"""`python -m bench`: choose, measure, print, write (see bench/README.md)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from bench import command_line
from bench.command_line import names
from bench.dataplane import report, runner, targets
from bench.dataplane.runner import Options, ScenarioResult
from bench.dataplane.scenarios import ALL_PEERS, OBSERVED, SCENARIOS, Scenario, choose, tiny
from bench.load import loadgen
from bench.report import machine, tables
from bench.report.rounds import LaneResult
from tests.harness.errors import Unavailable

QUICK = ("p1", "p16", "tls-p16", "idle")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--set", dest="set_name", choices=("core", "full"), default="core")
    parser.add_argument("--only", type=names, default=[], metavar="NAME,...", help="or a glob")
    parser.add_argument("--quick", action="store_true", help="a smoke run of under 40 s")
    parser.add_argument("--peers", type=names, default=[*ALL_PEERS, *OBSERVED], metavar="A,B,...")
    parser.add_argument("--repeat", type=int, help="rounds (5)")
    parser.add_argument("--seconds", type=float, help="length of one measurement (2)")
    parser.add_argument("--warmup", type=float, help="seconds before each measurement (0.3)")
    parser.add_argument("--server", choices=("redis", "valkey"), default="redis")
    parser.add_argument("--pin", action="store_true", help="pin server and proxy to a CPU each")
    parser.add_argument("--sidecar-set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, help="folder for the results (bench/results/TIME)")
    parser.add_argument("--plots", action=argparse.BooleanOptionalAction, help="draw the plots")
    parser.add_argument("--list", action="store_true", help="name the scenarios and stop")
    args = parser.parse_args(argv)
    unknown = set(args.peers) - {*ALL_PEERS, *OBSERVED}
    if unknown:
        known = ", ".join([*ALL_PEERS, *OBSERVED])
        parser.error(f"unknown peers {sorted(unknown)}; there are {known}")
    return args


def _options(args: argparse.Namespace) -> Options:
    """Defaults filled in: 5 rounds of 2 s, or 1 of 0.4 s for a smoke run."""

    def given(value: float | None, quick: float, usual: float) -> float:
        return value if value is not None else (quick if args.quick else usual)

    return Options(
        peers=args.peers,
        seconds=given(args.seconds, 0.4, 2.0),
        warmup=given(args.warmup, 0.1, 0.3),
        repeat=max(1, int(given(args.repeat, 1, 5))),
        server=args.server,
        pin=args.pin,
        sidecar_settings=command_line.settings(args.sidecar_set),
    )


def _scenarios(args: argparse.Namespace) -> list[Scenario]:
    if not args.quick:
        return choose(args.set_name, args.only)
    return [tiny(s) for s in choose("core", args.only or list(QUICK))]


def _failed(scenario: Scenario, options: Options, reason: str) -> ScenarioResult:
    lanes = [LaneResult(*pair, problem=reason) for pair in scenario.lanes(options.peers)]
    return ScenarioResult(scenario, lanes)


def _run_all(
    console: Console, program: Path, scenarios: list[Scenario], options: Options
) -> list[ScenarioResult]:
    """Measure every scenario under one progress bar, printing each as soon as it is there."""
    results = []
    with command_line.progress(console) as progress:
        total = sum(runner.count_ticks(s, options) for s in scenarios)
        task = progress.add_task("starting", total=total)
        for scenario in scenarios:
            try:
                result = runner.run(
                    program,
                    scenario,
                    options,
                    lambda text: progress.update(task, advance=1, description=text),
                )
            except (Unavailable, loadgen.LoadFailed) as error:
                result = _failed(scenario, options, str(error))
            results.append(result)
            report.print_scenario(console, result)
    return results


def main(argv: list[str] | None = None) -> int:
    """Run the bench; 1 if the sidecar failed or nothing was measured, 130 if interrupted."""
    args = parse(argv)
    if args.list:
        for s in SCENARIOS:
            print(f"{s.name:10} {'/'.join(s.sets) or 'by name only':13} {s.title}")
        return 0
    console = command_line.terminal(150)
    options, scenarios = _options(args), _scenarios(args)
    with command_line.measuring(console):
        program = loadgen.compile_loadgen()
        facts = machine.facts(options.server)
        results = _run_all(console, program, scenarios, options)
    verdicts = targets.judge({r.scenario.name: r for r in results})
    shown = verdicts if not args.only else [v for v in verdicts if v.measured is not None]
    if shown and not args.quick:
        tables.print_verdicts(console, shown)
    folder = command_line.results_folder(args.out)
    tables.write(
        folder,
        report.markdown(facts, results, verdicts),
        report.as_json(facts, options, results, verdicts),
    )
    if args.plots if args.plots is not None else not (args.only or args.quick):
        from bench.dataplane import plots

        plots.draw(folder, results, facts)
    console.print(command_line.shown(folder))
    lanes = [lane for r in results for lane in r.lanes]
    failed = any(lane.problem for lane in lanes if lane.peer in ("sidecar", *OBSERVED))
    return 1 if failed or not any(lane.rounds for lane in lanes) else 0


if __name__ == "__main__":
    sys.exit(main())
