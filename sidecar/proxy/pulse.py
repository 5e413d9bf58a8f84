"""Asks the server whether it answers at all, while that is in doubt.

A link that owes a reply does not tell why: the server may be frozen or cut off, busy, or holding
back that one command. A PING on a connection of its own tells these apart.
"""

from __future__ import annotations

import asyncio
import time

from hiredis import pack_command

from sidecar.proxy.links.errors import Refused, Unreachable
from sidecar.proxy.side_connection import SideConnection
from sidecar.proxy.tasks import Tasks, stop_task

PING = pack_command((b"PING",))
# Seconds for one answer: after that, a new connection is tried. And between two such attempts.
WITHIN = 5.0
PAUSE = 0.1


class Pulse:
    """Asks on `side`, one question at a time."""

    def __init__(self, side: SideConnection, tasks: Tasks) -> None:
        self._side = side
        self._tasks = tasks
        self._task: asyncio.Task[None] | None = None
        self.answered = time.monotonic()  # when the server last answered
        self.asked: float | None = None  # since when it has been asked and has not answered
        self.said = b""  # its latest answer

    def ask(self, now: float) -> None:
        """Ask, unless that is under way."""
        if self.asked is None:
            self.asked = now
            self._task = self._tasks.spawn(self._ask())

    def rest(self) -> None:
        """There is no doubt any more."""
        if self.asked is not None:
            self.asked = None
            stop_task(self._task)

    def silent_for(self, now: float) -> float:
        """Seconds for which a question has been without an answer; 0 if none is under way."""
        return now - self.asked if self.asked is not None else 0.0

    async def _ask(self) -> None:
        while True:
            try:
                self.said = (await self._side.ask(PING, within=WITHIN))[0]
                break
            except Refused as error:
                self.said = error.reply
                break
            except Unreachable:
                await asyncio.sleep(PAUSE)
        self.answered = time.monotonic()
        self.asked = None
