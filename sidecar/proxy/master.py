"""Follows the master of a `redis+sentinel://` upstream.

Joins the decisions (policy/failover.py) with the actions. A failover takes one path through here:

    SentinelWatcher  ->  on_event  ->  Failover.on  ->  SwitchTo  ->  Switch.to  ->  the links
    (discovery/)         (here)       (policy/)        (here)        (links/switch.py)

The answers of servers about their role (roles.py) and the state of links (links/node.py) come in
through `on_event` too. The plane holds the writes and releases them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import structlog

from sidecar.policy.failover import Failover
from sidecar.policy.failover_words import (
    AskSentinels,
    Command,
    HoldWrites,
    LinkDown,
    LinkUp,
    NotMaster,
    Observed,
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
from sidecar.proxy.io.plane import Plane
from sidecar.proxy.links import errors
from sidecar.proxy.links.greeting import Login
from sidecar.proxy.links.identity import NodeLinks
from sidecar.proxy.links.switch import Switch
from sidecar.proxy.links.target import Target
from sidecar.proxy.roles import WATCHING, RoleProbe
from sidecar.proxy.tasks import Tasks, stop_task
from sidecar.settings.sections.upstream import Failover as Settings

log = structlog.get_logger()

RecordWork = Callable[[str, float, Mapping[str, str | int | bool]], None]


class Sentinels(Protocol):
    """What is needed of sidecar.discovery.sentinel.SentinelWatcher."""

    def ask(self) -> None:
        """Ask all Sentinels for the master now; the answers come as events."""


class MasterFollower:
    """Keeps one node on the master. `own` are the sidecar's own links to the node; `target_for`
    makes a target from (host, port); `record_work` makes a span of each interruption."""

    def __init__(
        self,
        plane: Plane,
        own: NodeLinks,
        switch: Switch,
        tasks: Tasks,
        settings: Settings,
        *,
        login: Login,
        version: bytes,
        target_for: Callable[[Address], Target],
        sentinels: Sentinels | None,
        interruptions: Interruptions,
        record_work: RecordWork,
    ) -> None:
        self._plane = plane
        self._own = own
        self._node = own.node
        self._switch_links = switch
        self._tasks = tasks
        self._target_for = target_for
        self._sentinels = sentinels
        self._interruptions = interruptions
        self._record_work = record_work
        self._probe = RoleProbe(target_for, login, version, self)
        self.machine = Failover(settings.switch_on == "promotion", settings.hold)
        self.switches = 0
        self._traced_switches = 0
        self.last_switch: float | None = None
        self.last_pause = 0.0
        self._down_at: float | None = None
        self._verifying: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._attending: asyncio.Task[None] | None = None
        own.node.watch(up=self._link_up, down=self._link_down, not_master=self._dialled_no_master)

    def tick(self, now: float) -> None:
        """Let the decisions see that time passes."""
        self.on_event(Tick())

    def on_event(self, event: Observed) -> None:
        """Decide what an event means, and do it."""
        for command in self.machine.on(event, time.monotonic()):
            self._do(command)

    def _do(self, command: Command) -> None:
        match command:
            case HoldWrites():
                self._interrupted()
                log.info("writes held", phase=self.machine.phase.value)
                self._plane.hold_writes()
            case ReleaseWrites():
                stop_task(self._watching)
                self._plane.release_writes()
                self._served()
                log.info("writes released", phase=self.machine.phase.value)
            case Verify(address, eager):
                stop_task(self._verifying)
                self._verifying = self._tasks.spawn(self._probe.verify(address, eager))
            case WatchRole(address) if self.machine.early:
                stop_task(self._watching)
                self._watching = self._tasks.spawn(self._probe.watch(address, WATCHING))
            case WatchRole():
                # At the end of a coordinated failover the Sentinels close all connections to the
                # new master. Writes sent to it before the announcement would be uncertain.
                pass
            case StopVerifying():
                stop_task(self._verifying)
            case SwitchTo(address):
                stop_task(self._verifying)
                self._switch(address)
            case AskSentinels():
                if self._sentinels is not None:
                    self._sentinels.ask()

    def _switch(self, address: Address) -> None:
        dialer, target = self._node.dialer, self._target_for(address)
        first = dialer.target is None
        log.info("master followed", address=str(target), before=dialer.where)
        if not first:
            self.switches += 1
            self.last_switch = time.time()
            self._interruptions.switched(self.last_switch, dialer.where, str(target))
        self._switch_links.to(self._node, target)
        stop_task(self._attending)
        self._attending = self._tasks.spawn(self._probe.watch_always(address))

    # Answers about roles: RoleObserver

    def verified(self, address: Address) -> None:
        """See RoleObserver."""
        self.on_event(Verified(address))

    def not_verified(self, address: Address, error: errors.NotMaster) -> None:
        """See RoleObserver."""
        self.on_event(NotMaster(address, error.follows))

    def unanswered(self, why: str) -> None:
        """See RoleObserver."""
        self._node.dialer.unknown_because = f"no master is known yet: {why}"

    def gave_up_role(self, address: Address, error: errors.NotMaster) -> None:
        """See RoleObserver."""
        if self.machine.early or not self.machine.begun:
            self.on_event(NotMaster(address, error.follows))

    def server_ids(self) -> set[int]:
        """The ids, on the server, of the probe links."""
        return self._probe.server_ids

    # The state of links: see Node.watch

    def _link_up(self) -> None:
        self.on_event(LinkUp())
        self._served()

    def _link_down(self) -> None:
        self._interrupted()
        self.on_event(LinkDown())

    def _dialled_no_master(self, target: Target, error: errors.NotMaster) -> None:
        address = (target.endpoint.host, target.endpoint.port)
        self.on_event(NotMaster(address, error.follows))

    def _interrupted(self) -> None:
        if self._down_at is None:
            self._down_at = time.monotonic()
            if self._node.dialer.target is not None:  # the first connection is no interruption
                self._interruptions.began(time.time(), self._node.dialer.where)

    def _served(self) -> None:
        """Record the interruption if it is over."""
        serving = self._own.shared.up and not self.machine.held
        if self._down_at is not None and serving:
            self.last_pause = time.monotonic() - self._down_at
            self._trace(self._down_at)
            self._down_at = None
            self._interruptions.ended(time.time())
            where = self._node.dialer.where
            log.info("interruption ended", master=where, interrupted=round(self.last_pause, 3))

    def _trace(self, began: float) -> None:
        switched = self.switches != self._traced_switches
        self._traced_switches = self.switches
        where = self._node.dialer.where
        name = "failover" if switched else "interruption"
        self._record_work(name, began, {"sidecar.master": where, "sidecar.switches": self.switches})
