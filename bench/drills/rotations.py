"""Drills 11a and 11b: the sidecar's own credentials change."""

from __future__ import annotations

import time
from typing import Any

from bench.drills.drill import Drill
from bench.drills.scene import Scene
from bench.drills.single import Guarded, Issued
from bench.drills.spec import Crowd
from bench.drills.tokens import EXPIRES_IN

EVERY = 1.0
"""Seconds from one password to the next."""

BOTH = 0.5
"""Seconds for which the server takes both."""

LASTS = 20.0
"""Seconds for which tokens expire."""

CROWD = Crowd(visitors=2)
"""Who visits, connects anew: to the server with the credentials at hand."""


def _rotated(scene: Scene[Guarded]) -> None:
    world = scene.world
    begin = time.monotonic()
    for number in range(1, 3 if scene.options.short else 21):
        before, world.password = world.password, world.allow(number)
        scene.mark(f"password {number}", fault=number == 1)
        world.swap()
        scene.pause(BOTH)
        world.forbid(before)
        scene.pause(max(0.0, begin + number * EVERY - time.monotonic()))


def _expiring(scene: Scene[Issued]) -> None:
    end = scene.mark("tokens expire from now on", fault=True) + LASTS / (
        5 if scene.options.short else 1
    )
    expired = 0
    while (now := time.monotonic()) < end:
        if (count := scene.world.take_back(now - EXPIRES_IN)) > expired:
            expired = count
            scene.mark(f"token {expired} expires")
        scene.pause(0.02)


DRILLS: tuple[Drill[Any], ...] = (
    Drill("11a", "password rotated", "20 times in 20 s: ACL SETUSER gives the user a second "
          "password, the file with the password is replaced, and 0.5 s later the first one goes. "
          "Two of the clients connect anew all the time, to another database each time.", Guarded,
          _rotated, crowds=(CROWD,)),
    Drill("11b", "token expires", "For 20 s: a program issues tokens, each of which the server "
          "takes for 2 s. Two of the clients connect anew all the time, to another database each "
          "time.", Issued, _expiring, crowds=(CROWD,)),
)  # fmt: skip
