"""Asks servers for their role, each on a separate connection: the probe link.

A candidate is asked before the links switch to it, and once more on every new connection
(ServerConnection.greet). The current master is asked all the time: if an operator demotes it
without the Sentinels, they need half a minute to notice, and traffic shows it only on shared links
and outside of transactions.

Reports the answers and decides nothing: policy/failover.py does, driven by master.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog

from sidecar.policy.topology import Address
from sidecar.proxy.links.errors import NotMaster, Refused, Unreachable
from sidecar.proxy.links.greeting import Login, ServerConnection
from sidecar.proxy.links.target import Target

log = structlog.get_logger()

# Seconds between two questions: to a server that is just being promoted, to any other candidate, to
# a master that may be about to lose its role, and to a master without any sign of that.
EAGER = 0.005
PATIENT = 0.05
WATCHING = 0.01
ROUTINE = 0.5


class RoleObserver(Protocol):
    """Gets the answers."""

    def verified(self, address: Address) -> None:
        """The candidate says that it is the master."""

    def not_verified(self, address: Address, error: NotMaster) -> None:
        """The candidate says that it is not the master (yet)."""

    def unanswered(self, why: str) -> None:
        """The candidate did not confirm; `why` is for messages."""

    def gave_up_role(self, address: Address, error: NotMaster) -> None:
        """The current master says that it is no longer the master."""


class RoleProbe:
    """Asks servers for their role, greeting with `login`."""

    def __init__(
        self,
        target_for: Callable[[Address], Target],
        login: Login,
        version: bytes,
        observer: RoleObserver,
    ) -> None:
        self._target_for = target_for
        self._login = login
        self._version = version
        self._observer = observer
        self.server_ids: set[int] = set()  # of the connections that watch a master

    async def _greeted(self, target: Target) -> ServerConnection:
        return await ServerConnection.greeted_at(target, self._login, self._version, as_master=True)

    async def verify(self, address: Address, eager: bool) -> None:
        """Ask a candidate for its role until it is the master."""
        target = self._target_for(address)
        connection: ServerConnection | None = None
        complained = False
        try:
            while True:
                try:
                    if connection is None:
                        connection = await self._greeted(target)
                    else:
                        await connection.check_master()
                    self._observer.verified(address)
                    return
                except NotMaster as error:
                    connection = None
                    self._observer.unanswered(str(error))
                    self._observer.not_verified(address, error)
                except (Refused, Unreachable) as error:
                    connection = None
                    why = f"upstream {target} says {error}" if isinstance(error, Refused) else error
                    self._observer.unanswered(str(why))
                    if not complained:
                        log.warning("master verification failed", error=str(why))
                        complained = True
                await asyncio.sleep(EAGER if eager else PATIENT)
        finally:
            if connection is not None:
                connection.close()

    async def watch_always(self, address: Address) -> None:
        """Keep asking the current master, on a new connection after each failure."""
        while True:
            await asyncio.sleep(ROUTINE)
            await self.watch(address, ROUTINE)

    async def watch(self, address: Address, pause: float) -> None:
        """Ask the current master every `pause` seconds until it loses its role or cannot be
        asked."""
        connection: ServerConnection | None = None
        number = 0
        try:
            connection = await self._greeted(self._target_for(address))
            number = connection.server_id
            self.server_ids.add(number)
            while True:
                await asyncio.sleep(pause)
                await connection.check_master()
        except NotMaster as error:
            self._observer.gave_up_role(address, error)
        except (Refused, Unreachable):
            return  # the links show that as well
        finally:
            self.server_ids.discard(number)
            if connection is not None:
                connection.close()
