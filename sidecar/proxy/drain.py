"""Draining: connected clients get the replies they are due, then they are closed.

A client is closed once its requests are answered. A client whose replies cannot be counted is
closed once its link has been quiet for a while; see session/quiet.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from sidecar.proxy.io.client import Client
from sidecar.proxy.io.plane import Plane
from sidecar.proxy.session.quiet import QuietClients

# The share of the time in which all clients have had their turn. The rest is for answers.
SPREAD_OVER = 0.8
# Seconds that a client which has asked nothing yet has for its first command.
SETTLING = 1.0


async def drain(
    plane: Plane, handshaking: Callable[[], bool], within: float, *, spread: bool = False
) -> None:
    """Drain until no client is left, for at most `within` seconds. `handshaking` says whether TLS
    handshakes are still running, each of which ends in one more client.

    With `spread`, clients go one after the other over most of that time, and are served until then:
    they will all connect again elsewhere.
    """
    began = time.monotonic()
    deadline = began + within
    quiet = QuietClients()
    turns: dict[Client, float] = {}
    while plane.clients or handshaking():
        now = time.monotonic()
        if now >= deadline:
            return
        if spread:
            _give_turns(turns, plane.clients, now, began + within * SPREAD_OVER)
        for client in list(plane.clients):
            if now < turns.get(client, now):
                continue
            received = client.pinned_bytes
            if received is None:
                client.retire()
            elif quiet.is_quiet(client, received, now):
                client.finish()
        await asyncio.sleep(0.01)


def _give_turns(
    turns: dict[Client, float], clients: Iterable[Client], now: float, end: float
) -> None:
    """Give each client without a turn one between now and the end, evenly spread. One that has
    asked nothing yet has just connected, and is about to."""
    new = [client for client in clients if client not in turns]
    for number, client in enumerate(new):
        turn = now + max(0.0, end - now) * number / len(new)
        turns[client] = turn if _has_asked(client) else max(turn, min(now + SETTLING, end))


def _has_asked(client: Client) -> bool:
    _, _, commands, _ = client.figures
    return commands > 0
