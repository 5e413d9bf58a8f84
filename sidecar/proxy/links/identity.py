"""Who a client is to the server, and the links of that identity.

An identity is (protocol version, user, database): clients of one identity may share a link,
since the server can't tell their ordinary commands apart. It owns one shared link, which
outlives its connections, and the idle dedicated links that are clean enough to be used again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field, replace

from sidecar.proxy.io.client import Client
from sidecar.proxy.io.upstream import Upstream
from sidecar.proxy.links.greeting import Greeted, Login

Key = tuple[int, bytes | None, int]


@dataclass(eq=False)
class Identity:
    """The links of one identity, and the clients that wait for them.

    `own_login` tells that a client has logged in itself: when the server stops accepting those
    credentials, its clients are closed, as a direct client would have to log in again.
    """

    login: Login
    own_login: bool
    link: Upstream = field(init=False)
    greeted: Greeted | None = None
    clients: set[Client] = field(default_factory=set)
    waiting: set[Client] = field(default_factory=set)
    idle: deque[Upstream] = field(default_factory=deque)
    connecting: bool = False
    retry: asyncio.Event = field(default_factory=asyncio.Event)
    retired: list[Upstream] = field(default_factory=list)
    diverting: bool = False
    spare: int = 0
    filling: bool = False
    arrivals: list[asyncio.Future[None]] = field(default_factory=list)
    unused_since: float | None = None
    wait_is_provable: bool | None = None

    @property
    def key(self) -> Key:
        """What tells identities apart. The password does not: the latest proven one counts."""
        return (self.login.proto, self.login.user, self.login.db)

    def learn(self, password: bytes) -> None:
        """A client has just proved this password: reconnect with it from now on."""
        self.login = replace(self.login, password=password)

    def take_idle(self) -> Upstream | None:
        """A dedicated link that is ready for use, the most recently used first."""
        while self.idle:
            up = self.idle.pop()
            if up.up:
                return up
        return None

    def close(self) -> None:
        """Close all links; nobody uses them any more."""
        for up in (self.link, *self.retired):
            up.close()
        while self.idle:
            self.idle.pop().close()
