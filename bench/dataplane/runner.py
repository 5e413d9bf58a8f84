"""Runs scenarios: starts the lanes, measures them in turns, keeps every round."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.dataplane import memory
from bench.dataplane.scenarios import Scenario
from bench.load import loadgen
from bench.load.loadgen import LoadFailed
from bench.load.shape import Load
from bench.peers import envoy
from bench.peers.stage import Lane, Stage, start_direct, start_server
from bench.peers.starters import STARTERS
from bench.report.rounds import Figures, LaneResult, Tick, in_turns
from tests.harness.certificates import make_certificates
from tests.harness.errors import Unavailable
from tests.harness.fleet import Fleet


@dataclass
class Options:
    """How to measure: `seconds` a window, `repeat` rounds, which peers and server, pinning."""

    peers: list[str]
    seconds: float = 2.0
    warmup: float = 0.3
    repeat: int = 5
    server: str = "redis"
    pin: bool = False
    sidecar_settings: dict[str, str] = field(default_factory=dict)

    def cpus(self) -> tuple[set[int] | None, set[int] | None]:
        """(server's CPUs, proxy's CPUs), or no pinning at all."""
        usable = sorted(os.sched_getaffinity(0))
        if not self.pin or len(usable) < 2:
            return None, None
        return {usable[0]}, {usable[1]}


@dataclass
class ScenarioResult:
    """All lanes of a scenario."""

    scenario: Scenario
    lanes: list[LaneResult]

    def lane(self, peer: str, case: str = "") -> LaneResult | None:
        """The lane of a peer, if it has rounds and none of them failed."""
        for lane in self.lanes:
            if lane.peer == peer and lane.case == case and lane.rounds and not lane.problem:
                return lane
        return None

    def as_dict(self) -> dict[str, Any]:
        """For the JSON report."""
        meta = {k: getattr(self.scenario, k) for k in ("name", "title", "about", "kind")}
        cases = {name: dataclasses.asdict(load) for name, load in self.scenario.cases.items()}
        return {**meta, "cases": cases, "lanes": [dataclasses.asdict(x) for x in self.lanes]}


def _stage(fleet: Fleet, scenario: Scenario, options: Options) -> Stage:
    """A fresh server for the scenario (Debian's redis-server where TLS is wanted)."""
    tls = any(load.tls for load in scenario.cases.values())
    certificates = make_certificates(fleet.folder) if tls else None
    server_cpus, proxy_cpus = options.cpus()
    kind = "redis" if tls else options.server
    server = start_server(fleet, kind, certificates, server_cpus)
    return Stage(fleet, server, certificates, proxy_cpus, options.sidecar_settings)


def _start_lanes(
    stage: Stage, scenario: Scenario, results: list[LaneResult]
) -> dict[tuple[str, str], Lane]:
    """Start what each lane needs; lanes that differ only in their load share one proxy."""
    lanes: dict[tuple[str, str], Lane] = {}
    shared: dict[tuple[object, ...], Lane] = {}
    for result in results:
        load = scenario.cases[result.case]
        key = (result.peer, load.client, load.tls, str(envoy.flush(load)))
        try:
            if key not in shared:
                shared[key] = STARTERS[result.peer](stage, load)
            lanes[result.peer, result.case] = shared[key]
        except Unavailable as error:
            result.problem = str(error)
    return lanes


def _run_load(program: Path, scenario: Scenario, options: Options, tick: Tick) -> ScenarioResult:
    results = [LaneResult(*pair) for pair in scenario.lanes(options.peers)]
    with Fleet() as fleet:
        stage = _stage(fleet, scenario, options)
        biggest = max(scenario.cases.values(), key=lambda load: load.keys)
        lanes = _start_lanes(stage, scenario, results)
        loadgen.fill(program, start_direct(stage, Load()).address, biggest)

        def measure(result: LaneResult, turn: int) -> Figures:
            tick(f"{scenario.name} {result.peer} {result.case}")
            lane, pids = lanes[result.peer, result.case], {"server": stage.server.pid}
            if lane.process:
                pids["proxy"] = lane.process.pid
            sample = loadgen.measure(
                program,
                lane.address,
                scenario.cases[result.case],
                seconds=options.seconds,
                warmup=options.warmup,
                pids=pids,
                seed=turn,
            )
            return sample.as_dict()

        in_turns(results, options.repeat, measure)
    return ScenarioResult(scenario, results)


def _run_idle(program: Path, scenario: Scenario, options: Options, tick: Tick) -> ScenarioResult:
    """Idle memory: a fresh proxy each time, since a process keeps what it was once given."""
    results = [LaneResult(*pair) for pair in scenario.lanes(options.peers)]
    for turn in range(memory.turns(options.repeat)):
        for result in results:
            tick(f"{scenario.name} {result.peer}")
            load = scenario.cases[result.case]
            with Fleet() as fleet:
                try:
                    stage = _stage(fleet, scenario, options)
                    loadgen.fill(program, start_direct(stage, Load()).address, load)
                    lane = STARTERS[result.peer](stage, load)
                    process = lane.process or stage.server
                    result.rounds.append(memory.per_connection(program, lane, process, load))
                except (LoadFailed, Unavailable) as error:
                    result.problem = f"round {turn + 1}: {error}"
    return ScenarioResult(scenario, results)


def run(program: Path, scenario: Scenario, options: Options, tick: Tick) -> ScenarioResult:
    """Measure one scenario with all its lanes."""
    if scenario.kind == "idle":
        return _run_idle(program, scenario, options, tick)
    return _run_load(program, scenario, options, tick)


def count_ticks(scenario: Scenario, options: Options) -> int:
    """How many times `run` will call its tick."""
    turns = memory.turns(options.repeat) if scenario.kind == "idle" else options.repeat
    return turns * len(scenario.lanes(options.peers))
