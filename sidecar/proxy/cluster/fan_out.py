"""Serves commands that concern more than one shard of a cluster, or none.

policy/fan_out.py says for each where it goes, policy/merging.py how the replies become one. Asks
shards on the client's own branches, so what it may do is judged by each server, and what it sent
before is executed before. Runs while no reply is due to the client.
"""

from __future__ import annotations

import asyncio
import random
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hiredis import pack_command

from sidecar.core.protocol.reply import ReplyDecoder
from sidecar.core.protocol.slots import SlotTable, slot
from sidecar.policy.fan_out import FANNING_OUT, Merge, Where, rule_of
from sidecar.policy.merging import aggregate, elements, is_error, merge, number, text_of, with_text
from sidecar.policy.merging_info import as_standalone
from sidecar.policy.one_node import OneNode
from sidecar.policy.scan_cursor import (
    SLOTS,
    STUCK,
    ByShard,
    BySlot,
    CursorError,
    Own,
    Page,
    Read,
    Step,
    both,
    joined,
    own_of,
)
from sidecar.proxy.cluster.placing import NO_CLUSTER, NOT_SERVED
from sidecar.proxy.io.client import Client
from sidecar.proxy.links.dedicated import WAIT_CHANNEL
from sidecar.proxy.links.errors import Refused, Unreachable, error_reply, reply_for
from sidecar.proxy.links.hello_reply import version_of
from sidecar.proxy.links.identity import NodeLinks
from sidecar.proxy.links.node import Nodes
from sidecar.proxy.links.shared import SharedLinks
from sidecar.proxy.tasks import Tasks

WAIT_PUBLISH = pack_command((b"PUBLISH", WAIT_CHANNEL, b""))
FOR_EVER = 1e9  # seconds
# With which the names of the sidecar's own channels begin.
OWN_CHANNELS = b"sidecar:"
# Of PUBSUB: what tells names of channels.
NAMING = (b"channels", b"shardchannels")
# What a server has of the slots.
OWN = pack_command((b"CLUSTER", b"NODES"))
# Seconds until a client is told that its SCAN has not come on.
SLOT_MOVES = 0.02
DBSIZE = pack_command((b"DBSIZE",))
RANDOMKEY = pack_command((b"RANDOMKEY",))
BAD_CURSOR = error_reply("ERR", "invalid cursor")
# The sidecar serves them for one client, though some of them concern all shards.
SESSION_COMMANDS = frozenset(("client", "auth", "hello", "quit", "reset", "select", "exec"))
# Of CLUSTER: what the shard is asked that has the slot.
OF_A_SLOT = (b"countkeysinslot", b"getkeysinslot")
# Shards that one SCAN asks, as long as they have too little: a slot may be empty.
MOST_STEPS = 64
# Ranges of slots that one SCAN goes over: the loop is not to be held up.
MOST_PAGES = 1000
SCAN_COUNT = 10

Answered = Callable[[list[bytes]], object]


