"""The ids of clients, as CLIENT ID tells them, and which client has which. Nothing else."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

from sidecar.proxy.io.client import Client

UPPER = 1 << 20
# The id of no client, here or at a server.
NOBODY = b"999999999999999999"


class ClientIds:
    """All clients, by id. `upper` is the upper half of the ids; None: any."""

    def __init__(self, upper: int | None = None) -> None:
        # Ids must not collide with those of other sidecars, nor with the small ones of servers, and
        # must stay exact in a double.
        self._last = (secrets.randbelow(UPPER) if upper is None else upper % UPPER) << 32
        self._clients: dict[int, Client] = {}

    def __iter__(self) -> Iterator[Client]:
        return iter(list(self._clients.values()))

    def new_id(self) -> int:
        """An id for a new client."""
        self._last += 1
        return self._last

    def add(self, client: Client) -> None:
        """Add a client that has one of these ids."""
        self._clients[client.id] = client

    def remove(self, client: Client) -> None:
        """Remove a client that has gone."""
        self._clients.pop(client.id, None)

    def get(self, number: int) -> Client | None:
        """The client with this id; None if this sidecar has none."""
        return self._clients.get(number)
