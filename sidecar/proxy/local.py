"""Commands about the session itself: AUTH, HELLO, SELECT, RESET, QUIT and CLIENT.

The state they are about is the sidecar's to keep, since the connection behind is shared. Only
what is surely right is answered here; what might be an error is put to the server, so that the
error is the server's own.

All of them run when the client has no reply outstanding; the request stands at its head until
`answer` takes it off.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from hiredis import pack_command

from sidecar.proxy import client_list
from sidecar.proxy.errors import Refused, Unreachable, reply_for
from sidecar.proxy.greeting import Login, Talk, is_error
from sidecar.proxy.plane import PINNED_MODE, Client

if TYPE_CHECKING:
    from sidecar.proxy.identity import Identity
    from sidecar.proxy.pool import Pool

OK = b"+OK\r\n"
# State that only a connection of one's own can carry.
PINNING = frozenset({b"TRACKING", b"REPLY", b"CACHING", b"NO-EVICT", b"NO-TOUCH", b"CAPA",
                     b"IMPORT-SOURCE"})  # fmt: skip
# Put to the server on a connection made for it.
ASIDE = frozenset({b"KILL", b"UNBLOCK", b"PAUSE", b"UNPAUSE"})


def is_plain_word(value: bytes) -> bool:
    """What the server allows in client names and library names: no blanks, printable ASCII."""
    return all(33 <= byte <= 126 for byte in value)


def bulk(value: bytes) -> bytes:
    """A bulk string reply."""
    return b"$%d\r\n%s\r\n" % (len(value), value)


class LocalCommands:
    """Answers session commands, and puts to the server what only it can answer."""

    def __init__(self, pool: Pool, setinfo_known: Callable[[], bool]) -> None:
        self.pool = pool
        self.setinfo_known = setinfo_known
        # Ids of one sidecar must not collide with another's, nor with the server's small ones,
        # and stay exact in a double.
        self._next_id = secrets.randbelow(1 << 20) << 32
        self.by_id: dict[int, Client] = {}

    def new_id(self) -> int:
        """An id for a new client, as CLIENT ID will tell it."""
        self._next_id += 1
        return self._next_id

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
            self._pass_pinned(client, args)
            return
        if name == b"CLIENT":
            self._client(client, args, raw)
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

    # CLIENT

    def _client(self, client: Client, args: Sequence[bytes], raw: bytes) -> None:
        sub = args[1].upper() if len(args) > 1 else b""
        greeted = client.identity.greeted
        if greeted is None or greeted.unauthenticated or greeted.refused_name is not None:
            self._when_up(client, client.forward)
        elif sub == b"ID" and len(args) == 2:
            client.answer(b":%d\r\n" % client.id)
        elif sub == b"GETNAME" and len(args) == 2:
            client.answer(bulk(client.name) if client.name else self._null(client))
        elif sub == b"SETNAME" and len(args) == 3 and is_plain_word(args[2]):
            client.name = args[2]
            client.answer(OK)
        elif sub == b"SETINFO" and len(args) == 4 and self._set_info(client, args[2], args[3]):
            client.answer(OK)
        elif sub == b"LIST":
            client.task = self.pool.spawn(self._list(client, args, raw))
        elif sub == b"INFO" and len(args) == 2:
            client.task = self.pool.spawn(self._info(client, raw))
        elif sub == b"TRACKING" and b"REDIRECT" in (words := [a.upper() for a in args[:-1]]):
            client.task = self.pool.spawn(self._redirect(client, args, words.index(b"REDIRECT")))
        elif sub in PINNING and not (sub == b"REPLY" and args[2:3] == [b"ON"]):
            self.pool.dedicate(client, pinned=True)
        elif sub in ASIDE:
            self._aside(client, args)
        else:
            client.forward()

    def _when_up(self, client: Client, act: Callable[[], None]) -> None:
        """Do something that needs the shared link, now or when it is there."""
        if client.identity.link.up or client.identity.link.refusing:
            act()
        else:
            client.identity.waiting.add(client)
            self.pool.connect(client.identity)

    @staticmethod
    def _null(client: Client) -> bytes:
        return b"_\r\n" if client.identity.login.proto == 3 else b"$-1\r\n"

    def _set_info(self, client: Client, attribute: bytes, value: bytes) -> bool:
        if not self.setinfo_known() or not is_plain_word(value):
            return False
        if attribute.upper() == b"LIB-NAME":
            client.lib_name = value
        elif attribute.upper() == b"LIB-VER":
            client.lib_version = value
        else:
            return False
        return True

    def _aside(self, client: Client, args: Sequence[bytes]) -> None:
        """CLIENT KILL and UNBLOCK may name one of our clients, by an id or address we gave out."""
        if args[1].upper() == b"KILL":
            other = self._named(args)
            if other is not None:
                self._kill(client, other, skip_me=len(args) > 3)
                return
        request = pack_command(tuple(self.translate(args)))
        change: Callable[[bytes], bytes] = bytes
        if args[1].upper() == b"KILL" and b"USER" in (words := [a.upper() for a in args[:-1]]):
            user = args[words.index(b"USER") + 1]

            def change(reply: bytes) -> bytes:
                self._close_clients_of(user, client)
                return reply

        client.task = self.pool.spawn(self._put_aside(client, request, change))

    def _close_clients_of(self, user: bytes, asking: Client) -> None:
        """The server has closed this user's links: so end the clients behind them."""
        for other in list(self.by_id.values()):
            if other is not asking and (other.identity.login.user or b"default") == user:
                other.close("killed")

    def _named(self, args: Sequence[bytes]) -> Client | None:
        """The client of ours that a CLIENT KILL with just one filter means."""
        if len(args) == 3:
            kind, value = b"ADDR", args[2]
        elif len(args) == 4:
            kind, value = args[2].upper(), args[3]
        else:
            return None
        if kind == b"ID" and value.isdigit() and len(value) < 19:
            return self.by_id.get(int(value))
        if kind == b"ADDR":
            own = self.by_id.values()
            return next((c for c in own if printable_address(c.peer) == value), None)
        return None

    def translate(self, args: Sequence[bytes]) -> list[bytes]:
        """Arguments of a CLIENT command with our ids replaced by the server's.

        An id of ours whose client has no connection of its own becomes 0, which no server uses.
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
        if at is not None and args[at].isdigit() and len(args[at]) < 19:
            other = self.by_id.get(int(args[at]))
            if other is not None:
                up = other.dedicated
                changed[at] = b"%d" % (up.server_id if up is not None else 0)
        return changed

    @staticmethod
    def _kill(client: Client, other: Client, *, skip_me: bool) -> None:
        """Kill a client of ours. The old form (an address alone) answers OK, the new a count."""
        if other is not client:
            other.close("killed")
            client.answer(b":1\r\n" if skip_me else OK)
        elif skip_me:
            client.answer(b":0\r\n")
        else:
            client.skip()
            client.say(OK)
            client.finish()

    async def _put_aside(
        self, client: Client, request: bytes, change: Callable[[bytes], bytes] = bytes
    ) -> None:
        """Put one request to the server on a connection of its own, and pass on the reply."""
        try:
            talk = await self.pool.open(client.identity)
            reply = change((await talk.ask(request))[0])
            talk.close()
        except (Refused, Unreachable) as error:
            reply = reply_for(error)
        client.task = None
        client.answer(reply)

    async def _list(self, client: Client, args: Sequence[bytes], raw: bytes) -> None:
        """CLIENT LIST, with this sidecar's clients in the place of its links."""
        words = [a.upper() for a in args[2:4]]
        wanted: set[int] | None = None
        if words[:1] == [b"ID"] and len(args) > 3 and all(a.isdigit() for a in args[3:]):
            wanted = {int(a) for a in args[3:]}
            raw = pack_command((b"CLIENT", b"LIST"))
        try:
            talk = await self.pool.open(client.identity)
            asker = self.server_id(talk.hello)
            reply = (await talk.ask(raw))[0]
            talk.close()
        except (Refused, Unreachable) as error:
            client.task = None
            client.answer(reply_for(error))
            return
        client.task = None
        normal = words[:1] != [b"TYPE"] or words[1:] == [b"NORMAL"]
        if not is_error(reply) and not client.closed:
            reply = self._with_own_clients(client, reply, asker, normal, wanted)
        client.answer(reply)

    def _with_own_clients(
        self, asking: Client, reply: bytes, asker: int, normal: bool, wanted: set[int] | None
    ) -> bytes:
        head, _, text = reply.partition(b"\r\n")
        verbatim = b"txt:" if head[:1] == b"=" else b""
        links = {up.server_id for up in self.pool.plane.upstreams}
        listed = [self._listed(c, c is asking) for c in self.by_id.values()] if normal else []
        lines = client_list.merge(client_list.parse(text[len(verbatim) : -2]), links, listed, asker)
        if wanted is not None:
            lines = [line for line in lines if int(line[b"id"]) in wanted]
        body = verbatim + b"".join(client_list.render(line) + b"\n" for line in lines)
        return b"%c%d\r\n%s\r\n" % (head[:1], len(body), body)

    @staticmethod
    def _listed(client: Client, asking: bool) -> client_list.Listed:
        up = client.dedicated or client.identity.link
        return client_list.Listed(
            client.id,
            up.server_id,
            printable_address(client.peer),
            client.name,
            client.lib_name,
            client.lib_version,
            int(time.monotonic() - client.since),
            asking,
        )

    async def _info(self, client: Client, raw: bytes) -> None:
        """CLIENT INFO: the line of a connection like this client's, with its own names."""
        own = {b"id": b"%d" % client.id, b"name": client.name, b"lib-name": client.lib_name,
               b"lib-ver": client.lib_version, b"addr": printable_address(client.peer)}  # fmt: skip

        def mine(reply: bytes) -> bytes:
            head, _, line = reply.partition(b"\r\n")
            if reply[:1] not in (b"$", b"="):
                return reply
            prefix = line[:4] if head[:1] == b"=" else b""
            words = [w.partition(b"=") for w in line[len(prefix) : -2].rstrip(b"\n").split(b" ")]
            text = prefix + b" ".join(k + b"=" + own.get(k, v) for k, _, v in words) + b"\n"
            return b"%c%d\r\n%s\r\n" % (head[:1], len(text), text)

        await self._put_aside(client, raw, mine)

    async def _redirect(self, client: Client, args: Sequence[bytes], at: int) -> None:
        """CLIENT TRACKING ... REDIRECT names a client by an id that we have given out.

        The server must know it, so the named client gets a connection of its own first.
        """
        target = args[at + 1]
        other = self.by_id.get(int(target)) if target.isdigit() and len(target) < 19 else None
        if other is not None and other is not client and other.dedicated is None:
            await self.pool.pin(other)
        client.task = None
        if client.closed:
            return
        if client.mode == PINNED_MODE:
            client.pass_on(pack_command(tuple(self.translate(args))))
        else:
            # Pinned, it meets the same command again, and the id is put right there.
            self.pool.dedicate(client, pinned=True)

    def _pass_pinned(self, client: Client, args: Sequence[bytes]) -> None:
        """A CLIENT command of a pinned client: ids that we have given out are put right."""
        words = [a.upper() for a in args[:-1]]
        if words[1] == b"TRACKING" and b"REDIRECT" in words:
            client.task = self.pool.spawn(self._redirect(client, args, words.index(b"REDIRECT")))
        else:
            client.pass_on(pack_command(tuple(self.translate(args))))

    def introduction(self, client: Client) -> list[bytes]:
        """Requests that make a pinned link look like its client to CLIENT LIST."""
        requests = []
        if client.name:
            requests.append(pack_command((b"CLIENT", b"SETNAME", client.name)))
        if client.lib_name and self.setinfo_known():
            requests.append(pack_command((b"CLIENT", b"SETINFO", b"LIB-NAME", client.lib_name)))
        if client.lib_version and self.setinfo_known():
            requests.append(pack_command((b"CLIENT", b"SETINFO", b"LIB-VER", client.lib_version)))
        return requests

    # RESET and identities

    def forget(self, client: Client) -> None:
        """Make the session as new, as RESET does."""
        client.name = client.lib_name = client.lib_version = b""
        self.pool.join(client, self.pool.default)

    def _reset(self, client: Client, args: Sequence[bytes], raw: bytes) -> None:
        if len(args) != 1:
            client.task = self.pool.spawn(self._put_aside(client, raw))
            return
        client.drop_link()
        self.forget(client)
        client.answer(b"+RESET\r\n")

    def _select(self, client: Client, args: Sequence[bytes], raw: bytes) -> None:
        db = args[1] if len(args) == 2 else b""
        if not db.isdigit() or len(db) > 9 or (db[:1] == b"0" and db != b"0"):
            client.task = self.pool.spawn(self._put_aside(client, raw))
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
            client.answer(error)
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
            talk = await Talk.open(self.pool.target)
            reply = (await talk.ask(raw))[0]
            if is_error(reply):
                talk.close()
                client.task = None
                client.answer(answer(reply, None))
                return
            identity, refusal = await self.pool.adopt(talk, login)
        except (Refused, Unreachable) as error:
            client.task = None
            client.answer(reply_for(error))
            return
        client.task = None
        if client.closed:
            return
        if refusal is not None:
            client.answer(refusal)
            return
        self.pool.join(client, identity)
        client.answer(answer(reply, identity))

    def _hello(self, client: Client, args: Sequence[bytes], raw: bytes) -> None:
        parsed = parse_hello(args)
        login: Login = client.identity.login
        if parsed is None:
            client.task = self.pool.spawn(self._put_aside(client, raw))
            return
        proto, credentials, name = parsed
        proto = proto or login.proto

        def accept(hello: bytes | None) -> bytes:
            if name is not None:
                client.name = name
            return with_id(hello or b"", client.id)

        if credentials is not None:
            user, password = credentials
            wanted = replace(login, proto=proto, user=user, password=password)
            client.task = self.pool.spawn(
                self._prove(client, wanted, raw, lambda reply, i: accept(reply) if i else reply)
            )
            return
        greeted = client.identity.greeted
        if greeted is not None and greeted.unauthenticated:
            client.task = self.pool.spawn(self._put_aside(client, raw))
            return
        self._move(
            client,
            replace(login, proto=proto),
            lambda identity: accept(identity.greeted.hello if identity.greeted else None),
        )

    @staticmethod
    def server_id(hello: bytes | None) -> int:
        """The connection's id on the server, from its HELLO; 0 when there is none."""
        at = (hello or b"").find(b"$2\r\nid\r\n:")
        if hello is None or at < 0:
            return 0
        begin = at + 9
        return int(hello[begin : hello.index(b"\r\n", begin)])


