"""Keeps asking the current master for its role, and hears what it announces of its maintenance.

If an operator demotes it, traffic shows that only on shared links and outside of transactions, and
Sentinels need half a minute to notice. One connection asks for it, and asks for announcements too:
all links lead to the same server, so what it announces there is for all of them.

Reports and decides nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
from hiredis import pack_command

from sidecar.policy.maintenance import Announcement, announced_in
from sidecar.policy.server_version import ServerVersion
from sidecar.policy.topology import Address
from sidecar.proxy.links.errors import NotMaster, Refused, Unreachable
from sidecar.proxy.links.greeting import Login, ServerConnection, is_error, parsed
from sidecar.proxy.links.hello_reply import version_of
from sidecar.proxy.links.target import Target

log = structlog.get_logger()

# Seconds between two questions: to a master that may be about to lose its role, and to one without
# any sign of that.
WATCHING = 0.01
ROUTINE = 0.5
HELLO = pack_command((b"HELLO", b"3"))

Announced = Callable[[Announcement], None]


class MasterWatch:
    """Asks masters, greeting with `login`; `gave_up_role` is told of one that is none any more."""

    def __init__(
        self,
        target_for: Callable[[Address], Target],
        login: Login,
        version: bytes,
        gave_up_role: Callable[[Address, NotMaster], None],
    ) -> None:
        self._target_for = target_for
        self._login = login
        self._version = version
        self._gave_up_role = gave_up_role
        self._announced: Announced | None = None
        self._endpoint_type = ""
        self._refused_by: ServerVersion | None = None
        self.server_ids: set[int] = set()  # of the connections that watch

    def hear(self, announced: Announced, endpoint_type: str) -> None:
        """Ask for announcements as well; addresses in them are to be of this type."""
        self._announced = announced
        self._endpoint_type = endpoint_type

    async def watch_always(self, address: Address) -> None:
        """Keep asking this master, on a new connection after each failure."""
        while True:
            await asyncio.sleep(ROUTINE)
            await self.watch(address, ROUTINE)

    async def watch(self, address: Address, pause: float) -> None:
        """Ask this master every `pause` seconds until it loses its role or cannot be asked."""
        connection: ServerConnection | None = None
        number = 0
        try:
            connection = await ServerConnection.greeted_at(
                self._target_for(address), self._login, self._version, as_master=True
            )
            number = connection.server_id
            self.server_ids.add(number)
            await self._ask_for_announcements(connection)
            while True:
                await asyncio.sleep(pause)
                await connection.check_master()
        except NotMaster as error:
            self._gave_up_role(address, error)
        except (Refused, Unreachable):
            return  # the links show that as well
        finally:
            self.server_ids.discard(number)
            if connection is not None:
                connection.close()

    async def _ask_for_announcements(self, connection: ServerConnection) -> None:
        """Most servers do not know the request, and count it as an error: one is enough."""
        greeted = connection.greeted
        version = version_of(greeted.hello if greeted is not None else None)
        if self._announced is None or self._refused_by == version:
            return
        connection.on_push = self._pushed
        wanted = (b"CLIENT", b"MAINT_NOTIFICATIONS", b"ON", b"moving-endpoint-type")
        ask = pack_command((*wanted, self._endpoint_type.encode()))
        hello, reply = await connection.ask(HELLO, ask)
        if is_error(reply) or is_error(hello):
            self._refused_by = version
            connection.on_push = None
        else:
            log.info("announcements heard", address=connection.target.address)

    def _pushed(self, raw: bytes) -> None:
        push = parsed(raw)
        try:
            announcement = announced_in(push) if isinstance(push, list) else None
        except ValueError as error:
            log.warning("announcement ignored", error=str(error))
            return
        if announcement is not None and self._announced is not None:
            self._announced(announcement)
