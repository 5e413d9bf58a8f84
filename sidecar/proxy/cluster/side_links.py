"""Sharded channels of one client at several shards: one side link for each further shard.

A client's own link (subscribers.py) leads to one node. A channel whose slot is at another one is
subscribed on a side link to that, which gives the client its messages (io/side_link.pyx). What the
client is told of it is made here: confirmations have the sum of the client's sharded channels, as
one server would count them. Other commands of a subscriber, which RESP3 allows, go down a side link
as well if its own server redirects them. A side link ends with its last channel, or with the last
subscription of the client. When it is lost, or a slot leaves its server, its channels are
subscribed elsewhere, and the client is told nothing.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from hiredis import pack_command

from sidecar.core.cluster.subscriptions import Subscriptions
from sidecar.core.link.pending import UNCERTAIN_REPLY
from sidecar.core.protocol.slots import SlotTable, slot
from sidecar.proxy.cluster.placing import NOT_SERVED
from sidecar.proxy.io.client import Client
from sidecar.proxy.io.side_link import SideLink
from sidecar.proxy.io.upstream import Upstream
from sidecar.proxy.links.errors import Refused, Unreachable
from sidecar.proxy.links.identity import NodeLinks
from sidecar.proxy.links.node import Node, Nodes
from sidecar.proxy.tasks import Tasks

# Seconds between two attempts.
AGAIN = 0.05
# Answers to SSUBSCRIBE of a server that cannot serve it, or not now.
NOT_HERE = (b"-MOVED", b"-ASK", b"-TRYAGAIN", b"-CLUSTERDOWN", b"-LOADING", b"-MASTERDOWN")

ASKING = pack_command((b"ASKING",))

Named = Callable[[Client, Upstream], Sequence[bytes]]


@dataclass
class _Asked:
    """A request under way on a side link: channels that are not confirmed; None: it has one reply.
    `told`: the client has asked for channels, and is told of each. The result is the reply; of
    channels the server's error, or empty."""

    names: list[bytes] | None
    told: bool
    answer: asyncio.Future[bytes]


@dataclass
class _Side:
    """A side link, the channels that it has, and what is under way on it."""

    up: SideLink
    channels: set[bytes] = field(default_factory=set)
    asked: deque[_Asked] = field(default_factory=deque)


