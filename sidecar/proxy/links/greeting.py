"""The greeting of a new connection, and single requests of the sidecar itself.

A `ServerConnection` makes one round trip at a time, before it becomes a link. It also carries
single requests that must not touch a shared link, such as the proof of a password. It does not
decide which server to connect to, nor when: the dialer does.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TypeVar

import hiredis
from hiredis import pack_command

from sidecar.core.protocol.reply import ReplyDecoder
from sidecar.credentials import Credentials
from sidecar.proxy.links.errors import Full, NotMaster, Refused, Unreachable
from sidecar.proxy.links.hello_reply import server_id, version_of
from sidecar.proxy.links.info_reply import fields_of
from sidecar.proxy.links.target import Target, connect
from sidecar.tls.handshake import Layer

NAME = b"redis-sidecar"
CHUNK = 65536
# The server's only word to a connection beyond its `maxclients`.
NO_ROOM = b"-ERR max number of clients"
# Seconds for the greeting even if connecting took the whole connect_timeout.
AT_LEAST = 0.05
# PING, because a server may call itself master while it still loads its data.
AM_I_MASTER = (pack_command((b"ROLE",)), pack_command((b"PING",)))
# Where ROLE is refused: INFO is open to more users.
REPLICATION = pack_command((b"INFO", b"replication"))


@dataclass(frozen=True)
class Login:
    """What makes a connection that of an identity: protocol, credentials, database.

    `user` None: no AUTH is sent. `user` b"": AUTH with the password alone, for the default user.
    `via`: the login that selects the database, because `user` may not; it was another one when the
    client selected it. `era` sets clients apart that began, without a login, after the server had
    begun or ceased to ask for one (session/admission.py). `source`: has the newest credentials of
    the sidecar itself; `user` is then the one that it began with.
    """

    proto: int
    user: bytes | None
    password: bytes
    db: int
    era: int = 0
    via: Login | None = None
    source: Credentials | None = field(default=None, compare=False, repr=False)

    def as_user(self, user: bytes, password: bytes) -> Login:
        """This login, once the client has logged in as another user."""
        via = (self.via or replace(self, era=0)) if self.db else None
        return replace(self, user=user, password=password, era=0, via=via, source=None)

    @property
    def auth(self) -> tuple[bytes, ...]:
        """The AUTH request, as words; empty: there is none."""
        user, password = self.user, self.password
        if self.source is not None:
            user, password = self.source.now.user, self.source.now.password
        if user is None:
            return ()
        return (b"AUTH", user, password) if user else (b"AUTH", password)

    def requests(self, version: bytes, setinfo: bool = True) -> list[tuple[bytes, ...]]:
        """The requests of the greeting, with CLIENT SETINFO or without. It is HELLO that sets the
        name: every user may say that."""
        select = (b"SELECT", b"%d" % self.db) if self.db else ()
        before = (self.via.auth, select) if self.via is not None else ()
        out = (
            *before,
            self.auth,
            (b"HELLO", b"%d" % self.proto, b"SETNAME", NAME),
            (b"CLIENT", b"SETINFO", b"LIB-NAME", NAME) if setinfo else (),
            (b"CLIENT", b"SETINFO", b"LIB-VER", version) if setinfo else (),
            () if before else select,
        )
        return [request for request in out if request]


T = TypeVar("T")


async def with_newest(login: Login, attempt: Callable[[], Awaitable[T]]) -> T:
    """The result of `attempt`, which greets with this login. If the server refuses the credentials
    and their source has others by now, it is made again, before anybody is told."""
    used = login.source.now if login.source is not None else None
    try:
        return await attempt()
    except Refused as error:
        if used is None or login.source is None or not error.concerns_login:
            raise
        if not await login.source.renewed(used):
            raise
    return await attempt()


@dataclass(frozen=True)
class Greeted:
    """The server's answers: its HELLO reply (None if it refused), and whether it wants AUTH."""

    hello: bytes | None
    unauthenticated: bool


# Whether the server is a master, None if it does not tell; and whom it follows if it is none.
Role = tuple[bool | None, tuple[str, int] | None]


def parsed(reply: bytes) -> object:
    """One raw reply as Python values."""
    reader = hiredis.Reader()
    reader.feed(reply)
    return reader.gets()


def role_in(reply: bytes) -> Role:
    """What a reply to ROLE says."""
    said = parsed(reply)
    if not isinstance(said, list) or not said:
        return None, None
    follows = (said[1].decode(), int(said[2])) if said[0] == b"slave" and len(said) > 2 else None
    return said[0] == b"master", follows


def is_error(reply: bytes, code: bytes = b"") -> bool:
    """Whether a raw reply is an error (of this code)."""
    return reply.startswith(b"-" + code)


