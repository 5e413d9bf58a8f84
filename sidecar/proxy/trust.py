"""Makes the parts that say who clients are, by `identities.mode` and `identities.file`.

Where the server judges logins (`passthrough`), only the file is kept, for limits and policies.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass

from sidecar.proxy.io.client import Client
from sidecar.proxy.io.plane import Plane
from sidecar.proxy.links.errors import ProxyStartError
from sidecar.proxy.links.identity import Identities, Identity
from sidecar.proxy.session.clients import Clients, Joined
from sidecar.proxy.session.identity_book import IdentityBook
from sidecar.proxy.session.identity_change import IdentityChange, Judged
from sidecar.proxy.session.password_proof import PasswordProof
from sidecar.proxy.session.principals import Principals
from sidecar.proxy.session.sidecar_logins import SidecarLogins
from sidecar.proxy.tasks import Tasks, for_each
from sidecar.settings.identities_file import IdentitiesError
from sidecar.settings.schema import Settings
from sidecar.tls.handshake import Layer


@dataclass(frozen=True)
class Trust:
    """Who clients are. `principals` is None where the server judges logins; `judged` is told of
    each login."""

    book: IdentityBook
    principals: Principals | None
    admitted: Callable[[], Identity]
    judged: Judged
    pooled: bool  # `upstream.pooling` is "session"

    def first(self, client: Client) -> Identity:
        """The identity with which a client begins, and to which RESET leads back."""
        return self.principals.first(client) if self.principals is not None else self.admitted()

    def arrived(self, client: Client, sock: socket.socket, tls: Layer | None) -> None:
        """A client has come: find out who it is, before it says so."""
        if self.principals is None:
            return
        if name := self.principals.arrived(client, sock, tls):
            self.judged(client, name.encode(), True)

    def principal_of(self, client: Client, identity: Identity) -> str:
        """Who a client with this identity is: where the server judges logins, the user that it
        logged in as."""
        if self.principals is not None:
            return client.principal
        user: bytes = identity.login.user or b"default"
        return user.decode("utf-8", "replace")

    def pins(self, client: Client) -> bool:
        """Whether a client has a link of its own from its next command on."""
        return self.pooled and not (
            self.principals is not None and self.principals.is_stranger(client)
        )

    def logins(
        self, change: IdentityChange, clients: Clients, tasks: Tasks
    ) -> SidecarLogins | None:
        """What serves AUTH and HELLO, unless the server judges them."""
        if self.principals is None:
            return None
        proof = PasswordProof(self.book)
        return SidecarLogins(
            self.principals, proof, change, tasks, self.judged, self.pins, clients.count
        )


def make_trust(
    plane: Plane,
    identities: Identities,
    settings: Settings,
    admitted: Callable[[], Identity],
    judged: Judged | None,
    cached: Joined | None,
) -> Trust:
    """Make them; `admitted` gives the identity of a client without a login. `cached` tells the near
    cache, if there is one, of a client's identity: its password for the server may be another by
    now. Raises ProxyStartError for a file that cannot be used."""
    try:
        book = IdentityBook(settings)
    except IdentitiesError as error:
        raise ProxyStartError(f"identities.file: {error}") from error
    principals = None
    if settings.identities.mode == "terminate":
        principals = Principals(plane, identities, book, admitted)
        if cached is not None:
            book.on_change(lambda: for_each(plane.clients, lambda c: cached(c, c.identity)))
    pooled = settings.upstream.pooling == "session"
    return Trust(book, principals, admitted, judged or _nobody_judges, pooled)


def _nobody_judges(client: Client, user: bytes | None, accepted: bool) -> None:
    """No audit stream is configured."""
