"""The CLIENT command: names, ids, the list of clients, and commands about other clients.

Clients see ids and addresses of the sidecar, because the server knows only its links. A command
that names one of our clients is served here, or sent to the server with the id of that client's
dedicated link.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from hiredis import pack_command

from sidecar.proxy.io.client import PINNED_MODE, Client
from sidecar.proxy.links.dedicated import DedicatedLinks
from sidecar.proxy.links.greeting import ServerConnection
from sidecar.proxy.links.identity import NodeLinks
from sidecar.proxy.links.node import Nodes
from sidecar.proxy.links.shared import SharedLinks
from sidecar.proxy.session import client_list
from sidecar.proxy.session.client_ids import ClientIds
from sidecar.proxy.session.client_list import Line, Listed, printable_address
from sidecar.proxy.session.hello import is_plain_word
from sidecar.proxy.session.names import ClientNames
from sidecar.proxy.session.passthrough import Change, PassThrough, unchanged
from sidecar.proxy.tasks import Tasks

OK = b"+OK\r\n"
# Subcommands that set state of the connection: the client is pinned.
PINNING = frozenset({b"TRACKING", b"REPLY", b"CACHING", b"NO-EVICT", b"NO-TOUCH", b"CAPA",
                     b"IMPORT-SOURCE"})  # fmt: skip
# Sent to the server on a connection of their own.
PASSED_THROUGH = frozenset({b"KILL", b"UNBLOCK", b"PAUSE", b"UNPAUSE"})


class ClientCommands:
    """Serves CLIENT. `link_ids` returns the ids, on the server, of this sidecar's connections."""

    def __init__(
        self,
        nodes: Nodes,
        ids: ClientIds,
        names: ClientNames,
        shared: SharedLinks,
        dedicated: DedicatedLinks,
        pass_through: PassThrough,
        tasks: Tasks,
        link_ids: Callable[[], set[int]],
    ) -> None:
        self._nodes = nodes
        self._ids = ids
        self._names = names
        self._shared = shared
        self._dedicated = dedicated
        self._pass_through = pass_through
        self._tasks = tasks
        self._link_ids = link_ids

    def run(self, client: Client, args: Sequence[bytes], raw: bytes) -> None:
        """Serve a CLIENT command of a client on a shared link."""
        sub = args[1].upper() if len(args) > 1 else b""
        greeted = self._links_of(client).greeted
        if greeted is None or greeted.unauthenticated or greeted.refused_name is not None:
            self._forward_when_up(client)
        elif sub == b"ID" and len(args) == 2:
            client.answer(b":%d\r\n" % client.id)
        elif sub == b"GETNAME" and len(args) == 2:
            client.answer(_name_of(client))
        elif sub == b"SETNAME" and len(args) == 3 and is_plain_word(args[2]):
            self._names.set_name(client, args[2])
            client.answer(OK)
        elif sub == b"SETINFO" and len(args) == 4 and self._names.set_info(client, *args[2:]):
            client.answer(OK)
        elif sub == b"LIST":
            self._list(client, args, raw)
        elif sub == b"INFO" and len(args) == 2:
            self._info(client, raw)
        elif sub == b"TRACKING" and (at := _place_of_redirect(args)):
            client.task = self._tasks.spawn(self._redirect(client, args, at))
        elif sub in PINNING and not (sub == b"REPLY" and args[2:3] == [b"ON"]):
            self._dedicated.give_one(client, self._nodes.home, pinned=True)
        elif sub in PASSED_THROUGH:
            self._pass_on(client, args)
        else:
            client.forward()

    def run_pinned(self, client: Client, args: Sequence[bytes]) -> None:
        """Pass on a CLIENT command of a pinned client, with our ids translated."""
        if args[1].upper() == b"TRACKING" and (at := _place_of_redirect(args)):
            client.task = self._tasks.spawn(self._redirect(client, args, at))
        else:
            client.pass_on(pack_command(tuple(self._translate(args))))

    def _links_of(self, client: Client) -> NodeLinks:
        links: NodeLinks = client.identity.to(self._nodes.home)
        return links

    def _forward_when_up(self, client: Client) -> None:
        """Send the request down the shared link once that is up."""
        links = self._links_of(client)
        if links.shared.up or links.shared.refusing:
            client.forward()
        else:
            self._shared.wait(client, links)

    # Other clients

    def _pass_on(self, client: Client, args: Sequence[bytes]) -> None:
        """Serve KILL, UNBLOCK, PAUSE, UNPAUSE; KILL and UNBLOCK may name one of our clients."""
        change: Change = unchanged
        if args[1].upper() == b"KILL":
            other = self._named(args)
            if other is not None:
                _kill(client, other, skip_me=len(args) > 3)
                return
            if b"USER" in (words := [a.upper() for a in args[:-1]]):
                user = args[words.index(b"USER") + 1]

                def change(reply: bytes, _: ServerConnection) -> bytes:
                    self._close_clients_of(user, client)
                    return reply

        request = pack_command(tuple(self._translate(args)))
        self._pass_through.ask(client, request, change)

    def _close_clients_of(self, user: bytes, asking: Client) -> None:
        """The server closed this user's links: close the clients, too."""
        for other in self._ids:
            if other is not asking and (other.identity.login.user or b"default") == user:
                other.close("killed")

    def _named(self, args: Sequence[bytes]) -> Client | None:
        """Our client that a CLIENT KILL with a single filter means, if any."""
        if len(args) == 3:
            kind, value = b"ADDR", args[2]
        elif len(args) == 4:
            kind, value = args[2].upper(), args[3]
        else:
            return None
        if kind == b"ID":
            return self._client_of(value)
        if kind == b"ADDR":
            return next((c for c in self._ids if printable_address(c.peer) == value), None)
        return None

    def _client_of(self, number: bytes) -> Client | None:
        """Our client with this id; None if there is none, or this is no id."""
        return self._ids.get(int(number)) if number.isdigit() and len(number) < 19 else None

    def _translate(self, args: Sequence[bytes]) -> list[bytes]:
        """Replace our ids in the arguments by those of dedicated links on the server.

        The id of a client without a dedicated link becomes 0, which no server uses.
        """
        changed = list(args)
        words = [a.upper() for a in args]
        at = None
        if words[1] == b"UNBLOCK" and len(args) > 2:
            at = 2
        else:
            mark = {b"KILL": b"ID", b"TRACKING": b"REDIRECT"}.get(words[1], b"")
            if mark in words[2:-1]:
                at = words.index(mark, 2) + 1
        if at is not None and (other := self._client_of(args[at])) is not None:
            up = other.dedicated
            changed[at] = b"%d" % (up.server_id if up is not None else 0)
        return changed

    async def _redirect(self, client: Client, args: Sequence[bytes], at: int) -> None:
        """Serve CLIENT TRACKING ... REDIRECT, whose argument at `at` is the id of a client.

        The server must know the id, so that client gets a dedicated link first.
        """
        other = self._client_of(args[at])
        if other is not None and other is not client and other.dedicated is None:
            await self._dedicated.pin(other, self._nodes.home)
        client.task = None
        if client.closed:
            return
        if client.mode == PINNED_MODE:
            client.pass_on(pack_command(tuple(self._translate(args))))
        else:
            # Once pinned, the client runs this command again, and the id is translated then.
            self._dedicated.give_one(client, self._nodes.home, pinned=True)

    # The list of clients

    def _list(self, client: Client, args: Sequence[bytes], raw: bytes) -> None:
        """CLIENT LIST, with the clients of this sidecar in place of its links."""
        words = [a.upper() for a in args[2:4]]
        wanted: set[int] | None = None
        if words[:1] == [b"ID"] and len(args) > 3 and all(a.isdigit() for a in args[3:]):
            wanted = {int(a) for a in args[3:]}
            raw = pack_command((b"CLIENT", b"LIST"))
        normal = words[:1] != [b"TYPE"] or words[1:] == [b"NORMAL"]

        def ours(reply: bytes, connection: ServerConnection) -> bytes:
            asker = connection.server_id
            return client_list.rewrite(reply, lambda lines: with_ours(lines, asker))

        def with_ours(lines: Mapping[int, Line], asker: int) -> Iterable[Line]:
            listed = [self._listed(c, c is client) for c in self._ids] if normal else []
            for line in client_list.merge(lines, self._link_ids(), listed, asker):
                if wanted is None or int(line[b"id"]) in wanted:
                    yield line

        self._pass_through.ask(client, raw, ours)

    def _info(self, client: Client, raw: bytes) -> None:
        """CLIENT INFO: the line of a new connection, changed to this client's."""

        def own(lines: Mapping[int, Line]) -> list[Line]:
            return [
                client_list.own_line(line, self._listed(client, False)) for line in lines.values()
            ]

        def change(reply: bytes, _: ServerConnection) -> bytes:
            return client_list.rewrite(reply, own)

        self._pass_through.ask(client, raw, change)

    def _listed(self, client: Client, asking: bool) -> Listed:
        """The facts for a client's line. `asking`: this client sent the request."""
        up = client.dedicated or self._links_of(client).shared
        return Listed(
            client.id,
            up.server_id,
            printable_address(client.peer),
            client.name,
            client.lib_name,
            client.lib_version,
            int(time.monotonic() - client.since),
            asking,
        )


def _place_of_redirect(args: Sequence[bytes]) -> int:
    """The index of the id after REDIRECT; 0 if there is none."""
    words = [a.upper() for a in args[:-1]]
    return words.index(b"REDIRECT") + 1 if b"REDIRECT" in words else 0


def _name_of(client: Client) -> bytes:
    if client.name:
        return b"$%d\r\n%b\r\n" % (len(client.name), client.name)
    return b"_\r\n" if client.identity.login.proto == 3 else b"$-1\r\n"


def _kill(client: Client, other: Client, *, skip_me: bool) -> None:
    """Kill a client of ours. The old form of KILL (an address alone) answers OK, the new a
    count."""
    if other is not client:
        other.close("killed")
        client.answer(b":1\r\n" if skip_me else OK)
    elif skip_me:
        client.answer(b":0\r\n")
    else:
        client.skip()
        client.say(OK)
        client.finish()
