"""Drill 12: the sidecar is replaced by another one on the same port."""

from __future__ import annotations

from typing import Any

from bench.drills.drill import Drill
from bench.drills.scene import Scene
from bench.drills.single import Restartable
from bench.drills.spec import Crowd

TIMES = 10
CROWDS = (
    Crowd("redis-py", writers=4, readers=4, counters=2, retries=1),
    Crowd("ioredis", writers=2, readers=2, counters=2),
    Crowd("raw", writers=2, readers=2, counters=2),
)


def _replaced(scene: Scene[Restartable]) -> None:
    for _ in range(2 if scene.options.short else TIMES):
        scene.replace_sidecar()
        scene.pause(0.5)


DRILLS: tuple[Drill[Any], ...] = (
    Drill("12", "sidecar replaced", "10 times: a new sidecar begins to listen on the same port "
          "(`listen.reuse_port`), then the old one gets SIGTERM and lets its clients go one after "
          "the other (`drain.timeout` 2 s). Clients are redis-py with one retry, ioredis, and a "
          "plain socket that connects again at once.", Restartable, _replaced, lanes=("sidecar",),
          crowds=CROWDS),
)  # fmt: skip
