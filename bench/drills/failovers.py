"""Drills 1 to 9: what is done to a Sentinel cluster."""

from __future__ import annotations

import time
from collections.abc import Sequence

from bench.drills.cluster import QUORUM, Bounded, Cluster, Partitioned
from bench.drills.drill import Drill
from bench.drills.scene import SWITCH_DEADLINE, Scene
from bench.drills.switches import SWITCH
from bench.drills.world import wait_for
from tests.harness.errors import Unavailable
from tests.harness.resp import Refused, pairs
from tests.harness.sentinels import SERVICE, Node
from tests.harness.wire import call

CUT_FOR = 8.0
"""Seconds a partition lasts beyond the announcement of the new master (split brain)."""

SETTLE_DEADLINE = 30.0
"""Seconds. The slowest is a stale master: the Sentinels demote it about 10 s after it is back."""


def _replicas(scene: Scene[Cluster]) -> list[Node]:
    """All nodes but the master."""
    master = scene.world.named_master()
    return [node for node in scene.world.nodes if node is not master]


def _plan(scene: Scene[Cluster], *words: str) -> float:
    """SENTINEL FAILOVER, tried again while the Sentinels say that they cannot yet."""
    port = next(s.port for s in scene.world.sentinels if s.running)
    limit = time.monotonic() + SWITCH_DEADLINE
    while True:
        since = time.monotonic()
        try:
            call(port, "SENTINEL", "FAILOVER", SERVICE, *words)
        except Refused as refused:
            if time.monotonic() > limit:
                raise Unavailable(f"SENTINEL FAILOVER: {refused}") from refused
            time.sleep(0.1)
            continue
        text = " ".join(("SENTINEL FAILOVER", *words))
        return scene.mark(text, fault=True, at=since)


def _switched(scene: Scene[Cluster], since: float) -> None:
    """Wait for the Sentinels to announce the new master."""
    said = wait_for(lambda: scene.watch.heard(SWITCH, since), SWITCH, SWITCH_DEADLINE)
    scene.say(f"{SWITCH} after {said.time - since:.2f} s")


def _settled(scene: Scene[Cluster]) -> None:
    """Wait until all nodes agree and are in step, and the Sentinels could fail over again."""
    begin = time.monotonic()
    wait_for(scene.world.replicating, "one master and two replicas in step", SETTLE_DEADLINE)
    try:
        wait_for(scene.world.sentinels_ready, "Sentinels that see all", SETTLE_DEADLINE)
    except Unavailable as error:
        raise Unavailable(f"{error}: {'; '.join(scene.world.unready)}") from error
    scene.say(f"settled after {time.monotonic() - begin:.2f} s")


def _crash(scene: Scene[Cluster]) -> None:
    master = scene.world.named_master()
    _switched(scene, scene.kill(master, fault=True))
    scene.pause(1.0)
    scene.start(master)
    if not scene.options.short:
        _settled(scene)


def _freeze(scene: Scene[Cluster]) -> None:
    master = scene.world.named_master()
    _switched(scene, scene.freeze(master))
    scene.pause(2.0)
    scene.thaw(master)
    _settled(scene)


def _planned(scene: Scene[Cluster]) -> None:
    _switched(scene, _plan(scene))
    if not scene.options.short:
        _settled(scene)


def _coordinate(scene: Scene[Cluster]) -> float:
    """Valkey's Sentinels can do it; with Redis the master is told, and then the Sentinels."""
    if scene.options.server == "valkey":
        return _plan(scene, "COORDINATED")
    master, target = scene.world.named_master(), _replicas(scene)[0]
    for node in _replicas(scene):
        call(node.port, "CONFIG", "SET", "replica-priority", 1 if node is target else 100)
    _wait_priority(scene, target.listening)
    since = scene.mark(f"FAILOVER TO {target.name}", fault=True)
    call(master.port, "FAILOVER", "TO", "127.0.0.1", target.listening, "TIMEOUT", 5000)
    wait_for(lambda: call(target.port, "ROLE")[0] == "master", "promotion by FAILOVER", 10)
    call(scene.world.sentinels[0].port, "SENTINEL", "FAILOVER", SERVICE)
    scene.mark("SENTINEL FAILOVER")
    return since


def _wait_priority(scene: Scene[Cluster], port: int) -> None:
    """The Sentinels ask replicas for such things every 10 s only."""

    def known() -> bool:
        rows = call(scene.world.sentinels[0].port, "SENTINEL", "REPLICAS", SERVICE)
        found = [pairs(row) for row in rows]
        return any(int(r["port"]) == port and r["slave-priority"] == "1" for r in found)

    wait_for(known, "Sentinels that know the replica's priority", 25)


