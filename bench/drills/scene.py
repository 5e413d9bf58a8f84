"""What a drill has at hand: its world, the watchers, the sidecar, and steps to take."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from bench.drills.switches import Announced, Mark
from bench.drills.watch import Watch
from bench.drills.world import Options, World, wait_for
from tests.harness.fleet import Fleet
from tests.harness.process import Process, free_port
from tests.harness.sentinels import SentinelProcess
from tests.harness.servers import Server, Sidecar

LANES = ("sidecar", "direct")

SWITCH_DEADLINE = 40.0
"""Seconds."""

Say = Callable[[str], None]

W = TypeVar("W", bound=World)

Startable = Server | SentinelProcess


def start_sidecar(fleet: Fleet, world: World, options: Options, port: int | None = None) -> Sidecar:
    """The real program, in front of what it finds there."""
    settings = {**world.settings, **options.sidecar_settings}
    admin = f"127.0.0.1:{free_port()}"
    return fleet.add(
        Sidecar(world.url, settings=settings, defaults={}, admin=admin, env=world.env, port=port)
    )


@dataclass
class Scene(Generic[W]):
    """Handed to a drill. Every step says what it does, and marks it on the timeline."""

    options: Options
    lane: str
    fleet: Fleet
    world: W
    watch: Watch
    sidecar: Sidecar | None
    say: Say
    marks: list[Mark] = field(default_factory=list)
    announced: list[Announced] = field(default_factory=list)
    """What the drill itself makes known, where no Sentinel does."""

    def mark(self, text: str, *, fault: bool = False, at: float | None = None) -> float:
        """Note that something is being done now, or was at this time."""
        now = time.monotonic() if at is None else at
        self.marks.append(Mark(now, text, fault))
        self.say(text)
        return now

    def pause(self, seconds: float) -> None:
        """Let the load go on."""
        time.sleep(seconds)

    def kill(self, member: Process, *, fault: bool = False) -> float:
        """A crash: SIGKILL. Nothing that is sent after the mark is served by it."""
        member.kill()
        return self.mark(f"kill -9 {member.name}", fault=fault)

    def freeze(self, member: Process) -> float:
        """SIGSTOP: alive, connected and silent. It is the fault."""
        member.pause()
        return self.mark(f"SIGSTOP {member.name}", fault=True)

    def thaw(self, member: Process) -> None:
        """SIGCONT, after `freeze`."""
        self.mark(f"SIGCONT {member.name}")
        member.resume()

    def led(self, by: Server, since: float) -> float:
        """Wait until this server says that it is the master: since when it does."""
        role = wait_for(lambda: self.watch.led(by.announced, since), f"{by.name} leads", 10)
        self.say(f"{by.name} is the master after {role.time - since:.2f} s")
        return role.time

    def replace_sidecar(self) -> None:
        """A new sidecar begins to listen on the same port, then the old one is told to end."""
        old = self.sidecar
        assert old is not None
        new = start_sidecar(self.fleet, self.world, self.options, old.port)
        wait_for(lambda: "sidecar started" in new.log(), "a new sidecar that serves", 30)
        self.mark("SIGTERM to the old sidecar", fault=True)
        self.sidecar = new
        old.stop(30)
        self.fleet.end(old)

    def start(self, member: Startable) -> None:
        """Bring a member back."""
        self.mark(f"{member.name} started")
        member.start()

    def restart(self, member: Startable) -> None:
        """A clean restart."""
        self.mark(f"restart of {member.name}")
        member.stop(20)
        member.start()
