"""What a load does not show: a stampede, the memory of an entry, and staleness."""

from __future__ import annotations

import contextlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.dataplane.memory import memory_bytes
from bench.load import loadgen
from bench.load.distance import further
from bench.load.shape import Address, Load
from bench.nearcache.lanes import SETTINGS
from bench.peers.sidecar import start_cache
from bench.peers.stage import start_server
from bench.report.rounds import Figures, Tick
from tests.harness.admin import metrics
from tests.harness.distribution import quantiles
from tests.harness.errors import Unavailable
from tests.harness.fleet import Fleet
from tests.harness.programs import ROOT
from tests.harness.resp import bulk
from tests.harness.server_stats import calls
from tests.harness.servers import Sidecar
from tests.harness.wire import Wire

KEY = 16
STAMPEDE_TRIP = 0.001
SETTLE = 30.0
WRITER = "bench.nearcache.writer"


def stampede(clients: int, repeat: int, server: str, tick: Tick) -> dict[str, list[Figures]]:
    """Everybody asks for the same cold key at once, 1 ms away: how many reads reach the server."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    found: dict[str, list[Figures]] = {mode: [] for mode in SETTINGS}
    with Fleet() as fleet, contextlib.ExitStack() as stack:
        port = start_server(fleet, server).port
        far = further(fleet, port, STAMPEDE_TRIP)
        real = stack.enter_context(Wire(port))
        crowds = {
            mode: _crowd(stack, start_cache(fleet, far, settings).port, clients)
            for mode, settings in SETTINGS.items()
        }
        for turn in range(repeat):
            for mode, crowd in crowds.items():
                tick(f"stampede {mode}")
                found[mode].append(_rush(crowd, real, f"cold:{mode}:{turn:04}"))
    return found


def _crowd(stack: contextlib.ExitStack, port: int, clients: int) -> list[Wire]:
    """Connected clients, each of which has had an answer."""
    crowd = [stack.enter_context(Wire(port, deadline=30)) for _ in range(clients)]
    for wire in crowd:
        wire.send_command("PING")
    _expect(crowd, b"+PONG\r\n")
    return crowd


def _expect(crowd: Sequence[Wire], reply: bytes) -> None:
    for wire in crowd:
        if wire.read_reply() != reply:
            raise Unavailable("a client of the stampede got a wrong answer")


def _rush(crowd: Sequence[Wire], real: Wire, key: str) -> Figures:
    value = b"x" * KEY
    real.cmd("SET", key, value)
    before = calls(real, "get")
    begin = time.perf_counter()
    for wire in crowd:
        wire.send_command("GET", key)
    _expect(crowd, bulk(value))
    ms = 1000 * (time.perf_counter() - begin)
    return {"reads": calls(real, "get") - before, "ms": ms}


def memory(
    program: Path, values: Sequence[int], entries: int, server: str, tick: Tick
) -> dict[str, list[Figures]]:
    """Bytes of an entry beyond those of its key and its value, by the size of the value."""
    found = {}
    for value in values:
        tick(f"memory of values of {value} bytes")
        with Fleet() as fleet:
            port = start_server(fleet, server).port
            loadgen.fill(program, Address(port=port), Load(keys=entries, value=value, get=0))
            sidecar = start_cache(fleet, port, {**SETTINGS["rules"], "cache.memory": "4GiB"})
            found[str(value)] = [_filled(sidecar, entries, value)]
    return found


def _filled(sidecar: Sidecar, entries: int, value: int) -> Figures:
    """The first twentieth is not charged: code, pools and the first tables come with it."""
    reads = [("GET", f"key:{number:012}") for number in range(entries)]
    first = entries // 20
    with Wire(sidecar.port, deadline=30) as wire:
        before = _after_reading(sidecar, wire, reads[:first])
        after = _after_reading(sidecar, wire, reads)
    count = after["entries"] - before["entries"]
    own = KEY + value
    return {
        "entries": after["entries"],
        "counted": (after["bytes"] - before["bytes"]) / count - own,
        "process": (after["process"] - before["process"]) / count - own,
        "process_mib": after["process"] / (1 << 20),
    }


def _after_reading(sidecar: Sidecar, wire: Wire, reads: Sequence[tuple[str, str]]) -> Figures:
    """Read until all of them are there, then the memory."""
    until = time.monotonic() + SETTLE
    while time.monotonic() < until:
        wire.pipeline(reads)
        said = metrics(sidecar)
        if said["sidecar_cache_entries"] >= len(reads):
            process = float(memory_bytes(sidecar.pid))
            entries, taken = said["sidecar_cache_entries"], said["sidecar_cache_bytes"]
            return {"entries": entries, "bytes": taken, "process": process}
    raise Unavailable(f"only {said['sidecar_cache_entries']:.0f} of {len(reads)} keys were cached")


def staleness(writes: int, repeat: int, server: str, tick: Tick) -> dict[str, list[Figures]]:
    """From the answer to a write at the server until a read through the sidecar shows it."""
    found: dict[str, list[Figures]] = {"off": [], "rules": []}
    with Fleet() as fleet:
        port = start_server(fleet, server).port
        sidecars = {mode: start_cache(fleet, port, SETTINGS[mode]) for mode in found}
        for _ in range(repeat):
            for mode, sidecar in sidecars.items():
                tick(f"staleness {mode}")
                found[mode].append(_watched(sidecar, port, writes))
    return found


def _watched(sidecar: Sidecar, server: int, writes: int) -> Figures:
    seen: list[tuple[int, int]] = []
    with Wire(server) as real, Wire(sidecar.port) as wire:
        real.cmd("SET", "counter", 0)
        before, reads = calls(real, "get"), 0
        argv = [sys.executable, "-m", WRITER, str(server), str(writes)]
        with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
            last = -1
            while last < writes:
                value, reads = int(wire.call("GET", "counter")), reads + 1
                if value < last:
                    raise Unavailable(f"a read went back from {last} to {value}")
                if value > last:
                    seen.append((time.monotonic_ns(), value))
                    last = value
            said = writer.communicate(timeout=30)[0]
        hits = 1 - (calls(real, "get") - before) / reads
    return {"hits": hits, **_distribution(json.loads(said), seen)}


def _distribution(written: Sequence[int], seen: Sequence[tuple[int, int]]) -> Figures:
    """`written[i]`: when write i + 1 was answered. Milliseconds; 0 if it was seen before that."""
    delays, at = [], 0
    for number, answered in enumerate(written, 1):
        while seen[at][1] < number:
            at += 1
        delays.append(max(0.0, (seen[at][0] - answered) / 1e6))
    return dict(zip(("p50", "p99", "max"), quantiles(delays, (0.5, 0.99, 1.0)), strict=True))
