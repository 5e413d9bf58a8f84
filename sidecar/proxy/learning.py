"""Asks the server for its command table, its limits, how it evicts, and whether it has CLIENT
SETINFO.

Asks once before the data plane serves (see `upstream.start`), and again whenever the answers may
have changed: each time the sidecar's own link comes up, since the server may be another one then;
after a client has sent what changes them (`CHANGES`); and every POLL seconds, for what passes by
another way. Asks for the whole command table, which is large, only if a cheap question tells that
it has changed.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import hiredis
import structlog

from sidecar.core.protocol.commands import CommandTable
from sidecar.policy.routing import FAMILIES, judged_here, rows_from_command, rows_from_data
from sidecar.policy.server_version import ServerVersion, told_by_info
from sidecar.policy.shipped import shipped_commands
from sidecar.proxy.io.client import Client
from sidecar.proxy.io.plane import Plane
from sidecar.proxy.links.errors import ProxyStartError, Refused, Unreachable
from sidecar.proxy.links.greeting import ServerConnection, is_error, parsed
from sidecar.proxy.links.identity import NodeLinks
from sidecar.proxy.links.info_reply import fields_of
from sidecar.proxy.links.outcomes import BROKEN
from sidecar.proxy.links.shared import SharedLinks
from sidecar.proxy.tasks import Tasks
from sidecar.settings.sections.upstream import Upstream
from sidecar.settings.urls import Endpoint

log = structlog.get_logger()

# Commands that change what is asked for here, by their second words.
CHANGES: dict[str, frozenset[bytes]] = {
    "config": frozenset({b"set"}),
    "module": frozenset({b"load", b"loadex", b"unload"}),
}
# Such a command is noted when it is passed on. So the server is asked soon, and once more when it
# has surely executed the command. All in seconds.
SOON = 0.1
LATER = 1.0
POLL = 60.0

# The policy of eviction stands in INFO too, which more users may read than CONFIG.
MEMORY = hiredis.pack_command((b"INFO", b"memory"))
MAX_BULK = hiredis.pack_command((b"CONFIG", b"GET", b"proto-max-bulk-len"))
# Their replies are the same as long as the command table is.
FINGERPRINT = (
    hiredis.pack_command((b"COMMAND", b"COUNT")),
    hiredis.pack_command((b"MODULE", b"LIST")),
    hiredis.pack_command((b"INFO", b"server")),
)
# Of INFO only these lines; the others are different each time.
TELLING = (b"run_id:", b"redis_version:", b"valkey_version:", b"redis_mode:", b"server_mode:")


def shipped_table(*, judges: bool = False) -> CommandTable:
    """The command table that ships with the sidecar. `judges`: the sidecar judges logins."""
    table = CommandTable(secrets.randbits(32), FAMILIES)
    rows = rows_from_data(shipped_commands())
    table.update(judged_here(rows) if judges else rows)
    return table


@dataclass(frozen=True)
class Told:
    """Raw replies of a server. `seen` is the fingerprint of its command table; `commands` is None
    where that was known already."""

    max_bulk: bytes
    memory: bytes
    seen: list[bytes]
    commands: bytes | None


async def ask(connection: ServerConnection, known: list[bytes]) -> Told:
    """Ask a server for all that is to be learnt; `known` is a fingerprint. Raises Unreachable."""
    max_bulk, memory, *seen = await connection.ask(MAX_BULK, MEMORY, *FINGERPRINT)
    seen[-1] = b"\n".join(line for line in seen[-1].split() if line.startswith(TELLING))
    commands = None
    if seen != known:
        (commands,) = await connection.ask(hiredis.pack_command((b"COMMAND",)))
    return Told(max_bulk, memory, seen, commands)


class Learning:
    """Asks on connections of its own, opened as the sidecar's `own` user. `judges`: the sidecar
    judges logins, and no server."""

    def __init__(
        self,
        plane: Plane,
        own: NodeLinks,
        shared: SharedLinks,
        tasks: Tasks,
        evicts: Callable[[str], None],
        in_cluster: Callable[[bool], None],
        *,
        judges: bool = False,
    ) -> None:
        self._plane = plane
        self._own = own
        self._shared = shared
        self._tasks = tasks
        self._evicts = evicts
        self._in_cluster = in_cluster
        self._judges = judges
        # Called with the commands (None: as they were) and the version that a server has told.
        self.learnt: Callable[[Any, ServerVersion], None] | None = None
        self._seen: list[bytes] = []  # the fingerprint of the command table in use
        self.asking = False
        self._due: list[float] = []  # when to ask, on the monotonic clock, the soonest first

    async def begin(self, settings: Upstream, upstream: Endpoint, deadline: float) -> None:
        """Ask for the first time and connect the sidecar's own link; `deadline`, on the monotonic
        clock, is the end of `start_timeout`. Raises ProxyStartError."""
        told, began = "", time.monotonic()
        while True:
            try:
                await self._learn_until(deadline, settings.start_timeout)
                break
            except (Refused, Unreachable) as error:
                why = str(error).removesuffix(BROKEN)
                # That no master is confirmed yet is no news in the first moment.
                known = self._own.node.dialer.target is not None
                if why != told and (known or time.monotonic() - began > LATER):
                    log.warning("upstream unreachable", error=why)
                    told = why
                if settings.start == "wait":
                    break
                if isinstance(error, Refused) or time.monotonic() >= deadline:
                    where = self._own.node.dialer.where
                    who = f"upstream {where} says " if isinstance(error, Refused) else ""
                    raise ProxyStartError(
                        f"{who}{error}; check upstream.url ({upstream}), or set "
                        'upstream.start = "wait" to start without it'
                    ) from error
            await asyncio.sleep(0.1)
        self._own.node.watch(up=self.ask_soon)
        self._due.append(time.monotonic() + POLL)
        self._shared.connect(self._own)

    async def _learn_until(self, deadline: float, seconds: float) -> None:
        """Raises Refused and Unreachable; that many `seconds` are what the error says."""
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                await self._learn()
        except TimeoutError:
            dialer = self._own.node.dialer
            silent = f"upstream {dialer.where} did not answer within {seconds:g} s"
            raise Unreachable(dialer.unknown_because if dialer.target is None else silent) from None

    # Asking again

    def noted(self, client: Client | None, kind: str, command: str, second: bytes) -> None:
        """See Plane.use_audit: a client's command may have changed what was learnt."""
        if second in CHANGES.get(command, ()):
            self.ask_soon(SOON)

    def ask_soon(self, seconds: float = 0.0) -> None:
        """Ask in so many seconds, and once more after LATER."""
        at = time.monotonic() + seconds
        self._due = [min([at, *self._due]), at + LATER]

    def tick(self, now: float) -> None:
        """Ask if it is due."""
        if self._due and now >= self._due[0] and not self.asking:
            del self._due[0]
            if not self._due:
                self._due.append(now + POLL)
            self.asking = True
            self._tasks.spawn(self._learn_if_possible())

    async def _learn_if_possible(self) -> None:
        try:
            with suppress(Refused, Unreachable):
                await self._learn()
        finally:
            self.asking = False

    async def _learn(self) -> None:
        """Merge the server's command table and limits into the shipped ones."""
        connection = await self._own.open()
        try:
            told = await ask(connection, self._seen)
        finally:
            connection.close()
        self.take(told)

    def take(self, told: Told) -> None:
        """Merge what a server has told into the shipped table and limits."""
        commands = parsed(told.commands) if told.commands is not None else None
        if commands is not None:
            self._learn_commands(commands)
        self._seen = seen = told.seen
        max_bulk, memory = told.max_bulk, told.memory
        limit = parsed(max_bulk) if not is_error(max_bulk) else None
        if isinstance(limit, list) and len(limit) == 2 and limit[1].isdigit():
            self._plane.set_max_bulk(int(limit[1]))
        self._evicts(_eviction(memory))
        server = _fields(seen[-1])
        self._in_cluster(server.get("redis_mode", server.get("server_mode")) == "cluster")
        version = told_by_info(server)
        self._plane.set_joined_quotes(version.joins_quotes)
        if self.learnt is not None:
            self.learnt(commands, version)

    def _learn_commands(self, reply: Any) -> None:
        if isinstance(reply, list):
            rows = rows_from_command(reply)
            self._plane.table.update(judged_here(rows) if self._judges else rows)


def _eviction(raw: bytes) -> str:
    """The policy of eviction in a reply to INFO memory; "" without a limit of memory."""
    fields = _fields(raw)
    return "" if fields.get("maxmemory", "0") == "0" else fields.get("maxmemory_policy", "")


def _fields(raw: bytes) -> dict[str, str]:
    return fields_of(raw.decode("utf-8", "replace"))
