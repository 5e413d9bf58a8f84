"""Drills 10a to 10e: the master behind a name is replaced, and nobody announces it."""

from __future__ import annotations

import time
from typing import Any

from bench.drills.drill import Drill
from bench.drills.named import HOSTS, NAME, Named, order
from bench.drills.scene import Scene
from bench.drills.switches import Announced
from bench.drills.world import Options, wait_for
from tests.harness.fleet import Fleet
from tests.harness.swallowing import Swallows

NOTICES = 2.0
"""Seconds after which the service has noticed that the master is gone, and promotes the replica."""

LATER = 5.0
"""Seconds after which a name changes that changes late."""

STEPS = 0.3
"""Seconds between two steps of the service."""


def _hand_over(scene: Scene[Named]) -> float:
    """FAILOVER TO: master and replica change roles, nothing is lost. Since when the new one is."""
    world = scene.world
    since = scene.mark(f"FAILOVER TO {world.replica.name}", fault=True)
    order(world.master, "FAILOVER", "TO", world.replica.host, world.port)
    led = scene.led(world.replica, since)
    world.promoted()
    return led


def _promote(scene: Scene[Named]) -> float:
    """The service makes the replica the master. Since when it is."""
    world = scene.world
    since = scene.mark(f"REPLICAOF NO ONE {world.replica.name}")
    order(world.replica, "REPLICAOF", "NO", "ONE")
    led = scene.led(world.replica, since)
    world.promoted()
    return led


def _point(scene: Scene[Named]) -> None:
    """The name changes, and is right: the new master has been promoted. What is measured from here
    on includes the change itself."""
    right = time.monotonic()
    scene.world.point_to(scene.world.master)
    scene.mark("the name leads to it", at=right)
    scene.announced.append(Announced(right, scene.world.master.address))


def _in_step(scene: Scene[Named]) -> None:
    """All is well again."""
    if not scene.options.short:
        wait_for(scene.world.in_step, "the old master as a replica in step", 20)


def _turned(scene: Scene[Named]) -> None:
    _hand_over(scene)
    scene.pause(STEPS)
    _point(scene)
    _in_step(scene)


def _frozen(scene: Scene[Named]) -> None:
    old = scene.world.master
    scene.freeze(old)
    scene.pause(NOTICES)
    _promote(scene)
    scene.pause(STEPS)
    _point(scene)
    scene.pause(2.0)
    scene.thaw(old)
    scene.pause(1.0)
    order(old, "REPLICAOF", scene.world.master.host, scene.world.port)
    _in_step(scene)


def _closed(scene: Scene[Named]) -> None:
    scene.kill(scene.world.master, fault=True)
    scene.pause(NOTICES)
    _promote(scene)
    scene.pause(STEPS)
    _point(scene)


def _late(scene: Scene[Named]) -> None:
    begin = scene.kill(scene.world.master, fault=True)
    scene.pause(NOTICES)
    _promote(scene)
    scene.pause(begin + LATER - time.monotonic())
    _point(scene)


def _three(scene: Scene[Named]) -> None:
    """The moment of the promotion is the one from which on all is right."""
    led = _hand_over(scene)
    scene.announced.append(Announced(led, scene.world.master.address))
    _in_step(scene)


class Three(Named):
    """The name has three addresses: the master's, the replica's, and one that swallows all."""

    def __init__(self, fleet: Fleet, options: Options) -> None:
        super().__init__(fleet, options)
        self._gone = Swallows(self.port, HOSTS[2])
        self.names.put(NAME, self.master.host, self._gone.host, self.replica.host)

    def close(self) -> None:
        """Let go of the third address as well."""
        self._gone.close()
        super().close()


DRILLS: tuple[Drill[Any], ...] = (
    Drill("10a", "name moves", "FAILOVER TO: the old master turns into a replica of the new one. "
          "The name follows 0.3 s later.", Named, _turned),
    Drill("10b", "name moves, old one frozen", "SIGSTOP of the master. 2 s later the replica is "
          "promoted, then the name changes. The old one thaws as a master and is made a replica.",
          Named, _frozen),
    Drill("10c", "name moves, old one closed", "kill -9 of the master. 2 s later the replica is "
          "promoted, then the name changes.", Named, _closed),
    Drill("10d", "three records", "The name has three addresses all the time, one of which "
          "swallows whatever is sent there; of the others one is the master. FAILOVER TO: the two "
          "change roles, and the name says nothing about it.", Three, _three),
    Drill("10e", "name changes late", "As a managed service fails over: kill -9 of the master, the "
          "replica is promoted 2 s later, and the name changes 5 s after the kill.", Named, _late,
          patience=10.0),
)  # fmt: skip