def _coordinated(scene: Scene[Cluster]) -> None:
    _switched(scene, _coordinate(scene))
    _settled(scene)


def _sentinels(scene: Scene[Cluster]) -> None:
    pause = 0.5 if scene.options.short else 3.0
    first, second, third = scene.world.sentinels
    scene.kill(first, fault=True)
    scene.pause(pause)
    scene.kill(second)
    wait_for(
        lambda: not scene.world.can_fail_over(),
        f"the last Sentinel to see that there is no quorum of {QUORUM}",
        SWITCH_DEADLINE,
    )
    scene.say(f"{third.name} alone: no failover is possible")
    scene.pause(pause)
    scene.start(first)
    scene.start(second)
    wait_for(scene.world.can_fail_over, "a quorum again", SWITCH_DEADLINE)
    _settled(scene)


def _partition(scene: Scene[Cluster], groups: Sequence[str], more: float) -> None:
    net, master = scene.world.net, scene.world.named_master()
    assert net is not None
    since = scene.mark(f"{master.name} cut off from {', '.join(groups)}", fault=True)
    net.cut(scene.world.nodes.index(master), groups)
    _switched(scene, since)
    scene.pause(more)
    scene.mark("healed")
    net.heal()
    _settled(scene)


def _isolated(scene: Scene[Cluster]) -> None:
    _partition(scene, ("clients", "sentinels", "nodes"), 4.0)


def _split(scene: Scene[Cluster]) -> None:
    _partition(scene, ("sentinels", "nodes"), CUT_FOR)


def _rolling(scene: Scene[Cluster]) -> None:
    for replica in _replicas(scene):
        scene.restart(replica)
        _settled(scene)
    scene.pause(1.0)
    old = scene.world.named_master()
    _switched(scene, _coordinate(scene))
    _settled(scene)
    scene.restart(old)
    _settled(scene)
    for sentinel in scene.world.sentinels:
        scene.restart(sentinel)
        _settled(scene)


def _thrice(scene: Scene[Cluster]) -> None:
    for turn in range(3):
        master = scene.world.named_master()
        if turn == 1:
            _switched(scene, _plan(scene))
        else:
            _switched(scene, scene.kill(master, fault=True))
            scene.start(master)
        _settled(scene)
        scene.pause(1.0)


def _sidecar_restart(scene: Scene[Cluster]) -> None:
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


DRILLS: tuple[Drill[Cluster], ...] = (
    Drill("1", "master killed", "kill -9 of the master; it is started again 1 s after the switch "
          "and comes back believing that it is the master.", Cluster, _crash),
    Drill("2", "master frozen", "SIGSTOP of the master; 2 s after the switch SIGCONT: a stale "
          "master with a backlog of unread commands.", Cluster, _freeze),
    Drill("3", "planned switch", "SENTINEL FAILOVER. The old master goes on accepting writes for "
          "about 10 s.", Cluster, _planned),
    Drill("4", "coordinated switch", "SENTINEL FAILOVER ... COORDINATED (Valkey 9), which stops "
          "writes on the old master first. Redis has FAILOVER TO on the master itself; "
          "the Sentinels do not follow that, so a SENTINEL FAILOVER comes directly after it.",
          Cluster, _coordinated),
    Drill("5", "Sentinels lost", "One Sentinel is killed, then a second one (no failover is "
          "possible), then both come back.", Cluster, _sentinels),
    Drill("6a", "master isolated", "The network takes the master away from Sentinels, replicas, "
          "clients and sidecar; nothing is reset, all is silent. Healed 4 s after the switch.",
          Partitioned, _isolated),
    Drill("6b", "split brain", "The master is cut off from Sentinels and replicas but not from the "
          "clients: it goes on serving whoever still talks to it. Healed 8 s after the switch, "
          "which throws away what it took meanwhile.", Partitioned, _split),
    Drill("6c", "split brain, bounded", "As 6b, with min-replicas-to-write 1 and "
          "min-replicas-max-lag 1: a master that has not heard of a replica for 1-2 s refuses "
          "writes (NOREPLICAS), which bounds what is lost without any help by clients.", Bounded,
          _split),
    Drill("7", "rolling restart", "Both replicas are restarted, then a coordinated switch, then "
          "the old master, then the Sentinels, one after the other.", Cluster, _rolling),
    Drill("8", "three in a row", "kill -9, SENTINEL FAILOVER, kill -9; each as soon as the "
          "cluster is whole again.", Cluster, _thrice),
    Drill("9", "sidecar restarted", "SIGTERM to the sidecar under load, a new one at the same "
          "address as soon as it has drained and ended; three times.", Cluster, _sidecar_restart,
          lanes=("sidecar",)),
)  # fmt: skip
