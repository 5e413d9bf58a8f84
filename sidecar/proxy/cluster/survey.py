"""Asks the nodes of a cluster which of them has which slots.

Each node is asked on a connection of its own, past the dialers and their breakers, that is kept
while it answers. Asks only: what to believe of several answers is decided in policy/shards.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from hiredis import pack_command

from sidecar.policy.shards import Address, Reading, View, view_of_shards, view_of_slots
from sidecar.proxy.links.errors import Refused, Unreachable
from sidecar.proxy.links.greeting import Login, ServerConnection, is_error, parsed
from sidecar.proxy.links.target import Target

SHARDS = pack_command((b"CLUSTER", b"SHARDS"))
SLOTS = pack_command((b"CLUSTER", b"SLOTS"))


class Survey:
    """Asks with `login`. `target_for` makes the target of an address; `how` is how answers are
    read."""

    def __init__(
        self,
        target_for: Callable[[Address], Target],
        login: Login,
        version: bytes,
        how: Reading,
    ) -> None:
        self._target_for = target_for
        self.login = login
        self._version = version
        self._how = how
        self._connections: dict[Address, ServerConnection] = {}
        self.errors: dict[Address, str] = {}
        """Why the nodes that were asked last have not answered."""

    async def ask(self, addresses: Iterable[Address]) -> Sequence[View]:
        """What these nodes say, at the same time; of those that do not answer, nothing."""
        asked = list(dict.fromkeys(addresses))
        self.errors = {}
        answers = await asyncio.gather(*(self._ask(address) for address in asked))
        return [view for view in answers if view is not None]

    async def _ask(self, address: Address) -> View | None:
        try:
            return await self._view(address)
        except (Refused, Unreachable, ValueError) as error:
            self.errors[address] = str(error)
            connection = self._connections.pop(address, None)
            if connection is not None:
                connection.close()
            return None

    async def _view(self, address: Address) -> View:
        connection = self._connections.get(address)
        if connection is None:
            connection = await ServerConnection.greeted_at(
                self._target_for(address), self.login, self._version
            )
            self._connections[address] = connection
        try:
            (said,) = await connection.ask(SHARDS)
            if not is_error(said):
                # No view: a former primary may be listed beside the new one, for a moment.
                with suppress(ValueError):
                    return view_of_shards(parsed(said), address, self._how)
            (said,) = await connection.ask(
                SLOTS
            )  # or a server before Redis 7, or a user who may not
        except Unreachable:
            self._connections.pop(address, None)
            raise
        if is_error(said):
            raise ValueError(said[1:].decode("utf-8", "replace").strip())
        return view_of_slots(parsed(said), address, self._how)

    def forget(self, others_than: Iterable[Address]) -> None:
        """Close the connections to all nodes but these."""
        kept = set(others_than)
        for address in [*self._connections]:
            if address not in kept:
                self._connections.pop(address).close()

    def server_ids(self) -> Iterable[tuple[Target, int]]:
        """The ids, on their servers, of the connections."""
        return [(each.target, each.server_id) for each in self._connections.values()]

    @property
    def connections(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    def close(self) -> None:
        """Close all connections."""
        self.forget(())
