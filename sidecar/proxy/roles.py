"""Asks a candidate for its role, on a separate connection, before the links switch to it: the probe
link. Each new link asks once more (ServerConnection.greet).

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

# Seconds between two questions: to a server that is just being promoted, and to others.
EAGER = 0.005
PATIENT = 0.05


class RoleObserver(Protocol):
    """Gets the answers."""

    def verified(self, address: Address) -> None:
        """The candidate says that it is the master."""

    def not_verified(self, address: Address, error: NotMaster) -> None:
        """The candidate says that it is not the master (yet)."""

    def unanswered(self, why: str) -> None:
        """The candidate did not confirm; `why` is for messages."""


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

    async def verify(self, address: Address, eager: bool) -> None:
        """Ask a candidate for its role until it is the master."""
        target = self._target_for(address)
        connection: ServerConnection | None = None
        complained = False
        try:
            while True:
                try:
                    if connection is None:
                        connection = await ServerConnection.greeted_at(
                            target, self._login, self._version, as_master=True
                        )
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
