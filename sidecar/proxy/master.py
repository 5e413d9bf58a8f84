"""Follows the master of a `redis+sentinel://` upstream.

Joins the decisions (policy/failover.py) with the actions. A failover takes one path through here:

    SentinelWatcher  ->  on_event  ->  Failover.on  ->  SwitchTo  ->  Switch.to  ->  the links
    (discovery/)         (here)       (policy/)     (changeover.py)   (links/switch.py)

The answers of servers about their role (roles.py) and the state of links (links/node.py) come in
through `on_event` too. The plane holds the writes and releases them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Protocol

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
from sidecar.policy.topology import Address, MasterNamed
from sidecar.proxy.changeover import Changeover
from sidecar.proxy.links import errors
from sidecar.proxy.links.greeting import Login
from sidecar.proxy.links.node import Node
from sidecar.proxy.links.target import Target
from sidecar.proxy.master_watch import WATCHING, MasterWatch
from sidecar.proxy.roles import RoleProbe
from sidecar.proxy.tasks import Tasks, stop_task
from sidecar.settings.sections.upstream import Failover as Settings


class Sentinels(Protocol):
    """What is needed of sidecar.discovery.sentinel.SentinelWatcher."""

    def ask(self) -> None:
        """Ask all Sentinels for the master now; the answers come as events."""


class MasterFollower:
    """Keeps one node on the master. `target_for` makes a target from (host, port)."""

    def __init__(
        self,
        node: Node,
        changeover: Changeover,
        tasks: Tasks,
        settings: Settings,
        *,
        login: Login,
        version: bytes,
        target_for: Callable[[Address], Target],
        sentinels: Sentinels | None,
    ) -> None:
        self._node = node
        self.changeover = changeover
        self._tasks = tasks
        self._target_for = target_for
        self._sentinels = sentinels
        self._probe = RoleProbe(target_for, login, version, self)
        self._watch = MasterWatch(target_for, login, version, self._gave_up_role)
        self.machine = Failover(settings.switch_on == "promotion", settings.hold)
        self._verifying: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._attending: asyncio.Task[None] | None = None
        self._stopped = False
        self._unwatch = node.watch(
            up=self._link_up, down=self._link_down, not_master=self._dialled_no_master
        )

    @property
    def phase(self) -> str:
        """The phase of the failover, for the page and the log."""
        return self.machine.phase.value

    def tick(self, now: float) -> None:
        """Let the decisions see that time passes."""
        self.on_event(Tick())

    def arrive(self, address: Address) -> None:
        """Lead the links to this server, which has just said that it is the master."""
        self.on_event(MasterNamed(address, switched=False))
        self.on_event(Verified(address))

    def stop(self) -> None:
        """Follow no more; what is held for a failover goes on."""
        self._stopped = True
        self._unwatch()
        for task in (self._verifying, self._watching, self._attending):
            stop_task(task)
        if self.changeover.held:
            self.changeover.release_writes(self.phase)

    def on_event(self, event: Observed) -> None:
        """Decide what an event means, and do it."""
        if self._stopped:
            return
        for command in self.machine.on(event, time.monotonic()):
            self._do(command)

    def _do(self, command: Command) -> None:
        match command:
            case HoldWrites():
                self.changeover.hold_writes(self.phase)
            case ReleaseWrites():
                stop_task(self._watching)
                self.changeover.release_writes(self.phase)
            case Verify(address, eager):
                stop_task(self._verifying)
                self._verifying = self._tasks.spawn(self._probe.verify(address, eager))
            case WatchRole(address) if self.machine.early:
                stop_task(self._watching)
                self._watching = self._tasks.spawn(self._watch.watch(address, WATCHING))
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
        first = self._node.dialer.target is None
        self.changeover.switch(self._target_for(address), first=first)
        stop_task(self._attending)
        self._attending = self._tasks.spawn(self._watch.watch_always(address))

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

    def _gave_up_role(self, address: Address, error: errors.NotMaster) -> None:
        if self.machine.early or not self.machine.begun:
            self.on_event(NotMaster(address, error.follows))

    def server_ids(self) -> Iterable[tuple[None, int]]:
        """The ids, on the server, of the connection that watches the master."""
        return [(None, number) for number in self._watch.server_ids]

    # The state of links: see Node.watch

    def _link_up(self) -> None:
        self.on_event(LinkUp())
        self.changeover.served()

    def _link_down(self, demoted: bool) -> None:
        self.changeover.interrupted()
        self.on_event(LinkDown())

    def _dialled_no_master(self, target: Target, error: errors.NotMaster) -> None:
        address = (target.endpoint.host, target.endpoint.port)
        self.on_event(NotMaster(address, error.follows))
