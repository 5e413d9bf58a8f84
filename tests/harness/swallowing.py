"""A host that is gone: what is sent to it is swallowed, nothing comes back, not even a refusal.

A listener whose queue is full does that to new connections: the system drops their first packet.
"""

from __future__ import annotations

import socket

from .closing import Closing
from .process import free_port

# The queue holds one more than the backlog says; the others see whether it is full.
_FILL = 3


class Swallows(Closing):
    """A port of loopback that swallows connections."""

    def __init__(self, port: int | None = None, host: str = "127.0.0.1") -> None:
        self.host = host
        self.port = free_port() if port is None else port
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((host, self.port))
        self._listener.listen(0)
        self._fill = []
        for _ in range(_FILL):
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            sock.setblocking(False)
            sock.connect_ex((host, self.port))
            self._fill.append(sock)

    @property
    def url(self) -> str:
        """The port as an upstream URL."""
        return f"redis://{self.host}:{self.port}"

    def close(self) -> None:
        """Let go of the port."""
        for sock in (*self._fill, self._listener):
            sock.close()
