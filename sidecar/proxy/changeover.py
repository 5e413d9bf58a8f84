"""Carries out the changes of one node's server: writes held, links switched, interruptions told.

What the two followers share (master.py behind Sentinels, following.py behind a name): each decides
when, and this does it and keeps the account. Decides nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import structlog

from sidecar.proxy.interruptions import Interruptions
from sidecar.proxy.io.plane import Plane
from sidecar.proxy.links.identity import NodeLinks
from sidecar.proxy.links.switch import Switch
from sidecar.proxy.links.target import Target

log = structlog.get_logger()

RecordWork = Callable[[str, float, Mapping[str, str | int | bool]], None]


class Changeover:
    """For one node. `own` are the sidecar's own links to it; `record_work` makes a span of each
    interruption."""

    def __init__(
        self,
        plane: Plane,
        own: NodeLinks,
        switch: Switch,
        interruptions: Interruptions,
        record_work: RecordWork,
    ) -> None:
        self._plane = plane
        self._own = own
        self._dialer = own.node.dialer
        self._switch = switch
        self._interruptions = interruptions
        self._record_work = record_work
        self.held = False
        self._paused = False
        self.switches = 0
        self.last_switch: float | None = None
        self.last_pause = 0.0
        self._traced_switches = 0
        self._down_at: float | None = None

    def hold_writes(self, phase: str) -> None:
        """Keep back what may change data."""
        self.held = True
        self.interrupted()
        log.info("writes held", phase=phase)
        self._plane.hold_writes()

    def release_writes(self, phase: str) -> None:
        """Let writes go on."""
        self.held = False
        self._plane.release_writes()
        self.served()
        log.info("writes released", phase=phase)

    def begin_pause(self) -> None:
        """All commands are kept back."""
        self._paused = True
        self.interrupted()

    def end_pause(self) -> None:
        """They go on."""
        self._paused = False
        self.served()

    def switch(self, target: Target, *, first: bool) -> None:
        """Switch to this server; every link to the old one ends. The `first` is no change."""
        before = self._dialer.target.address if self._dialer.target is not None else "unknown"
        log.info("master followed", address=target.address, before=before)
        if not first:
            self.switches += 1
            self.last_switch = time.time()
            self._interruptions.switched(self.last_switch, before, target.address)
        self._switch.to(self._own.node, target)

    def renew(self, target: Target) -> None:
        """The same server, known better: links stay."""
        self._switch.renew(self._own.node, target)

    def interrupted(self) -> None:
        """Requests cannot be passed on, or are held."""
        if self._down_at is None:
            self._down_at = time.monotonic()
            self._plane.tell_interrupted(True)
            if self._dialer.target is not None:  # the first connection is no interruption
                self._interruptions.began(time.time(), self._dialer.where)

    def served(self) -> None:
        """Record the interruption if it is over."""
        if self._down_at is None or self.held or self._paused or not self._own.shared.up:
            return
        self._plane.tell_interrupted(False)
        self.last_pause = time.monotonic() - self._down_at
        self._trace(self._down_at)
        self._down_at = None
        self._interruptions.ended(time.time())
        where = self._dialer.where
        log.info("interruption ended", master=where, interrupted=round(self.last_pause, 3))

    def _trace(self, began: float) -> None:
        switched = self.switches != self._traced_switches
        self._traced_switches = self.switches
        where = self._dialer.where
        name = "failover" if switched else "interruption"
        self._record_work(name, began, {"sidecar.master": where, "sidecar.switches": self.switches})
