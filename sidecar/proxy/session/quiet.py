"""Pinned clients that send no more: they are closed once their link has been quiet.

On the link of a pinned client (subscriber, session pooling) the core does not know which bytes are
replies. Silence is the only sign that the last reply has arrived.
"""

from __future__ import annotations

import asyncio
import time

from sidecar.proxy.io.client import Client

# Seconds of silence that count as the end of the replies, and the longest wait for that.
QUIET = 0.25
QUIET_AT_LATEST = 5.0


async def finish_when_quiet(client: Client) -> None:
    """Close a client that sends no more, once its link is quiet."""
    received, since = client.pinned_bytes, time.monotonic()
    deadline = since + QUIET_AT_LATEST
    while not client.closed and since + QUIET > time.monotonic() < deadline:
        await asyncio.sleep(QUIET / 5)
        if client.pinned_bytes != received:
            received, since = client.pinned_bytes, time.monotonic()
    client.finish()


class QuietClients:
    """Says which clients have been quiet for QUIET seconds, when asked repeatedly."""

    def __init__(self) -> None:
        self._seen: dict[Client, tuple[int, float]] = {}

    def is_quiet(self, client: Client, received: int, now: float) -> bool:
        """Whether this client is quiet; `received` are the bytes that its link has received."""
        if self._seen.setdefault(client, (received, now))[0] != received:
            self._seen[client] = (received, now)
        return now - self._seen[client][1] >= QUIET
