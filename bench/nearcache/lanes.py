"""The lanes of a case: who stands between clients and server; and one round of each.

All lanes of a case are up at the same time, on the same server, and measured in turns. Since the
writes of one lane make the others' cached values void, a cache lane is brought to its steady state
before each of its rounds, by the same load at pipeline 64.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench import loadgen
from bench.client import Client
from bench.delay import further
from bench.loadgen import LoadFailed
from bench.nearcache.cases import Case
from bench.peers import SIDECAR_SETTINGS, STARTERS, Lane, Stage, start_server
from bench.procs import Address, Fleet, Unavailable, free_port, scraped, wait_ready
from bench.runner import LaneResult
from bench.scenarios import Load

SETTINGS = {
    "off": ("cache.mode=off",),
    "hot": ("cache.mode=hot",),
    "rules": ("cache.mode=rules", 'cache.rules=["*"]'),
}
HEAT_PIPELINE = 64
Figures = dict[str, float]


@dataclass(frozen=True)
class Options:
    """How to measure."""

    seconds: float = 2.0
    warmup: float = 0.3
    heat: float = 1.0
    repeat: int = 5
    server: str = "redis"
    lanes: Sequence[str] = ()
    settings: Sequence[str] = ()


@dataclass(frozen=True)
class Sidecar(Lane):
    """A sidecar with a near cache (or without), that can be asked for its own figures."""

    admin: int

    def counters(self) -> Figures:
        """What /metrics says, by the name and labels of each line."""
        return scraped(self.admin)

    @property
    def pid(self) -> int:
        assert self.child is not None
        return self.child.pid


def start_sidecar(fleet: Fleet, upstream: int, *settings: str) -> Sidecar:
    """The sidecar of this tree; otherwise as in the bench of the data plane."""
    address, admin = Address(port=free_port()), free_port()
    argv = [sys.executable, "-m", "sidecar", "run", "--admin", f"127.0.0.1:{admin}"]
    argv += ["--listen", f"redis://127.0.0.1:{address.port}"]
    argv += ["--upstream", f"redis://127.0.0.1:{upstream}"]
    for setting in (*SIDECAR_SETTINGS, *settings):
        argv += ["--set", setting]
    child = fleet.start("sidecar", argv)
    wait_ready(child, address)
    return Sidecar(address, child, admin)


def _start(stage: Stage, name: str, load: Load, options: Options) -> Lane:
    if name in SETTINGS:
        return start_sidecar(stage.fleet, stage.server.port, *SETTINGS[name], *options.settings)
    return STARTERS[name](stage, load)


def _misses(before: Figures, after: Figures, gets: int) -> Figures:
    """Reads not answered from the cache, as a share of all, by the sidecar's reason."""
    start = "sidecar_cache_misses_total{"
    return {
        "miss_" + name.partition('"')[2].partition('"')[0]: (value - before.get(name, 0)) / gets
        for name, value in after.items()
        if name.startswith(start)
    }


def measure(
    program: Path, lane: Lane, case: Case, stage: Stage, real: Client, options: Options, seed: int
) -> Figures:
    """One round of one lane. `real` is connected to the server itself."""
    pids = {"server": stage.server.child.pid}
    if lane.child:
        pids["proxy"] = lane.child.pid
    if isinstance(lane, Sidecar):
        heat = replace(case.load, pipeline=max(HEAT_PIPELINE, case.load.pipeline))
        heated = loadgen.run_raw(
            program, lane.address, heat, seconds=options.heat, warmup=0, seed=seed + 1000
        )
        loadgen.sample_of(heated)
    counted = lane.counters() if isinstance(lane, Sidecar) else {}
    before = real.gets()
    raw = loadgen.run_raw(
        program,
        lane.address,
        case.load,
        seconds=options.seconds,
        warmup=options.warmup,
        pids=pids,
        seed=seed,
    )
    figures = loadgen.sample_of(raw).as_dict()
    figures["hits"] = 1 - (real.gets() - before) / raw["gets_sent"]
    if isinstance(lane, Sidecar):
        figures |= _misses(counted, lane.counters(), raw["gets_sent"])
    return figures


def run(
    program: Path, case: Case, options: Options, tick: Callable[[str], None]
) -> list[LaneResult]:
    """All lanes of a case, in turns. One that fails says so and is left out from then on."""
    results = [LaneResult(name, case.name) for name in options.lanes]
    with Fleet() as fleet:
        server = start_server(fleet, options.server, None)
        real = Address(port=server.port)
        loadgen.fill(program, real, replace(case.load, get=0))
        far = server.port if case.trip is None else further(fleet, server.port, case.trip)
        stage = Stage(fleet, replace(server, port=far), None)
        lanes: dict[str, Lane] = {}
        for result in results:
            try:
                lanes[result.peer] = _start(stage, result.peer, case.load, options)
            except Unavailable as error:
                result.problem = str(error)
        with Client(server.port) as client:
            for turn in range(options.repeat):
                first = turn % len(results)
                for result in results[first:] + results[:first]:
                    tick(f"{case.name} {result.peer}")
                    if result.problem:
                        continue
                    lane = lanes[result.peer]
                    try:
                        result.rounds.append(
                            measure(program, lane, case, stage, client, options, turn + 1)
                        )
                    except LoadFailed as error:
                        result.problem = f"round {turn + 1}: {error}"
    return results
