"""With which identity new clients begin: the server is to judge them as it would a new connection.

Clients that do not log in share a link. The server judges a connection when it is made: one that
was there before `CONFIG SET requirepass` (or `ACL SETUSER default ...`) goes on without a login, a
new one does not. So when the server begins or ceases to ask for a login, an *era* ends: clients
that come later get links that are made later.

That is noticed in two ways. A command through the sidecar that may change it casts doubt. Until it
has been answered each new client is an era of its own; those that come after the answer are one,
and the server is asked on a new connection: if nothing has changed, the old era goes on. And when a
new client comes, the server is asked as well, once in PERIOD seconds at most. That is how a change
made elsewhere is seen; until then clients may still share the old link.

With credentials in `upstream.url` every client is logged in, and there is nothing to find out.
"""

from __future__ import annotations

import time
from contextlib import suppress

from sidecar.proxy.io.client import Client
from sidecar.proxy.links.errors import Refused, Unreachable
from sidecar.proxy.links.identity import Identities, Identity, NodeLinks
from sidecar.proxy.tasks import Tasks

PERIOD = 1.0
RETRY = 0.1  # seconds between two questions while there is doubt
# What may change whether the server asks for a login: command, and the subcommands.
CHANGES = {"config": frozenset({b"set"}), "acl": frozenset({b"setuser", b"load", b"deluser"})}
# Replies to a pinned client are not counted, nor those to one that has gone: by then, in seconds,
# the command has been executed.
SURELY = 1.0


class Admission:
    """Chooses the identity of new clients. `own` are the sidecar's own links."""

    def __init__(self, identities: Identities, own: NodeLinks, tasks: Tasks) -> None:
        self._identities = identities
        self._own = own
        self._tasks = tasks
        self._era = 0
        self._wanted_login: bool | None = None  # whether the server asked for one in this era
        self._changing: dict[Client, float] = {}  # who may change that, and when they were noted
        self._doubt = 0  # counts what has cast doubt; 0: there is none
        self._after = 0  # the era of those who came after all that had been answered; 0: nobody did
        self._asking = False
        self._asked = 0.0

    @property
    def _fixed(self) -> bool:
        return self._own.identity.login.user is not None

    def moved(self) -> None:
        """There is another server: whether that one asks for a login is not known."""
        self._wanted_login = None
        self._asked = 0.0

    def first(self) -> Identity:
        """The identity of a client that begins now."""
        if self._fixed:
            return self._identities.default
        if self._doubt:
            self._settle(time.monotonic())
            if self._changing:
                return self._identities.of_era(self._identities.new_era())
            self._after = self._after or self._identities.new_era()
            return self._identities.of_era(self._after)
        if time.monotonic() - self._asked > PERIOD:
            self._ask()
        return self._identities.of_era(self._era)

    def noted(self, client: Client | None, kind: str, command: str, second: bytes) -> None:
        """See Plane.use_audit: a client's command may change who has to log in."""
        if client is not None and kind == "command" and second.lower() in CHANGES.get(command, ()):
            self._doubt += 1
            self._after = 0
            self._changing[client] = time.monotonic()

    def tick(self, now: float) -> None:
        """Once all commands that cast doubt have been answered: ask the server."""
        if self._doubt:
            self._settle(now)
            if not self._changing and now - self._asked > RETRY:
                self._ask()

    def _settle(self, now: float) -> None:
        """Forget those whose commands have been answered."""
        for client, since in list(self._changing.items()):
            if _is_answered(client) or now - since > SURELY:
                del self._changing[client]

    def _ask(self) -> None:
        if not self._asking and not self._fixed:
            self._asking = True
            self._asked = time.monotonic()
            self._tasks.spawn(self._find_out(self._doubt))

    async def _find_out(self, doubt: int) -> None:
        """Ask the server on a new connection; the answer counts unless there is new doubt."""
        dialer, greeted = self._own.node.dialer, self._own.greeted
        if self._wanted_login is None and greeted is not None:
            self._wanted_login = greeted.unauthenticated
        try:
            with suppress(Refused, Unreachable):
                connection, found = await dialer.open(self._own.identity.login)
                connection.close()
                if found.unauthenticated != self._wanted_login:
                    if self._wanted_login is not None:
                        self._era = self._identities.new_era()
                    self._wanted_login = found.unauthenticated
                if doubt == self._doubt:
                    self._doubt = self._after = 0
        finally:
            self._asking = False


def _is_answered(client: Client) -> bool:
    """Whether no reply is due to this client, and so none to what it was noted for."""
    return client.outstanding == 0 and not client.in_transaction