def printable_address(peer: object) -> bytes:
    """A peer's address the way CLIENT LIST writes it; empty for unix sockets."""
    if isinstance(peer, tuple) and len(peer) >= 2:
        host = f"[{peer[0]}]" if ":" in str(peer[0]) else peer[0]
        return f"{host}:{peer[1]}".encode()
    return b""


def parse_hello(
    args: Sequence[bytes],
) -> tuple[int, tuple[bytes, bytes] | None, bytes | None] | None:
    """(version or 0, (user, password), name) of a HELLO that is surely right, else None."""
    if len(args) == 1:
        return 0, None, None
    if args[1] not in (b"2", b"3"):
        return None
    credentials = name = None
    i = 2
    while i < len(args):
        word = args[i].upper()
        if word == b"AUTH" and i + 2 < len(args):
            credentials = (args[i + 1], args[i + 2])
            i += 3
        elif word == b"SETNAME" and i + 1 < len(args) and is_plain_word(args[i + 1]):
            name = args[i + 1]
            i += 2
        else:
            return None
    return int(args[1]), credentials, name


def with_id(hello: bytes, client_id: int) -> bytes:
    """A HELLO reply with the id that this client is known by here."""
    mark = b"$2\r\nid\r\n:"
    at = hello.find(mark)
    if at < 0:
        return hello
    begin = at + len(mark)
    end = hello.index(b"\r\n", begin)
    return hello[:begin] + str(client_id).encode() + hello[end:]
