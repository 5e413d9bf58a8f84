"""Asking servers for their role, each on a connection of its own.

Whether a node is the master is asked of the node itself: here before the links go over to it, and
once more on every connection made (ServerConnection.greet). The present master is asked all the
time: when an operator or another master changes it without the Sentinels, they take half a minute
to see it, and traffic shows it only on shared links, outside of transactions.

What the answers mean is decided by policy/failover.py; they are given to `master.py`.
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

# Pauses between two questions to a node: one that is just being promoted, any other, a master that
# may be about to give up its role, and one that nothing is known of.
EAGER = 0.005
PATIENT = 0.05
WATCHING = 0.01
ATTENDING = 0.5


class Asker(Protocol):
    """Who is told the answers."""

    def verified(self, address: Address) -> None:
        """A candidate has said that it is the master."""

    def not_verified(self, address: Address, error: NotMaster) -> None:
        """A candidate is not the master, yet."""

    def unanswered(self, why: str) -> None:
        """Why no candidate is the master so far."""

    def gave_up_role(self, address: Address, error: NotMaster) -> None:
        """The present master says that it is the master no more."""


class Roles:
    """Asks on connections greeted with `login`. `target_for` makes a target of a (host, port)."""

    def __init__(
        self, target_for: Callable[[Address], Target], login: Login, version: bytes, asker: Asker
    ) -> None:
        self._target_for = target_for
        self._login = login
        self._version = version
        self._asker = asker
        self.server_ids: set[int] = set()  # the server's, of the connections that stay

    async def _greeted(self, target: Target) -> ServerConnection:
        connection = await ServerConnection.open(target)
        await connection.greet(self._login, self._version, as_master=True)
        return connection

    async def verify(self, address: Address, eager: bool) -> None:
        """Ask this node for its role until it is the master."""
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
                    self._asker.verified(address)
                    return
                except NotMaster as error:
                    connection = None
                    self._asker.unanswered(str(error))
                    self._asker.not_verified(address, error)
                except (Refused, Unreachable) as error:
                    connection = None
                    why = f"upstream {target} says {error}" if isinstance(error, Refused) else error
                    self._asker.unanswered(str(why))
                    if not complained:
                        log.warning("master cannot be verified", error=str(why))
                        complained = True
                await asyncio.sleep(EAGER if eager else PATIENT)
        finally:
            if connection is not None:
                connection.close()

    async def attend(self, address: Address) -> None:
        """Ask the present master for its role, on connection after connection."""
        while True:
            await asyncio.sleep(ATTENDING)
            await self.watch(address, ATTENDING)

    async def watch(self, address: Address, pause: float) -> None:
        """Ask the present master for its role until it has given it up, or can't be asked."""
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
            self._asker.gave_up_role(address, error)
        except (Refused, Unreachable):
            return  # its links will show it
        finally:
            self.server_ids.discard(number)
            if connection is not None:
                connection.close()
