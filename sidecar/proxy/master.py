"""Following the master of a `redis+sentinel://` upstream.

Joins what decides (policy/failover.py) with what acts: the pool, whose target changes, and the
plane, which holds writes back. What Sentinels say comes in by `on_event`, from a watcher that
the composition root joins to this; what links show comes from the pool.

Whether a node is the master is asked of the node itself, here before the links go over to it
and once more on every connection made (ServerConnection.greet). The present one is asked all the
time: when an
operator or another master changes it without the Sentinels, they take half a minute to see it, and
traffic shows it only on shared links, outside of transactions.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import structlog

from sidecar.policy.failover import (
    AskSentinels,
    Command,
    Failover,
    HoldWrites,
    LinkDown,
    LinkUp,
    NotMaster,
    Observed,
    Phase,
    ReleaseWrites,
    StopVerifying,
    SwitchTo,
    Tick,
    Verified,
    Verify,
    WatchRole,
)
from sidecar.policy.topology import Address
from sidecar.proxy.interruptions import Interruptions
from sidecar.proxy.links import errors
from sidecar.proxy.links.errors import Refused, Unreachable
from sidecar.proxy.links.greeting import ServerConnection, Target
from sidecar.proxy.links.pool import Pool
from sidecar.proxy.session.hello import server_id

log = structlog.get_logger()

# Pauses between two questions to a node: one that is just being promoted, any other, a master that
# may be about to give up its role, and one that nothing is known of.
EAGER = 0.005
PATIENT = 0.05
WATCHING = 0.01
ATTENDING = 0.5


class Sentinels(Protocol):
    """Who is asked for the master: sidecar.discovery.sentinel.SentinelWatcher."""

    def ask(self) -> None:
        """Ask all of them now; answers come as events."""


class MasterFollower:
    """Keeps one pool on the master. `target_for` makes a target of a (host, port)."""

    def __init__(
        self,
        pool: Pool,
        target_for: Callable[[Address], Target],
        sentinels: Sentinels | None = None,
        interruptions: Interruptions | None = None,
    ) -> None:
        settings = pool.settings.failover
        self.pool = pool
        self.interruptions = interruptions or Interruptions()
        self.target_for = target_for
        self.machine = Failover(settings.switch_on == "promotion", settings.hold)
        self.sentinels = sentinels
        self.switches = 0
        self._traced_switches = 0
        self.last_switch: float | None = None
        self.last_pause = 0.0
        self._down_at: float | None = None
        self._verifying: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._attending: asyncio.Task[None] | None = None
        pool.on_master_up = self._master_up
        pool.on_master_down = self._master_down
        pool.on_not_master = self._not_master
        pool.maintenance.on_tick.append(lambda now: self.on_event(Tick()))

    def on_event(self, event: Observed) -> None:
        """Take in what was said or seen, and do what follows from it."""
        for command in self.machine.on(event, time.monotonic()):
            self._do(command)

    def _do(self, command: Command) -> None:
        match command:
            case HoldWrites():
                self._interrupted()
                log.info("holding writes", phase=self.machine.phase.value)
                self.pool.plane.hold_writes()
            case ReleaseWrites():
                self._stop(self._watching)
                self.pool.plane.release_writes()
                self._served()
                log.info("writes go on", phase=self.machine.phase.value)
            case Verify(address, eager):
                self._stop(self._verifying)
                self._verifying = self.pool.spawn(self._verify(address, eager))
            case WatchRole(address) if self.machine.early:
                self._stop(self._watching)
                self._watching = self.pool.spawn(self._watch_role(address, WATCHING))
            case WatchRole():
                # At the end of a coordinated failover the Sentinels close all connections of the
                # new master: to be there before they announce it would put writes in doubt.
                pass
            case StopVerifying():
                self._stop(self._verifying)
            case SwitchTo(address):
                self._stop(self._verifying)
                self._switch(address)
            case AskSentinels():
                if self.sentinels is not None:
                    self.sentinels.ask()

    def _switch(self, address: Address) -> None:
        target = self.target_for(address)
        first = self.pool.target is None
        log.info("master", address=str(target), before=self.pool.where)
        if not first:
            self.switches += 1
            self.last_switch = time.time()
            self.interruptions.switched(self.last_switch, self.pool.where, str(target))
        self.pool.switch(target)
        self._stop(self._attending)
        self._attending = self.pool.spawn(self._attend(address))

    @staticmethod
    def _stop(task: asyncio.Task[None] | None) -> None:
        """End a task, unless it is what brought us here: then it is over by itself."""
        if task is not None and task is not _current_task():
            task.cancel()

    async def _verify(self, address: Address, eager: bool) -> None:
        """Ask this node for its role until it is the master."""
        target = self.target_for(address)
        connection: ServerConnection | None = None
        complained = False
        try:
            while True:
                try:
                    if connection is None:
                        connection = await ServerConnection.open(target)
                        await connection.greet(self.pool.login, self.pool.version, as_master=True)
                    else:
                        await connection.check_master()
                    self.on_event(Verified(address))
                    return
                except errors.NotMaster as error:
                    connection = None
                    self.pool.no_master = f"no master is known yet: {error}"
                    self.on_event(NotMaster(address, error.follows))
                except (Refused, Unreachable) as error:
                    connection = None
                    why = f"upstream {target} says {error}" if isinstance(error, Refused) else error
                    self.pool.no_master = f"no master is known yet: {why}"
                    if not complained:
                        log.warning("master cannot be verified", error=str(why))
                        complained = True
                await asyncio.sleep(EAGER if eager else PATIENT)
        finally:
            if connection is not None:
                connection.close()

    async def _attend(self, address: Address) -> None:
        """Ask the present master for its role, on connection after connection."""
        while True:
            await asyncio.sleep(ATTENDING)
            await self._watch_role(address, ATTENDING)

    async def _watch_role(self, address: Address, pause: float) -> None:
        """Ask the present master for its role until it has given it up, or can't be asked."""
        connection: ServerConnection | None = None
        number = 0
        try:
            connection = await ServerConnection.open(self.target_for(address))
            await connection.greet(self.pool.login, self.pool.version, as_master=True)
            number = server_id(connection.hello)
            self.pool.own_ids.add(number)
            while True:
                await asyncio.sleep(pause)
                await connection.check_master()
        except errors.NotMaster as error:
            if self.machine.early or not self.machine.begun:
                self.on_event(NotMaster(address, error.follows))
        except (Refused, Unreachable):
            return  # its links will show it
        finally:
            self.pool.own_ids.discard(number)
            if connection is not None:
                connection.close()

    # What links show

    def _master_up(self) -> None:
        self.on_event(LinkUp())
        self._served()

    def _master_down(self) -> None:
        self._interrupted()
        self.on_event(LinkDown())

    def _not_master(self, target: Target, error: errors.NotMaster) -> None:
        address = (target.endpoint.host, target.endpoint.port)
        self.on_event(NotMaster(address, error.follows))

    def _interrupted(self) -> None:
        if self._down_at is None:
            self._down_at = time.monotonic()
            if self.pool.target is not None:  # the first connection interrupts nothing
                self.interruptions.began(time.time(), self.pool.where)

    def _served(self) -> None:
        """Note how long an interruption took, when it is over."""
        serving = self.pool.default.link.up and not self.machine.held
        if self._down_at is not None and serving:
            self.last_pause = time.monotonic() - self._down_at
            self._trace(self._down_at)
            self._down_at = None
            self.interruptions.ended(time.time())
            log.info("serving", master=self.pool.where, interrupted=round(self.last_pause, 3))

    def _trace(self, began: float) -> None:
        switched = self.switches != self._traced_switches
        self._traced_switches = self.switches
        if self.pool.tracing is not None:
            self.pool.tracing.note(
                "failover" if switched else "interruption",
                began,
                {"sidecar.master": self.pool.where, "sidecar.switches": self.switches},
            )

    def snapshot(self) -> dict[str, object]:
        """For metrics and the admin page. Times in seconds."""
        machine = self.machine
        return {
            "phase": machine.phase.value,
            "master": self.pool.where if machine.phase is not Phase.SEARCHING else None,
            "writes_held": machine.held,
            "switches": self.switches,
            "last_switch": self.last_switch,
            "last_interruption": self.last_pause,
        }


def _current_task() -> asyncio.Task[object] | None:
    with suppress(RuntimeError):
        return asyncio.current_task()
    return None
