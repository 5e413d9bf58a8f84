"""The ids that clients are known by here, as CLIENT ID tells them. Knows nothing but who is who."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

from sidecar.proxy.io.client import Client


class ClientIds:
    """All clients there are, each by the id it was given."""

    def __init__(self) -> None:
        # Ids of one sidecar must not collide with another's, nor with the server's small ones,
        # and stay exact in a double.
        self._last = secrets.randbelow(1 << 20) << 32
        self._clients: dict[int, Client] = {}

    def __iter__(self) -> Iterator[Client]:
        return iter(list(self._clients.values()))

    def new_id(self) -> int:
        """An id for a new client."""
        self._last += 1
        return self._last

    def add(self, client: Client) -> None:
        """A client is there, with an id from here."""
        self._clients[client.id] = client

    def remove(self, client: Client) -> None:
        """A client has gone."""
        self._clients.pop(client.id, None)

    def get(self, number: int) -> Client | None:
        """The client of this id; None when it is not one of ours."""
        return self._clients.get(number)
