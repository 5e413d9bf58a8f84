"""Session commands: AUTH, HELLO, SELECT, RESET, QUIT and CLIENT.

The sidecar keeps the state that they change, because the link behind is shared. It answers only
requests that are certainly valid; the server gets the others, so that errors are its own.

They run while the client has no reply outstanding. The request stays at the head of the client's
input until `answer` removes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sidecar.proxy.io.client import PINNED_MODE, Client
from sidecar.proxy.links.greeting import Login
from sidecar.proxy.links.hello_reply import with_id
from sidecar.proxy.links.identity import NodeLinks
from sidecar.proxy.links.node import Nodes
from sidecar.proxy.session.client_command import OK, ClientCommands
from sidecar.proxy.session.hello import parse_hello
from sidecar.proxy.session.identity_change import IdentityChange
from sidecar.proxy.session.names import ClientNames
from sidecar.proxy.session.passthrough import PassThrough


class SessionCommands:
    """Answers session commands."""

    def __init__(
        self,
        nodes: Nodes,
        change: IdentityChange,
        names: ClientNames,
        client_commands: ClientCommands,
        pass_through: PassThrough,
    ) -> None:
        self._nodes = nodes
        self._change = change
        self._names = names
        self._client_commands = client_commands
        self._pass_through = pass_through

    def run(self, client: Client) -> None:
        """Serve the request at the head of this client."""
        head = client.head()
        if head is None:
            # Too large for a session command; servers refuse it as well.
            client.say(b"-ERR Protocol error: invalid bulk length\r\n")
            client.finish()
            return
        args, raw = head
        name = args[0].upper()
        if client.mode == PINNED_MODE:
            self._client_commands.run_pinned(client, args)
            return
        if name == b"CLIENT":
            self._client_commands.run(client, args, raw)
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

    def forget(self, client: Client) -> None:
        """Reset the session's state."""
        self._names.forget(client)
        self._change.reset(client)

    def _reset(self, client: Client, args: Sequence[bytes], raw: bytes) -> None:
        if len(args) != 1:
            self._pass_through.ask(client, raw)
            return
        client.drop_link()
        self.forget(client)
        client.answer(b"+RESET\r\n")

    def _select(self, client: Client, args: Sequence[bytes], raw: bytes) -> None:
        db = args[1] if len(args) == 2 else b""
        if not db.isdigit() or len(db) > 9 or (db[:1] == b"0" and db != b"0"):
            self._pass_through.ask(client, raw)
            return
        login: Login = client.identity.login
        if int(db) == login.db and self._links_of(client).shared.up:
            client.answer(OK)
            return
        self._change.move(client, replace(login, db=int(db)), lambda _: OK)

    def _auth(self, client: Client, args: Sequence[bytes], raw: bytes) -> None:
        if len(args) == 2:
            user, password = b"", args[1]
        else:
            user, password = args[1] if len(args) > 1 else b"", args[-1]
        login = replace(client.identity.login, user=user or b"default", password=password)
        self._change.prove(client, login, raw, lambda reply, _: reply)

    def _hello(self, client: Client, args: Sequence[bytes], raw: bytes) -> None:
        parsed = parse_hello(args)
        login: Login = client.identity.login
        if parsed is None:
            self._pass_through.ask(client, raw)
            return
        proto, credentials, name = parsed
        proto = proto or login.proto

        def accept(hello: bytes | None) -> bytes:
            if name is not None:
                self._names.set_name(client, name)
            return with_id(hello or b"", client.id)

        if credentials is not None:
            user, password = credentials
            wanted = replace(login, proto=proto, user=user, password=password)
            self._change.prove(
                client, wanted, raw, lambda reply, links: accept(reply) if links else reply
            )
            return
        greeted = self._links_of(client).greeted
        if greeted is not None and greeted.unauthenticated:
            self._pass_through.ask(client, raw)
            return
        self._change.move(
            client,
            replace(login, proto=proto),
            lambda links: accept(links.greeted.hello if links.greeted else None),
        )

    def _links_of(self, client: Client) -> NodeLinks:
        links: NodeLinks = client.identity.to(self._nodes.home)
        return links
