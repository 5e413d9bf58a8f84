"""Drills 14a and 14b: the upstream is another server by now, and settings change under load."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from bench.drills.drill import Drill
from bench.drills.named import order
from bench.drills.scene import Scene
from bench.drills.single import Single
from bench.drills.spec import Spec
from bench.drills.switches import Address
from bench.drills.world import Options, wait_for
from tests.harness.admin import post
from tests.harness.errors import Unavailable
from tests.harness.fleet import Fleet
from tests.harness.programs import server_binary
from tests.harness.servers import Server, Sidecar

TIMES = 10
RELOADS = 100
GROWN_MOST = 16 << 20
"""Bytes by which a sidecar may have grown after RELOADS: what it frees is not always given back."""


class Migrated(Single):
    """A server, and another one that takes its place, its data included."""

    ABOUT: ClassVar[str] = "1 server, and another one that its data and its clients move to"

    def __init__(self, fleet: Fleet, options: Options) -> None:
        super().__init__(fleet, options)
        self.other = fleet.add(Server(server_binary(options.flavour), "other"))
        self.nodes = [self.server, self.other]
        self.follow()

    def follow(self) -> None:
        """The other server follows this one."""
        order(self.other, "REPLICAOF", self.server.host, self.server.port)
        wait_for(partial(self._in_sync), "the other server is in sync", 20)

    def _in_sync(self) -> bool:
        info = str(order(self.other, "INFO", "replication"))
        return "master_link_status:up" in info

    def caught_up(self) -> bool:
        """Whether the other server has everything."""
        return _offset(self.server, "master_repl_offset") == _offset(
            self.other, "slave_repl_offset"
        )

    def hand_over(self) -> None:
        """The other server is the master from now on."""
        order(self.other, "REPLICAOF", "NO", "ONE")
        self.server, self.other = self.other, self.server

    def holder(self) -> Address:
        """The server of now."""
        return self.server.address

    def direct(self, spec: Spec) -> Spec:
        """Clients that know the first server."""
        return replace(spec.with_retries(None), port=self.nodes[0].port)


def _offset(server: Server, field: str) -> int:
    info = str(order(server, "INFO", "replication")).split()
    found = [line.partition(":")[2] for line in info if line.startswith(f"{field}:")]
    return int(found[0]) if found else -1


def _ask(sidecar: Sidecar | None, path: str, **body: Any) -> None:
    if sidecar is None:
        return
    status, said = post(sidecar, path, body)
    if status != 200:
        raise Unavailable(f"{path}: {said}")


def _migrated(scene: Scene[Migrated]) -> None:
    """As docs/changing.md has it: pause, wait until the other one has everything, go over."""
    world = scene.world
    for number in range(2 if scene.options.short else TIMES):
        _ask(scene.sidecar, "/api/pause")
        wait_for(world.caught_up, "the other server has everything", 10)
        world.hand_over()
        scene.mark(f"{world.server.name} is the master", fault=number == 0)
        _ask(scene.sidecar, "/api/upstream", url=world.url)
        _ask(scene.sidecar, "/api/resume")
        scene.pause(0.3)
        world.follow()
        scene.pause(0.2)


class Reloading(Single):
    """The sidecar reads some settings from files, which change."""

    def __init__(self, fleet: Fleet, options: Options) -> None:
        super().__init__(fleet, options)
        self._files = {
            name: fleet.folder / name.lower()
            for name in ("CACHE__MAX_TTL", "LIMITS__MEMORY", "UPSTREAM__POOL_IDLE")
        }
        self.put(0)
        self.env = {f"SIDECAR_{name}_FILE": str(file) for name, file in self._files.items()}

    def put(self, number: int) -> None:
        """Other values."""
        values = (str(1 + number % 50), str((256 + number % 50) << 20), str(8 + number % 50))
        for file, value in zip(self._files.values(), values, strict=True):
            file.write_text(value)


def _reloaded(scene: Scene[Reloading]) -> None:
    before = _resident(scene.sidecar)
    scene.mark("settings change from now on", fault=True)
    for number in range(10 if scene.options.short else RELOADS):
        scene.world.put(1 + number)
        _ask(scene.sidecar, "/api/reload")
        time.sleep(0.05)
    grown = _resident(scene.sidecar) - before
    scene.mark(f"memory has grown by {grown >> 10} KiB")
    if grown > GROWN_MOST:
        raise Unavailable(f"the sidecar has grown by {grown} bytes")


def _resident(sidecar: Sidecar | None) -> int:
    """Bytes of memory that the sidecar has."""
    if sidecar is None:
        return 0
    with open(f"/proc/{sidecar.pid}/status", encoding="ascii") as file:
        lines: Sequence[str] = file.read().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


DRILLS: tuple[Drill[Any], ...] = (
    Drill("14a", "upstream switched", "10 times: the upstream is paused, a second server that has "
          "followed the first becomes the master, the sidecar is switched to it (POST "
          "/api/upstream) and goes on; then both change places.", Migrated, _migrated),
    Drill("14b", "settings reloaded", "100 times: three settings have other values, and POST "
          "/api/reload has them taken over.", Reloading, _reloaded, lanes=("sidecar",)),
)  # fmt: skip
