"""A client on its socket: reads for its session, sends its replies, and sees when it is over."""

import asyncio
import socket
import ssl
from typing import Any

from typing_extensions import disjoint_base

from sidecar.core.cluster.subscriptions import Subscriptions
from sidecar.core.guard.guard import ClientGuard
from sidecar.proxy.io.plane import Plane
from sidecar.proxy.io.rewriting import RewritingConnection
from sidecar.proxy.links.identity import Identity

_Tls = tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]

@disjoint_base
class ClientSocket(RewritingConnection):
    identity: Identity
    principal: str
    listener_policy: str
    restricted_as: Any
    first_principal: str
    in_exec: Any
    subscriptions: Subscriptions | None
    queued_unsent: list[tuple[bytes, bytes]] | None
    name: bytes
    lib_name: bytes
    lib_version: bytes
    passed_login: bool
    task: asyncio.Task[None] | None
    peer: object
    def __init__(
        self,
        plane: Plane,
        sock: socket.socket,
        tls: _Tls | None,
        id: int,
        identity: Identity | None,
        peer: object,
    ) -> None: ...
    @property
    def id(self) -> int: ...
    @property
    def finishing(self) -> bool: ...
    @property
    def since(self) -> float: ...
    @property
    def local(self) -> object: ...
    def start(self) -> None: ...
    def say(self, reply: bytes) -> None: ...
    def finish(self) -> None: ...
    def close(self, reason: str = "closed") -> None: ...
    def retire(self) -> None: ...
    @property
    def guard(self) -> ClientGuard | None: ...
    def use_guard(self, guard: ClientGuard | None) -> None: ...
    def drop_link(self) -> None: ...
    def leave_link(self) -> bool: ...
