"""A space of the near cache: what it keeps of one (user, database). State only."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from sidecar.proxy.io.client import Client
from sidecar.proxy.io.tracked_link import TrackedLink
from sidecar.proxy.links.greeting import Login

SpaceKey = tuple[bytes | None, int]


@dataclass(eq=False)
class Space:
    """One (user, database): its number in the core, its clients, its tracked connection.

    `held` says how many want it kept without clients; `refused` that its user may not track.
    """

    number: int
    login: Login
    clients: set[Client] = field(default_factory=set)
    held: int = 0
    refused: bool = False
    link: TrackedLink | None = None
    server_id: int = 0
    task: asyncio.Task[None] | None = None
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    heard: tuple[int, float] = (0, 0.0)

    @property
    def needed(self) -> bool:
        """Whether anybody is served from it, or will be."""
        return bool(self.clients) or self.held > 0

    @property
    def user(self) -> str:
        """Whose it is, for the log."""
        return (self.login.user or b"default").decode("utf-8", "replace")
