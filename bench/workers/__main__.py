"""One worker and several: what more cores carry, and what a command costs then.

    python -m bench.workers            5 rounds of 2 s each, written to bench/results/
    python -m bench.workers --quick    one short round: does everything work?

The load is what the sidecar's processor bounds: reads that the near cache answers, in pipelines of
64, so that the server does nothing. The load generator needs a processor as well. On a machine with
fewer free ones than workers and generator need, two workers cannot carry twice as much, whatever
they could do; so three figures stand side by side:

* commands a second, as measured, beside how many processors the sidecar had of them;
* CPU per command of all processes of the sidecar, the supervisor included;
* what that makes on as many free processors as there are workers: workers / CPU per command.

The target is for the third: two workers carry at least 1.7 times as much as one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table

from bench import command_line
from bench.load import loadgen
from bench.load.shape import Address, Load
from bench.peers.sidecar import start_cache
from tests.harness.admin import metrics
from tests.harness.fleet import Fleet
from tests.harness.process import wait_until
from tests.harness.servers import Sidecar, valkey

SETTINGS = {"cache.mode": "rules", "cache.rules": '["*"]', "cache.check": "0"}
LOADS = {
    "near cache, pipeline 64": Load(conns=32, pipeline=64, get=100, keys=1000, value=64),
    "near cache, unpipelined": Load(conns=32, get=100, keys=1000, value=64),
}
TARGET = 1.7
CPU = "process_cpu_seconds_total"


@dataclass(frozen=True)
class Round:
    """One measurement of one lane. Times are microseconds per command."""

    rps: float
    cpu: float
    loadgen: float
    hits: float

    def on_free_cores(self, workers: int) -> float:
        """Commands a second if every worker had a processor to itself."""
        return workers * 1e6 / self.cpu


def measure(program: Path, sidecar: Sidecar, load: Load, seconds: float, seed: int) -> Round:
    """Fill the near cache by the same load, then measure."""
    address = Address(port=sidecar.port)
    loadgen.sample_of(loadgen.run_raw(program, address, load, seconds=1, warmup=0, seed=seed))
    before = metrics(sidecar)
    raw = loadgen.run_raw(program, address, load, seconds=seconds, warmup=0, seed=seed)
    after = metrics(sidecar)
    sample = loadgen.sample_of(raw)
    hits = after["sidecar_cache_hits_total"] - before["sidecar_cache_hits_total"]
    done = (
        after['sidecar_commands_total{command="get"}']
        - before['sidecar_commands_total{command="get"}']
    )
    cpu = (after[CPU] - before[CPU]) * 1e6 / done
    return Round(sample.rps, cpu, sample.loadgen, hits / done)


def median(rounds: list[Round]) -> Round:
    """Of each figure by itself."""
    return Round(
        *(statistics.median(getattr(each, name) for each in rounds) for name in asdict(rounds[0]))
    )


def table(found: dict[str, dict[int, Round]]) -> Table:
    """For the terminal."""
    shown = Table(title="one worker and several")
    for head in ("load", "workers", "commands/s", "cores it had", "CPU µs", "generator µs"):
        shown.add_column(head, justify="left" if head == "load" else "right")
    shown.add_column("on free cores", justify="right")
    for name, lanes in found.items():
        for workers, figures in lanes.items():
            shown.add_row(
                name,
                str(workers),
                f"{figures.rps:,.0f}",
                f"{figures.rps * figures.cpu / 1e6:.2f}",
                f"{figures.cpu:.2f}",
                f"{figures.loadgen:.2f}",
                f"{figures.on_free_cores(workers):,.0f}",
            )
    return shown


def main(argv: list[str] | None = None) -> int:
    """Measure and report; 1 if the target is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.workers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--workers", type=int, default=2, help="beside one (2)")
    parser.add_argument("--repeat", type=int, default=5, help="rounds (5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement (2)")
    parser.add_argument("--out", type=Path, help="folder for the results (bench/results/TIME)")
    args = parser.parse_args(argv)
    repeat, seconds = (1, 0.4) if args.quick else (args.repeat, args.seconds)
    console = command_line.terminal(110)
    program = loadgen.compile_loadgen()
    found: dict[str, dict[int, Round]] = {}
    with command_line.measuring(console), Fleet() as fleet:
        server = fleet.add(valkey())
        lanes = {
            workers: start_cache(fleet, server.port, {**SETTINGS, "workers": str(workers)})
            for workers in (1, args.workers)
        }
        several = lanes[args.workers]
        up = 'sidecar_workers{state="up"}'
        wait_until(lambda: metrics(several).get(up, 0) == args.workers, "all workers", 30)
        for name, load in LOADS.items():
            loadgen.fill(program, Address(port=server.port), load)
            rounds: dict[int, list[Round]] = {workers: [] for workers in lanes}
            for seed in range(1, repeat + 1):
                for workers, sidecar in lanes.items():
                    rounds[workers].append(measure(program, sidecar, load, seconds, seed))
            found[name] = {workers: median(each) for workers, each in rounds.items()}
    console.print(table(found))
    ratios = {}
    for name, each in found.items():
        one, more = each[1], each[args.workers]
        free = more.on_free_cores(args.workers) / one.on_free_cores(1)
        ratios[name] = {"measured": more.rps / one.rps, "on free cores": free}
        console.print(
            f"{name}: {more.rps / one.rps:.2f} times as measured, {free:.2f} on free cores"
        )
    figures = {name: {n: asdict(r) for n, r in each.items()} for name, each in found.items()}
    folder = command_line.results_folder(args.out, "workers")
    report = {"rounds": repeat, "seconds": seconds, "figures": figures, "ratios": ratios}
    (folder / "workers.json").write_text(json.dumps(report, indent=1) + "\n")
    console.print(command_line.shown(folder))
    met = all(each["on free cores"] >= TARGET * args.workers / 2 for each in ratios.values())
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
