"""AUTH and HELLO where the sidecar judges logins, and everything that strangers send.

No AUTH of a client goes to a server. A client on the shared link that has given the right password
moves to the identity of its principal. On a link of its own (WATCH, MULTI, subscriptions, tracking)
the server has state of the client. There it is sent, in the place of the client's credentials,
those of the principal's user, or some that nobody has: so the reply comes in its turn, and is the
server's own. In MULTI a client can only log in again as who it is.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence

from hiredis import pack_command

from sidecar.proxy.io.client import PINNED_MODE, Client
from sidecar.proxy.links.errors import error_reply
from sidecar.proxy.links.greeting import is_error
from sidecar.proxy.links.identity import Identity, NodeLinks
from sidecar.proxy.session.asking import ask, send_instead
from sidecar.proxy.session.hello import fault_of_hello, parse_hello, without_credentials
from sidecar.proxy.session.identity_change import IdentityChange
from sidecar.proxy.session.password_proof import BusyError, PasswordProof
from sidecar.proxy.session.principals import NOAUTH, Principals
from sidecar.proxy.session.tenant_tracking import holds_back
from sidecar.proxy.tasks import Tasks

OK = b"+OK\r\n"
WRONG = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
HELLO_NOAUTH = (
    b"-NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO "
    b"<proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP "
    b"protocol version at the same time\r\n"
)
SYNTAX = b"-ERR syntax error\r\n"
ARITY = b"-ERR wrong number of arguments for 'auth' command\r\n"
BUSY = error_reply("ERR", "too many logins at once; try again later")
# What may be done before a login, and is not about it.
ALLOWED = frozenset({b"RESET", b"QUIT"})

# Words of a request to the server, from a user and a password.
Words = Callable[[bytes, bytes], Sequence[bytes]]
Credentials = tuple[bytes, bytes]
# Called with the client, the name and whether the password was accepted.
Judged = Callable[[Client, bytes, bool], None]
# Called with a client whose own link is another identity's from now on.
Count = Callable[[Client, Identity], None]
# Makes the reply to HELLO: from the client, its new name or None, and the server's reply.
Greet = Callable[[Client, bytes | None, bytes], bytes]


class SidecarLogins:
    """Serves strangers, and the logins of all clients. `judged` is told of each login. `pins` says
    whether a client that has logged in has a link of its own from then on. `count` is told when a
    link of a client's own becomes another identity's."""

    def __init__(
        self,
        principals: Principals,
        proof: PasswordProof,
        change: IdentityChange,
        tasks: Tasks,
        judged: Judged,
        pins: Callable[[Client], bool],
        count: Count,
    ) -> None:
        self._principals = principals
        self._proof = proof
        self._change = change
        self._tasks = tasks
        self._judged = judged
        self._pins = pins
        self._count = count
        self.counts = {"accepted": 0, "refused": 0, "busy": 0}

    def close(self) -> None:
        """End what judges passwords: the data plane closes."""
        self._proof.close()

    def is_stranger(self, client: Client) -> bool:
        """Whether a client has proved nothing."""
        return self._principals.is_stranger(client)

    def turns_away(self, client: Client) -> bool:
        """Refuse what a stranger wants a link for; False: it is none."""
        if not self._principals.is_stranger(client):
            return False
        if client.head() is None:
            client.refuse_last(NOAUTH)  # too large to be kept: nothing behind it can be read
        else:
            client.refuse(NOAUTH)
        return True

    def run(self, client: Client, args: Sequence[bytes], greet: Greet) -> bool:
        """Serve the request at the client's head; False: it is not about logins, and no
        stranger's."""
        name = args[0].upper()
        if name == b"AUTH":
            self._auth(client, args)
        elif name == b"HELLO":
            return self._hello(client, args, greet)
        elif self._principals.is_stranger(client) and name not in ALLOWED:
            client.refuse(NOAUTH)
        elif name == b"CLIENT":
            return holds_back(self._principals, client, args)
        else:
            return False
        return True

    def _auth(self, client: Client, args: Sequence[bytes]) -> None:
        fault = ARITY if len(args) < 2 else SYNTAX if len(args) > 3 else None
        user = args[1] if len(args) > 2 else b"default"
        if client.dedicated is not None:
            words = lambda *pair: (args[0], *pair) if fault is None else args  # noqa: E731
            given = (user, args[-1]) if fault is None else None
            self._prove_on_own_link(client, given, words, lambda: client.answer(OK))
        elif fault is not None:
            client.refuse(fault)
        else:
            self._prove(client, (user, args[-1]), 0, lambda _: self._answer(client, OK))

    def _hello(self, client: Client, args: Sequence[bytes], greet: Greet) -> bool:
        parsed = parse_hello(args)
        proto, credentials, name = parsed or (0, None, None)
        if client.dedicated is not None:
            if without_credentials(args):
                return False
            bare = _without_auth(args)
            self._prove_on_own_link(
                client,
                credentials,
                lambda *pair: _with_credentials(args, pair),
                lambda: ask(client, pack_command(tuple(bare)), client.answer),
            )
        elif parsed is None:
            client.refuse(fault_of_hello(args) or SYNTAX)
        elif credentials is not None:
            request = pack_command((b"HELLO", b"%d" % proto))
            self._prove(
                client,
                credentials,
                proto,
                lambda _: client.ask(
                    request, lambda said: self._answer(client, greet(client, name, said))
                ),
            )
        elif self._principals.is_stranger(client):
            client.refuse(HELLO_NOAUTH)
        else:
            return False
        return True

    # On the shared link

    def _prove(
        self, client: Client, given: Credentials, proto: int, there: Callable[[NodeLinks], None]
    ) -> None:
        """Judge credentials; if they are right, make the client that principal, in this protocol
        (0: its present one), and call `there`."""

        def then(accepted: bool) -> None:
            name = _name(given)
            if not accepted:
                client.refuse(WRONG)
                return
            identity = self._principals.identity_of(client, name, proto)
            self._change.enter(client, name, identity, there)

        client.task = self._tasks.spawn(self._judge(client, given, then))

    def _answer(self, client: Client, reply: bytes) -> None:
        """Answer a login."""
        if not client.closed and not is_error(reply) and self._pins(client):
            client.skip()
            client.say(reply)
            client.pin_at_once()
        else:
            client.answer(reply)

    async def _judge(
        self, client: Client, given: Credentials, then: Callable[[bool], None]
    ) -> None:
        user, password = given
        address = str(client.peer[0]) if isinstance(client.peer, tuple) else "unix"
        try:
            accepted = await self._proof.judge(address, user, password)
        except BusyError:
            client.task = None
            self.counts["busy"] += 1
            if client.mode == PINNED_MODE:
                then(False)
            else:
                client.refuse(BUSY)
            return
        client.task = None
        # The file may have changed meanwhile.
        accepted = accepted and self._principals.knows(_name(given))
        self.counts["accepted" if accepted else "refused"] += 1
        self._judged(client, user, accepted)
        if not client.closed:
            then(accepted)

    # On a link of its own

    def _prove_on_own_link(
        self,
        client: Client,
        given: Credentials | None,
        words: Words,
        again: Callable[[], None],
    ) -> None:
        """Judge credentials of a client whose link has state. `words` makes the request that the
        server gets; `again` answers a client that has logged in again as who it is, where the
        server need not be asked. `given` None: the request has a fault, which the server tells."""
        in_multi, pinned = client.queued is not None, client.mode == PINNED_MODE
        if given is None and (pinned or in_multi):
            send_instead(client, words(*_nobodys()))
            return
        same = given is not None and _name(given) == client.principal
        if given is None or not (same or pinned or in_multi):
            client.pin()  # what the sidecar knows of its link is about the user before
            return

        def then(accepted: bool) -> None:
            if accepted and same and not (pinned or in_multi):
                again()
            elif accepted and (same or pinned):
                self._log_link_in(client, _name(given), words)
            elif pinned or in_multi:
                send_instead(client, words(*_nobodys()))
            else:
                client.refuse(WRONG)

        client.task = self._tasks.spawn(self._judge(client, given, then))

    def _log_link_in(self, client: Client, name: str, words: Words) -> None:
        """Have the client's link logged in as the server's user of this principal."""
        identity = self._principals.identity_of(client, name)
        auth = identity.login.auth
        if auth and name != client.principal:
            client.principal = name
            self._count(client, identity)  # before what is behind the login is read
        if auth:
            send_instead(client, words(auth[1] if len(auth) > 2 else b"default", auth[-1]))
        elif name == client.principal:  # nobody need log in there: the reply that AUTH would get
            send_instead(client, (b"CLIENT", b"SETNAME", client.name))
        else:
            send_instead(client, words(*_nobodys()))


def _name(given: Credentials) -> str:
    """The principal that credentials are of."""
    return given[0].decode("utf-8", "replace")


def _nobodys() -> Credentials:
    """Credentials that no server has."""
    return secrets.token_hex(16).encode(), secrets.token_hex(16).encode()


def _with_credentials(args: Sequence[bytes], pair: Credentials) -> Sequence[bytes]:
    """A HELLO with these credentials in the place of all others."""
    out = list(args)
    for i in range(2, len(args)):
        if args[i].upper() == b"AUTH":
            out[i + 1 : i + 3] = pair[: len(args) - i - 1]
    return out


def _without_auth(args: Sequence[bytes]) -> Sequence[bytes]:
    """A HELLO that is certainly valid, without its credentials."""
    out, i = list(args[:2]), 2
    while i < len(args):
        if args[i].upper() == b"AUTH":
            i += 3
        else:
            out += args[i : i + 2]
            i += 2
    return out
