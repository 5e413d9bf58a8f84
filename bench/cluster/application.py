"""`python -m bench.cluster.application JSON`: an application that uses redis-py, either its client
for clusters or its plain one. RESP2, as Envoy knows no other.
One connection, one batch after the other. Prints how many commands
it has done in how many seconds, and the CPU time of itself and of the processes named."""

from __future__ import annotations

import json
import random
import sys
import time
from typing import Any

import redis

from bench.nearcache.application import cpu_seconds


def work(task: dict[str, Any]) -> dict[str, float]:
    """The load, after one batch that opens the connections."""
    client: Any
    if task["cluster"]:
        client = redis.RedisCluster(host="127.0.0.1", port=task["port"], protocol=2)
    else:
        client = redis.Redis(host="127.0.0.1", port=task["port"], protocol=2)
    chance = random.Random(1)
    size, done = task["pipeline"], 0
    draws = [f"key:{chance.randrange(task['keys']):012d}" for _ in range(50_000)]
    writes = [chance.random() * 100 >= task["get"] for _ in draws]

    def batch(first: int) -> None:
        if size == 1:
            one(client, first)
            return
        pipe = client.pipeline() if task["cluster"] else client.pipeline(transaction=False)
        for place in range(first, first + size):
            one(pipe, place)
        pipe.execute()

    def one(to: Any, place: int) -> None:
        key = draws[place % len(draws)]
        if writes[place % len(draws)]:
            to.set(key, key)
        else:
            to.get(key)

    for place in range(200):
        batch(place * size)
    before = {name: cpu_seconds(pid) for name, pid in task["pids"].items()}
    cpu, begin = time.process_time(), time.perf_counter()
    while time.perf_counter() < begin + task["seconds"]:
        batch(done)
        done += size
    cpu, seconds = time.process_time() - cpu, time.perf_counter() - begin
    others = {name: cpu_seconds(pid) - before[name] for name, pid in task["pids"].items()}
    return {"commands": done, "seconds": seconds, "client": cpu, **others}


if __name__ == "__main__":
    print(json.dumps(work(json.loads(sys.argv[1]))))
