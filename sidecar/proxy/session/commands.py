"""Session commands: AUTH, HELLO, SELECT, RESET, QUIT and CLIENT; and those that end a script.

The sidecar keeps the state that they change, because the link behind is shared. It answers only
requests that are certainly valid, and asks the server whether the user may do that; the server gets
the others, so that errors are its own. On a link of the client's own the server keeps the state.

They run while the client has no reply outstanding. The request stays at the head of the client's
input until `answer` removes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hiredis import pack_command

from sidecar.proxy.cluster.fan_out import FanOut
from sidecar.proxy.io.client import PINNED_MODE, Client
from sidecar.proxy.links.dedicated import DedicatedLinks
from sidecar.proxy.links.greeting import Login, is_error
from sidecar.proxy.links.hello_reply import version_of, with_id
from sidecar.proxy.links.identity import NodeLinks
from sidecar.proxy.links.node import Node, Nodes
from sidecar.proxy.session import in_exec
from sidecar.proxy.session.asking import ask
from sidecar.proxy.session.client_command import OK, ClientCommands
from sidecar.proxy.session.guards import Guards
from sidecar.proxy.session.hello import beginning_of_hello, fault_of_hello, parse_hello
from sidecar.proxy.session.identity_change import IdentityChange
from sidecar.proxy.session.names import ClientNames
from sidecar.proxy.session.passthrough import PassThrough
from sidecar.proxy.session.sidecar_logins import SidecarLogins

# What HELLO says of a cluster's node, and what clients are told.
OF_A_CLUSTER = b"$4\r\nmode\r\n$7\r\ncluster\r\n"
OF_ONE_SERVER = b"$4\r\nmode\r\n$10\r\nstandalone\r\n"


class SessionCommands:
    """Answers session commands."""

    def __init__(
        self,
        nodes: Nodes,
        change: IdentityChange,
        names: ClientNames,
        client_commands: ClientCommands,
        dedicated: DedicatedLinks,
        pass_through: PassThrough,
        fan_out: FanOut | None,
        logins: SidecarLogins | None,
        guards: Guards,
    ) -> None:
        self._nodes = nodes
        self._change = change
        self._names = names
        self._client_commands = client_commands
        self._dedicated = dedicated
        self._pass_through = pass_through
        self._fan_out = fan_out  # None: the upstream is no cluster
        self._logins = logins  # None: the server judges them
        self._guards = guards

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
        if self._logins is not None and self._logins.run(client, args, self._greet):
            return
        if self._guards.sees_login(client, name, args):
            return
        if client.mode == PINNED_MODE and name == b"EXEC":
            in_exec.run_pinned(client)
        elif client.mode == PINNED_MODE and name == b"CLIENT":
            self._client_commands.run_pinned(client, args, raw)
        elif client.mode == PINNED_MODE:
            client.pass_on(raw)  # HELLO
        elif self._fan_out is not None and self._fan_out.serves(client, name):
            self._fan_out.run(client, args, raw)
        elif name == b"CLIENT":
            self._client_commands.run(client, args, raw)
        elif name == b"EXEC":
            in_exec.run(client, raw)
        elif name == b"QUIT":
            client.say(OK)
            client.finish()
        elif name == b"RESET":
            self._reset(client)
        elif name in (b"SCRIPT", b"FUNCTION"):
            self._pass_through.ask(client, raw)  # KILL, see core/session/dispatch.pyx
        elif client.dedicated is not None:
            self._on_own_link(client, name, args, raw)
        elif name == b"SELECT":
            self._select(client, args, raw)
        elif name == b"AUTH":
            self._auth(client, args, raw)
        else:
            self._hello(client, args, raw)

    async def wait(self, client: Client, node: Node) -> None:
        """Serve WAIT or WAITAOF: at this node, or at all shards of a cluster."""
        head = client.head()
        if self._fan_out is None or head is None:
            await self._dedicated.wait(client, node)
        else:
            await self._fan_out.wait(client, *head)

    def forget(self, client: Client) -> None:
        """Reset the session's state."""
        client.multi_unsent = False
        self._names.reset(client)
        self._change.reset(client)

    def _reset(self, client: Client) -> None:
        client.drop_link()
        self.forget(client)
        client.answer(b"+RESET\r\n")

    def _on_own_link(self, client: Client, name: bytes, args: Sequence[bytes], raw: bytes) -> None:
        """SELECT, HELLO and AUTH: the server keeps the state from here on. As another user the
        client is pinned, since what the sidecar knows of it is about the user before."""
        parsed = parse_hello(args) if name == b"HELLO" else None
        changes = name == b"HELLO" and (parsed is None or parsed[1] is not None)
        if name == b"AUTH" or changes or (name == b"HELLO" and client.queued is not None):
            client.pin()
        elif not self._dedicated.keep(client, self._nodes.home):
            return
        elif parsed is None:
            ask(client, raw, client.answer)
        else:
            _, _, setname = parsed
            ask(client, raw, lambda said: client.answer(self._greet(client, setname, said)))

    def _select(self, client: Client, args: Sequence[bytes], raw: bytes) -> None:
        db = args[1] if len(args) == 2 else b""
        login: Login = client.identity.login
        other = db.isdigit() and len(db) <= 9 and (db[:1] != b"0" or db == b"0")
        greeted = self._links_of(client).greeted
        if not other or int(db) == login.db or (greeted is not None and greeted.unauthenticated):
            client.forward()  # it changes nothing there, or is refused
        else:
            self._change.move(client, replace(login, db=int(db), via=None), raw, lambda said: said)

    def _auth(self, client: Client, args: Sequence[bytes], raw: bytes) -> None:
        if len(args) == 2:
            user, password = b"", args[1]
        else:
            user, password = args[1] if len(args) > 1 else b"", args[-1]
        login: Login = client.identity.login
        self._change.prove(
            client, login.as_user(user or b"default", password), raw, lambda reply, _: reply
        )

    def _hello(self, client: Client, args: Sequence[bytes], raw: bytes) -> None:
        parsed = parse_hello(args)
        login: Login = client.identity.login
        if parsed is None:
            self._hello_at_fault(client, args, raw)
            return
        proto, credentials, name = parsed
        proto = proto or login.proto
        if credentials is not None:
            self._change.prove(
                client,
                replace(login.as_user(*credentials), proto=proto),
                raw,
                lambda reply, links: (
                    self._greet(client, name, reply)
                    if links
                    else self._refused_login(client, args, reply)
                ),
            )
            return
        request = pack_command((b"HELLO", b"%d" % proto) if len(args) > 1 else (b"HELLO",))
        self._change.move(
            client,
            replace(login, proto=proto),
            request,
            lambda said: self._greet(client, name, said),
        )

    def _hello_at_fault(self, client: Client, args: Sequence[bytes], raw: bytes) -> None:
        """HELLO with something wrong in it. Servers that act word by word have done what stands
        before that."""
        done = parse_hello(beginning_of_hello(args)) if self._by_word(client, args) else None
        _, credentials, name = done or (0, None, None)
        if credentials is not None:
            fault = fault_of_hello(args) or b""
            login: Login = client.identity.login

            def answer(reply: bytes, links: NodeLinks | None) -> bytes:
                if links is None:
                    return self._refused_login(client, args, reply)
                self._name(client, name)
                return fault

            request = pack_command((b"AUTH", *credentials))
            self._change.prove(client, login.as_user(*credentials), request, answer)
            return
        self._name(client, name)
        self._pass_through.ask(client, raw)

    def _refused_login(self, client: Client, args: Sequence[bytes], error: bytes) -> bytes:
        """The server has refused the credentials in a HELLO."""
        if self._by_word(client, args):
            done = parse_hello(beginning_of_hello(args, before_login=True))
            self._name(client, done[2] if done is not None else None)
        return error

    def _by_word(self, client: Client, args: Sequence[bytes]) -> bool:
        """Whether this HELLO has options, and the server acts on each before it reads the next."""
        greeted = self._links_of(client).greeted
        hello = greeted.hello if greeted is not None else None
        return len(args) > 2 and version_of(hello).reads_hello_by_word

    def _name(self, client: Client, name: bytes | None) -> None:
        if name is not None:
            self._names.set_name(client, name)

    def _greet(self, client: Client, name: bytes | None, hello: bytes) -> bytes:
        """The answer to HELLO, from the server's, with the client's own id; and keep its name."""
        if is_error(hello):
            return hello
        self._name(client, name)
        if self._fan_out is not None and not self._fan_out.as_cluster:
            hello = hello.replace(OF_A_CLUSTER, OF_ONE_SERVER)
        return with_id(hello, client.id)

    def _links_of(self, client: Client) -> NodeLinks:
        links: NodeLinks = client.identity.to(self._nodes.home)
        return links
