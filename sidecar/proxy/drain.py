"""Draining: clients that are there get the replies they are due, and go.

Each is closed once its requests are answered. One whose replies can't be counted is closed when
its link has been quiet for a while; see session/quiet.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from sidecar.proxy.io.plane import Plane
from sidecar.proxy.session.quiet import QuietClients


async def drain(plane: Plane, handshaking: Callable[[], bool], within: float) -> None:
    """Until there are no clients left, but for at most `within` seconds. `handshaking` tells
    whether some are still to come."""
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
