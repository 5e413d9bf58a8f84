"""One worker and several: what more cores carry, and what a command costs then.

    python -m bench.workers            five rounds of 2 s each, written to bench/results/
    python -m bench.workers --quick    one short round: does everything work?

The load is what the sidecar's processor bounds: reads that the near cache answers, so that the
server does nothing. A load generator needs about as much of a processor as a worker. On two cores,
one worker with its generator has both, and two workers with theirs have no more: that comparison
would say nothing. So each worker has the same to itself, however many there are: one core, which it
shares with one generator, and as many clients.

    one worker:     core 1: worker, generator
    two workers:    core 1: worker, generator    core 2: worker, generator

Generators are pinned to their cores; which client a worker gets, and on which of the cores it runs,
is up to the system, as in real use. What two carry less than twice as much is then what sharing
costs: ports, kernel, memory, supervisor. Commands a second say so on an idle machine only. CPU per
command (of all processes of the sidecar, the supervisor included) says it on a busy one as well:
`workers` times the ratio of the two is what they carry on free cores. The target, 1.7 times as much
with two, is for that. Rounds alternate, and begin with another core each time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table

from bench import command_line
from bench.load import loadgen
from bench.load.loadgen import Sample
from bench.load.shape import Address, Load
from bench.peers.sidecar import start_cache
from tests.harness.admin import metrics
from tests.harness.fleet import Fleet
from tests.harness.process import wait_until
from tests.harness.servers import Sidecar, valkey
from tests.harness.several import pids

SETTINGS = {
    "cache.mode": "rules",
    "cache.rules": '["*"]',
    "cache.check": "0",
    "log.level": "info",  # it tells which process is a worker
}
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


def measure(
    program: Path,
    sidecar: Sidecar,
    cores: Sequence[int],
    load: Load,
    seconds: float,
    seed: int,
    pinned: bool,
) -> Round:
    """Fill the near cache by the same load, then measure; one worker and one generator a core."""
    for number, pid in enumerate(_workers(sidecar, len(cores))):
        os.sched_setaffinity(pid, cores[number : number + 1] if pinned else cores)
    generate(program, sidecar, cores, load, 1, seed)
    before = metrics(sidecar)
    samples = generate(program, sidecar, cores, load, seconds, seed)
    after = metrics(sidecar)
    hits = after["sidecar_cache_hits_total"] - before["sidecar_cache_hits_total"]
    done = (
        after['sidecar_commands_total{command="get"}']
        - before['sidecar_commands_total{command="get"}']
    )
    cpu = (after[CPU] - before[CPU]) * 1e6 / done
    rps = sum(sample.rps for sample in samples)
    own = statistics.fmean(sample.loadgen for sample in samples)
    return Round(rps, cpu, own, hits / done)


def _workers(sidecar: Sidecar, workers: int) -> list[int]:
    return list(pids(sidecar).values()) if workers > 1 else [sidecar.pid]


def generate(
    program: Path, sidecar: Sidecar, cores: Sequence[int], load: Load, seconds: float, seed: int
) -> list[Sample]:
    """A generator on each core, all at the same time."""

    def run(core: int) -> Sample:
        address = Address(port=sidecar.port)
        raw = loadgen.run_raw(
            program, address, load, seconds=seconds, warmup=0, seed=seed, core=core
        )
        return loadgen.sample_of(raw)

    with ThreadPoolExecutor(len(cores)) as pool:
        return list(pool.map(run, cores))


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
    for name, lanes in found.items():
        for workers, figures in lanes.items():
            shown.add_row(
                name,
                str(workers),
                f"{figures.rps:,.0f}",
                f"{figures.rps * figures.cpu / 1e6:.2f}",
                f"{figures.cpu:.2f}",
                f"{figures.loadgen:.2f}",
            )
    return shown


def main(argv: list[str] | None = None) -> int:
    """Measure and report; 1 if the target is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.workers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--workers", type=int, default=2, help="beside one (2)")
    parser.add_argument("--pin", action="store_true", help="each worker on a core of its own")
    parser.add_argument("--repeat", type=int, default=5, help="rounds (5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement (2)")
    parser.add_argument("--out", type=Path, help="folder for the results (bench/results/TIME)")
    args = parser.parse_args(argv)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < args.workers:
        parser.error(f"{args.workers} workers need as many cores, and there are {len(cores)}")
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
                turned = cores[seed % len(cores) :] + cores[: seed % len(cores)]
                for workers, sidecar in lanes.items():
                    rounds[workers].append(
                        measure(program, sidecar, turned[:workers], load, seconds, seed, args.pin)
                    )
            found[name] = {workers: median(each) for workers, each in rounds.items()}
    console.print(table(found))
    ratios = {}
    for name, each in found.items():
        one, more = each[1], each[args.workers]
        free = args.workers * one.cpu / more.cpu
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