class FanOut:
    """`own` are the sidecar's own links to the home node. `as_cluster`: clients are shown a cluster
    of one node, not one server."""

    def __init__(
        self,
        nodes: Nodes,
        slots: Callable[[], SlotTable],
        own: NodeLinks,
        shared: SharedLinks,
        tasks: Tasks,
        doubt: Callable[[], None],
        hold: Callable[[], float],
        *,
        as_cluster: bool,
    ) -> None:
        self._nodes = nodes
        self._slots = slots
        self._own = own
        self._shared = shared
        self._tasks = tasks
        self._doubt = doubt
        self._hold = hold
        # Since when a client's SCAN has been at a cursor.
        self._stuck: dict[Client, tuple[int, float]] = {}
        self.as_cluster = as_cluster

    def serves(self, client: Client, name: bytes) -> bool:
        """Whether this is a command for `run`, and no session command of the client's."""
        word = name.lower().decode("latin-1")
        return client.dedicated is None and word in FANNING_OUT and word not in SESSION_COMMANDS

    def run(self, client: Client, args: Sequence[bytes], raw: bytes) -> None:
        """Serve the request at the head of this client."""
        name = args[0].lower().decode("latin-1")
        rule = rule_of(name, args[1].lower().decode("latin-1") if len(args) > 1 else "")
        if name == "cluster":
            self._cluster(client, args, raw)
        elif rule.where is Where.ALL:
            how = rule.merge
            self._ask(client, self._all(raw), lambda said: self._merged(client, how, args, said))
        elif rule.where is Where.REFUSED:
            text = f"{name} concerns one node of the cluster behind; connect to that node for it"
            client.refuse(error_reply("ERR", text))
        elif name == "scan" and len(args) > 1:
            self._scan(client, args)
        elif name == "debug":
            self._ask_owner(client, slot(args[2]) if len(args) > 2 else 0, raw)
        elif name == "randomkey" and len(args) == 1:
            self._ask(client, self._all(DBSIZE), lambda said: self._random_key(client, said))
        else:
            client.forward()

    def _merged(self, client: Client, how: Merge, args: Sequence[bytes], said: list[bytes]) -> None:
        reply = merge(how, said, args)
        if args[0].lower() == b"pubsub" and args[1].lower() in NAMING and not is_error(reply):
            reply = _of_clients(reply)
        if args[0].lower() == b"script" and not is_error(reply):
            self._learn(client, args)
        if args[0].lower() == b"info" and not is_error(reply) and not self.as_cluster:
            reply = with_text(reply, as_standalone(text_of(reply)))
        client.answer(reply)

    @staticmethod
    def _learn(client: Client, args: Sequence[bytes]) -> None:
        """All servers have done this with their scripts: the copies are to match."""
        scripts = client.plane.scripts
        assert scripts is not None
        if args[1].lower() == b"load":
            scripts.keep(args[2])
        elif args[1].lower() == b"flush":
            scripts.forget()

    def _cluster(self, client: Client, args: Sequence[bytes], raw: bytes) -> None:
        if not self.as_cluster:
            client.answer(NO_CLUSTER)
            return
        host, port = client.local[:2] if isinstance(client.local, tuple) else ("127.0.0.1", 0)
        proto = client.identity.login.proto
        said = OneNode(str(host), int(port), proto, client.encrypted).answer(list(args))
        if said is not None:
            client.answer(said)
        elif len(args) > 2 and args[1].lower() in OF_A_SLOT and args[2].isdigit():
            self._ask_owner(client, int(args[2]), raw)
        else:
            word = args[1].decode("latin-1")[:40] if len(args) > 1 else ""
            client.refuse(error_reply("ERR", f"CLUSTER {word} is not for the cluster of one node"))

    # Asking

    def _ask_owner(self, client: Client, number: int, request: bytes) -> None:
        """Have the request served by the shard that has this slot."""
        shard = self._slots().owner(number)
        if shard is None:
            client.refuse(NOT_SERVED)
        else:
            self._ask(client, [(shard, request)], lambda said: client.answer(said[0]))

    def _all(self, request: bytes) -> list[tuple[int, bytes]]:
        return [(shard, request) for shard in sorted(self._nodes.shards or ())]

    def _ask(
        self, client: Client, requests: Sequence[tuple[int, bytes]], answered: Answered
    ) -> None:
        """Send requests to shards, and call `answered` with their replies in the same order."""
        if not requests:
            client.refuse(error_reply("CLUSTERDOWN", "no shard of the cluster is known"))
            return

        def all_said(data: bytes) -> None:
            replies = [raw for kind, raw in ReplyDecoder().feed(data) if kind == "reply"]
            if len(replies) == len(requests):
                answered(replies)
            else:
                client.refuse_last(replies[0] if replies else NO_CLUSTER)

        if not client.ask_shards(requests, all_said):
            wanted = {shard for shard, _ in requests}
            client.task = self._tasks.spawn(self._bring_up(client, wanted))

    async def _bring_up(self, client: Client, numbers: set[int]) -> None:
        """Connect the client's links to these shards, and decide on its request once more."""
        error = None
        for each in sorted(numbers):
            node = (self._nodes.shards or {}).get(each)
            if node is not None:
                error = error or await self._shared.bring_up(client.identity.to(node))
        client.task = None
        if client.closed:
            return
        if error is not None:
            client.refuse(error)
        else:
            client.resume()

    # WAIT

    async def wait(self, client: Client, args: Sequence[bytes], raw: bytes) -> None:
        """Serve WAIT or WAITAOF: the least that any shard says. A message that is published before
        it stands behind the client's own writes, so each shard's answer covers those (as
        links/dedicated.py does it with one server)."""
        within = int(args[-1]) / 1000 if args[-1].isdigit() and len(args[-1]) < 10 else 0.0
        try:
            said = await asyncio.gather(
                *(
                    self._wait_at(client.identity.to(node), raw, within)
                    for node in (self._nodes.shards or {}).values()
                )
            )
        except (Refused, Unreachable) as error:
            client.task = None
            client.refuse(reply_for(error))
            return
        client.task = None
        if not client.closed:
            client.answer(merge(rule_of(args[0].lower().decode("latin-1")).merge, said, args))

    async def _wait_at(self, links: NodeLinks, raw: bytes, within: float) -> bytes:
        connection = await links.node.dialer.patiently(links.open)
        try:
            seconds = within + connection.target.connect_timeout if within else FOR_EVER
            _, said = await connection.ask(WAIT_PUBLISH, raw, within=seconds)
        finally:
            connection.close()
        return said

    # RANDOMKEY and SCAN

    def _random_key(self, client: Client, said: list[bytes]) -> None:
        """Ask a shard that has as good a chance as it has keys."""
        if any(map(is_error, said)):
            client.answer(next(filter(is_error, said)))
            return
        shards = sorted(self._nodes.shards or ())
        sizes = [number(reply) for reply in said]
        chosen = shards[0]
        if any(sizes) and len(sizes) == len(shards):
            (chosen,) = random.choices(shards, sizes)
        self._ask(client, [(chosen, RANDOMKEY)], lambda key: client.answer(key[0]))

    def _scan(self, client: Client, args: Sequence[bytes]) -> None:
        cursor = args[1]
        if not cursor.isdigit() or len(cursor) > 20:
            client.answer(BAD_CURSOR)
            return
        slots = self._slots()
        walk: BySlot | ByShard
        if version_of(self._own.greeted.hello if self._own.greeted else None).scans_by_slot:
            walk = BySlot(slots.owner, self._mark)
        else:
            shards = tuple(sorted(self._nodes.shards or ()))
            walk = ByShard(shards, slots.changes + sum(map(self._mark, shards)))
        self._walk(_Scan(client, args, _count_of(args), walk), int(cursor))

    def _mark(self, shard: int) -> int:
        """What tells a shard's server from others."""
        node = (self._nodes.shards or {}).get(shard)
        return zlib.crc32(str(node.dialer.target).encode()) if node is not None else 0

    def _walk(self, scan: _Scan, cursor: int) -> None:
        """Go on until there are as many keys as were asked for: with what shards have said, and by
        asking the shard that is next."""
        try:
            step = scan.walk.step(cursor)
            while (read := scan.read.get(step.shard)) is not None and read.covers(step):
                page = scan.take(step, read)
                if scan.over(page):
                    scan.client.answer(_page(page.cursor, scan.keys))
                    return
                step = scan.walk.step(page.cursor)
        except CursorError as error:
            scan.client.refuse(error_reply("ERR", str(error)))
            return
        request = pack_command((scan.args[0], b"%d" % step.cursor, *scan.args[2:]))
        self._ask(
            scan.client,
            [(step.shard, each) for each in (OWN, request, OWN)],
            lambda said: self._walked(scan, step, said),
        )

    def _walked(self, scan: _Scan, step: Step, said: list[bytes]) -> None:
        """The shard has answered this step."""
        client = scan.client
        before, reply, after = said
        if is_error(reply):
            client.answer(reply)
            return
        scan.asked += 1
        keys = elements(elements(reply)[1])
        own = self._own_at_both(step, before, after)
        by_slot = isinstance(scan.walk, BySlot)
        read = Read(
            step, _cursor_in(reply), own, [(slot(text_of(k)) if by_slot else 0, k) for k in keys]
        )
        if by_slot:
            scan.read[step.shard] = read
        try:
            page = scan.take(step, read)
        except CursorError as error:
            client.refuse(error_reply("ERR", str(error)))
            return
        if page.came_on:
            self._stuck.pop(client, None)
            if scan.over(page):
                client.answer(_page(page.cursor, scan.keys))
            else:
                self._walk(scan, page.cursor)
            return
        # The slot is on its way, or is known wrongly: that is over in a moment.
        self._doubt()
        if self._is_stuck(client, page.cursor):
            client.refuse(error_reply("ERR", STUCK % page.first))
        else:
            client.task = self._tasks.spawn(_answer_later(client, _page(page.cursor, scan.keys)))

    def _is_stuck(self, client: Client, cursor: int) -> bool:
        """Whether a walk has not come on from here for as long as requests may wait."""
        now = time.monotonic()
        self._stuck = {each: at for each, at in self._stuck.items() if not each.closed}
        before, since = self._stuck.get(client, (cursor, now))
        if before != cursor:
            since = now
        self._stuck[client] = (cursor, since)
        if now - since < self._hold():
            return False
        del self._stuck[client]
        return True

    def _own_at_both(self, step: Step, before: bytes, after: bytes) -> Own:
        """What the shard had as a whole before it scanned, and after. A user who may not ask for
        it has what the sidecar knows."""
        try:
            return both(
                *(own_of(text_of(said).decode("utf-8", "replace")) for said in (before, after))
            )
        except (ValueError, IndexError):
            slots = self._slots()
            having = [(n, n) for n in range(SLOTS) if slots.owner(n) == step.shard]
            return Own(joined(having), frozenset())


