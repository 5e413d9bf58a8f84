"""Compiles `loadgen.c` and runs it; its JSON answer becomes a `Sample`."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.load.compiled import compiled
from bench.load.shape import Address, Load

SOURCE = Path(__file__).with_name("loadgen.c")


class LoadFailed(Exception):
    """A measurement is not valid: wrong replies, lost connections, or no run at all."""


@dataclass(frozen=True)
class Sample:
    """One measured window. CPU is microseconds per command, latency microseconds of a batch."""

    rps: float
    p50: float
    p99: float
    p999: float
    proxy: float
    server: float
    both: float
    loadgen: float
    commands: int

    def as_dict(self) -> dict[str, float]:
        """For the JSON report."""
        return asdict(self)


def compile_loadgen(cache: Path | None = None) -> Path:
    """The compiled program, built once per source text into build/bench (or `cache`)."""
    return compiled(SOURCE, cache)


def _arguments(address: Address, load: Load) -> list[str]:
    busy = load.conns if load.busy is None else load.busy
    numbers: dict[str, float] = {
        "conns": load.conns,
        "busy": busy,
        "pipeline": load.pipeline,
        "get": load.get,
        "value": load.value,
        "keys": load.keys,
    }
    if load.zipf:
        numbers["zipf"] = load.zipf
    return address.loadgen_args() + [w for k, v in numbers.items() for w in (f"--{k}", str(v))]


def run_raw(
    program: Path,
    address: Address,
    load: Load,
    *,
    seconds: float,
    warmup: float = 0.3,
    pids: Mapping[str, int] | None = None,
    seed: int = 1,
    extra: tuple[str, ...] = (),
    core: int | None = None,
) -> dict[str, Any]:
    """Run one measurement, on `core` alone if that is given, and return loadgen's JSON as it is."""
    argv = ["taskset", "-c", str(core)] if core is not None else []
    argv += [str(program), *_arguments(address, load), "--seed", str(seed), *extra]
    argv += ["--seconds", str(seconds), "--warmup", str(warmup)]
    for name, pid in (pids or {}).items():
        argv += ["--pid", f"{name}={pid}"]
    limit = seconds + warmup + 60 + load.keys / 50_000
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired as error:
        raise LoadFailed(f"loadgen did not end within {limit:.0f} s") from error
    if done.returncode:
        raise LoadFailed(done.stderr.strip() or f"loadgen ended with {done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def measure(
    program: Path,
    address: Address,
    load: Load,
    *,
    seconds: float,
    warmup: float,
    pids: Mapping[str, int],
    seed: int,
) -> Sample:
    """One valid window as a Sample; raises LoadFailed if any reply was wrong or missing."""
    raw = run_raw(program, address, load, seconds=seconds, warmup=warmup, pids=pids, seed=seed)
    return sample_of(raw)


def sample_of(raw: Mapping[str, Any]) -> Sample:
    """What loadgen printed as a Sample; raises LoadFailed if any reply was wrong or missing."""
    if raw["errors"] or raw["undrained"] or not raw["commands"]:
        raise LoadFailed(
            f"{raw['errors']} wrong replies, {raw['closed']} connections lost, "
            f"{raw['undrained']} without an end, {raw['commands']} commands: {raw['first_error']}"
        )
    n, latency = raw["commands"], raw["latency_us"]
    proxy = raw["cpu_us"].get("proxy", 0.0) / n
    server = raw["cpu_us"].get("server", 0.0) / n
    return Sample(
        rps=n / raw["seconds"],
        p50=latency["p50"],
        p99=latency["p99"],
        p999=latency["p999"],
        proxy=proxy,
        server=server,
        both=proxy + server,
        loadgen=raw["loadgen_cpu_us"] / n,
        commands=n,
    )


def fill(program: Path, address: Address, load: Load) -> None:
    """Write every key of `load` once, so that each GET finds a value of the right size."""
    depth = 1 if load.value > 16384 else 64
    filler = Load(conns=2, pipeline=depth, value=load.value, keys=load.keys)
    raw = run_raw(program, address, filler, seconds=0, extra=("--fill",))
    if raw["errors"]:
        raise LoadFailed(f"filling the server failed: {raw['first_error']}")


@contextlib.contextmanager
def hold(program: Path, address: Address, load: Load) -> Iterator[None]:
    """Keep `load.conns` connections open that have each done one GET and now do nothing."""
    argv = [str(program), *_arguments(address, load), "--hold"]
    holder = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stderr is not None
        if holder.stdout.readline().strip() != "ready":
            holder.wait(5)
            raise LoadFailed(holder.stderr.read().strip() or "connections could not be opened")
        yield
    finally:
        holder.kill()
        holder.communicate()
