"""Warm and cold starts: the loads, the processes, and each figure of each round."""

from __future__ import annotations

import contextlib
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from bench.load.distance import further
from bench.peers.stage import start_server
from tests.harness.admin import is_ready, metrics
from tests.harness.distribution import quantiles
from tests.harness.errors import Unavailable
from tests.harness.fleet import Fleet
from tests.harness.process import free_port, wait_until
from tests.harness.resp import bulk
from tests.harness.server_stats import calls
from tests.harness.servers import Sidecar
from tests.harness.wire import Wire

KEYS = 100_000
ACTIVE = 5_000
NEW = 0.02
HOT = 1_000
LOADED = 10_000
ORIGIN = 0.003
VALUE = b"x" * 512
Figures = dict[str, float]


def name(number: int) -> bytes:
    """The key of a session."""
    return b"session:%08d" % number


def sessions(chance: random.Random) -> Callable[[int], list[bytes]]:
    """Users who come back, and a few new ones."""
    fresh = iter(range(ACTIVE, KEYS))

    def some(count: int) -> list[bytes]:
        draws = (chance.random() < NEW for _ in range(count))
        return [name(next(fresh) if new else chance.randrange(ACTIVE)) for new in draws]

    return some


def zipf(chance: random.Random) -> Callable[[int], list[bytes]]:
    """A few keys get most of the reads."""
    weights = [1 / rank**0.99 for rank in range(1, KEYS + 1)]
    sums = list(accumulate(weights))
    return lambda count: [
        name(number) for number in chance.choices(range(KEYS), cum_weights=sums, k=count)
    ]


LOADS = {"sessions": sessions, "zipf": zipf}


@dataclass
class Stage:
    """The processes of one run."""

    fleet: Fleet
    server: int
    origin: int
    sidecar: Sidecar | None = None

    @property
    def port(self) -> int:
        """The sidecar's."""
        assert self.sidecar is not None
        return self.sidecar.port

    def start(self, upstream: int, settings: Mapping[str, object] | None = None) -> Figures:
        """Start the sidecar (anew) and wait until it is ready: how long that took."""
        self.stop()
        everything = {"cache.mode": "rules", "cache.rules": "session:", **(settings or {})}
        begin = time.perf_counter()
        self.sidecar = sidecar = self.fleet.add(
            Sidecar(
                f"redis://127.0.0.1:{upstream}",
                settings={key: str(value) for key, value in everything.items()},
                defaults={},
                admin=f"127.0.0.1:{free_port()}",
                ready=False,
            )
        )
        ready = lambda: not sidecar.running or is_ready(sidecar)  # noqa: E731
        wait_until(ready, "a sidecar that is ready", 60, every=0.002)
        found = {"process": time.perf_counter() - begin}
        if not sidecar.running:
            raise Unavailable(f"the sidecar ended: {sidecar.tail()}")
        said = metrics(sidecar)
        if loaded := said.get('sidecar_warmup_keys{state="loaded"}'):
            found |= {"warmup": said["sidecar_warmup_duration_seconds"], "loaded": loaded}
        return found

    def stop(self) -> None:
        """SIGTERM, so that it saves what it has in use."""
        if self.sidecar is not None:
            self.sidecar.stop()
            self.fleet.end(self.sidecar)
            self.sidecar = None

    def settle(self) -> None:
        """Wait until the cache asks for nothing any more."""
        with Wire(self.server) as server:
            before, now = -1, calls(server, "get")
            while now != before:
                time.sleep(10 * ORIGIN)
                before, now = now, calls(server, "get")

    def reads(self, keys: Sequence[bytes]) -> Figures:
        """Hit ratio and latencies (ms) of these reads, one after the other."""
        expected, times = bulk(VALUE), []
        with Wire(self.server) as server, Wire(self.port) as wire:
            before = calls(server, "get")
            for key in keys:
                begin = time.perf_counter()
                if wire.cmd("GET", key) != expected:
                    raise Unavailable(f"a wrong value of {key!r}")
                times.append(1e3 * (time.perf_counter() - begin))
            hits = 1 - (calls(server, "get") - before) / len(keys)
        p50, p99 = quantiles(times, (0.5, 0.99))
        return {"hits": hits, "mean": statistics.mean(times), "p50": p50, "p99": p99}


def restarts(stage: Stage, load: str, kept: int, count: int, seed: int) -> dict[str, Figures]:
    """One load: before a restart, after a warm one, and after a cold one."""
    some = LOADS[load](random.Random(seed))
    snapshot = stage.fleet.folder / f"{load}-{kept}-{seed}"
    warm = {"warm.snapshot": snapshot, "warm.keys": kept}
    stage.start(stage.origin, warm)
    with Wire(stage.port, deadline=30) as wire:
        for _ in range(4):
            wire.pipeline([("GET", key) for key in some(count)])
    stage.settle()
    found = {"before": stage.reads(some(count))}
    found["warm"] = stage.start(stage.origin, warm) | stage.reads(some(count))
    found["cold"] = stage.start(stage.origin) | stage.reads(some(count))
    return found


def checks(stage: Stage, hot: int, seed: int) -> dict[str, Figures]:
    """The first GET of each hot session, after a warm and after a cold start; times to ready."""
    keys = [name(number) for number in range(LOADED)]
    listed = stage.fleet.folder / "keys"
    listed.write_bytes(b"\n".join(b"GET " + key for key in keys))
    random.Random(seed).shuffle(keys)
    warm = {"warm.key_file": listed, "warm.keys": LOADED}
    found = {"loopback": stage.start(stage.server, warm)}
    found["warm"] = stage.start(stage.origin, warm) | stage.reads(keys[:hot])
    found["cold"] = stage.start(stage.origin) | stage.reads(keys[:hot])
    return found


@contextlib.contextmanager
def staged(seconds: float) -> Iterator[Stage]:
    """A server with every session in it, and the way to it."""
    with Fleet() as fleet:
        server = start_server(fleet, "valkey")
        origin = further(fleet, server.port, seconds)
        with Wire(server.port, deadline=30) as wire:
            wire.pipeline([("SET", name(number), VALUE) for number in range(KEYS)])
        yield Stage(fleet, server.port, origin)


def measure(rounds: int, count: int, hot: int, told: Callable[[str], None]) -> dict[str, Any]:
    """Every figure of every round."""
    found: dict[str, Any] = {}
    with staged(ORIGIN) as stage:
        for number in range(rounds):
            told(f"round {number + 1} of {rounds}")
            parts = {
                "sessions": restarts(stage, "sessions", LOADED, count, number),
                "zipf, 10,000 kept": restarts(stage, "zipf", LOADED, count, number),
                "zipf, 50,000 kept": restarts(stage, "zipf", 5 * LOADED, count, number),
                "hot sessions": checks(stage, hot, number),
            }
            for part, cases in parts.items():
                for case, figures in cases.items():
                    found.setdefault(part, {}).setdefault(case, []).append(figures)
        stage.stop()
    return found