class SideLinks:
    """The side links of all clients. `named` makes the requests that name a client on a new link,
    `hold` is how long a client may wait for a server, in seconds; `doubt` is called when the slots
    may be known wrongly, `restored` when channels have been subscribed elsewhere."""

    def __init__(
        self,
        nodes: Nodes,
        slots: Callable[[], SlotTable],
        tasks: Tasks,
        named: Named,
        hold: Callable[[], float],
        doubt: Callable[[], None],
        restored: Callable[[], None],
    ) -> None:
        self._nodes = nodes
        self._slots = slots
        self._tasks = tasks
        self._named = named
        self._hold = hold
        self._doubt = doubt
        self._restored = restored
        self._of: dict[Client, dict[int, _Side]] = {}

    # What a client asks for

    def refused(self, client: Client, main: Upstream) -> None:
        """The server of the client's own link has not got the slot of its oldest request."""
        subscriptions = client.subscriptions
        assert subscriptions is not None
        word, *names = words = subscriptions.due_requests[0]
        if word.upper() != b"SUNSUBSCRIBE":
            client.task = self._tasks.spawn(self._serve(client, main, subscriptions, words))
            return
        for name in names:
            subscriptions.sharded.discard(name)
            subscriptions.away.discard(name)
            client.say(subscriptions.confirmation(b"sunsubscribe", name))
        self._unsubscribe(client, names)
        main.take(subscriptions.resolve())
        client.resume()

    async def _serve(
        self, client: Client, main: Upstream, subscriptions: Subscriptions, words: list[bytes]
    ) -> None:
        if words[0].upper() == b"SSUBSCRIBE":
            said = await self._subscribe(client, subscriptions, words[1:], told=True)
        else:
            said = await self._pass_on(client, main, subscriptions, words)
        client.task = None
        if client.closed or client.subscriptions is not subscriptions:
            return
        client.say(said)
        main.take(subscriptions.resolve())
        client.resume()

    async def _pass_on(
        self, client: Client, main: Upstream, subscriptions: Subscriptions, words: list[bytes]
    ) -> bytes:
        """The reply to a command that the server of the client's own link has redirected, from
        where that points, or the latest error within the time that a client may wait."""
        said, again = subscriptions.refusal or b"", subscriptions.may_repeat
        deadline = time.monotonic() + self._hold()
        while not client.closed and client.subscriptions is subscriptions:
            number, ask = self._slots().follow(said) or (None, False)
            # Without a number it was not to be served just now.
            node = self._node(number) if number is not None else main.owner.node
            try:
                if node is not None and subscriptions.share():
                    side = await self._side(client, subscriptions, node)
                    try:
                        said = await _request(side, words, ask)
                    except Unreachable:
                        if not again:
                            return UNCERTAIN_REPLY
                        raise
                    if not said.startswith(NOT_HERE):
                        return said  # the link stays: there may be more for it
            except Refused as refused:
                return refused.reply
            except Unreachable:
                pass
            if time.monotonic() >= deadline:
                return said
            self._doubt()
            await asyncio.sleep(AGAIN * (1 + random.random()))
        return b""

    def restore(self, client: Client, names: Iterable[bytes]) -> None:
        """These channels, which are away, are on no link: subscribe to them."""
        wanted = list(names)
        if wanted and client.subscriptions is not None:
            self._tasks.spawn(self._restore(client, client.subscriptions, wanted))

    async def _restore(
        self, client: Client, subscriptions: Subscriptions, names: list[bytes]
    ) -> None:
        for name in names:
            if name not in subscriptions.away:
                continue
            error = await self._subscribe(client, subscriptions, [name], told=False)
            if client.closed or client.subscriptions is not subscriptions:
                return
            if error:
                client.finish()
                return
        self._restored()

    async def _subscribe(
        self, client: Client, subscriptions: Subscriptions, names: list[bytes], *, told: bool
    ) -> bytes:
        """Subscribe to channels of one slot, within the time that a client may wait. The error that
        the client is to get; empty: there is none, or the client is no subscriber any more."""
        deadline = time.monotonic() + self._hold()
        error = NOT_SERVED
        while not client.closed and client.subscriptions is subscriptions:
            node = self._node(self._slots().owner(slot(names[0])))
            try:
                if node is not None and subscriptions.share():
                    side = await self._side(client, subscriptions, node)
                    error = await _ask(side, names, told)
                    if not error.startswith(NOT_HERE):
                        self._end_if_unused(client, side)
                        return error
                    self._slots().follow(error)
            except Refused as refused:
                return refused.reply
            except Unreachable:
                pass
            if time.monotonic() >= deadline:
                return error
            self._doubt()
            await asyncio.sleep(AGAIN * (1 + random.random()))
        return b""

    async def _side(self, client: Client, subscriptions: Subscriptions, node: Node) -> _Side:
        """The client's side link to this node. Raises Refused, Unreachable."""
        found = self._link(client, node)
        if found is not None:
            return found
        links: NodeLinks = client.identity.to(node)
        connection = await links.open()
        up = SideLink(client.plane, links, client)
        assert node.number is not None
        up.lead_to_shard(node.number)
        up.target = connection.target
        try:
            await connection.ask(*self._named(client, up))
        except BaseException:
            connection.close()
            raise
        found = self._link(client, node)
        if found is not None or client.closed or client.subscriptions is not subscriptions:
            connection.close()
            if found is None:
                raise Unreachable("the client has gone")
            return found
        side = self._of.setdefault(client, {})[node.number] = _Side(up)
        links.attach(up, connection)
        return side

    def _node(self, number: int | None) -> Node | None:
        """The node of this shard; None: there is none."""
        return None if number is None else (self._nodes.shards or {}).get(number)

    def _link(self, client: Client, node: Node) -> _Side | None:
        return self._of.get(client, {}).get(-1 if node.number is None else node.number)

    # What side links tell

    def said(self, client: Client, up: SideLink, frame: bytes) -> None:
        """A server has sent what is no message."""
        side = next((each for each in self._of.get(client, {}).values() if each.up is up), None)
        subscriptions = client.subscriptions
        if side is None or subscriptions is None:
            return
        pushes = client.identity.login.proto == 3
        word, name = _words(frame) if frame[:1] == b">" or not pushes else (b"", b"")
        if word == b"sunsubscribe":
            if name in side.channels:  # by itself: the slot has left it
                side.channels.discard(name)
                self._doubt()
                self._end_if_unused(client, side)
                self.restore(client, [name])
        elif side.asked and side.asked[0].names is None:
            _settle(side.asked.popleft(), frame)
        elif side.asked and word == b"ssubscribe" and name in (side.asked[0].names or ()):
            self._confirmed(client, side, subscriptions, name)
        elif side.asked and frame[:1] == b"-":
            _settle(side.asked.popleft(), frame)

    @staticmethod
    def _confirmed(client: Client, side: _Side, subscriptions: Subscriptions, name: bytes) -> None:
        asked = side.asked[0]
        assert asked.names is not None
        asked.names.remove(name)
        if asked.told:
            subscriptions.sharded.add(name)
            subscriptions.away.add(name)
            client.say(subscriptions.confirmation(b"ssubscribe", name))
        if name in subscriptions.away:
            side.channels.add(name)
        else:  # it was unsubscribed meanwhile
            side.up.send(pack_command((b"SUNSUBSCRIBE", name)))
        if not asked.names:
            side.asked.popleft()
            _settle(asked, b"")

    def lost(self, client: Client, up: SideLink) -> None:
        """A side link has ended without our doing."""
        sides = self._of.get(client, {})
        for number, side in list(sides.items()):
            if side.up is up:
                del sides[number]
                self._doubt()
                _fail(side)
                self.restore(client, side.channels)

    # The end of side links

    def _unsubscribe(self, client: Client, names: Iterable[bytes]) -> None:
        for side in list(self._of.get(client, {}).values()):
            for name in side.channels.intersection(names):
                side.channels.discard(name)
                side.up.send(pack_command((b"SUNSUBSCRIBE", name)))
            self._end_if_unused(client, side)

    def _end_if_unused(self, client: Client, side: _Side) -> None:
        if not side.channels and not side.asked:
            sides = self._of.get(client, {})
            for number in [number for number, each in sides.items() if each is side]:
                del sides[number]
            side.up.close()
            if not sides:
                self._of.pop(client, None)

    def see_to(self, client: Client) -> None:
        """End the links that have no channel of the client's any more."""
        away = client.subscriptions.away if client.subscriptions is not None else set()
        for side in list(self._of.get(client, {}).values()):
            side.channels &= away
            if client.subscriptions is None:
                side.asked.clear()
            self._end_if_unused(client, side)

    def leave(self, client: Client, node: Node) -> None:
        """The client's own link is to lead to this node: it needs none beside it."""
        side = self._of.get(client, {}).pop(-1 if node.number is None else node.number, None)
        if side is not None:
            _fail(side)
            side.up.close()

    def missing(self, client: Client, names: Iterable[bytes]) -> list[bytes]:
        """Those of these channels that no side link has."""
        sides = self._of.get(client, {}).values()
        return [name for name in names if not any(name in side.channels for side in sides)]

    def gone(self, client: Client) -> None:
        """The client has gone."""
        for side in self._of.pop(client, {}).values():
            _fail(side)
            side.up.close()


