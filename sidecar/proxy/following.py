"""Follows the master behind a name, for an upstream that is one address.

Joins the decisions (policy/following.py) with the actions. A failover takes one path through here:

    links, NameSearch  ->  on_event  ->  Following.on  ->  SwitchTo  ->  Changeover  ->  the links
    (name_search.py)       (here)        (policy/)         (here)      (changeover.py)

Links lead to one address of the name at a time, the one that was chosen. The name's other addresses
are for the search.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

import structlog

from sidecar.policy.failover_words import HoldWrites, LinkUp, ReleaseWrites, SwitchTo
from sidecar.policy.following import GRACE, Following
from sidecar.policy.following_words import (
    Answered,
    Command,
    Follow,
    LinkDown,
    MadeReplica,
    Moving,
    Observed,
    Phase,
    Resolved,
    Retry,
    Role,
    Silence,
    Tick,
    Wait,
)
from sidecar.policy.maintenance import Announcement, endpoint_type
from sidecar.policy.topology import Address
from sidecar.proxy.changeover import Changeover
from sidecar.proxy.io.client import Client
from sidecar.proxy.io.plane import Plane
from sidecar.proxy.links import errors
from sidecar.proxy.links.greeting import Login
from sidecar.proxy.links.identity import NodeLinks
from sidecar.proxy.links.racing import Address as Found
from sidecar.proxy.links.target import Target
from sidecar.proxy.master_watch import MasterWatch
from sidecar.proxy.name_search import NameSearch, TargetFor
from sidecar.proxy.pulse import Pulse
from sidecar.proxy.tasks import Tasks, stop_task
from sidecar.settings.addresses import join_host_port
from sidecar.settings.urls import Endpoint

log = structlog.get_logger()

# The server has not answered a PING for so many seconds while replies are due: its name may lead
# elsewhere by now.
SILENT = 1.0
# A server that has just given up its role answers what is under way with READONLY: so the links to
# it are not cut before, within so many seconds, unless it is silent anyway. And between two looks.
ANSWERS_WITHIN = 0.1
LOOK = 0.002
# What makes a server a replica on purpose.
DEMOTING = ("replicaof", "slaveof")


class NameFollower:
    """Keeps one node on the master. `own` are the sidecar's own links to the node; `target_for`
    makes the target of a resolved address; `retry` has links connect at once; for `wait` and `hold`
    see Following."""

    def __init__(
        self,
        plane: Plane,
        own: NodeLinks,
        changeover: Changeover,
        tasks: Tasks,
        pulse: Pulse,
        endpoint: Endpoint,
        *,
        wait: float,
        hold: float,
        login: Login,
        version: bytes,
        target_for: TargetFor,
        retry: Callable[[], None],
        maintenance: str,
    ) -> None:
        self._plane = plane
        self._own = own
        self._dialer = own.node.dialer
        self.changeover = changeover
        self._tasks = tasks
        self._pulse = pulse
        self._retry = retry
        self._silent = False
        self.machine = Following(wait, hold)
        self._search = NameSearch(
            endpoint, target_for, login, version, tasks, self.machine, self.on_event
        )
        self._watch = MasterWatch(self._search.target, login, version, self._gave_up_role)
        if maintenance != "off":
            asked = endpoint_type(endpoint.host, tls=endpoint.tls)
            self._watch.hear(self._announced, asked if maintenance == "auto" else maintenance)
        self._attending: asyncio.Task[None] | None = None
        self._switching: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()
        self._searching: asyncio.Task[None] | None = None
        self._arriving = self._stopped = False
        self._unwatch = own.node.watch(
            up=self._link_up, down=self._link_down, not_master=self._dialled_no_master
        )

    @property
    def phase(self) -> str:
        """The phase of the failover, for the page and the log."""
        return self.machine.phase.value

    async def begin(self, deadline: float) -> None:
        """Search, until it is known where to connect; not beyond `deadline` (monotonic), nor longer
        than an address may take to answer."""
        self._searching = self._tasks.spawn(self._search.run())
        within = min(deadline - time.monotonic(), 2 * GRACE)
        with suppress(TimeoutError):  # the links then try the name themselves
            await asyncio.wait_for(self._settled.wait(), within)

    def arrive(self, found: Found, role: Role) -> None:
        """Lead the links to this address of the name, whose server has just told its role."""
        address = self._search.know(found)
        self._arriving = True
        try:
            self.on_event(Resolved((address,)))
            self.on_event(Answered(address, role))
        finally:
            self._arriving = False
        self._searching = self._tasks.spawn(self._search.run())

    def stop(self) -> None:
        """Follow no more; what is held for a failover goes on."""
        self._stopped = True
        self._unwatch()
        self._own.node.patient_until = 0.0
        for task in (self._searching, self._attending, self._switching):
            stop_task(task)
        self._search.stop()
        if self.changeover.held:
            self.changeover.release_writes(self.phase)

    def tick(self, now: float) -> None:
        """Let the decisions see that time passes."""
        silent = self._pulse.silent_for(now) >= SILENT
        if silent != self._silent:
            self._silent = silent
            self.on_event(Silence(silent))
        oldest = self._plane.silence()[0] if self.machine.moving is not None else 0.0
        self.on_event(Tick(oldest))

    def on_event(self, event: Observed) -> None:
        """Decide what an event means, and do it."""
        if self._stopped:
            return
        before = self.machine.phase, self.machine.pace, self.machine.to_ask()
        for command in self.machine.on(event, time.monotonic()):
            self._do(command)
        if self.machine.settled:
            self._settled.set()
        if before != (self.machine.phase, self.machine.pace, self.machine.to_ask()):
            self._search.wake()
        if self.machine.phase is Phase.AS_IT_IS and before[0] is not Phase.AS_IT_IS:
            log.warning("replica served", address=self._dialer.where)

    def _do(self, command: Command) -> None:
        match command:
            case HoldWrites():
                self.changeover.hold_writes(self.phase)
            case ReleaseWrites():
                self.changeover.release_writes(self.phase)
            case Follow(masters):
                self._plane.follow_master(masters)
                self._dialer.as_master = masters
            case Wait(seconds):
                self._dialer.wait_for(seconds)
            case Retry():
                self._retry()
            case SwitchTo(address):
                self._switch(address)

    def _switch(self, address: Address) -> None:
        stop_task(self._switching)
        self._switching = None
        if self._arriving:
            self._switch_now(address, first=False)
            return
        target, before = self._search.target(address), self._dialer.target
        first = before is None or not before.number
        if first and len(self.machine.addresses) == 1:
            # The links that are up lead there: the name has had no other address.
            self.changeover.renew(target)
            if self._own.shared.up:
                self.on_event(LinkUp())
            self._attend(address)
        elif not first and self._owes() and not self._silent:
            self._switching = self._tasks.spawn(self._switch_soon(address))
        else:
            self._switch_now(address, first=first)

    def _owes(self) -> bool:
        """Whether the old server owes replies on a link that is up."""
        node = self._own.node
        return any(up.outstanding and up.owner.node is node for up in self._plane.upstreams)

    async def _switch_soon(self, address: Address) -> None:
        for _ in range(round(ANSWERS_WITHIN / LOOK)):
            if not self._owes():
                break
            await asyncio.sleep(LOOK)
        self._switching = None
        self._switch_now(address, first=False)

    def _switch_now(self, address: Address, *, first: bool) -> None:
        self.changeover.switch(self._search.target(address), first=first)
        self._attend(address)

    def _attend(self, address: Address) -> None:
        stop_task(self._attending)
        self._attending = self._tasks.spawn(self._watch.watch_always(address))

    def noted(self, client: Client | None, kind: str, command: str, second: bytes) -> None:
        """See Plane.use_audit: a client may make a replica of the server."""
        if kind == "command" and command in DEMOTING and second.lower() != b"no":
            self.on_event(MadeReplica())

    def server_ids(self) -> Iterable[tuple[None, int]]:
        """The ids, on the server, of the connections that ask for roles."""
        return [(None, number) for number in self._watch.server_ids | self._search.server_ids]

    # What the master says of itself

    def _gave_up_role(self, address: Address, error: errors.NotMaster) -> None:
        self.on_event(Answered(address, Role.LOADING if error.loading else Role.REPLICA))

    def _announced(self, said: Announcement) -> None:
        node = self._own.node
        log.info(
            "maintenance announced",
            kind=said.kind,
            seconds=said.within,
            address=self._dialer.where,
            **({"to": join_host_port(*said.endpoint)} if said.endpoint else {}),
        )
        if said.kind == "MOVING":
            self._tasks.spawn(self._goes_away(said))
        else:
            node.patient_until = 0.0 if said.is_over else time.monotonic() + said.within

    async def _goes_away(self, said: Announcement) -> None:
        addresses: tuple[Address, ...] = ()
        if said.endpoint is not None:
            try:
                addresses = await self._search.find(said.endpoint)
            except OSError as error:
                log.warning("name unresolved", name=said.endpoint[0], error=error.strerror)
                return
        self.on_event(Moving(addresses, said.within))

    # The state of links: see Node.watch

    def _link_up(self) -> None:
        if self._switching is None:  # else it leads to the old server
            self.on_event(LinkUp())
        self.changeover.served()

    def _link_down(self, demoted: bool) -> None:
        self.changeover.interrupted()
        self.on_event(LinkDown(demoted, self._own.shared.up))

    def _dialled_no_master(self, target: Target, error: errors.NotMaster) -> None:
        if self.machine.address is not None and target is self._dialer.target:
            self._gave_up_role(self.machine.address, error)
