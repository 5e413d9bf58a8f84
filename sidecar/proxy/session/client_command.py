"""The CLIENT command: names, ids, the list of clients, and commands about other clients.

Clients see ids and addresses of the sidecar, because the server knows only its links. What the
sidecar answers by itself, the server is asked first, down the client's link: it judges whether the
user may do that. On a shared link the sidecar's own names stand in the place of the client's there.
A command that names one of our clients is served here, or sent to the server with the id of that
client's dedicated link.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain

from hiredis import pack_command

from sidecar.policy.fan_out import Merge
from sidecar.policy.merging import merge
from sidecar.proxy.io.client import PINNED_MODE, Client
from sidecar.proxy.io.upstream import Upstream
from sidecar.proxy.links.dedicated import DedicatedLinks
from sidecar.proxy.links.errors import error_reply
from sidecar.proxy.links.greeting import NAME, is_error
from sidecar.proxy.links.hello_reply import version_of
from sidecar.proxy.links.identity import NodeLinks
from sidecar.proxy.links.node import Nodes
from sidecar.proxy.links.target import Target
from sidecar.proxy.session import client_filters, client_list, in_exec
from sidecar.proxy.session.asking import answer_if_allowed, ask
from sidecar.proxy.session.client_ids import NOBODY, ClientIds
from sidecar.proxy.session.client_kill import Asker, ClientKill
from sidecar.proxy.session.client_list import Line, Listed, addresses_of, printable_address
from sidecar.proxy.session.hello import is_plain_word
from sidecar.proxy.session.link_ids import LinkIds, place_of_redirect
from sidecar.proxy.session.names import ClientNames
from sidecar.proxy.session.others import Connections, Crowd, Others
from sidecar.proxy.session.passthrough import PassThrough
from sidecar.proxy.tasks import Tasks

OK = b"+OK\r\n"
UNKNOWN = b"unknown"  # what the command table calls what it does not have
# Subcommands that set state of the connection: the client gets a link for good.
KEEPING = frozenset({b"TRACKING", b"CACHING", b"NO-EVICT", b"NO-TOUCH", b"CAPA", b"IMPORT-SOURCE"})
# Sent to the server on a connection of their own.
PASSED_THROUGH = frozenset({b"UNBLOCK", b"PAUSE", b"UNPAUSE"})
# Of these, on a cluster: to all primaries, as they are about all clients.
TO_ALL = frozenset({b"PAUSE", b"UNPAUSE"})
# Their replies have the id of the client that gets the invalidations, as the server numbers it.
TELLING_REDIRECT = frozenset({b"GETREDIR", b"TRACKINGINFO"})
# The sidecar itself hears what the server announces of its maintenance, and acts on it: a client's
# connection is not moved. ON is sent as OFF, which only a server that knows the request accepts.
ANNOUNCEMENTS = b"MAINT_NOTIFICATIONS"
# Their arguments may name clients.
TRANSLATED = frozenset({b"KILL", b"UNBLOCK"})
_REDIRECT = re.compile(rb"(?:\A|redirect\r\n):(\d+)\r\n")
_OWN_NAMES = {b"LIB-NAME": NAME, b"LIB-VER": b"-"}


NOT_ON_A_CLUSTER = error_reply(
    "ERR",
    "this changes one connection to a server, and behind a cluster clients have none of their own",
)


class ClientCommands:
    """Serves CLIENT. `link_ids` returns the ids, on the server, of this sidecar's lasting
    connections."""

    def __init__(
        self,
        nodes: Nodes,
        ids: ClientIds,
        names: ClientNames,
        dedicated: DedicatedLinks,
        pass_through: PassThrough,
        tasks: Tasks,
        link_ids: Callable[[], Iterable[tuple[Target | None, int]]],
        others: Others | None = None,
    ) -> None:
        self._nodes = nodes
        self._ids = ids
        self._translation = LinkIds(nodes, ids)
        self._names = names
        self._dedicated = dedicated
        self._pass_through = pass_through
        self._tasks = tasks
        self._link_ids = link_ids
        self._others = others
        self._kill = ClientKill(ids, pass_through, self._all_lines, others)

    def run(self, client: Client, args: Sequence[bytes], raw: bytes) -> None:
        """Serve a CLIENT command of a client whose replies are matched."""
        sub = args[1].upper() if len(args) > 1 else b""
        if client.queued is not None:
            self._run_in_multi(client, sub, args, raw)
        elif sub == b"ID" and len(args) == 2:
            answer_if_allowed(client, raw, lambda: b":%d\r\n" % client.id)
        elif sub == b"GETNAME" and len(args) == 2:
            self._get_name(client, raw)
        elif sub in (b"SETNAME", b"SETINFO"):
            self._set(client, sub, args, raw)
        elif sub == b"LIST":
            self._list(client, args, raw)
        elif sub == b"INFO" and len(args) == 2:
            self._info(client, raw)
        elif self._nodes.shards is not None and sub in KEEPING:
            self._refuse_to_keep(client, sub, args)
        elif sub == b"TRACKING" and (at := place_of_redirect(args)):
            client.task = self._tasks.spawn(self._redirect(client, args, at))
        elif sub == ANNOUNCEMENTS:
            ask(client, _without_announcements(args), client.answer)
        elif sub in KEEPING:
            self._keep_and_send(client, raw)
        elif sub == b"KILL":
            self._kill.run(client, args, raw)
        elif sub in TO_ALL and self._nodes.shards is not None:
            self._pass_through.ask_shards(client, raw, lambda said: merge(Merge.FIRST, said))
        elif sub in PASSED_THROUGH:
            self._with_others(
                client,
                self._translation.names_other(args),
                lambda crowds: self._pass_through_translated(client, args, crowds),
            )
        elif sub in TELLING_REDIRECT and client.kept:
            ask(client, raw, lambda said: client.answer(self._with_our_id(client, said)))
        else:
            client.forward()

    def run_pinned(self, client: Client, args: Sequence[bytes], raw: bytes) -> None:
        """Pass on a CLIENT command of a pinned client, with our ids translated if it knows any."""
        if len(args) > 2 and args[1].upper() == ANNOUNCEMENTS:
            client.pass_on(_without_announcements(args))
        elif len(args) < 3 or not client.knows_our_ids:
            client.pass_on(raw)
        elif args[1].upper() == b"TRACKING" and (at := place_of_redirect(args)):
            client.task = self._tasks.spawn(self._redirect(client, args, at))
        else:
            self._with_others(
                client,
                self._translation.names_other(args),
                lambda crowds: client.pass_on(self._translated(client, args, crowds)),
            )

    def _run_in_multi(self, client: Client, sub: bytes, args: Sequence[bytes], raw: bytes) -> None:
        """Have the server queue a command. What it tells is changed in the reply to EXEC."""
        if sub == b"ID":
            in_exec.queue(client, raw, lambda _: b":%d\r\n" % client.id)
        elif sub == b"INFO":
            in_exec.queue(client, raw, lambda said: self._as_own_line(client, said))
        elif sub == b"LIST":
            shown = self._shown(client, args)
            all_lines = pack_command((b"CLIENT", b"LIST")) if len(args) > 2 else b""
            self._with_others(
                client,
                True,
                lambda crowds: in_exec.queue(
                    client,
                    raw,
                    lambda said: client_list.rewrite(said, lambda lines: shown(lines, crowds)),
                    instead=all_lines,
                ),
            )
        elif sub in TELLING_REDIRECT:
            in_exec.queue(client, raw, lambda said: self._with_our_id(client, said))
        elif sub == b"GETNAME":
            ask(client, raw, client.answer)
        elif sub == b"TRACKING" and (at := place_of_redirect(args)):
            client.task = self._tasks.spawn(self._redirect(client, args, at))
        elif sub == ANNOUNCEMENTS:
            ask(client, _without_announcements(args) if len(args) > 2 else raw, client.answer)
        elif sub in TRANSLATED and len(args) > 2:
            self._with_others(
                client,
                self._translation.names_other(args),
                lambda crowds: self._keep_and_send(client, self._translated(client, args, crowds)),
            )
        else:
            self._keep_and_send(client, raw)

    def _links_of(self, client: Client) -> NodeLinks:
        links: NodeLinks = client.identity.to(self._nodes.home)
        return links

    def _keep_and_send(self, client: Client, request: bytes) -> None:
        """Send this on a link that is the client's own for good; without one, it gets one first,
        and runs its command again."""
        if self._dedicated.keep(client, self._nodes.home):
            ask(client, request, client.answer)

    @staticmethod
    def _refuse_to_keep(client: Client, sub: bytes, args: Sequence[bytes]) -> None:
        """Behind a cluster: the server judges what turns something off, or changes no reply."""
        if sub == b"CAPA" or (len(args) > 2 and args[2].upper() in (b"OFF", b"NO")):
            client.forward()
        else:
            client.refuse(NOT_ON_A_CLUSTER)

    # Names

    def _get_name(self, client: Client, raw: bytes) -> None:
        if client.dedicated is None:
            answer_if_allowed(client, raw, lambda: _name_of(client))
        else:
            client.forward()  # the server knows it, and how to say that there is none

    def _set(self, client: Client, sub: bytes, args: Sequence[bytes], raw: bytes) -> None:
        """SETNAME and SETINFO: kept here once the server allows it."""
        named = sub == b"SETNAME" and len(args) == 3
        informed = len(args) == 4 and args[2].upper() in _OWN_NAMES
        if not (named or informed) or not is_plain_word(args[-1]):
            client.forward()
            return

        def judged(said: bytes) -> None:
            if said == OK and named:
                self._names.set_name(client, args[2])
            elif said == OK:
                self._names.set_info(client, args[2], args[3])
            if (up := client.dedicated) is not None:
                up.names = None  # one of them is another
            client.answer(said)

        own = NAME if named else _OWN_NAMES[args[2].upper()]
        shared = pack_command((*args[:-1], own))
        ask(client, shared if client.dedicated is None else raw, judged)

    # Other workers

    def crowd(self) -> Crowd:
        """The clients and connections, for the other workers."""
        return Crowd([self._listed(c) for c in self._ids], self._connections())

    def kill_here(self, numbers: Collection[int]) -> Sequence[int]:
        """Close the clients with these ids; the ids of those that are there."""
        found = [c for number in numbers if (c := self._ids.get(number)) is not None]
        for each in found:
            each.close("killed")
        return [each.id for each in found]

    async def keep_here(self, number: int) -> int:
        """Give the client with this id a link for good; its id on the server, or 0."""
        client = self._ids.get(number)
        if client is None:
            return 0
        await self._dedicated.keep_for(client, self._nodes.home)
        return client.dedicated.server_id if client.dedicated is not None else 0

    def _with_others(
        self, client: Client, needed: bool, then: Callable[[Sequence[Crowd]], None]
    ) -> None:
        """Call `then` with the clients of the other workers, if they are needed and there are any;
        the client's request waits meanwhile."""
        if not needed or self._others is None:
            then(())
            return
        others = self._others

        async def ask_them() -> None:
            crowds = await others.crowds()
            client.task = None
            if not client.closed:
                then(crowds)

        client.task = self._tasks.spawn(ask_them())

    # Other clients

    def _translated(
        self, client: Client, args: Sequence[bytes], crowds: Sequence[Crowd] = ()
    ) -> bytes:
        """The request, with the ids that its client's own server knows."""
        server = self._translation.server_of(self._link_of(client))
        return self._translation.translated(args, server, crowds)

    def _pass_through_translated(
        self, client: Client, args: Sequence[bytes], crowds: Sequence[Crowd]
    ) -> None:
        """Send this, on a connection of its own, to where the client is that it is about."""
        node = self._translation.node_of(args, crowds)
        server = self._translation.server_at(node)
        request = self._translation.translated(args, server, crowds)
        self._pass_through.ask(client, request, node)

    async def _redirect(self, client: Client, args: Sequence[bytes], at: int) -> None:
        """Serve CLIENT TRACKING ... REDIRECT, whose argument at `at` is the id of a client.

        The server must know the id, so that client gets a link for good first.
        """
        other = self._translation.client_of(args[at])
        elsewhere = 0
        if client.principal and (other is None or other.principal != client.principal):
            # Another identity's client is nobody, and whose those of other workers are is unknown.
            other, args = None, (*args[:at], NOBODY, *args[at + 1 :])
        elif other is not None and other is not client:
            await self._dedicated.keep_for(other, self._nodes.home)
        elif other is None:
            elsewhere = await self._kept_elsewhere(args[at])
        client.task = None
        if client.closed:
            return
        request, link, target = self._translated(client, args), elsewhere, 0
        if elsewhere:
            target = int(args[at])
            request = pack_command((*args[:at], b"%d" % elsewhere, *args[at + 1 :]))
        elif other is not None and other.dedicated is not None:
            link, target = other.dedicated.server_id, other.id

        def answered(said: bytes) -> None:
            if link and said in (OK, in_exec.QUEUED):
                client.redirect(link, target)
            client.answer(said)

        if client.mode == PINNED_MODE:
            if link:
                client.redirect(link, target)
            client.pass_on(request)
        elif self._dedicated.keep(client, self._nodes.home):
            # Once kept, the client runs this command again, and then the id is translated.
            ask(client, request, answered)

    async def _kept_elsewhere(self, number: bytes) -> int:
        """The id, on the server, of the link of a client of another worker; 0 if there is none."""
        if self._others is None or not number.isdigit() or len(number) >= 19:
            return 0
        return await self._others.keep(int(number))

    @staticmethod
    def _with_our_id(client: Client, said: bytes) -> bytes:
        """The reply to GETREDIR or TRACKINGINFO, with the id that was given to REDIRECT."""
        link, ours = client.redirected
        found = _REDIRECT.search(said)
        if not link or found is None or int(found[1]) != link:
            return said
        return said[: found.start(1)] + b"%d" % ours + said[found.end(1) :]

    # The list of clients

    def _connections(self) -> Mapping[str, Connections]:
        """This worker's connections."""
        ids, addresses = defaultdict[str, set[int]](set), defaultdict[str, set[bytes]](set)
        server_of, dialers = self._nodes.server_of, [node.dialer for node in self._nodes.all]
        for target, number in chain(self._link_ids(), *(each.greeted_ids for each in dialers)):
            ids[server_of(target)].add(number)
        for target, address in chain(*(each.addresses for each in dialers)):
            addresses[server_of(target)].add(printable_address(address))
        return {
            server: Connections(sorted(ids[server]), sorted(addresses[server] - {b""}))
            for server in {*ids, *addresses}
        }

    def _all_lines(
        self, lines: Mapping[int, Line], asker: Asker, crowds: Sequence[Crowd] = ()
    ) -> Iterable[Line]:
        """The lines of all clients: of this sidecar's, and of others that the server knows. The
        `asker` has had it list them."""
        crowds, server = [self.crowd(), *crowds], self._nodes.server_of(asker[0])
        here = [crowd.connections[server] for crowd in crowds if server in crowd.connections]
        listed = {each.id: each for crowd in crowds for each in crowd.clients}
        ours = {address for connections in here for address in connections.addresses}
        own = {number for number, line in lines.items() if line.get(b"addr") in ours}
        own.update(number for connections in here for number in connections.links)
        clients = (client_list.at_server(each, server) for each in listed.values())
        return client_list.merge(lines, own, clients, asker[1])

    def _list(self, client: Client, args: Sequence[bytes], raw: bytes) -> None:
        """CLIENT LIST, with the clients of this sidecar in place of its links."""
        shown = self._shown(client, args)

        def listed(said: bytes) -> None:
            self._with_others(
                client,
                not is_error(said),
                lambda crowds: client.answer(
                    client_list.rewrite(said, lambda lines: shown(lines, crowds))
                ),
            )

        def judged(said: bytes) -> None:
            if is_error(said):
                client.answer(said)
            else:
                ask(client, pack_command((b"CLIENT", b"LIST")), listed)

        ask(client, raw, judged if len(args) > 2 else listed)

    def _shown(
        self, client: Client, args: Sequence[bytes]
    ) -> Callable[[Mapping[int, Line], Sequence[Crowd]], Iterable[Line]]:
        """What CLIENT LIST with these arguments makes of all lines of the server."""
        filters = client_filters.parse(args[2:])
        command = b"client|list" if client.queued is None else b"exec"
        links = self._links_of(client)
        once = links.greeted is None or version_of(links.greeted.hello).lists_ids_once

        def shown(lines: Mapping[int, Line], crowds: Sequence[Crowd]) -> Iterable[Line]:
            up = self._link_of(client)
            found = list(self._all_lines(lines, (up.target, up.server_id), crowds))
            for line in found:
                if line[b"id"] == b"%d" % client.id:
                    line |= {b"cmd": command, b"idle": b"0"}
            if filters.ids and not once:
                by_id = {line[b"id"]: line for line in found}
                found = [by_id[i] for i in map(_plain, filters.ids) if i in by_id]
            skipped = b"%d" % client.id if filters.skip_me else b""
            return [line for line in found if line[b"id"] != skipped and filters.match(line)]

        return shown

    def _info(self, client: Client, raw: bytes) -> None:
        """CLIENT INFO: the line of the client's link, changed to this client's."""
        ask(client, raw, lambda said: client.answer(self._as_own_line(client, said)))

    def _as_own_line(self, client: Client, said: bytes) -> bytes:
        """The server's reply to CLIENT INFO, changed."""

        def own(lines: Mapping[int, Line]) -> list[Line]:
            me = self._listed(client)
            return [
                dict(client_list.own_line(line, me)) | {b"cmd": line.get(b"cmd", b"NULL")}
                for line in lines.values()
            ]

        return client_list.rewrite(said, own)

    def _link_of(self, client: Client) -> Upstream:
        return client.dedicated or self._links_of(client).shared

    def _listed(self, client: Client) -> Listed:
        """The facts for a client's line."""
        login = client.identity.login
        received, sent, commands, command = client.figures
        told = {
            # Of whole seconds, as servers count it: nobody is idle for longer than connected.
            b"age": b"%d" % (int(time.monotonic()) - int(client.since)),
            b"idle": b"%d" % client.silent_for,
            b"cmd": b"NULL" if command in (b"", UNKNOWN) else command,
            b"tot-net-in": b"%d" % received,
            b"tot-net-out": b"%d" % sent,
            b"tot-cmds": b"%d" % commands,
        }
        addresses = addresses_of(client.peer, client.local)
        told |= {f: a for f, a in zip((b"addr", b"laddr"), addresses, strict=True) if a}
        link, target = client.redirected
        up = self._link_of(client)
        return Listed(
            client.id,
            up.server_id,
            carried=client.dedicated is None,
            own={
                b"db": b"%d" % login.db,
                b"user": login.user or b"default",
                b"resp": b"%d" % login.proto,
                b"name": client.name,
                b"lib-name": client.lib_name,
                b"lib-ver": client.lib_version,
            },
            told=told,
            redirected={b"%d" % link: b"%d" % target} if link else {},
            added=in_exec.added(client),
            server=self._translation.server_of(up),
        )


def _plain(number: bytes) -> bytes:
    return b"%d" % int(number) if number.isdigit() else number


def _name_of(client: Client) -> bytes:
    if client.name:
        return b"$%d\r\n%b\r\n" % (len(client.name), client.name)
    return b"_\r\n" if client.identity.login.proto == 3 else b"$-1\r\n"


def _without_announcements(args: Sequence[bytes]) -> bytes:
    return pack_command((*args[:2], b"OFF"))
