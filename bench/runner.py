"""Runs scenarios: starts the lanes, measures them in turns, keeps every round.

Within a round each lane is measured once, and each round starts with the next lane, so that no
lane always follows the same neighbour. A lane that fails is reported with the reason and left
out of the following rounds; it never stops the others.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import loadgen, memory
from bench.certs import make_certs
from bench.loadgen import LoadFailed
from bench.peers import STARTERS, Lane, Server, Stage, envoy_flush, start_server
from bench.procs import Fleet, Unavailable
from bench.scenarios import Load, Scenario

Tick = Callable[[str], None]


@dataclass
class Options:
    """How to measure: `seconds` a window, `repeat` rounds, which peers and server, pinning."""

    peers: list[str]
    seconds: float = 2.0
    warmup: float = 0.3
    repeat: int = 5
    server: str = "redis"
    pin: bool = False
    sidecar_settings: list[str] = field(default_factory=list)

    def cpus(self) -> tuple[set[int] | None, set[int] | None]:
        """(server's CPUs, proxy's CPUs), or no pinning at all."""
        usable = sorted(os.sched_getaffinity(0))
        if not self.pin or len(usable) < 2:
            return None, None
        return {usable[0]}, {usable[1]}


@dataclass
class LaneResult:
    """One peer under one case: its rounds in order, or the reason why there are none."""

    peer: str
    case: str
    rounds: list[dict[str, float]] = field(default_factory=list)
    problem: str = ""


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
    certs = make_certs(fleet.dir) if tls else None
    server_cpus, proxy_cpus = options.cpus()
    server = start_server(fleet, "redis" if tls else options.server, certs, server_cpus)
    return Stage(fleet, server, certs, proxy_cpus, options.sidecar_settings)


def _start_lanes(
    stage: Stage, scenario: Scenario, results: list[LaneResult]
) -> dict[tuple[str, str], Lane]:
    """Start what each lane needs; lanes that differ only in their load share one proxy."""
    lanes: dict[tuple[str, str], Lane] = {}
    shared: dict[tuple[object, ...], Lane] = {}
    for result in results:
        load = scenario.cases[result.case]
        key = (result.peer, load.client, load.tls, str(envoy_flush(load)))
        try:
            if key not in shared:
                shared[key] = STARTERS[result.peer](stage, load)
            lanes[result.peer, result.case] = shared[key]
        except Unavailable as error:
            result.problem = str(error)
    return lanes


def _measure_once(
    program: Path, lane: Lane, server: Server, load: Load, options: Options, seed: int
) -> dict[str, float]:
    pids = {"server": server.child.pid}
    if lane.child:
        pids["proxy"] = lane.child.pid
    sample = loadgen.measure(
        program,
        lane.address,
        load,
        seconds=options.seconds,
        warmup=options.warmup,
        pids=pids,
        seed=seed,
    )
    return sample.as_dict()


def _run_load(program: Path, scenario: Scenario, options: Options, tick: Tick) -> ScenarioResult:
    results = [LaneResult(*pair) for pair in scenario.lanes(options.peers)]
    with Fleet() as fleet:
        stage = _stage(fleet, scenario, options)
        biggest = max(scenario.cases.values(), key=lambda load: load.keys)
        lanes = _start_lanes(stage, scenario, results)
        direct = STARTERS["direct"](stage, Load())
        loadgen.fill(program, direct.address, biggest)
        for turn in range(options.repeat):
            shift = turn % len(results)
            for result in results[shift:] + results[:shift]:
                tick(f"{scenario.name} {result.peer} {result.case}")
                if result.problem:
                    continue
                lane, load = lanes[result.peer, result.case], scenario.cases[result.case]
                try:
                    result.rounds.append(
                        _measure_once(program, lane, stage.server, load, options, turn + 1)
                    )
                except LoadFailed as error:
                    result.problem = f"round {turn + 1}: {error}"
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
                    direct = STARTERS["direct"](stage, Load())
                    loadgen.fill(program, direct.address, load)
                    lane = STARTERS[result.peer](stage, load)
                    child = lane.child or stage.server.child
                    result.rounds.append(memory.per_connection(program, lane, child, load))
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
