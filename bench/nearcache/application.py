"""`python -m bench.nearcache.application JSON`: an application that uses redis-py, with or without
redis-py's own cache (RESP3); one connection, one command after the other. Prints its figures."""

from __future__ import annotations

import json
import random
import sys
import time
from dataclasses import asdict, dataclass
from itertools import accumulate

import redis
from redis.cache import CacheConfig

from tests.harness.distribution import quantiles
from tests.harness.server_stats import calls

DRAWS = 100_000


@dataclass(frozen=True)
class Task:
    """What to do; `pids` are the processes whose CPU time is told, by name. `server` is the port of
    the server itself, to be asked how many reads it has had."""

    port: int
    server: int
    cached: bool
    keys: int
    zipf: float
    get: int
    seconds: float
    seed: int
    pids: dict[str, int]

    def as_json(self) -> str:
        return json.dumps(asdict(self))


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far: its clock's number is made of its id (clock_getcpuclockid)."""
    return time.clock_gettime((~pid << 3) | 2)


def work(task: Task) -> dict[str, float]:
    """Every key once, so that what is cached is there; then the load."""
    cache = CacheConfig(max_size=2 * task.keys) if task.cached else None
    client = redis.Redis(port=task.port, protocol=3, cache_config=cache)
    keys = [f"key:{number:012d}" for number in range(task.keys)]
    chance = random.Random(task.seed)
    sums = list(accumulate((rank + 1) ** -task.zipf for rank in range(task.keys)))
    draws = chance.choices(keys, cum_weights=sums, k=DRAWS)
    writes = [chance.random() * 100 >= task.get for _ in range(DRAWS)]
    for key in keys:
        client.get(key)
    times, gets, at = [], 0, 0
    reached = calls(task.server, "get")
    before = {name: cpu_seconds(pid) for name, pid in task.pids.items()}
    own, begin = time.process_time(), time.perf_counter()
    now, end = begin, begin + task.seconds
    while now < end:
        key = draws[at % DRAWS]
        if writes[at % DRAWS]:
            client.set(key, key)
        else:
            gets += 1
            if client.get(key) != key.encode():
                raise SystemExit(f"a wrong value of {key}")
        at += 1
        now, last = time.perf_counter(), now
        times.append(now - last)
    spent = {name: cpu_seconds(pid) - before[name] for name, pid in task.pids.items()}
    own = time.process_time() - own
    reached = calls(task.server, "get") - reached
    p50, p99 = quantiles(times, (0.5, 0.99))
    return {
        "rps": at / (now - begin),
        "p50": 1e6 * p50,
        "p99": 1e6 * p99,
        "application": 1e6 * own / at,
        **{name: 1e6 * seconds / at for name, seconds in spent.items()},
        "hits": 1 - reached / gets,
    }


if __name__ == "__main__":
    print(json.dumps(work(Task(**json.loads(sys.argv[1])))))
