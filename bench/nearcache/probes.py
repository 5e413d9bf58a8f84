"""What a load does not show: a stampede, the memory of an entry, and staleness."""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import loadgen
from bench.client import Client
from bench.delay import further
from bench.memory import memory_bytes
from bench.nearcache.lanes import SETTINGS, Figures, Sidecar, start_sidecar
from bench.peers import start_server
from bench.procs import ROOT, Address, Fleet, Unavailable
from bench.scenarios import Load

KEY = 16
BATCH = 100
STAMPEDE_TRIP = 0.001
SETTLE = 30.0
WRITER = "bench.nearcache.writer"
COUNTER = b"counter"
Tick = Callable[[str], None]


def stampede(clients: int, repeat: int, server: str, tick: Tick) -> dict[str, list[Figures]]:
    """Everybody asks for the same cold key at once, 1 ms away: how many reads reach the server."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    found: dict[str, list[Figures]] = {mode: [] for mode in SETTINGS}
    with Fleet() as fleet, contextlib.ExitStack() as stack:
        port = start_server(fleet, server, None).port
        far = further(fleet, port, STAMPEDE_TRIP)
        real = stack.enter_context(Client(port))
        crowds = {
            mode: _crowd(stack, start_sidecar(fleet, far, *settings).address, clients)
            for mode, settings in SETTINGS.items()
        }
        for turn in range(repeat):
            for mode, crowd in crowds.items():
                tick(f"stampede {mode}")
                found[mode].append(_rush(crowd, real, b"cold:%s:%04d" % (mode.encode(), turn)))
    return found


def _crowd(stack: contextlib.ExitStack, address: Address, clients: int) -> list[socket.socket]:
    """Connected clients, each of which has had an answer."""
    crowd = [stack.enter_context(address.connect(30)) for _ in range(clients)]
    for sock in crowd:
        sock.sendall(b"PING\r\n")
    for sock in crowd:
        if sock.recv(64) != b"+PONG\r\n":
            raise Unavailable("a client of the stampede got a wrong answer")
    return crowd


def _rush(crowd: list[socket.socket], real: Client, key: bytes) -> Figures:
    real.piped([(b"SET", key, b"x" * KEY)])
    before = real.gets()
    request = b"*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n" % (len(key), key)
    begin = time.perf_counter()
    for sock in crowd:
        sock.sendall(request)
    for sock in crowd:
        if sock.recv(64) != b"$16\r\nxxxxxxxxxxxxxxxx\r\n":
            raise Unavailable("a client of the stampede got a wrong answer")
    return {"reads": real.gets() - before, "ms": 1000 * (time.perf_counter() - begin)}


def memory(
    program: Path, values: Sequence[int], entries: int, server: str, tick: Tick
) -> dict[str, list[Figures]]:
    """Bytes of an entry beyond those of its key and its value, by the size of the value."""
    found = {}
    for value in values:
        tick(f"memory of values of {value} bytes")
        with Fleet() as fleet:
            port = start_server(fleet, server, None).port
            loadgen.fill(program, Address(port=port), Load(keys=entries, value=value, get=0))
            sidecar = start_sidecar(fleet, port, *SETTINGS["rules"], "cache.memory=4GiB")
            found[str(value)] = [_filled(sidecar, entries, value)]
    return found


def _filled(sidecar: Sidecar, entries: int, value: int) -> Figures:
    """The first twentieth is not charged: code, pools and the first tables come with it."""
    keys = [b"key:%012d" % number for number in range(entries)]
    first = entries // 20
    with Client(sidecar.address.port) as client:
        before = _after_reading(sidecar, client, keys[:first])
        after = _after_reading(sidecar, client, keys)
    count = after["entries"] - before["entries"]
    own = KEY + value
    return {
        "entries": after["entries"],
        "counted": (after["bytes"] - before["bytes"]) / count - own,
        "process": (after["process"] - before["process"]) / count - own,
        "process_mib": after["process"] / (1 << 20),
    }


def _after_reading(sidecar: Sidecar, client: Client, keys: list[bytes]) -> Figures:
    """Read until all of them are there, then the memory."""
    until = time.monotonic() + SETTLE
    while time.monotonic() < until:
        for at in range(0, len(keys), BATCH):
            client.piped([(b"GET", key) for key in keys[at : at + BATCH]])
        said = sidecar.counters()
        if said["sidecar_cache_entries"] >= len(keys):
            process = float(memory_bytes(sidecar.pid))
            entries, taken = said["sidecar_cache_entries"], said["sidecar_cache_bytes"]
            return {"entries": entries, "bytes": taken, "process": process}
    raise Unavailable(f"only {said['sidecar_cache_entries']:.0f} of {len(keys)} keys were cached")


def staleness(writes: int, repeat: int, server: str, tick: Tick) -> dict[str, list[Figures]]:
    """From the answer to a write at the server until a read through the sidecar shows it."""
    found: dict[str, list[Figures]] = {"off": [], "rules": []}
    with Fleet() as fleet:
        port = start_server(fleet, server, None).port
        sidecars = {mode: start_sidecar(fleet, port, *SETTINGS[mode]) for mode in found}
        for _ in range(repeat):
            for mode, sidecar in sidecars.items():
                tick(f"staleness {mode}")
                found[mode].append(_watched(sidecar, port, writes))
    return found


def _watched(sidecar: Sidecar, server: int, writes: int) -> Figures:
    seen: list[tuple[int, int]] = []
    with Client(server) as real, Client(sidecar.address.port) as client:
        real.piped([(b"SET", COUNTER, b"0")])
        before, reads = real.gets(), 0
        argv = [sys.executable, "-m", WRITER, str(server), str(writes)]
        with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
            last = -1
            while last < writes:
                client.send((b"GET", COUNTER))
                value, reads = int(client.reply()), reads + 1
                if value < last:
                    raise Unavailable(f"a read went back from {last} to {value}")
                if value > last:
                    seen.append((time.monotonic_ns(), value))
                    last = value
            said = writer.communicate(timeout=30)[0]
        hits = 1 - (real.gets() - before) / reads
    return {"hits": hits, **_distribution(json.loads(said), seen)}


def _distribution(written: list[int], seen: list[tuple[int, int]]) -> Figures:
    """`written[i]`: when write i + 1 was answered. Milliseconds; 0 if it was seen before that."""
    delays, at = [], 0
    for number, answered in enumerate(written, 1):
        while seen[at][1] < number:
            at += 1
        delays.append(max(0.0, (seen[at][0] - answered) / 1e6))
    delays.sort()

    def quantile(share: float) -> float:
        return delays[min(len(delays) - 1, int(share * len(delays)))]

    return {"p50": quantile(0.5), "p99": quantile(0.99), "max": delays[-1]}
