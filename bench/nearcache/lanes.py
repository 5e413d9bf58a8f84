"""The lanes of a case: who stands between clients and server; and one round of each.

All lanes of a case are up at the same time, on the same server, and measured in turns. Since the
writes of one lane make the others' cached values void, a cache lane is brought to its steady state
before each of its rounds, by the same load at pipeline 64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.load import loadgen
from bench.load.distance import further
from bench.load.shape import Address, Load
from bench.nearcache.cases import Case
from bench.peers.sidecar import start_cache
from bench.peers.stage import Lane, Stage, start_server
from bench.peers.starters import STARTERS
from bench.report.rounds import Figures, LaneResult, Tick, in_turns
from tests.harness.admin import metrics
from tests.harness.errors import Unavailable
from tests.harness.fleet import Fleet
from tests.harness.server_stats import calls
from tests.harness.servers import Sidecar
from tests.harness.wire import Wire

SETTINGS = {
    "off": {"cache.mode": "off"},
    "hot": {"cache.mode": "hot"},
    "rules": {"cache.mode": "rules", "cache.rules": '["*"]'},
}
HEAT_PIPELINE = 64


@dataclass(frozen=True)
class Options:
    """How to measure."""

    seconds: float = 2.0
    warmup: float = 0.3
    heat: float = 1.0
    repeat: int = 5
    server: str = "redis"
    lanes: Sequence[str] = ()
    settings: Mapping[str, str] = field(default_factory=dict)


def _start(stage: Stage, name: str, load: Load, options: Options) -> Lane:
    if name not in SETTINGS:
        return STARTERS[name](stage, load)
    sidecar = start_cache(stage.fleet, stage.port, {**SETTINGS[name], **options.settings})
    return Lane(Address(port=sidecar.port), sidecar)


def _misses(before: Figures, after: Figures, gets: int) -> Figures:
    """Reads not answered from the cache, as a share of all, by the sidecar's reason."""
    start = "sidecar_cache_misses_total{"
    return {
        "miss_" + name.partition('"')[2].partition('"')[0]: (value - before.get(name, 0)) / gets
        for name, value in after.items()
        if name.startswith(start)
    }


def measure(
    program: Path, lane: Lane, case: Case, stage: Stage, real: Wire, options: Options, seed: int
) -> Figures:
    """One round of one lane. `real` is connected to the server itself."""
    pids = {"server": stage.server.pid}
    if lane.process:
        pids["proxy"] = lane.process.pid
    cache = lane.process if isinstance(lane.process, Sidecar) else None
    if cache:
        heat = replace(case.load, pipeline=max(HEAT_PIPELINE, case.load.pipeline))
        heated = loadgen.run_raw(
            program, lane.address, heat, seconds=options.heat, warmup=0, seed=seed + 1000
        )
        loadgen.sample_of(heated)
    counted = metrics(cache) if cache else {}
    before = calls(real, "get")
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
    figures["hits"] = 1 - (calls(real, "get") - before) / raw["gets_sent"]
    if cache:
        figures |= _misses(counted, metrics(cache), raw["gets_sent"])
    return figures


def run(program: Path, case: Case, options: Options, tick: Tick) -> list[LaneResult]:
    """All lanes of a case, in turns. One that fails says so and is left out from then on."""
    results = [LaneResult(name, case.name) for name in options.lanes]
    with Fleet() as fleet:
        server = start_server(fleet, options.server)
        loadgen.fill(program, Address(port=server.port), replace(case.load, get=0))
        far = server.port if case.trip is None else further(fleet, server.port, case.trip)
        stage = Stage(fleet, server, port=far)
        lanes: dict[str, Lane] = {}
        for result in results:
            try:
                lanes[result.peer] = _start(stage, result.peer, case.load, options)
            except Unavailable as error:
                result.problem = str(error)
        with Wire(server.port) as real:

            def once(result: LaneResult, turn: int) -> Figures:
                tick(f"{case.name} {result.peer}")
                return measure(program, lanes[result.peer], case, stage, real, options, turn)

            in_turns(results, options.repeat, once)
    return results
