"""The near cache's own connections."""

import socket
import ssl
from collections.abc import Callable
from typing import Any

from typing_extensions import disjoint_base

from sidecar.core.cache.serve import NearCache
from sidecar.core.protocol.commands import CommandTable
from sidecar.proxy.io.plane import Plane
from sidecar.proxy.io.reactor import Connection

_Tls = tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]

@disjoint_base
class TrackedLink(Connection):
    def __init__(
        self,
        plane: Plane,
        space: int,
        sock: socket.socket,
        tls: _Tls | None,
        owner: Any,
        handler: Callable[[TrackedLink, str], None],
    ) -> None: ...
    @property
    def plane(self) -> Plane: ...
    @property
    def owner(self) -> Any: ...
    @property
    def refused(self) -> bool: ...
    def beat(self) -> None: ...
    def load(self, request: bytes) -> bool: ...
    def flush(self) -> None: ...
    def lose(self, reason: str) -> None: ...
    def end(self) -> None: ...
    @property
    def pending(self) -> int: ...
    @property
    def received(self) -> int: ...

def in_use(
    near: NearCache, table: CommandTable, first: int, slots: int, least: int
) -> list[tuple[int, int, str, bytes]] | None: ...
