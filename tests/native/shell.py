"""What stands around the core in its tests: clients, a shell without sockets, and model servers.

`Shell` does with an `Loopback` what the plane and its handler do with sockets. The servers at the
other end answer each request with a bulk string that repeats its arguments, so a reply tells which
request it belongs to. They decode with the reference decoder, not with the code under test.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

from sidecar.core.protocol.commands import CommandTable
from sidecar.policy.routing import FAMILIES, rows_from_data
from tests.harness.refdecoder import requests
from tests.harness.refreplies import reply_end
from tests.native.loopback import Loopback

UNCERTAIN = b"-UNCERTAIN "


@cache
def table() -> CommandTable:
    """The command table as it ships."""
    found = CommandTable(1, FAMILIES)
    snapshot = files("sidecar.policy").joinpath("commands.json").read_text()
    found.update(rows_from_data(json.loads(snapshot)))
    return found


def request(*args: bytes | str | int) -> bytes:
    """One multibulk request."""
    words = [a if isinstance(a, bytes) else str(a).encode() for a in args]
    return b"*%d\r\n" % len(words) + b"".join(bulk(word) for word in words)


def bulk(data: bytes) -> bytes:
    """A bulk string."""
    return b"$%d\r\n%s\r\n" % (len(data), data)


def named(*args: bytes | str | int) -> bytes:
    """The reply of a model server to this request."""
    return bulk(b" ".join(a if isinstance(a, bytes) else str(a).encode() for a in args))


@dataclass
class Server:
    """The server at the end of one link."""

    executed: Counter[bytes]
    unread: bytearray = field(default_factory=bytearray)
    down: bytearray = field(default_factory=bytearray)

    def take(self, data: bytes) -> None:
        """Bytes from the sidecar: whole requests are executed and answered."""
        self.unread += data
        done = 0
        for event in requests(bytes(self.unread)):
            assert event[0] != "error", f"the server was sent {bytes(self.unread)!r}"
            if event[0] == "args":
                self.executed[b" ".join(event[1])] += 1
                self.down += named(*event[1])
                done = event[2]
        del self.unread[:done]

    def forget(self) -> None:
        """The connection has broken."""
        self.unread.clear()
        self.down.clear()


@dataclass
class Client:
    """One client: what it is due, in order, and the bytes it has got."""

    session: int
    due: list[tuple[bytes, bool]] = field(default_factory=list)
    got: bytearray = field(default_factory=bytearray)
    answered: int = 0
    gone: bool = False

    def check(self) -> None:
        """Every reply got so far is the right one, and so is the beginning of the next."""
        at = 0
        while at < len(self.got) and (end := reply_end(self.got, at)) is not None:
            reply = bytes(self.got[at:end])
            assert self.answered < len(self.due), f"nobody asked for {reply!r}"
            expected, may_be_lost = self.due[self.answered]
            lost = reply.startswith(UNCERTAIN) and may_be_lost
            assert lost or reply == expected
            self.answered += 1
            at = end
        del self.got[:at]
        if self.got:
            rest = self.due[self.answered][0]
            assert rest.startswith(self.got) or UNCERTAIN.startswith(self.got[: len(UNCERTAIN)])


class Shell:
    """A loopback, its clients and servers, and the one shared link they begin on."""

    def __init__(self, **sizes: int) -> None:
        self.core = Loopback(table(), **sizes)
        self.executed: Counter[bytes] = Counter()
        self.servers: dict[int, Server] = {}
        self.clients: dict[int, Client] = {}
        self.up = True
        self.shared = self.core.add_link()
        self.servers[self.shared] = Server(self.executed)

    def connect(self) -> Client:
        """A new client."""
        client = Client(self.core.add_session(self.shared))
        self.clients[client.session] = client
        return client

    def send(self, client: Client, data: bytes) -> None:
        """The client sends these bytes."""
        if not client.gone:
            self.core.feed(client.session, data)
            self.settle()

    def flush(self, link: int, size: int = 1 << 30) -> None:
        """Up to so many bytes reach the server of this link."""
        if link != self.shared or self.up:
            self.servers[link].take(self.core.link_output(link, size))

    def arrive(self, link: int, size: int = 1 << 30) -> None:
        """Up to so many bytes of the server's replies arrive."""
        down = self.servers[link].down
        data = bytes(down[:size])
        del down[:size]
        if data:
            self.core.link_receive(link, data)
            self.settle()

    def lose(self) -> None:
        """The connection of the shared link breaks."""
        self.up = False
        self.servers[self.shared].forget()
        self.core.link_lost(self.shared)
        self.settle()

    def restore(self) -> None:
        """The shared link has a connection again."""
        self.up = True
        self.core.link_up(self.shared)
        for client in list(self.clients.values()):
            if self.core.stall(client.session) == "link":
                self.core.resume(client.session)
        self.settle()

    def leave(self, client: Client) -> None:
        """The client goes away; a link of its own is closed."""
        link = self.core.link_of(client.session)
        self.core.drop(client.session)
        if link is not None and link != self.shared:
            self.close(link)
        del self.clients[client.session]
        client.gone = True

    def close(self, link: int) -> None:
        """Close a link that nobody uses any more."""
        self.core.close_link(link)
        del self.servers[link]

    def settle(self) -> None:
        """Let every marked session have its replies and what it wants."""
        while marked := self.core.take_marked():
            for session in marked:
                if session in self.clients:
                    self.attend(self.clients[session])

    def attend(self, client: Client) -> None:
        """One marked session."""
        core, session = self.core, client.session
        client.got += core.take(session)
        client.check()
        if core.must_close(session):
            self.leave(client)
            return
        if core.may_give_back(session):
            link = core.link_of(session)
            core.give_back(session)
            self.close(link)
            if core.stall(session) not in ("protocol_error", "hang_up"):
                self.go_on(client)
                return
        if core.ready(session):
            self.serve(client, core.stall(session))

    def serve(self, client: Client, stall: str) -> None:
        """Do what a session wants."""
        core, session = self.core, client.session
        if stall == "link":
            if self.up:
                self.go_on(client)
        elif stall == "replies":
            self.go_on(client)
        elif stall in ("dedicated", "once", "wait_command"):
            link = core.add_link(shared=False)
            self.servers[link] = Server(self.executed)
            core.use_dedicated(session, link)
            self.go_on(client)
        elif stall == "session_command":
            args, size = core.head(session)
            core.skip(session, size)
            core.say(session, named(*args))
            self.go_on(client)
        elif stall == "protocol_error":
            client.got += core.error(session)
            client.check()
            self.leave(client)
        else:
            raise AssertionError(f"a session wants {stall}")

    def go_on(self, client: Client) -> None:
        """What was wanted is there. The session is looked at again, whether marked or not."""
        self.core.resume(client.session)
        if not client.gone:
            self.attend(client)

    def drain(self) -> None:
        """Let all that is under way come to its end."""
        if not self.up:
            self.restore()
        moved = True
        while moved:
            moved = False
            for link in list(self.servers):
                if link in self.servers:
                    self.flush(link)
                    moved = moved or bool(self.servers[link].down)
                    self.arrive(link)
