"""A space of the near cache: the state of one (user, database) outside the core."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from sidecar.proxy.io.client import Client
from sidecar.proxy.io.tracked_link import TrackedLink
from sidecar.proxy.links.greeting import Login

SpaceKey = tuple[bytes | None, int]


@dataclass(eq=False)
class Space:
    """Number in the core, clients and tracked link of one (user, database).

    `held` counts those who keep it without clients. `refused`: its user may not use tracking.
    `closed`: its number belongs to another space, which needed one.
    """

    number: int
    login: Login
    clients: set[Client] = field(default_factory=set)
    held: int = 0
    refused: bool = False
    closed: bool = False
    link: TrackedLink | None = None
    server_id: int = 0
    task: asyncio.Task[None] | None = None
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    proved: float | None = None  # when it last was, or came into use; None while nobody uses it
    heard: tuple[int, float] = (0, 0.0)

    @property
    def needed(self) -> bool:
        """Whether anybody uses it."""
        return not self.closed and (bool(self.clients) or self.held > 0)

    @property
    def user(self) -> str:
        """Its user, for the log."""
        return (self.login.user or b"default").decode("utf-8", "replace")

    def end(self) -> None:
        """Close the tracked link, if there is one."""
        if self.link is not None:
            self.link.end()
            self.link = None