@dataclass
class _Scan:
    """One SCAN of a client: what shards have said (only their latest word), and the keys so far."""

    client: Client
    args: Sequence[bytes]
    wanted: int
    walk: BySlot | ByShard
    read: dict[int, Read] = field(default_factory=dict)
    keys: list[bytes] = field(default_factory=list)
    asked: int = 0
    pages: int = 0

    def take(self, step: Step, read: Read) -> Page:
        """The page that this step brings. Raises CursorError."""
        page = self.walk.after(step, read.answered, read.own)
        self.keys += read.within(page)
        self.pages += 1
        return page

    def over(self, page: Page) -> bool:
        """Whether the client is to be answered now."""
        return (
            not page.cursor
            or len(self.keys) >= self.wanted
            or self.asked >= MOST_STEPS
            or self.pages >= MOST_PAGES
        )


def _of_clients(reply: bytes) -> bytes:
    """The channels that PUBSUB tells, without those that the sidecar itself listens to."""
    names = elements(reply)
    return aggregate(
        reply[:1], [name for name in names if not text_of(name).startswith(OWN_CHANNELS)]
    )


async def _answer_later(client: Client, reply: bytes) -> None:
    await asyncio.sleep(SLOT_MOVES)
    client.task = None
    client.answer(reply)


def _count_of(args: Sequence[bytes]) -> int:
    """How many keys a SCAN asks for in one go: COUNT, or as many as a server gives by itself."""
    count = SCAN_COUNT
    for option, value in zip(args[2::2], args[3::2], strict=False):
        if option.lower() == b"count" and value.isdigit():
            count = int(value)
    return count


def _page(cursor: int, keys: Sequence[bytes]) -> bytes:
    """A reply to SCAN."""
    text = b"%d" % cursor
    return b"*2\r\n$%d\r\n%b\r\n*%d\r\n%b" % (len(text), text, len(keys), b"".join(keys))


def _cursor_in(reply: bytes) -> int:
    """The cursor that a reply to SCAN has."""
    cursor, _ = elements(reply)
    return int(cursor.split(b"\r\n")[1])
