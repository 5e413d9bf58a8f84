"""What one identity's burst costs another: p99 of a calm client, alone and beside a flood.

    make bench-fairness
    make bench-fairness ARGS="--commands 5000 --seconds 5 --rounds 5"

Two identities share a sidecar and a server. The calm one asks at a fixed rate, one request at a
time; the flooding one has many connections, each with a deep pipeline, in a process of its own.
Rounds with and without the flood alternate, so that what else the machine does meets both. The
flood is limited to `--commands` a second; 0 shows what it does without a limit.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

from bench import command_line
from bench.report import tables
from tests.harness.resp import pack
from tests.harness.servers import Sidecar, valkey
from tests.harness.wire import Wire

CONNECTIONS = 20
DEPTH = 500
CALM_EVERY = 0.001  # seconds between two requests of the calm client
MOST = 1.2  # what the flood may make of the calm client's p99


def _p99(port: int, seconds: float) -> float:
    """The calm client's p99, in seconds."""
    took = []
    with Wire(port) as wire:
        wire.call("AUTH", "calm", "secret")
        end = time.monotonic() + seconds
        due = time.monotonic()
        while due < end:
            time.sleep(max(due - time.monotonic(), 0.0))
            began = time.perf_counter()
            wire.cmd("GET", "k")
            took.append(time.perf_counter() - began)
            due = max(due + CALM_EVERY, time.monotonic())
    return statistics.quantiles(took, n=100)[98]


def _flood(port: int) -> None:
    asyncio.run(_flooding(port))


async def _flooding(port: int) -> None:
    batch = pack("GET", "k") * DEPTH

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(pack("AUTH", "flood", "secret"))
        await reader.readline()
        while True:
            writer.write(batch)
            await writer.drain()
            await reader.read(1 << 20)

    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))


def _beside(port: int, seconds: float) -> float:
    """The calm client's p99 while somebody floods the sidecar."""
    flood = multiprocessing.get_context("spawn").Process(target=_flood, args=(port,), daemon=True)
    flood.start()
    try:
        time.sleep(1.0)  # it takes as long to begin
        return _p99(port, seconds)
    finally:
        flood.terminate()
        flood.join()


def measure(commands: int, seconds: float, rounds: int) -> list[tuple[float, float]]:
    """(alone, beside the flood) of each round: the calm client's p99 in seconds."""
    with tempfile.TemporaryDirectory() as folder, valkey() as server:
        with Wire(server.port) as wire:
            for user in ("calm", "flood"):
                wire.call("ACL", "SETUSER", user, "on", ">secret", "+@all", "allkeys")
            wire.call("SET", "k", "x" * 100)
        file = Path(folder) / "identities.toml"
        limits = f"{{ commands = {commands}, burst = {max(commands // 100, 1)} }}"
        file.write_text(f"[identities.flood]\nlimits = {limits if commands else '{}'}\n")
        with Sidecar(server.url, settings={"identities.file": str(file)}) as sidecar:
            _p99(sidecar.port, 0.5)
            return [
                (_p99(sidecar.port, seconds), _beside(sidecar.port, seconds)) for _ in range(rounds)
            ]


def main(argv: list[str] | None = None) -> int:
    """Measure, and print a table; 1 if the flood costs more than it may."""
    parser = argparse.ArgumentParser(prog="python -m bench.fairness", description=__doc__)
    parser.add_argument(
        "--commands", type=int, default=5000, help="what the flood may send a second"
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args(argv)
    console = command_line.terminal(80)
    with command_line.measuring(console):
        found = measure(args.commands, args.seconds, args.rounds)
    rows = [[f"{a * 1e6:,.0f}", f"{b * 1e6:,.0f}", f"{b / a:.2f}"] for a, b in found]
    ratio = statistics.median(b for _, b in found) / statistics.median(a for a, _ in found)
    columns = ("alone", "beside the flood", "ratio")
    console.print(tables.table("p99 of the calm client, µs", columns, rows))
    console.print(f"ratio of the medians: {ratio:.2f} (at most {MOST})")
    return int(ratio > MOST)


if __name__ == "__main__":
    raise SystemExit(main())
