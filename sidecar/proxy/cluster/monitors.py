"""MONITOR on a cluster: a client is shown the commands of all primaries.

Its own link monitors one of them, as it would one server. For each other primary a connection of
the client's identity is opened, a *source*, which monitors before the client's own link does: what
is sent after the client has its `+OK` is shown, wherever it goes. What a source says is put in on
the client's link (`Upstream.take`), in whole lines, and only between two replies.

    source ------.
    source -------+--> lines --> between two replies, and while the client reads --> client
    own link ----'

A source whose server is lost, or is a primary no more, is opened again at whoever has the shard
then. Lines of that moment are lost. Where a server goes on and ends the source alone, it does so
because the client has read too little: the client is closed, as by that server. When the client's
own link is lost, the client is closed as well.

A client that does not read is not read for: servers keep what it has not got, and judge it by their
limits.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Iterable
from contextlib import suppress

from hiredis import pack_command

from sidecar.proxy.io.client import Client
from sidecar.proxy.links.dedicated import DedicatedLinks, Use
from sidecar.proxy.links.errors import Full, Refused, Unreachable, reply_for
from sidecar.proxy.links.greeting import ServerConnection, is_error
from sidecar.proxy.links.identity import NodeLinks
from sidecar.proxy.links.monitor_lines import MonitorLines
from sidecar.proxy.links.node import Node, Nodes
from sidecar.proxy.links.target import Target
from sidecar.proxy.tasks import Tasks, stop_task

MONITOR = pack_command((b"MONITOR",))
# Bytes that a client has not read, from which on no more is read for it.
PAUSE = 1 << 20
# Seconds until it is looked again whether a client takes lines, and between two attempts to reach
# a server.
LOOK = 0.005
AGAIN = 0.1


class _Source:
    """What one other primary shows a client. `carry_on` opens it, again and again, until it is
    cancelled."""

    def __init__(self, monitoring: _Monitoring, node: Node, tasks: Tasks) -> None:
        self._monitoring = monitoring
        self.node = node
        self._tasks = tasks
        self._task: asyncio.Task[None] | None = None
        self._connection: ServerConnection | None = None
        self._lines: MonitorLines | None = None
        self._unseen = b""

    @property
    def server_id(self) -> tuple[Target | None, int]:
        """The id of its connection on its server; 0 without one."""
        connection = self._connection
        return (connection.target, connection.server_id) if connection is not None else (None, 0)

    async def open(self) -> None:
        """Connect, and have the server show its commands. Raises Refused, Unreachable."""
        links: NodeLinks = self._monitoring.client.identity.to(self.node)
        connection = await links.open()
        lines = MonitorLines(connection.target.own)
        said: list[bytes] = []

        def heard(frame: bytes) -> bool:
            said.append(frame)
            return True

        try:
            unseen = await connection.converse(MONITOR, heard)
            if is_error(said[0]):
                raise Refused(said[0])
        except BaseException:
            connection.close()
            raise
        self._connection, self._lines, self._unseen = connection, lines, unseen

    def start(self) -> None:
        """Show what comes, from now on."""
        self._task = self._tasks.spawn(self._carry_on())

    def end(self) -> None:
        """Show nothing more."""
        stop_task(self._task)
        self._close()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def look(self) -> None:
        """The shard may have another server by now."""
        connection = self._connection
        if connection is not None and connection.target is not self.node.dialer.target:
            stop_task(self._task)
            self._close()
            self.start()

    async def _carry_on(self) -> None:
        lost_at = None
        while True:
            if self._connection is None:
                try:
                    await self.open()
                except Refused:
                    self._monitoring.client.finish()
                    return
                except Unreachable:
                    lost_at = None
                    await asyncio.sleep(AGAIN * (1 + random.random()))
                    continue
            connection = self._connection
            assert connection is not None
            if connection.target is lost_at:
                self._monitoring.client.finish()  # it has ended this one connection
                return
            with suppress(Unreachable):
                await self._show(connection)
            lost_at = connection.target
            self._close()

    async def _show(self, connection: ServerConnection) -> None:
        """Show the client what this server sends. Raises Unreachable."""
        assert self._lines is not None
        data, self._unseen = self._unseen, b""
        while True:
            if data and (shown := self._lines(data)):
                await self._monitoring.show(shown)
            await asyncio.sleep(0)  # one that always has more must not keep everybody waiting
            data = await connection.receive()


class _Monitoring:
    """One client that monitors. What its own link receives goes through it (`Client.lines`)."""

    def __init__(self, client: Client, own: Node, tasks: Tasks) -> None:
        self.client = client
        self.own = own
        self.sources: dict[Node, _Source] = {}
        self._tasks = tasks
        self._lines: MonitorLines | None = None
        self._begun = asyncio.Event()
        self._ended = False

    def __call__(self, data: bytes) -> bytes:
        """Take what the client's own link has received; return what the client is to get. The first
        of it is the answer to MONITOR."""
        assert self._lines is not None
        shown = self._lines(data)
        if shown and not self._begun.is_set():
            if is_error(shown):
                self.end()
            self._begun.set()
        return shown

    async def open(self, nodes: Collection[Node]) -> None:
        """Have these nodes show their commands. One that cannot be reached is tried again later.
        Raises Refused, Full."""
        self.sources |= {node: _Source(self, node, self._tasks) for node in nodes}
        outcomes = await asyncio.gather(
            *(source.open() for source in self.sources.values()), return_exceptions=True
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and (
                isinstance(outcome, Full) or not isinstance(outcome, Unreachable)
            ):
                raise outcome
        for source in self.sources.values():
            source.start()
        target = self.own.dialer.target
        if target is None:
            raise Unreachable(self.own.dialer.unknown_because)
        self._lines = MonitorLines(target.own)

    async def show(self, lines: bytes) -> None:
        """Give the client these lines, as soon as it takes some."""
        await self._begun.wait()
        while True:
            up = self.client.dedicated
            if up is None or up.closed:
                return
            if up.between_replies and self.client.buffered < PAUSE:
                up.take(lines)
                return
            await asyncio.sleep(LOOK)

    def follow(self, nodes: Collection[Node]) -> None:
        """These are the shards now: have a source at the present server of each other one."""
        if not self._begun.is_set() or self._ended:
            return
        for node in self.sources.keys() - nodes:
            self.sources.pop(node).end()
        for source in self.sources.values():
            source.look()
        for node in nodes:
            if node is not self.own and node not in self.sources:
                self.sources[node] = source = _Source(self, node, self._tasks)
                source.start()

    def end(self) -> None:
        """Show nothing more of other primaries."""
        self._ended = True
        for source in self.sources.values():
            source.end()
        self.sources.clear()


class Monitors:
    """The clients of a cluster that monitor."""

    def __init__(self, nodes: Nodes, dedicated: DedicatedLinks, tasks: Tasks) -> None:
        self._nodes = nodes
        self._dedicated = dedicated
        self._tasks = tasks
        self._monitoring: dict[Client, _Monitoring] = {}

    def begin(self, client: Client, node: Node) -> None:
        """Serve MONITOR, with a link for good to this node."""
        self.end(client)
        monitoring = self._monitoring[client] = _Monitoring(client, node, self._tasks)
        client.task = self._tasks.spawn(self._begin(client, monitoring))

    async def _begin(self, client: Client, monitoring: _Monitoring) -> None:
        others = [node for node in (self._nodes.shards or {}).values() if node != monitoring.own]
        try:
            await monitoring.open(others)
        except (Refused, Unreachable) as error:
            self.end(client)
            client.task = None
            client.refuse(reply_for(error))
            return
        client.lines = monitoring
        self._dedicated.give_named(client, monitoring.own, Use.PINNED)
        assert client.task is not None
        client.task.add_done_callback(lambda _: self._given(client))

    def _given(self, client: Client) -> None:
        """The client has its link, or an error instead."""
        if client.closed or client.dedicated is None:
            self.end(client)

    def end(self, client: Client) -> None:
        """The client monitors no more."""
        monitoring = self._monitoring.pop(client, None)
        if monitoring is not None:
            client.lines = None
            monitoring.end()

    def tick(self, now: float) -> None:
        """Follow the shards, which may have come, gone, or changed their servers."""
        nodes = (self._nodes.shards or {}).values()
        for monitoring in self._monitoring.values():
            monitoring.follow(nodes)

    @property
    def sources(self) -> int:
        """How many connections show commands, or are to."""
        return sum(len(monitoring.sources) for monitoring in self._monitoring.values())

    def server_ids(self) -> Iterable[tuple[Target | None, int]]:
        """The ids, on their servers, of the connections that show commands."""
        everybody = self._monitoring.values()
        return [source.server_id for each in everybody for source in each.sources.values()]
