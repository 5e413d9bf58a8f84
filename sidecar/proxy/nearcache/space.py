"""A space of the near cache: the state of one (user, database) outside the core.

What it holds is read from the nodes of the upstream: from the home node, or of a cluster from each
shard. Each of these is a `Part` of the space, with a number in the core and a tracked link of its
own.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from sidecar.proxy.io.client import Client
from sidecar.proxy.io.tracked_link import TrackedLink
from sidecar.proxy.links.greeting import Login
from sidecar.proxy.links.node import Node
from sidecar.proxy.links.target import Target

SpaceKey = tuple[bytes | None, int]


@dataclass(eq=False)
class Space:
    """Number in the core, clients and parts of one (user, database).

    `held` counts those who keep it without clients. `closed`: its number belongs to another space,
    which needed one. `parts`: by the number of the shard; None: the upstream is no cluster.
    """

    number: int
    login: Login
    clients: set[Client] = field(default_factory=set)
    held: int = 0
    closed: bool = False
    parts: dict[int | None, Part] = field(default_factory=dict)

    @property
    def needed(self) -> bool:
        """Whether anybody uses it."""
        return not self.closed and (bool(self.clients) or self.held > 0)

    @property
    def user(self) -> str:
        """Its user, for the log."""
        return (self.login.user or b"default").decode("utf-8", "replace")


@dataclass(eq=False)
class Part:
    """What a space has from one node: a number in the core, and a tracked link.

    `refused`: its user may not use tracking. `closed`: the number belongs to another part.
    """

    number: int
    space: Space
    node: Node
    refused: bool = False
    closed: bool = False
    link: TrackedLink | None = None
    server_id: tuple[Target | None, int] = (None, 0)
    task: asyncio.Task[None] | None = None
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    proved: float | None = None  # when it last was, or came into use; None while nobody uses it
    heard: tuple[int, float] = (0, 0.0)

    @property
    def needed(self) -> bool:
        """Whether anybody uses it."""
        return not self.closed and self.space.needed

    def end(self) -> None:
        """Close the tracked link, if there is one."""
        if self.link is not None:
            self.link.end()
            self.link = None
