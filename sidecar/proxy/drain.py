"""Draining: connected clients get the replies they are due, then they are closed.

A client is closed once its requests are answered. A client whose replies cannot be counted is
closed once its link has been quiet for a while; see session/quiet.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from sidecar.proxy.io.plane import Plane
from sidecar.proxy.session.quiet import QuietClients


async def drain(plane: Plane, handshaking: Callable[[], bool], within: float) -> None:
    """Drain until no client is left, for at most `within` seconds. `handshaking` says whether TLS
    handshakes are still running, each of which ends in one more client."""
    deadline = time.monotonic() + within
    quiet = QuietClients()
    while plane.clients or handshaking():
        now = time.monotonic()
        if now >= deadline:
            return
        for client in list(plane.clients):
            received = client.pinned_bytes
            if received is None:
                client.retire()
            elif quiet.is_quiet(client, received, now):
                client.finish()
        await asyncio.sleep(0.01)
