"""Clients whose replies can't be counted: they are over once their link has been quiet.

These have a link for good (subscribers, session pooling): the core does not know which bytes of it
are replies, so silence is the only sign that the last one has come.
"""

from __future__ import annotations

import asyncio
import time

from sidecar.proxy.io.client import Client

# How long a link must have been silent for its last reply to have come, and the longest wait.
QUIET = 0.25
QUIET_AT_LATEST = 5.0


async def finish_when_quiet(client: Client) -> None:
    """Close a client that sends no more, and whose server can't be told so."""
    received, since = client.pinned_bytes, time.monotonic()
    deadline = since + QUIET_AT_LATEST
    while not client.closed and since + QUIET > time.monotonic() < deadline:
        await asyncio.sleep(QUIET / 5)
        if client.pinned_bytes != received:
            received, since = client.pinned_bytes, time.monotonic()
    client.finish()


class QuietClients:
    """Which of many have been quiet for QUIET seconds, looked at again and again."""

    def __init__(self) -> None:
        self._seen: dict[Client, tuple[int, float]] = {}

    def is_quiet(self, client: Client, received: int, now: float) -> bool:
        """Whether a client whose link has received so many bytes has been quiet for long enough."""
        if self._seen.setdefault(client, (received, now))[0] != received:
            self._seen[client] = (received, now)
        return now - self._seen[client][1] >= QUIET
