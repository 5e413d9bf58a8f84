"""Gives clients the names that are theirs: the key prefix of a tenant, a policy's renamed commands.

A client has no rewriter until it is somebody whose names are not the server's; from then on it has
one for good, by whose rules it is. When the file of identities or the settings change what
somebody's names are, their clients are closed: what they know of is gone.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence

import structlog

from sidecar.core.rewrite.rules import RewriteRules
from sidecar.policy.prefixing import GIVEN
from sidecar.proxy.io.client import Client
from sidecar.proxy.io.plane import Plane
from sidecar.proxy.links.identity import Identity
from sidecar.proxy.session.identity_book import IdentityBook
from sidecar.proxy.tasks import for_each

log = structlog.get_logger()


class Rewrites:
    """The rules of all clients. `principal_of` names who a client is, `policy_names` the policies
    that hold for it. `judges`: the sidecar judges logins; without that there are no tenants.
    `in_cluster`: the upstream is a cluster."""

    def __init__(
        self,
        plane: Plane,
        book: IdentityBook,
        principal_of: Callable[[Client, Identity], str],
        policy_names: Callable[[Client, Identity], Sequence[str]],
        *,
        judges: bool,
        in_cluster: bool,
    ) -> None:
        self._plane = plane
        self._book = book
        self._principal_of = principal_of
        self._policy_names = policy_names
        self._judges = judges
        self._in_cluster = in_cluster
        self._known: dict[tuple[bytes, frozenset[tuple[bytes, bytes]]], RewriteRules] = {}
        book.on_change(self.refresh)

    def joined(self, client: Client, identity: Identity) -> None:
        """A client is somebody else from now on, or speaks another protocol."""
        rules = self._rules_of(client, identity)
        if rules is not None or client.rewrite_rules is not None:
            rules = rules or self._rules(b"", {})
            client.use_rewriter(rules, secrets.randbits(64), identity.login.proto)

    def _rules_of(self, client: Client, identity: Identity) -> RewriteRules | None:
        """The rules for a client; None: its names are the server's."""
        file = self._book.file
        principal = file.principals.get(self._principal_of(client, identity))
        prefix, renames = b"", {}
        if self._judges and principal is not None and principal.tenant:
            prefix = file.tenants[principal.tenant].prefix.encode()
        for policy in self._policy_names(client, identity):
            if policy in file.policies:
                for name, of_server in file.policies[policy].rename.items():
                    renames[name.encode().lower()] = of_server.encode().lower()
        return self._rules(prefix, renames) if prefix or renames else None

    def _rules(self, prefix: bytes, renames: Mapping[bytes, bytes]) -> RewriteRules:
        key = (prefix, frozenset(renames.items()))
        rules = self._known.get(key)
        if rules is None:
            rules = RewriteRules(self._plane.table, GIVEN, prefix, renames, self._in_cluster)
            self._known[key] = rules
        return rules

    def refresh(self) -> None:
        """The file, or the settings, may have changed what somebody's names are: close those
        clients."""
        none = self._rules(b"", {})
        gone = [
            client
            for client in self._plane.clients
            if (client.rewrite_rules or none)
            is not (self._rules_of(client, client.identity) or none)
        ]
        for_each(gone, lambda client: client.close("identity"))
        if gone:
            log.info("clients of changed names closed", clients=len(gone))
