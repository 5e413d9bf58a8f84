"""Commands about the session itself: AUTH, HELLO, SELECT, RESET, QUIT and CLIENT.

The state they are about is the sidecar's to keep, since the connection behind is shared. Only
what is surely right is answered here; what might be an error is put to the server, so that the
error is the server's own.

All of them run when the client has no reply outstanding; the request stands at its head until
`answer` takes it off.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sidecar.proxy.io.client import PINNED_MODE, Client
from sidecar.proxy.links.errors import Refused, Unreachable, reply_for
from sidecar.proxy.links.greeting import Login, is_error
from sidecar.proxy.session import hello as hellos
from sidecar.proxy.session.client_command import OK, ClientCommands
from sidecar.proxy.session.passthrough import pass_through

if TYPE_CHECKING:
    from sidecar.proxy.links.identity import Identity
    from sidecar.proxy.links.pool import Pool


class SessionCommands:
    """Answers session commands, and puts to the server what only it can answer."""

    def __init__(self, pool: Pool, setinfo_known: Callable[[], bool]) -> None:
        self.pool = pool
        # Ids of one sidecar must not collide with another's, nor with the server's small ones,
        # and stay exact in a double.
        self._next_id = secrets.randbelow(1 << 20) << 32
        self.by_id: dict[int, Client] = {}
        self._of_client = ClientCommands(pool, self.by_id, setinfo_known)

    def new_id(self) -> int:
        """An id for a new client, as CLIENT ID will tell it."""
        self._next_id += 1
        return self._next_id

    @staticmethod
    def server_id(hello: bytes | None) -> int:
        """The connection's id on the server, from its HELLO; 0 when there is none."""
        return hellos.server_id(hello)

    def introduction(self, client: Client) -> list[bytes]:
        """Requests that make a pinned link look like its client to CLIENT LIST."""
        return self._of_client.introduction(client)

    def run(self, client: Client) -> None:
        """Serve the request at the head of this client."""
        head = client.head()
        if head is None:
            # A giant request to a session command: no server takes one.
            client.say(b"-ERR Protocol error: invalid bulk length\r\n")
            client.finish()
            return
        args, raw = head
        name = args[0].upper()
        if client.mode == PINNED_MODE:
            self._of_client.run_pinned(client, args)
            return
        if name == b"CLIENT":
            self._of_client.run(client, args, raw)
        elif name == b"QUIT":
            client.say(OK)
            client.finish()
        elif name == b"RESET":
            self._reset(client, args, raw)
        elif name == b"SELECT":
            self._select(client, args, raw)
        elif name == b"AUTH":
            self._auth(client, args, raw)
        else:
            self._hello(client, args, raw)

    # RESET and identities

    def forget(self, client: Client) -> None:
        """Make the session as new, as RESET does."""
        client.name = client.lib_name = client.lib_version = b""
        client.fresh = False
        if self.pool.tracing is not None:
            self.pool.tracing.named(client, b"")
        self.pool.join(client, self.pool.default)

    def _reset(self, client: Client, args: Sequence[bytes], raw: bytes) -> None:
        if len(args) != 1:
            client.task = self.pool.spawn(pass_through(self.pool, client, raw))
            return
        client.drop_link()
        self.forget(client)
        client.answer(b"+RESET\r\n")

    def _select(self, client: Client, args: Sequence[bytes], raw: bytes) -> None:
        db = args[1] if len(args) == 2 else b""
        if not db.isdigit() or len(db) > 9 or (db[:1] == b"0" and db != b"0"):
            client.task = self.pool.spawn(pass_through(self.pool, client, raw))
            return
        login: Login = client.identity.login
        if int(db) == login.db and client.identity.link.up:
            client.answer(OK)
            return
        self._move(client, replace(login, db=int(db)), lambda _: OK)

    def _move(self, client: Client, login: Login, reply: Callable[[Identity], bytes]) -> None:
        """Make the client another identity's once that one's link is up; the server's error if
        it refuses the change."""
        identity = self.pool.identity(login, own_login=False)
        if identity.link.up and identity.greeted is not None:
            self.pool.join(client, identity)
            client.answer(reply(identity))
        else:
            client.task = self.pool.spawn(self._move_later(client, identity, reply))

    async def _move_later(
        self, client: Client, identity: Identity, reply: Callable[[Identity], bytes]
    ) -> None:
        error = await self.pool.bring_up(identity)
        client.task = None
        if client.closed:
            return
        if error is not None:
            client.refuse(error)
            return
        self.pool.join(client, identity)
        client.answer(reply(identity))

    # AUTH and HELLO

    def _auth(self, client: Client, args: Sequence[bytes], raw: bytes) -> None:
        if len(args) == 2:
            user, password = b"", args[1]
        else:
            user, password = args[1] if len(args) > 1 else b"", args[-1]
        login = replace(client.identity.login, user=user or b"default", password=password)
        client.task = self.pool.spawn(self._prove(client, login, raw, lambda reply, _: reply))

    async def _prove(
        self,
        client: Client,
        login: Login,
        raw: bytes,
        answer: Callable[[bytes, Identity | None], bytes],
    ) -> None:
        """Have the server judge credentials on a connection of its own, the client's very bytes.

        Only then does the client become that identity's; the connection becomes its link.
        """
        try:
            connection = await self.pool.reach()
            reply = (await connection.ask(raw))[0]
            self._judged(client, login, not is_error(reply))
            if is_error(reply):
                connection.close()
                client.task = None
                client.answer(answer(reply, None))
                return
            identity, refusal = await self.pool.adopt(connection, login)
        except (Refused, Unreachable) as error:
            client.task = None
            client.refuse(reply_for(error))
            return
        client.task = None
        if client.closed:
            return
        if refusal is not None:
            client.refuse(refusal)
            return
        self.pool.join(client, identity)
        client.answer(answer(reply, identity))

    def _judged(self, client: Client, login: Login, accepted: bool) -> None:
        if self.pool.audit is not None:
            self.pool.audit.login(client, login.user, accepted)

    def _hello(self, client: Client, args: Sequence[bytes], raw: bytes) -> None:
        parsed = hellos.parse_hello(args)
        login: Login = client.identity.login
        if parsed is None:
            client.task = self.pool.spawn(pass_through(self.pool, client, raw))
            return
        proto, credentials, name = parsed
        proto = proto or login.proto

        def accept(hello: bytes | None) -> bytes:
            if name is not None:
                client.name = name
                client.fresh = hellos.wants_fresh(name)
                if self.pool.tracing is not None:
                    self.pool.tracing.named(client, name)
            return hellos.with_id(hello or b"", client.id)

        if credentials is not None:
            user, password = credentials
            wanted = replace(login, proto=proto, user=user, password=password)
            client.task = self.pool.spawn(
                self._prove(client, wanted, raw, lambda reply, i: accept(reply) if i else reply)
            )
            return
        greeted = client.identity.greeted
        if greeted is not None and greeted.unauthenticated:
            client.task = self.pool.spawn(pass_through(self.pool, client, raw))
            return
        self._move(
            client,
            replace(login, proto=proto),
            lambda identity: accept(identity.greeted.hello if identity.greeted else None),
        )
