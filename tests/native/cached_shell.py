"""What stands around a core with a near cache in its tests: clients, links, a shell, one server.

Bytes move only when they are told to: `flush` takes them from the core to the server's door,
`serve` has the server execute them, `arrive` brings the answers. So connections overtake each other
in any way, and the judge (oracle.py) sees every reply as it comes out of the core.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from sidecar.core.cache.near_cache import NearCache
from tests.harness.refreplies import reply_end
from tests.native.cached_clients import Client, Identity, being_written
from tests.native.cached_loopback import CachedLoopback, NotAllowed
from tests.native.model_connection import Connection
from tests.native.model_replies import Args
from tests.native.model_server import MESSAGE, ModelServer
from tests.native.oracle import Judge, Terms
from tests.native.shell import request, table


class CachedShell:
    """A sidecar without sockets, its clients, and the server."""

    def __init__(
        self,
        cache: NearCache,
        terms: Terms,
        identities: Sequence[Identity],
        *,
        stable: bool = False,
    ) -> None:
        self.cache, self.identities = cache, identities
        self.core = CachedLoopback(table(), request_buffer=1024)
        self.now = 0
        self.core.set_now(0)
        self.core.use_cache(cache)
        self.server = ModelServer(stable=stable)
        self.judge = Judge(self.server, terms)
        self.clients: dict[int, Client] = {}
        self.connections: dict[int, Connection] = {}
        self.tracked: dict[int, int] = {}
        spaces: dict[tuple[bytes, int], int] = {}
        for who in identities:
            if (who.user, who.db) not in spaces:
                spaces[who.user, who.db] = cache.open_space()
            who.space = spaces[who.user, who.db]
            who.link = self.core.add_link()
            self.connections[who.link] = self.server.connect(who.user, who.db, who.proto)
        for (user, db), space in spaces.items():
            self.track(space, user, db)

    # Clients

    def connect(self, identity: Identity) -> Client:
        """A new client."""
        session = self.core.add_session(identity.link)
        client = Client(identity.user, identity.db, identity.proto, session=session)
        client.identity = identity
        self.core.use_space(session, identity.space, identity.proto)
        self.clients[session] = client
        return client

    def expect(self, client: Client, *commands: Args) -> bytes:
        """The bytes of these requests; their replies are due from now on."""
        in_multi = False
        for args in commands:
            self.judge.expect(client, args, in_multi=in_multi and args[0] != b"EXEC")
            in_multi = args[0] == b"MULTI" or (in_multi and args[0] not in (b"EXEC", b"DISCARD"))
        return b"".join(request(*args) for args in commands)

    def send(self, client: Client, data: bytes) -> None:
        """The client sends these bytes."""
        if not client.gone:
            self.begin()
            self.core.feed(client.session, data)
            self.settle()

    def say(self, client: Client, *commands: Args) -> None:
        """The client sends these requests."""
        self.send(client, self.expect(client, *commands))

    def leave(self, client: Client) -> None:
        """The client goes away; a link of its own is closed."""
        link = self.core.link_of(client.session)
        self.core.drop(client.session)
        if link is not None and link not in [who.link for who in self.identities]:
            self.close(link)
        del self.clients[client.session]
        client.gone = True

    # Connections

    def flush(self, link: int, size: int = 1 << 30) -> None:
        """Up to so many bytes of a link reach the server's door."""
        who = next((w for w in self.identities if w.link == link), None)
        if link in self.tracked:
            self.connections[link].up += self.core.tracked_output(link, size)
        elif who is None or who.up:
            self.connections[link].up += self.core.link_output(link, size)

    def serve(self, link: int, size: int = 1 << 30) -> None:
        """The server executes what has come on this connection."""
        self.connections[link].take(size)

    def arrive(self, link: int, size: int = 1 << 30) -> None:
        """Up to so many bytes of its answers arrive."""
        connection = self.connections[link]
        data, marks = connection.give(size)
        if not data:
            return
        self.begin()
        if link not in self.tracked:
            self.core.link_receive(link, data)
        else:
            self.judge.arrived(connection, marks)
            try:
                self.core.tracked_receive(link, data)
            except NotAllowed:
                self.untrack(link)
        self.settle()

    def lose(self, who: Identity, *, executed: bool = True) -> None:
        """The connection of a shared link breaks; the server may still execute what has come."""
        old = self.connections[who.link]
        self.begin()
        who.up = False
        self.core.link_lost(who.link)
        self.part(old, executed)
        self.settle()

    def restore(self, who: Identity) -> None:
        """A shared link has a connection again."""
        self.begin()
        who.up = True
        self.connections[who.link] = self.server.connect(who.user, who.db, who.proto)
        self.core.link_up(who.link)
        for client in list(self.clients.values()):
            if self.core.stall(client.session) == "link":
                self.core.resume(client.session)
        self.settle()

    def part(self, connection: Connection, executed: bool) -> None:
        """The sidecar has left this connection: what it has sent counts as somebody else's."""
        connection.own = False
        if executed:
            connection.take()
        connection.up.clear()
        connection.down.clear()
        connection.marks.clear()
        self.server.drop(connection)

    def close(self, link: int) -> None:
        """Close a link that nobody uses any more."""
        self.core.close_link(link)
        self.part(self.connections.pop(link), True)

    def track(self, space: int, user: bytes, db: int) -> int:
        """A space gets a tracked connection: its number."""
        tracked = self.core.add_tracked(space)
        connection = self.server.connect(user, db, 3, tracking=True)
        self.connections[tracked] = connection
        self.tracked[tracked] = space
        self.judge.live[user, db] = connection
        self.core.beat(tracked)
        return tracked

    def untrack(self, tracked: int) -> None:
        """A tracked connection breaks."""
        connection = self.connections.pop(tracked)
        self.begin()
        self.judge.live[connection.user, connection.db] = None
        del self.tracked[tracked]
        self.core.close_tracked(tracked)
        self.server.drop(connection)
        self.settle()

    def tracked_of(self, space: int) -> int | None:
        """The tracked connection of a space."""
        return next((link for link, found in self.tracked.items() if found == space), None)

    # Time

    def tick(self, microseconds: int) -> None:
        """Time passes."""
        self.now += microseconds
        self.server.now = self.now
        self.core.set_now(self.now & 0xFFFFFFFF)

    # The shell

    def begin(self) -> None:
        """Something is about to happen."""
        for session, client in self.clients.items():
            client.begin(self.core.outstanding(session))

    def settle(self) -> None:
        """Let every marked session have its replies and what it wants; ask for what was put off."""
        while marked := self.core.take_marked():
            for session in marked:
                if session in self.clients:
                    self.attend(self.clients[session])
        self.core.push_out()
        for tracked in list(self.tracked):
            self.connections[tracked].up += self.core.tracked_output(tracked, 1 << 30)
        if self.core.marked:
            self.settle()

    def attend(self, client: Client) -> None:
        """One marked session."""
        core, session = self.core, client.session
        client.got += core.take(session)
        self.check(client)
        if core.must_close(session):
            self.leave(client)
            return
        if core.may_give_back(session):
            link = core.link_of(session)
            core.give_back(session)
            if link is not None:
                self.close(link)
            self.go_on(client)
            return
        if core.ready(session):
            self.serve_stall(client, core.stall(session))

    def check(self, client: Client) -> None:
        """Hold the replies that have come whole before the judge."""
        under_way = partial(being_written, list(self.clients.values()), client)
        at = 0
        while at < len(client.got) and (end := reply_end(client.got, at)) is not None:
            reply = bytes(client.got[at:end])
            at = end
            if reply.startswith(MESSAGE):
                self.judge.hear(client, reply)
                continue
            assert client.answered < len(client.due), f"nobody asked for {reply!r}"
            self.judge.answer(client, reply, now=client.idle, under_way=under_way)
        del client.got[:at]

    def serve_stall(self, client: Client, stall: str) -> None:
        """Do what a session wants."""
        core, session, who = self.core, client.session, client.identity
        assert who is not None
        if stall == "link":
            if who.up:
                self.go_on(client)
        elif stall in ("fill", "room"):
            self.go_on(client)
        elif stall in ("dedicated", "once", "pin"):
            link = core.add_link(shared=False)
            self.connections[link] = self.server.connect(who.user, who.db, who.proto)
            client.pinned = stall == "pin"
            self.connections[link].own = not client.pinned
            core.use_dedicated(session, link, client.pinned)
            self.go_on(client)
        elif stall == "session_command":
            head = core.head(session)
            assert head is not None
            core.skip(session, head[1])
            core.say(session, b"+C\r\n")
            self.go_on(client)
        else:
            raise AssertionError(f"a session wants {stall}")

    def go_on(self, client: Client) -> None:
        """What was wanted is there. The session is looked at again, whether marked or not."""
        self.core.resume(client.session)
        if not client.gone:
            self.attend(client)

    # The end

    def run(self, links: Iterable[int] | None = None) -> None:
        """Let bytes move, on these connections or on all, until none is left."""
        moved = True
        while moved:
            moved = False
            for link in list(self.connections if links is None else links):
                if link not in self.connections:
                    continue
                self.flush(link)
                self.serve(link)
                moved = moved or bool(self.connections[link].down)
                self.arrive(link)

    def drain(self) -> None:
        """Let all that is under way come to its end, and see that nothing is left."""
        for who in self.identities:
            if not who.up:
                self.restore(who)
        self.run()
        for client in self.clients.values():
            assert not client.got
            assert client.pinned or client.answered == len(client.due), client.due[
                client.answered :
            ]
            assert client.pinned or self.core.outstanding(client.session) == 0
        assert self.core.barred() == 0
        for tracked in self.tracked:
            assert self.core.tracked_pending(tracked) == 0
