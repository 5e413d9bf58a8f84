"""Resolves the upstream's name again and again, and asks its addresses for their role.

Each address is asked on a connection of its own, all at the same time, so one that swallows what is
sent to it delays nobody. What is to be asked, and how often, the state machine says
(policy/following.py); this reports the answers to it and decides nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol

import structlog

from sidecar.policy.following import addresses_of
from sidecar.policy.following_words import Answered, Pace, Resolved, Role
from sidecar.policy.topology import Address
from sidecar.proxy.links.errors import NotMaster, Refused, Unreachable
from sidecar.proxy.links.greeting import Login, ServerConnection
from sidecar.proxy.links.racing import Address as Found
from sidecar.proxy.links.racing import resolve
from sidecar.proxy.links.target import Target
from sidecar.proxy.tasks import Tasks
from sidecar.settings.urls import Endpoint

log = structlog.get_logger()

# Seconds between two questions, to resolvers and to servers. The fast pace lasts as long as
# requests wait for a master, and a promotion is to be seen at once.
FAST = 0.02
SLOW = 1.0


Named = tuple[str, int]


class TargetFor(Protocol):
    """Makes the target of a resolved address; `named`: host and port that a server has named."""

    def __call__(self, found: Found, named: Named | None = None, /) -> Target: ...


class Wanted(Protocol):
    """What is to be asked: policy/following.py."""

    @property
    def pace(self) -> Pace:
        """How often to resolve and to ask."""

    def to_ask(self) -> tuple[Address, ...]:
        """The addresses that are to be asked for their role."""


def of_path(path: str) -> Found:
    """A unix socket in the form of a resolved address."""
    return (0, 0, 0, "", (path, 0))


class NameSearch:
    """Searches for `endpoint`, greeting with `login`. `target_for` makes the target of a resolved
    address; `tell` is called with each answer."""

    def __init__(
        self,
        endpoint: Endpoint,
        target_for: TargetFor,
        login: Login,
        version: bytes,
        tasks: Tasks,
        wanted: Wanted,
        tell: Callable[[Resolved | Answered], None],
    ) -> None:
        self._endpoint = endpoint
        self._target_for = target_for
        self._login = login
        self._version = version
        self._tasks = tasks
        self._wanted = wanted
        self._tell = tell
        self._records: Mapping[Address, Found] = {}
        self._named: dict[Address, Named] = {}
        self._asking: dict[Address, asyncio.Task[None]] = {}
        self._woken = asyncio.Event()
        self._unresolved = ""
        self.server_ids: set[int] = set()  # of the connections that ask

    def know(self, found: Found) -> Address:
        """This is one of the name's addresses."""
        (address,) = addresses_of([found])
        self._records = {**self._records, address: found}
        return address

    def stop(self) -> None:
        """Ask nobody any more."""
        for task in self._asking.values():
            task.cancel()
        self._asking.clear()

    def target(self, address: Address) -> Target:
        """The target of an address that was told as resolved, or found for what a server named."""
        return self._target_for(self._records[address], self._named.get(address))

    async def find(self, named: Named) -> tuple[Address, ...]:
        """The addresses of a host and port that a server has named. Raises OSError."""
        found = await resolve(*named)
        addresses = addresses_of(found)
        for address, info in zip(addresses, found, strict=False):
            if address not in self._records:
                self._records = {**self._records, address: info}
                self._named[address] = named
        return addresses

    def wake(self) -> None:
        """The pace, or what is to be asked, may have changed."""
        self._woken.set()
        self._woken = asyncio.Event()
        self._attend()

    async def run(self) -> None:
        """Search until cancelled."""
        while True:
            begun = asyncio.get_running_loop().time()
            await self._resolve()
            self._attend()
            await self._pause(begun)

    async def _resolve(self) -> None:
        endpoint = self._endpoint
        if endpoint.kind == "unix":
            self._tell(Resolved((self.know(of_path(endpoint.path)),)))
            return
        try:
            found = await resolve(endpoint.host, endpoint.port)
        except OSError as error:
            # The addresses that are known stay: a resolver may be away for a moment.
            why = error.strerror or str(error)
            if why != self._unresolved:
                log.warning("name unresolved", name=endpoint.host, error=why)
            self._unresolved = why
            return
        if self._unresolved:
            log.info("name resolved", name=endpoint.host)
        self._unresolved = ""
        # What a link leads to stays known, though the name does not list it any more.
        self._records = {**self._records, **{addresses_of([info])[0]: info for info in found}}
        self._tell(Resolved(addresses_of(found)))

    def _attend(self) -> None:
        """Ask the addresses that are to be asked, and no others."""
        wanted = self._wanted.to_ask()
        for address in [*self._asking]:
            if address not in wanted:
                self._asking.pop(address).cancel()
        if not self._tasks.closing:
            for address in wanted:
                if address not in self._asking:
                    self._asking[address] = self._tasks.spawn(self._ask(address))

    async def _pause(self, begun: float) -> None:
        """Wait for the next question; the last one `begun` at this time of the loop."""
        slow = SLOW * random.uniform(0.75, 1.25)
        with suppress(TimeoutError):
            async with asyncio.timeout_at(begun + (FAST if self._wanted.pace == "fast" else slow)):
                await self._woken.wait()

    async def _ask(self, address: Address) -> None:
        connection: ServerConnection | None = None
        number = 0
        try:
            # An answer may end this task itself. A timeout that is due as it begins, as `_pause`
            # can be, takes that cancellation for its own (Python 3.11): it is not relied on.
            while self._asking.get(address) is asyncio.current_task():
                begun = asyncio.get_running_loop().time()
                try:
                    if connection is None:
                        connection = await self._greeted(address)
                        self.server_ids.discard(number)
                        number = connection.server_id
                        self.server_ids.add(number)
                    else:
                        await connection.check_master()
                    role = Role.MASTER if connection.told_master else Role.UNTOLD
                except NotMaster as error:
                    role = Role.LOADING if error.loading else Role.REPLICA
                    connection = None
                except (Refused, Unreachable):
                    role = Role.NONE
                    connection = None
                self._tell(Answered(address, role))
                await self._pause(begun)
        finally:
            self.server_ids.discard(number)
            if connection is not None:
                connection.close()

    async def _greeted(self, address: Address) -> ServerConnection:
        return await ServerConnection.greeted_at(
            self.target(address), self._login, self._version, as_master=True
        )
