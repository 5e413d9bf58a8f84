"""A cluster of three shards behind the sidecar, beside Envoy's cluster mode and clusters' clients.

    python -m bench.cluster            5 rounds of 2 s each, written to bench/results/
    python -m bench.cluster --quick    one short round: does everything work?

Two tables. **Proxies**: the load generator of `bench` knows nothing of clusters and goes through
each proxy; CPU per command is the proxy's. Beside the cluster stands the sidecar in front of one
server, which tells what the shards cost. **Clients**: redis-py's client for clusters, straight to
the nodes, and its plain one through each proxy; CPU per command is that of the client and, with a
proxy, that of both. Ratios are medians of those within each round.

The targets are for the proxies: CPU per command of the sidecar is at most 0.75 of Envoy's
unpipelined, and at most 0.35 at pipeline 16.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import command_line
from bench.cluster.lanes import fill, python_client, start_cluster, start_envoy, start_sidecar
from bench.load import loadgen
from bench.load.loadgen import LoadFailed
from bench.load.shape import Address, Load
from bench.peers.stage import Lane, Stage, start_server
from bench.report.rounds import Figures, LaneResult, in_turns, of, ratio
from tests.harness.cluster import Cluster
from tests.harness.errors import Unavailable
from tests.harness.fleet import Fleet
from tests.harness.programs import ROOT

CASES = {"p1": Load(), "p16": Load(pipeline=16)}
TARGETS = {"p1": 0.75, "p16": 0.35}
SIDECAR, ENVOY, ONE = "sidecar", "envoy", "sidecar, one server"
PYTHON = "redis-py for clusters"


def start_lanes(
    stage: Stage, cluster: Cluster, load: Load, results: list[LaneResult]
) -> dict[str, Lane]:
    """The proxies of a case; what cannot be started says why."""
    starters: dict[str, Callable[[], Lane]] = {
        ENVOY: lambda: start_envoy(stage, load, cluster),
        SIDECAR: lambda: start_sidecar(stage, load, cluster.url),
        ONE: lambda: start_sidecar(stage, load, stage.server.url),
    }
    lanes = {}
    for name, start in starters.items():
        try:
            lanes[name] = start()
        except Unavailable as error:
            for result in results:
                if name in (result.peer, result.peer.removeprefix("redis-py, ")):
                    result.problem = str(error)
    return lanes


def through(
    program: Path, lane: Lane, servers: Mapping[str, int], load: Load, seconds: float, turn: int
) -> Figures:
    """One window of the load generator through a proxy."""
    assert lane.process is not None
    pids = {"proxy": lane.process.pid, **servers}
    raw = loadgen.run_raw(program, lane.address, load, seconds=seconds, pids=pids, seed=turn)
    sample = loadgen.sample_of(raw)
    server = sum(raw["cpu_us"][name] for name in servers) / sample.commands
    return {**sample.as_dict(), "server": server, "both": sample.proxy + server}


def by_client(lane: Lane | None, cluster: Cluster, load: Load, seconds: float) -> Figures:
    """One window of redis-py, straight to the cluster without a lane."""
    argv = python_client(cluster, lane, load, seconds)
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LoadFailed((done.stderr.strip().splitlines() or ["redis-py ended"])[-1])
    said = json.loads(done.stdout)
    own = said["client"] / said["commands"] * 1e6
    beside = said.get("proxy", 0.0) / said["commands"] * 1e6
    return {
        "rps": said["commands"] / said["seconds"],
        "client": own,
        "proxy": beside,
        "both": own + beside,
    }


def run(args: argparse.Namespace, program: Path, name: str, load: Load) -> list[LaneResult]:
    """One case: proxies, then clients, each in turns."""
    peers = [ENVOY, SIDECAR, ONE]
    proxies = [LaneResult(peer, name) for peer in peers]
    clients = [LaneResult(PYTHON, name)]
    clients += [LaneResult(f"redis-py, {peer}", name) for peer in peers]
    with start_cluster(args.server) as cluster, Fleet() as fleet:
        server = start_server(fleet, args.server)
        stage = Stage(fleet, server, sidecar_settings=command_line.settings(args.sidecar_set))
        fill(cluster, load)
        loadgen.fill(program, Address(port=server.port), load)
        lanes = start_lanes(stage, cluster, load, [*proxies, *clients])
        # The load generator takes letters only.
        shards = {f"shard{'abc'[n]}": s.primary.pid for n, s in enumerate(cluster.shards)}

        def measure(result: LaneResult, turn: int) -> Figures:
            servers = {"server": server.pid} if result.peer == ONE else shards
            return through(program, lanes[result.peer], servers, load, args.seconds, turn)

        def ask(result: LaneResult, turn: int) -> Figures:
            lane = lanes.get(result.peer.removeprefix("redis-py, "))
            return by_client(lane, cluster, load, args.seconds)

        in_turns(proxies, args.repeat, measure)
        in_turns(clients, args.repeat, ask)
    return [*proxies, *clients]


def table(title: str, results: list[LaneResult], columns: Mapping[str, str]) -> Table:
    """For the terminal: medians, and the range of CPU per command."""
    shown = Table(title=title)
    shown.add_column("case")
    shown.add_column("lane")
    for head in columns.values():
        shown.add_column(head, justify="right")
    for result in results:
        if not result.rounds:
            shown.add_row(result.case, result.peer, result.problem[:60], style="red")
            continue
        cells = []
        for field in columns:
            found = of(result, field)
            text = f"{found.median:,.0f}" if field == "rps" else f"{found.median:.2f}"
            cells.append(text if field == "rps" else f"{text} ({found.low:.2f}-{found.high:.2f})")
        shown.add_row(result.case, result.peer, *cells)
    return shown


def verdicts(console: Console, results: list[LaneResult]) -> bool:
    """Print each ratio; whether all targets are met, as far as they were measured."""
    met = True
    lanes = {(result.case, result.peer): result for result in results if result.rounds}
    for case, target in TARGETS.items():
        ours, theirs = lanes.get((case, SIDECAR)), lanes.get((case, ENVOY))
        found = ratio(ours, theirs, "proxy") if ours and theirs else None
        if found is None:
            console.print(f"{case}: not measured (at most {target:.2f} of Envoy's CPU)")
            continue
        met = met and found.median <= target
        word = "met" if found.median <= target else "MISSED"
        console.print(f"{case}: {found.median:.2f} of Envoy's CPU, at most {target:.2f}: {word}")
        if (one := lanes.get((case, ONE))) and ours and (more := ratio(ours, one, "proxy")):
            console.print(f"{case}: {more.median:.2f} of the CPU in front of one server")
    return met


def main(argv: list[str] | None = None) -> int:
    """Measure and report; 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.cluster", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--only", type=command_line.names, default=list(CASES), help="of p1, p16")
    parser.add_argument("--server", default="valkey", help="valkey (default), redis7 or redis8")
    parser.add_argument("--repeat", type=int, default=5, help="rounds (5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement (2)")
    parser.add_argument("--sidecar-set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, help="folder for the results (bench/results/TIME)")
    args = parser.parse_args(argv)
    if args.quick:
        args.repeat, args.seconds = 1, 0.4
    console = command_line.terminal(130)
    program = loadgen.compile_loadgen()
    found: list[LaneResult] = []
    with command_line.measuring(console):
        for name in args.only:
            found += run(args, program, name, CASES[name])
    proxies = [each for each in found if each.peer in (ENVOY, SIDECAR, ONE)]
    heads = {"rps": "commands/s", "proxy": "proxy µs", "server": "servers µs", "p50": "p50 µs"}
    console.print(table("proxies, three shards", proxies, heads))
    clients = [each for each in found if each not in proxies]
    heads = {"rps": "commands/s", "client": "client µs", "proxy": "proxy µs", "both": "both µs"}
    console.print(table("clients, three shards", clients, heads))
    met = verdicts(console, found)
    folder = command_line.results_folder(args.out, "cluster")
    report = {"rounds": args.repeat, "seconds": args.seconds, "lanes": [asdict(x) for x in found]}
    (folder / "cluster.json").write_text(json.dumps(report, indent=1) + "\n")
    console.print(command_line.shown(folder))
    return 0 if met or args.quick else 1


if __name__ == "__main__":
    sys.exit(main())
