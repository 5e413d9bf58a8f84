"""Who clients are, if the sidecar judges logins (`identities.mode = "terminate"`).

A client that has proved nothing is a *stranger*: it has an identity whose shared link leads
nowhere and answers every command with NOAUTH, so nothing of a stranger can reach a server. A client
whose certificate, or whose user on a unix socket, is in the file is a principal at once; any other
one becomes one by AUTH (sidecar_logins.py). A principal's client has the identity of the server's
user that the file maps it to.

When the file changes, who is not in it any more, or acts as another user of the server from now on,
is closed, as a server closes the connections of a deleted user.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import structlog

from sidecar.proxy.io.client import Client
from sidecar.proxy.io.plane import Plane
from sidecar.proxy.links.greeting import Login
from sidecar.proxy.links.identity import Identities, Identity
from sidecar.proxy.session.identity_book import IdentityBook, UpstreamUser
from sidecar.proxy.tasks import for_each
from sidecar.settings.identities_faults import claim_of
from sidecar.tls.handshake import Layer

log = structlog.get_logger()

NOAUTH = b"-NOAUTH Authentication required.\r\n"
# What clients get if the server refuses the user that they are mapped to: they can do nothing.
NOT_LET_IN = (
    b"-ERR the upstream refuses the credentials that the sidecar has for this identity; "
    b"the command was not executed\r\n"
)
# A pattern of keys that is a prefix and nothing else.
_PLAIN = re.compile(r"[^*?\[\]\\^~%]+\*")
_PEER = struct.Struct("3i")  # pid, uid, gid


class Principals:
    """Says which identity each client has. `admitted` gives the identity of a client without a
    login, which is that of principals that act as the sidecar's own user."""

    def __init__(
        self,
        plane: Plane,
        identities: Identities,
        book: IdentityBook,
        admitted: Callable[[], Identity],
    ) -> None:
        self._plane = plane
        self._identities = identities
        self._book = book
        self._admitted = admitted
        identities.refused = NOT_LET_IN
        self._strangers = identities.apart(NOAUTH)
        self._claims: Mapping[str, str] = {}
        self._mapped: dict[str, UpstreamUser | None] = {}
        self._take()
        book.on_change(self._changed)

    # Clients

    def arrived(self, client: Client, sock: socket.socket, tls: Layer | None) -> str:
        """Find out who a new client is by its certificate or its user on this host; empty: a
        stranger. It is that again after RESET."""
        for claim in _claims_of(sock, tls):
            if name := self._claims.get(claim, ""):
                client.first_principal = name
                return name
        return ""

    def first(self, client: Client) -> Identity:
        """The identity with which a client begins, and to which RESET leads back."""
        name = client.principal = client.first_principal
        if not self.knows(name):
            return self._strangers
        return self._identity(name, self._admitted().login)

    def is_stranger(self, client: Client) -> bool:
        """Whether a client has proved nothing."""
        return client.identity is self._strangers

    def is_tenant(self, client: Client) -> bool:
        """Whether a client is of a tenant, which must not see what others have."""
        return bool(self._book.tenant(client.principal))

    def owns_prefixes(self, client: Client, prefixes: Sequence[bytes]) -> bool:
        """Whether there are prefixes of keys, and all of them are of the client's tenant only."""
        tenant = self._book.file.tenants[self._book.tenant(client.principal)]
        own = [pattern[:-1] for pattern in tenant.keys if _PLAIN.fullmatch(pattern)]
        own += [tenant.prefix] if tenant.prefix else []
        return bool(prefixes) and all(
            any(prefix.startswith(each.encode()) for each in own) for prefix in prefixes
        )

    def knows(self, name: str) -> bool:
        """Whether there is a principal of this name."""
        return name in self._book.file.principals

    def identity_of(self, client: Client, name: str, proto: int = 0) -> Identity:
        """The identity of a principal's client, in this protocol; 0: in its present one. It keeps
        the database that it has selected. Raises KeyError if there is no such principal."""
        before: Login = client.identity.login
        if self.is_stranger(client):
            before = replace(self._admitted().login, proto=before.proto)
        return self._identity(name, replace(before, proto=proto or before.proto))

    def _identity(self, name: str, before: Login) -> Identity:
        user, own = self._book.upstream_user(name), self._identities.default.login
        if user is None or user.name == own.user:
            # The sidecar's own user, whatever password the file says: it has the newest.
            login = replace(self._admitted().login, proto=before.proto, db=before.db)
            return self._identities.get(login, own_login=False)
        return self._identities.get(before.as_user(user.name, user.password), own_login=True)

    # The file

    def _take(self) -> None:
        file = self._book.file
        self._claims = {
            claim_of(text): name
            for name, principal in file.principals.items()
            for text in (*principal.certificates, *principal.peers)
        }
        self._mapped = {name: self._book.upstream_user(name) for name in file.principals}

    def _changed(self) -> None:
        """Another file is in use."""
        before = self._mapped
        self._take()
        for user in self._mapped.values():
            if user is not None:
                self._identities.relearn(user.name, user.password)
        gone = [client for client in self._plane.clients if self._is_over(client, before)]
        for_each(gone, lambda client: client.close("identity"))
        if gone:
            log.info("clients of changed identities closed", clients=len(gone))

    def _is_over(self, client: Client, before: Mapping[str, UpstreamUser | None]) -> bool:
        """Whether a client is a principal no more, or acts as another user of the server."""
        if client.first_principal and not self.knows(client.first_principal):
            return True
        name = client.principal
        if not name:
            return False
        old, new = before.get(name), self._mapped.get(name)
        same_user = (old and old.name) == (new and new.name)
        return not self.knows(name) or not same_user


def _claims_of(sock: socket.socket, tls: Layer | None) -> Iterator[str]:
    """The names in a client's verified certificate, the most specific first: URI, DNS, CN; or its
    user and group on this host."""
    if tls is not None:
        yield from claims_in(tls[0].getpeercert() or {})
    elif sock.family == socket.AF_UNIX:
        _, uid, gid = _PEER.unpack(
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        )
        yield f"uid:{uid}"
        yield f"gid:{gid}"


def claims_in(certificate: Mapping[str, Any]) -> Iterator[str]:
    """The claims of a certificate, as `ssl` describes one that it has verified."""
    names = certificate.get("subjectAltName", ())
    for kind in ("URI", "DNS"):
        yield from (claim_of(f"{kind}:{value}") for of, value in names if of == kind)
    for part in certificate.get("subject", ()):
        yield from (f"CN:{value}" for name, value in part if name == "commonName")
