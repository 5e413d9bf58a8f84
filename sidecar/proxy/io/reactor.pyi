"""Sockets, plain or TLS, on an event loop."""

import asyncio
from typing import Any, Self

from typing_extensions import disjoint_base

@disjoint_base
class Reactor:
    def __new__(
        cls,
        loop: asyncio.AbstractEventLoop,
        *args: Any,
        own_poller: bool = True,
        **kwargs: Any,
    ) -> Self: ...
    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    def close(self) -> None: ...
    def poll(self) -> None: ...

@disjoint_base
class Connection:
    @property
    def closed(self) -> bool: ...
    def on_readable(self) -> None: ...
    def on_writable(self) -> None: ...
    def give_up(self) -> None: ...
