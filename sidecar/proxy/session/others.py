"""The other workers, for commands about other clients: CLIENT LIST, KILL, UNBLOCK, TRACKING.

Several workers share the listeners, and each knows its own clients only. Here stands what one asks
of the others, and what it tells them. The composition root carries it from one to the other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from sidecar.proxy.session.client_list import Listed


@dataclass(frozen=True)
class Connections:
    """The connections of one worker to one server: the ids that the server gave them, and the
    addresses of those that have none yet."""

    links: Sequence[int]
    addresses: Sequence[bytes]


@dataclass(frozen=True)
class Crowd:
    """The clients of one worker, and its connections, by their server (`Nodes.server_of`). Of a
    worker that does not answer, the connections that it last had, and no clients."""

    clients: Sequence[Listed]
    connections: Mapping[str, Connections]


class Others(Protocol):
    """The other workers. One that does not answer soon is left out, and the log says so."""

    async def crowds(self) -> Sequence[Crowd]:
        """The clients and connections of each."""

    async def kill(self, numbers: Collection[int]) -> Collection[int]:
        """Close the clients with these ids; the ids of those that were there."""

    async def keep(self, number: int) -> int:
        """Give the client with this id a link for good; the id of that on the server, 0 if there is
        no such client."""


@dataclass(frozen=True)
class Membership:
    """What one of several workers is given. `ids` is the upper half of its clients' ids. `prepared`
    is awaited before the first client is accepted: all workers begin together. `snapshots` are the
    files in which the others keep their warm sets."""

    others: Others
    ids: int
    prepared: Callable[[], Awaitable[None]]
    snapshots: Sequence[str] = ()