class ServerConnection:
    """A connection to a server that is not, or not yet, a link."""

    def __init__(self, sock: socket.socket, tls: Layer | None, target: Target, by: float) -> None:
        self._greet_by = by
        self.sock = sock
        self.tls = tls
        self.target = target
        self.greeted: Greeted | None = None
        self.told_master = False  # whether it has said, when asked, that it is a master
        # Called with each raw push that comes with the answers to `ask`.
        self.on_push: Callable[[bytes], None] | None = None
        # The names of what was asked while greeting.
        self.asked: list[bytes] = []
        self._decoder = ReplyDecoder()
        self._replies: list[bytes] = []

    @property
    def server_id(self) -> int:
        """Its id on the server, from the HELLO reply; 0 if unknown."""
        return server_id(self.greeted.hello if self.greeted is not None else None)

    @classmethod
    async def open(cls, target: Target) -> ServerConnection:
        """Connect within the target's timeout, TLS and greeting included. Raises Unreachable."""
        by = time.monotonic() + target.connect_timeout
        sock, tls = await connect(target)
        target.own.opened(sock)
        return cls(sock, tls, target, by)

    @classmethod
    async def greeted_at(
        cls, target: Target, login: Login, version: bytes, *, as_master: bool = False
    ) -> ServerConnection:
        """Open a connection and greet on it, with the newest credentials. Raises Refused,
        Unreachable; see `greet` for `as_master`."""

        async def attempt() -> ServerConnection:
            connection = await cls.open(target)
            await connection.greet(login, version, as_master=as_master)
            return connection

        return await with_newest(login, attempt)

    async def ask(self, *requests: bytes, within: float | None = None) -> list[bytes]:
        """Send requests in one write and collect one raw reply each. Raises Unreachable.

        Pushes in between go to `on_push`. `within` is in seconds; None takes the target's
        connect_timeout. Raises Full if the server's first word is that it takes no more
        connections.
        """
        async with self._talk(self.target.connect_timeout if within is None else within):
            loop = asyncio.get_running_loop()
            await self._send(loop, b"".join(requests))
            while len(self._replies) < len(requests):
                self._take(await self._receive(loop))
        replies, self._replies = self._replies[: len(requests)], self._replies[len(requests) :]
        if replies[0].startswith(NO_ROOM):
            self.close()
            raise self._refusal(replies[0])
        return replies

    async def converse(self, request: bytes, heard: Callable[[bytes], bool]) -> bytes:
        """Send requests, and call `heard` with each reply and each push until it returns True.
        Returns all that has come behind that. Raises Unreachable."""
        decoder, unread = ReplyDecoder(), bytearray()
        async with self._talk(self.target.connect_timeout):
            loop = asyncio.get_running_loop()
            await self._send(loop, request)
            while True:
                data = await self._receive(loop)
                unread += data
                for _, frame in decoder.feed(data):
                    del unread[: len(frame)]
                    if heard(frame):
                        return bytes(unread) + self._opened()

    async def receive(self) -> bytes:
        """What the server sends next, whenever that is. Raises Unreachable."""
        try:
            return await self._receive(asyncio.get_running_loop())
        except OSError as error:
            self.close()
            raise Unreachable(f"upstream {self.target}: {error}") from error

    @asynccontextmanager
    async def _talk(self, seconds: float) -> AsyncIterator[None]:
        """Within this time; what goes wrong is raised as `ask` says, and closes the connection."""
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            self.close()
            raise Unreachable(
                f"upstream {self.target} did not reply within {seconds:.3g} s"
            ) from None
        except ValueError as error:
            self.close()
            raise Unreachable(
                f"upstream {self.target} does not speak the Redis protocol ({error})"
            ) from error
        except OSError as error:
            said, words = b"".join(self._replies[:1]), self._in_words(error)
            self.close()
            if is_error(said):
                raise self._refusal(said) from error
            raise Unreachable(f"upstream {self.target}: {words}") from error
        except BaseException:
            self.close()
            raise

    def _opened(self) -> bytes:
        """What TLS has received as a whole: no event of the socket will tell of it."""
        data = b""
        if self.tls is not None:
            with suppress(ssl.SSLWantReadError):
                while some := self.tls[0].read(CHUNK):
                    data += some
        return data

    def _in_words(self, error: OSError) -> str:
        """With TLS 1.3 a server refuses a client's certificate, or wants one, only after the
        handshake, before its first reply. It says so and closes, while we still send."""
        if self.tls is not None and isinstance(error, ConnectionError):
            layer, incoming, _ = self.tls
            with suppress(OSError):
                incoming.write(self.sock.recv(CHUNK))
            try:
                layer.read(CHUNK)
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as told:
                error = told
        if not isinstance(error, ssl.SSLError) or self.greeted is not None:
            return str(error)
        return f"TLS: {self.target.handshakes.failed(str(self.target), error).words}"

    def _refusal(self, said: bytes) -> Refused | Full:
        if said.startswith(NO_ROOM):
            return Full(f"upstream {self.target} says {said[1:].decode().strip()}")
        return Refused(said)

    async def greet(self, login: Login, version: bytes, *, as_master: bool = False) -> Greeted:
        """Send the greeting for this login. Raises Refused with the server's error.

        With `as_master`, raises NotMaster unless the server says that it is one and executes
        commands.
        """
        # A server before Redis 7.2 counts each CLIENT SETINFO as an error: one is enough.
        refusals = self.target.refusals
        setinfo = refusals.setinfo_by is None
        requests = login.requests(version, setinfo)
        self.asked = [words[0] for words in requests]
        replies = await self.ask(
            *map(pack_command, requests),
            *(AM_I_MASTER if as_master else ()),
            within=max(AT_LEAST, self._greet_by - time.monotonic()),
        )
        if self.tls is not None:
            self.target.resumption.keep(self.tls[0])
        if as_master:
            role, ping = replies[-2:]
            del replies[-2:]
            await self._must_be_master(role, ping)
            self.asked += [b"ROLE", b"PING"]
            if is_error(role) and not is_error(role, b"NOAUTH"):
                self.asked.append(b"INFO")
        unauthenticated, hello = False, None
        for (word, *_), reply in zip(requests, replies, strict=True):
            if word == b"HELLO":
                unauthenticated = is_error(reply, b"NOAUTH")
                hello = None if is_error(reply) else reply
                if login.proto != 2:
                    self._must(reply)
            elif word == b"CLIENT" and is_error(reply, b"ERR"):
                refusals.setinfo_by = version_of(hello)
            elif word == b"AUTH" or (word == b"SELECT" and not unauthenticated):
                self._must(reply)
        if not setinfo and refusals.setinfo_by != version_of(hello):
            refusals.setinfo_by = None  # another server by now: the next connection tries it
        self.greeted = Greeted(hello, unauthenticated)
        return self.greeted

    def _must(self, reply: bytes) -> None:
        if is_error(reply):
            self.close()
            raise Refused(reply)

    async def check_master(self) -> None:
        """Ask again. Raises NotMaster unless it is the master and executes commands."""
        await self._must_be_master(*await self.ask(*AM_I_MASTER))

    async def _must_be_master(self, role: bytes, ping: bytes) -> None:
        for reply in (role, ping):
            if is_error(reply, b"LOADING") or is_error(reply, b"MASTERDOWN"):
                self.close()
                said = reply[1:].decode().strip()
                raise NotMaster(f"upstream {self.target}: {said}", loading=True)
        if is_error(role, b"NOAUTH"):
            return  # who has not logged in is told nothing
        master, follows = role_in(role) if not is_error(role) else await self._role_by_info()
        if master is None:
            return
        if not master:
            self.close()
            raise NotMaster(f"upstream {self.target} is not a master", follows)
        self.told_master = True

    async def _role_by_info(self) -> Role:
        """This user may not ask for ROLE, or the server has none."""
        (reply,) = await self.ask(REPLICATION)
        if is_error(reply):
            return None, None
        said = parsed(reply)
        fields = fields_of(said.decode("utf-8", "replace") if isinstance(said, bytes) else "")
        if fields.get("role") != "slave":
            return (True if fields.get("role") == "master" else None), None
        port = fields.get("master_port", "")
        follows = (fields["master_host"], int(port)) if port.isdigit() else None
        return False, follows

    def _take(self, data: bytes) -> None:
        for kind, raw in self._decoder.feed(data):
            if kind == "reply":
                self._replies.append(raw)
            elif self.on_push is not None:
                self.on_push(raw)

    async def _send(self, loop: asyncio.AbstractEventLoop, data: bytes) -> None:
        if self.tls is None:
            await loop.sock_sendall(self.sock, data)
            return
        layer, _, outgoing = self.tls
        layer.write(data)
        await loop.sock_sendall(self.sock, outgoing.read())

    async def _receive(self, loop: asyncio.AbstractEventLoop) -> bytes:
        while True:
            if self.tls is not None:
                try:
                    data = self.tls[0].read(CHUNK)
                    if data:
                        return data
                    raise ConnectionResetError("the server closed the connection")
                except ssl.SSLWantReadError:
                    pass
            data = await loop.sock_recv(self.sock, CHUNK)
            if not data:
                raise ConnectionResetError("the server closed the connection")
            if self.tls is None:
                return data
            self.tls[1].write(data)

    def close(self) -> None:
        """Close the connection, unless it has become a link."""
        self.sock.close()
