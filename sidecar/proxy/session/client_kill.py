"""CLIENT KILL: which clients are meant, those of this sidecar and others, and the end of them.

The server knows the links of this sidecar, not its clients. So it is asked whether the request is
allowed and right, in a form that means nobody; then it is asked for its clients, the sidecar's take
the place of its links (client_list.py), and the filters are applied here (client_filters.py). Of
those that are meant the sidecar closes its own, and has the server kill the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from hiredis import pack_command

from sidecar.proxy.io.client import Client
from sidecar.proxy.links.greeting import ServerConnection, is_error
from sidecar.proxy.links.hello_reply import version_of
from sidecar.proxy.links.target import Target
from sidecar.proxy.session import client_filters, client_list
from sidecar.proxy.session.client_filters import Filters
from sidecar.proxy.session.client_ids import ClientIds
from sidecar.proxy.session.client_list import Line, addresses_of
from sidecar.proxy.session.others import Crowd, Others
from sidecar.proxy.session.passthrough import PassThrough

OK = b"+OK\r\n"
# No client has this address: the filters are checked, and nobody is killed.
NOBODY = b"-"
NO_SUCH_CLIENT = b"-ERR No such client"
LIST = pack_command((b"CLIENT", b"LIST"))

Asker = tuple[Target | None, int]
"""Where a connection leads, and its id on that server."""

Listing = Callable[[Mapping[int, Line], Asker, Sequence[Crowd]], Iterable[Line]]


class ClientKill:
    """Serves CLIENT KILL. `listing` makes the lines of all clients from those of the server, the
    connection that asked, and the clients of `others`."""

    def __init__(
        self,
        ids: ClientIds,
        pass_through: PassThrough,
        listing: Listing,
        others: Others | None,
    ) -> None:
        self._ids = ids
        self._pass_through = pass_through
        self._listing = listing
        self._others = others

    def run(self, client: Client, args: Sequence[bytes], raw: bytes) -> None:
        """Serve the request at the head."""
        if len(args) == 3:
            self._by_address(client, args[2], raw)
        elif len(args) > 3:
            self._by_filters(client, args)
        else:
            client.forward()

    def _by_address(self, client: Client, address: bytes, raw: bytes) -> None:
        """The old form: an address alone. It may kill the client that asks."""
        named = (c for c in self._ids if address and addresses_of(c.peer, c.local)[0] == address)
        killed = next(named, None)
        if killed is None and self._others is None:
            self._pass_through.ask(client, raw)
            return

        async def talk(connection: ServerConnection) -> bytes:
            elsewhere = await self._elsewhere(address) if killed is None else []
            if killed is None and not elsewhere:
                return (await connection.ask(raw))[0]
            said = (await connection.ask(pack_command((b"CLIENT", b"KILL", NOBODY))))[0]
            if not said.startswith(NO_SUCH_CLIENT):
                return said
            if self._others is None or not elsewhere or await self._others.kill(elsewhere):
                return OK
            return NO_SUCH_CLIENT + b"\r\n"

        def end(reply: bytes) -> None:
            _end([killed] if killed is not None and reply == OK else [], client, reply)

        self._pass_through.talk(client, talk, end)

    async def _crowds(self) -> Sequence[Crowd]:
        return await self._others.crowds() if self._others is not None else ()

    async def _elsewhere(self, address: bytes) -> Sequence[int]:
        """The client of another worker that has this address."""
        listed = (each for crowd in await self._crowds() for each in crowd.clients)
        return [each.id for each in listed if address and each.told.get(b"addr") == address][:1]

    def _by_filters(self, client: Client, args: Sequence[bytes]) -> None:
        ours: list[Client] = []

        def meant(line: Line, filters: Filters) -> bool:
            if filters.skip_me is not False and line[b"id"] == b"%d" % client.id:
                return False
            return filters.match(line)

        async def talk(connection: ServerConnection) -> bytes:
            said, listed = await connection.ask(pack_command(_of_nobody(args)), LIST)
            if is_error(said):
                return said
            hello = connection.greeted.hello if connection.greeted is not None else None
            filters = client_filters.parse(args[2:], ids_add_up=version_of(hello).adds_ids_up)
            lines = client_list.lines_of(listed)
            crowds = await self._crowds()
            asker = connection.target, connection.server_id
            all_lines = self._listing(lines, asker, crowds)
            numbers = {int(line[b"id"]) for line in all_lines if meant(line, filters)}
            # Who knows the id of a link of ours has it from the server itself.
            numbers |= {
                int(i) for i in filters.ids if int(i) in lines and meant(lines[int(i)], filters)
            }
            ours.extend(c for number in numbers if (c := self._ids.get(number)) is not None)
            numbers -= {c.id for c in ours}
            elsewhere = numbers & {each.id for crowd in crowds for each in crowd.clients}
            count = len(ours)
            if elsewhere and self._others is not None:
                count += len(await self._others.kill(elsewhere))
            others = sorted(numbers - elsewhere)
            return b":%d\r\n" % (count + await _killed(connection, others))

        def end(reply: bytes) -> None:
            _end(ours, client, reply)

        self._pass_through.talk(client, talk, end)


def _of_nobody(args: Sequence[bytes]) -> tuple[bytes, ...]:
    """The request with one more filter, which no client matches. It stands first, so that the
    server reads the others to the end; of two of the same name the last counts."""
    used = {word.upper() for word in args[2:]}
    free = next((name for name in (b"ADDR", b"LADDR") if name not in used), None)
    if free is None:
        return (*args, b"ADDR", NOBODY)
    return (*args[:2], free, NOBODY, *args[2:])


async def _killed(connection: ServerConnection, numbers: Sequence[int]) -> int:
    """Have the server kill these; how many it has killed."""
    if not numbers:
        return 0
    kill = (b"CLIENT", b"KILL", b"ID")
    replies = await connection.ask(*(pack_command((*kill, b"%d" % n)) for n in numbers))
    return sum(int(reply[1:]) for reply in replies if reply[:1] == b":")


def _end(clients: Iterable[Client], asking: Client, reply: bytes) -> None:
    """Close these clients, and answer. The one that asks gets its reply first, and no more."""
    me = False
    for other in clients:
        me = me or other is asking
        if other is not asking:
            other.close("killed")
    if me and not asking.closed:
        asking.skip()
        asking.say(reply)
        asking.finish()
    else:
        asking.answer(reply)
