"""A client of the soak: connects through one of the sidecar's doors, takes turns, goes, comes back.

What a turn does is the business of the roles (roles.py). Everything that was answered is written
into a `Ledger`, which all clients share.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar

from bench.soak.values import LOST, Wrong
from tests.harness.connection import Connection, Lost, Told
from tests.harness.resp import Arg, Refused, pack

PATIENCE = 45.0
"""Seconds until a turn without an end counts as a reply that never came."""
VISIT = 0.5, 20.0
"""Seconds that a client stays connected."""
KEPT = 50
"""Wrong replies that are kept in words."""

Command = tuple[Arg, ...]

LISTED = {
    "UNCERTAIN": "a write was under way when its connection was lost",
    "UNAVAILABLE": "no server could be reached in time; not executed",
    "EXECABORT": "a command of a transaction was refused",
    "NOSCRIPT": "the script was forgotten (SCRIPT FLUSH, another master)",
    "UNBLOCKED": "a blocked client's server is no master any more",
    "TRYAGAIN": "the keys of a transaction, or of a large request, were moving to another shard",
    "lost": "a connection was closed: it had state on a link that was lost",
}
"""The errors that clients may get while something goes wrong, and why."""


@dataclass(frozen=True)
class Door:
    """A way into the sidecar: a port or a path, with or without TLS, RESP2 or RESP3."""

    name: str
    where: int | str
    tls: ssl.SSLContext | None = None
    protocol: int = 2


@dataclass
class Ledger:
    """What all clients were told."""

    commands: int = 0
    done: Counter[str] = field(default_factory=Counter)
    """Turns by role."""
    errors: Counter[str] = field(default_factory=Counter)
    """By kind: the first word of an error reply, or `lost` or `refused` for a connection."""
    wrong: int = 0
    examples: list[str] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    """Errors that are not listed (LISTED), in words."""

    def note_error(self, who: str, command: Command, error: str) -> None:
        """An error reply."""
        kind = error.partition(" ")[0]
        self.errors[kind] += 1
        if kind not in LISTED and len(self.unlisted) < KEPT:
            self.unlisted.append(f"{who}: {' '.join(map(str, command)):.80}: {error}")

    def note_wrong(self, text: str) -> None:
        """A reply that must not be."""
        self.wrong += 1
        if len(self.examples) < KEPT:
            self.examples.append(f"{time.monotonic():.1f} {text}")


class Client:
    """One client, of some role."""

    conn: Connection

    connection: ClassVar[type[Connection]] = Connection

    def __init__(self, door: Door, ledger: Ledger, seed: int, think: float) -> None:
        self.door, self.ledger, self.think = door, ledger, think
        self.chance = random.Random(seed)

    @property
    def name(self) -> str:
        """The role and the door, for what is said about it."""
        return f"{type(self).__name__.lower()} at {self.door.name}"

    async def run(self, ending: asyncio.Event) -> None:
        """Visits, until the end."""
        while not ending.is_set():
            try:
                self.conn = await self.connection.open(self.door.where, self.door.tls)
            except Lost:
                self.ledger.errors["refused"] += 1
                await asyncio.sleep(0.05)
                continue
            await self._visit(ending)

    async def _visit(self, ending: asyncio.Event) -> None:
        until = time.monotonic() + self.chance.uniform(*VISIT)
        try:
            await self.arrive()
            while not ending.is_set() and time.monotonic() < until and not self.conn.lost:
                async with asyncio.timeout(PATIENCE):
                    await self.turn()
                self.ledger.done[type(self).__name__.lower()] += 1
                await asyncio.sleep(self.chance.uniform(0, 2 * self.think))
            if self.conn.lost:
                self.ledger.errors["lost"] += 1
        except Lost:
            self.ledger.errors["lost"] += 1
        except Wrong as error:
            self.ledger.note_wrong(f"{self.name}: {error}")
        except TimeoutError:
            self.ledger.note_wrong(f"{self.name}: no reply within {PATIENCE:g} s")
        finally:
            self.conn.close()

    async def settle(self) -> None:
        """When nothing goes wrong any more: what was acknowledged is there. Raises Wrong, Lost."""
        self.conn = await self.connection.open(self.door.where, self.door.tls)
        try:
            await self.arrive()
            await self.look_back()
        finally:
            self.conn.close()

    # What roles do

    async def arrive(self) -> None:
        """The first words on a connection."""
        if self.door.protocol == 3:
            (reply,) = await self.exchange(("HELLO", 3))
            if not isinstance(reply, dict):
                raise Lost("HELLO")

    async def turn(self) -> None:
        """Something that the role does. Raises Wrong."""
        raise NotImplementedError

    async def look_back(self) -> None:
        """At the end: hold what is there against what is known. Raises Wrong."""

    # What they do it with

    async def exchange(self, *commands: Command) -> list[Any]:
        """A pipeline: of each command its reply, a `Refused`, or LOST."""
        found: list[Any] = [LOST] * len(commands)

        def told(at: int) -> Told:
            def note(replies: Sequence[Any] | None, begin: int, end: int) -> None:
                if replies is not None:
                    found[at] = replies[0]

            return note

        with suppress(Lost):  # which replies are missing shows
            await self.conn.send([(pack(*each), 1, told(at)) for at, each in enumerate(commands)])
        self.ledger.commands += len(commands)
        for command, reply in zip(commands, found, strict=True):
            if isinstance(reply, Refused):
                self.ledger.note_error(self.name, command, str(reply))
        return found

    def failed(self, reply: Any) -> bool:
        """Whether a reply is an error, or never came."""
        return reply is LOST or isinstance(reply, Refused)
