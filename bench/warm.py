"""`python -m bench.warm`: what a warm start is worth, beside a cold one.

Sessions in a server 3 ms away (a proxy delays its replies), read through a sidecar that is
restarted, each time on one connection, one GET after the other. Measured, in turns:

* hit ratio of 10,000 reads before a restart, and of the first 10,000 after it: the server's own
  count of GET says how many reached it. `sessions`: 5,000 users who come back, one read in fifty
  is of somebody new. `zipf`: 0.99 over 100,000 keys, of which more are in use than are kept.
* latency of the first GET of each of the 1,000 sessions used most;
* time from the start of the process, and from reaching the server, until /readyz says yes with
  10,000 keys to load, 3 ms away and on loopback.

Hits and latencies do not depend on how busy the machine is nearly as much as times to ready do.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import http.client
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from bench import machine
from bench.client import Client
from bench.delay import further
from bench.peers import start_server
from bench.procs import Child, Fleet, Unavailable, free_port, scraped

RESULTS = Path(__file__).resolve().parent / "results"
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
    port: int = field(default_factory=free_port)
    admin: int = field(default_factory=free_port)
    child: Child | None = None

    def start(self, upstream: int, *settings: str) -> Figures:
        """Start the sidecar (again) and wait until it is ready: how long that took."""
        self.stop()
        argv = [sys.executable, "-m", "sidecar", "run", "--admin", f"127.0.0.1:{self.admin}"]
        argv += ["--listen", f"redis://127.0.0.1:{self.port}"]
        argv += ["--upstream", f"redis://127.0.0.1:{upstream}"]
        for setting in ("cache.mode=rules", "cache.rules=session:", *settings):
            argv += ["--set", setting]
        begin = time.perf_counter()
        self.child = self.fleet.start("sidecar", argv)
        while not self._ready():
            if self.child.process.poll() is not None or time.perf_counter() - begin > 60:
                raise Unavailable(f"the sidecar did not get ready: {self.child.tail()}")
            time.sleep(0.002)
        found = {"process": time.perf_counter() - begin}
        said = scraped(self.admin)
        if loaded := said.get('sidecar_warmup_keys{state="loaded"}'):
            found |= {"warmup": said["sidecar_warmup_duration_seconds"], "loaded": loaded}
        return found

    def _ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=5)
        with contextlib.suppress(OSError), contextlib.closing(connection):
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        return False

    def stop(self) -> None:
        """SIGTERM, so that it saves what it has in use."""
        if self.child is not None:
            self.fleet.end(self.child)
            self.child = None

    def settle(self) -> None:
        """Wait until the cache asks for nothing any more."""
        with Client(self.server) as server:
            before, now = -1, server.gets()
            while now != before:
                time.sleep(10 * ORIGIN)
                before, now = now, server.gets()

    def reads(self, keys: Sequence[bytes]) -> Figures:
        """Hit ratio and latencies of these reads."""
        with Client(self.server) as server, Client(self.port) as client:
            before = server.gets()
            times = sorted(client.timed(keys, VALUE))
            hits = 1 - (server.gets() - before) / len(keys)
        found = {"hits": hits, "mean": statistics.mean(times)}
        return found | {f"p{q}": times[int(len(times) * q / 100)] for q in (50, 99)}


def restarts(stage: Stage, load: str, kept: int, count: int, seed: int) -> dict[str, Figures]:
    """One load: before a restart, after a warm one, and after a cold one."""
    some = LOADS[load](random.Random(seed))
    snapshot = stage.fleet.dir / f"{load}-{kept}-{seed}"
    warm = (f"warm.snapshot={snapshot}", f"warm.keys={kept}")
    stage.start(stage.origin, *warm)
    with Client(stage.port) as client:
        for _ in range(4):
            client.piped([(b"GET", key) for key in some(count)])
    stage.settle()
    found = {"before": stage.reads(some(count))}
    found["warm"] = stage.start(stage.origin, *warm) | stage.reads(some(count))
    found["cold"] = stage.start(stage.origin) | stage.reads(some(count))
    return found


def checks(stage: Stage, hot: int, seed: int) -> dict[str, Figures]:
    """The first GET of each hot session, after a warm and after a cold start; times to ready."""
    keys = [name(number) for number in range(LOADED)]
    listed = stage.fleet.dir / "keys"
    listed.write_bytes(b"\n".join(b"GET " + key for key in keys))
    random.Random(seed).shuffle(keys)
    warm = (f"warm.key_file={listed}", f"warm.keys={LOADED}")
    found = {"loopback": stage.start(stage.server, *warm)}
    found["warm"] = stage.start(stage.origin, *warm) | stage.reads(keys[:hot])
    found["cold"] = stage.start(stage.origin) | stage.reads(keys[:hot])
    return found


@contextlib.contextmanager
def staged(seconds: float) -> Iterator[Stage]:
    """A server with every session in it, and the way to it."""
    with Fleet() as fleet:
        server = start_server(fleet, "valkey", None)
        origin = further(fleet, server.port, seconds)
        with Client(server.port) as client:
            client.piped([(b"SET", name(number), VALUE) for number in range(KEYS)])
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


def main(argv: list[str] | None = None) -> int:
    """Run it, print the table, write JSON and plot."""
    parser = argparse.ArgumentParser(prog="python -m bench.warm", description=__doc__)
    parser.add_argument("--repeat", type=int, default=3, help="rounds (3)")
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--out", type=Path, help="folder for the results")
    args = parser.parse_args(argv)
    from bench import warm_report

    rounds, count, hot = (1, 500, 100) if args.quick else (args.repeat, 10_000, HOT)
    try:
        found = measure(rounds, count, hot, lambda text: print(text, file=sys.stderr))
        facts = machine.facts("valkey")
    except Unavailable as error:
        print(error, file=sys.stderr)
        return 1
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = args.out or RESULTS / f"warm-{stamp}"
    warm_report.write(folder, found, facts, judge=not args.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())
