"""The drills: number, name, what is done to the cluster. What must hold stands in `targets.py`."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.drills.cluster import QUORUM, wait_for
from bench.drills.scene import LANES, SWITCH_DEADLINE, Scene
from bench.drills.switches import SWITCH
from tests.harness.errors import Unavailable
from tests.harness.resp import pairs
from tests.harness.sentinels import SERVICE
from tests.harness.wire import call

CUT_FOR = 8.0
"""Seconds a partition lasts beyond the announcement of the new master (split brain)."""


@dataclass(frozen=True)
class Drill:
    """One drill."""

    number: str
    name: str
    about: str
    act: Callable[[Scene], None]
    lanes: tuple[str, ...] = LANES
    faultnet: bool = False
    min_replicas: int = 0


def _crash(scene: Scene) -> None:
    master = scene.master()
    scene.switched(scene.kill(master, fault=True))
    scene.pause(1.0)
    scene.start(master)
    if not scene.options.short:
        scene.settled()


def _freeze(scene: Scene) -> None:
    master = scene.master()
    scene.switched(scene.freeze(master))
    scene.pause(2.0)
    scene.thaw(master)
    scene.settled()


def _planned(scene: Scene) -> None:
    scene.switched(scene.plan())
    if not scene.options.short:
        scene.settled()


def _coordinate(scene: Scene) -> float:
    """Valkey's Sentinels can do it; with Redis the master is told, and then the Sentinels."""
    if scene.options.server == "valkey":
        return scene.plan("COORDINATED")
    master, target = scene.master(), scene.replicas()[0]
    for node in scene.replicas():
        call(node.port, "CONFIG", "SET", "replica-priority", 1 if node is target else 100)
    _wait_priority(scene, target.listening)
    since = scene.mark(f"FAILOVER TO {target.name}", fault=True)
    call(master.port, "FAILOVER", "TO", "127.0.0.1", target.listening, "TIMEOUT", 5000)
    wait_for(lambda: call(target.port, "ROLE")[0] == "master", "promotion by FAILOVER", 10)
    call(scene.cluster.sentinels[0].port, "SENTINEL", "FAILOVER", SERVICE)
    scene.mark("SENTINEL FAILOVER")
    return since


def _wait_priority(scene: Scene, port: int) -> None:
    """The Sentinels ask replicas for such things every 10 s only."""

    def known() -> bool:
        rows = call(scene.cluster.sentinels[0].port, "SENTINEL", "REPLICAS", SERVICE)
        found = [pairs(row) for row in rows]
        return any(int(r["port"]) == port and r["slave-priority"] == "1" for r in found)

    wait_for(known, "Sentinels that know the replica's priority", 25)


def _coordinated(scene: Scene) -> None:
    scene.switched(_coordinate(scene))
    scene.settled()


def _sentinels(scene: Scene) -> None:
    pause = 0.5 if scene.options.short else 3.0
    first, second, third = scene.cluster.sentinels
    scene.kill(first, fault=True)
    scene.pause(pause)
    scene.kill(second)
    wait_for(
        lambda: not scene.cluster.can_fail_over(),
        f"the last Sentinel to see that there is no quorum of {QUORUM}",
        SWITCH_DEADLINE,
    )
    scene.say(f"{third.name} alone: no failover is possible")
    scene.pause(pause)
    scene.start(first)
    scene.start(second)
    wait_for(scene.cluster.can_fail_over, "a quorum again", SWITCH_DEADLINE)
    scene.settled()


def _partition(scene: Scene, groups: Sequence[str], more: float) -> None:
    net, master = scene.cluster.net, scene.master()
    assert net is not None
    since = scene.mark(f"{master.name} cut off from {', '.join(groups)}", fault=True)
    net.cut(scene.cluster.nodes.index(master), groups)
    scene.switched(since)
    scene.pause(more)
    scene.mark("healed")
    net.heal()
    scene.settled()


def _isolated(scene: Scene) -> None:
    _partition(scene, ("clients", "sentinels", "nodes"), 4.0)


def _split(scene: Scene) -> None:
    _partition(scene, ("sentinels", "nodes"), CUT_FOR)