async def _ask(side: _Side, names: list[bytes], told: bool) -> bytes:
    """Subscribe on a side link: empty, or the server's error. Raises Unreachable."""
    asked = _Asked(list(names), told, asyncio.get_running_loop().create_future())
    side.asked.append(asked)
    side.up.send(pack_command((b"SSUBSCRIBE", *names)))
    return await asked.answer


async def _request(side: _Side, words: Sequence[bytes], ask: bool) -> bytes:
    """The reply to any command on a side link, with `ask` behind ASKING. Raises Unreachable."""
    answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    request = pack_command(tuple(words))
    if ask:
        side.asked.append(_Asked(None, False, asyncio.get_running_loop().create_future()))
        request = ASKING + request
    side.asked.append(_Asked(None, False, answer))
    side.up.send(request)
    return await answer


def _settle(asked: _Asked, answer: bytes) -> None:
    if not asked.answer.done():
        asked.answer.set_result(answer)


def _fail(side: _Side) -> None:
    """Its link has ended: what was under way is to be asked for again."""
    while side.asked:
        asked = side.asked.popleft()
        if not asked.answer.done():
            asked.answer.set_exception(Unreachable("the link has ended"))


def _words(frame: bytes) -> tuple[bytes, bytes]:
    """The first two words of a confirmation; empty if it is none."""
    parts = frame.split(b"\r\n", 2)
    if len(parts) < 3 or frame[:2] not in (b"*3", b">3") or parts[1][:1] != b"$":
        return b"", b""
    word = parts[2][: int(parts[1][1:])]
    size, _, rest = parts[2][len(word) + 2 :].partition(b"\r\n")
    return word, rest[: int(size[1:])] if size[:1] == b"$" and size[1:].isdigit() else b""