def _rolling(scene: Scene) -> None:
    for replica in scene.replicas():
        scene.restart(replica)
        scene.settled()
    scene.pause(1.0)
    old = scene.master()
    scene.switched(_coordinate(scene))
    scene.settled()
    scene.restart(old)
    scene.settled()
    for sentinel in scene.cluster.sentinels:
        scene.restart(sentinel)
        scene.settled()


def _thrice(scene: Scene) -> None:
    for turn in range(3):
        master = scene.master()
        if turn == 1:
            scene.switched(scene.plan())
        else:
            scene.switched(scene.kill(master, fault=True))
            scene.start(master)
        scene.settled()
        scene.pause(1.0)


def _sidecar_restart(scene: Scene) -> None:
    assert scene.sidecar is not None
    for _ in range(1 if scene.options.short else 3):
        begin = scene.mark("SIGTERM to the sidecar", fault=True)
        scene.sidecar.stop()
        scene.mark("sidecar has ended")
        scene.sidecar.start()
        scene.mark("sidecar serves again")
        scene.say(f"away for {time.monotonic() - begin:.2f} s")
        scene.pause(1.5)
    if scene.watch.heard(SWITCH, scene.marks[0].time):
        raise Unavailable("a failover came in between")


DRILLS = (
    Drill("1", "master killed", "kill -9 of the master; it is started again 1 s after the switch "
          "and comes back believing that it is the master.", _crash),
    Drill("2", "master frozen", "SIGSTOP of the master; 2 s after the switch SIGCONT: a stale "
          "master with a backlog of unread commands.", _freeze),
    Drill("3", "planned switch", "SENTINEL FAILOVER. The old master goes on accepting writes for "
          "about 10 s.", _planned),
    Drill("4", "coordinated switch", "SENTINEL FAILOVER ... COORDINATED (Valkey 9), which stops "
          "writes on the old master first. Redis has FAILOVER TO on the master itself; "
          "the Sentinels do not follow that, so a SENTINEL FAILOVER comes directly after it.",
          _coordinated),
    Drill("5", "Sentinels lost", "One Sentinel is killed, then a second one (no failover is "
          "possible), then both come back.", _sentinels),
    Drill("6a", "master isolated", "The network takes the master away from Sentinels, replicas, "
          "clients and sidecar; nothing is reset, all is silent. Healed 4 s after the switch.",
          _isolated, faultnet=True),
    Drill("6b", "split brain", "The master is cut off from Sentinels and replicas but not from the "
          "clients: it goes on serving whoever still talks to it. Healed 8 s after the switch, "
          "which throws away what it took meanwhile.", _split, faultnet=True),
    Drill("6c", "split brain, bounded", "As 6b, with min-replicas-to-write 1 and "
          "min-replicas-max-lag 1: a master that has not heard of a replica for 1-2 s refuses "
          "writes (NOREPLICAS), which bounds what is lost without any help by clients.", _split,
          faultnet=True, min_replicas=1),
    Drill("7", "rolling restart", "Both replicas are restarted, then a coordinated switch, then "
          "the old master, then the Sentinels, one after the other.", _rolling),
    Drill("8", "three in a row", "kill -9, SENTINEL FAILOVER, kill -9; each as soon as the "
          "cluster is whole again.", _thrice),
    Drill("9", "sidecar restarted", "SIGTERM to the sidecar under load, a new one at the same "
          "address as soon as it has drained and ended; three times.", _sidecar_restart,
          lanes=("sidecar",)),
)  # fmt: skip


def choose(only: Sequence[str]) -> list[Drill]:
    """Drills by number or pattern (`6` is 6a, 6b and 6c); all of them if none is named."""
    if not only:
        return list(DRILLS)
    found = [
        d
        for d in DRILLS
        if any(fnmatch.fnmatch(d.number, o) or d.number.rstrip("abc") == o for o in only)
    ]
    for wanted in only:
        if not any(fnmatch.fnmatch(d.number, wanted) or d.number.rstrip("abc") == wanted
                   for d in DRILLS):  # fmt: skip
            raise Unavailable(f"no drill {wanted}; there are {', '.join(d.number for d in DRILLS)}")
    return found
