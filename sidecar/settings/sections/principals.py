"""The tables of the file of `identities.file`: identities, tenants and command policies.

They are declared with the means that settings are declared with, so messages and documentation are
of one kind. Declarations only: identities_file.py reads them, identities_faults.py checks them.

In code a *principal* is who a client is to the sidecar: an `[identities.NAME]` table. (An
`Identity` of proxy/links is the upstream's side: protocol, user and database.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from sidecar.settings.fields import LIVE, Section, setting, size


def _limit(help: str) -> msgspec.Meta:
    return setting(help, ge=0, le=1_000_000_000, reload=LIVE)


def _text(help: str, *, secret: bool = False) -> msgspec.Meta:
    return setting(help, secret=secret, reload=LIVE)


class PrincipalLimits(Section, frozen=True):
    """What the clients of one identity may take together, unless it says "each". 0: no limit."""

    connections: Annotated[int, _limit("Clients connected at once.")] = 0
    commands: Annotated[int, _limit("Commands a second.")] = 0
    burst: Annotated[
        int, _limit("Commands beyond that at once, after a quiet time. 0: those of a second.")
    ] = 0
    over: Annotated[
        Literal["delay", "error"],
        _text("What becomes of more commands: they wait, or get an error."),
    ] = "delay"
    in_flight: Annotated[int, size("Bytes of requests without a reply.", reload=LIVE)] = 0
    request: Annotated[int, size("The size of each request.", reload=LIVE)] = 0
    reply: Annotated[int, size("The size of each reply.", reload=LIVE)] = 0
    pipeline: Annotated[int, _limit("Requests of each client without a reply.")] = 0
    blocked: Annotated[int, _limit("Clients that wait in a blocking command.")] = 0
    subscribed: Annotated[int, _limit("Clients that are subscribed.")] = 0


class Principal(Section, frozen=True):
    """An identity: who a client is to the sidecar. Its name is what clients log in with; in
    passthrough mode it is the server's ACL user."""

    passwords: Annotated[
        tuple[str, ...],
        _text(
            "Hashed passwords (`sidecar identities hash`); several while one is replaced.",
            secret=True,
        ),
    ] = ()
    certificates: Annotated[
        tuple[str, ...],
        _text(
            "Clients with a verified certificate that has one of these names are this identity: "
            '"CN:name", "DNS:name", "URI:spiffe://…".'
        ),
    ] = ()
    peers: Annotated[
        tuple[str, ...],
        _text('So are these users and groups on unix sockets: "uid:1000", "gid:1000".'),
    ] = ()
    tenant: Annotated[str, _text("The tenant whose upstream user it acts as.")] = ""
    upstream_username: Annotated[
        str, _text("Or that user itself; without either it is the sidecar's own.")
    ] = ""
    upstream_password: Annotated[str, _text("That user's password.", secret=True)] = ""
    upstream_password_file: Annotated[str, _text("A file with it, which is watched.")] = ""
    policy: Annotated[str, _text("The command policy that holds for it.")] = ""
    limits: PrincipalLimits = msgspec.field(default_factory=PrincipalLimits)

    def __repr__(self) -> str:
        return "<Principal>"  # it holds secrets


class Tenant(Section, frozen=True):
    """A tenant: an ACL user of the server, and what that may reach (`sidecar tenants`)."""

    username: Annotated[str, _text("The server's ACL user. Empty: the tenant's name.")] = ""
    password: Annotated[str, _text("That user's password.", secret=True)] = ""
    password_file: Annotated[str, _text("A file with it, which is watched.")] = ""
    keys: Annotated[
        tuple[str, ...],
        _text('Patterns of its keys. Empty: the prefix and "*", or none without a prefix.'),
    ] = ()
    channels: Annotated[
        tuple[str, ...],
        _text('Patterns of its channels. Empty: the prefix and "*", or none without a prefix.'),
    ] = ()
    commands: Annotated[
        tuple[str, ...],
        _text(
            'ACL rules of its commands, in order: "+@all", "-@dangerous". Empty: what cannot reach '
            "beyond its keys and channels (docs/identities.md)."
        ),
    ] = ()
    prefix: Annotated[
        str,
        _text("What its keys and channels begin with at the server; its clients do not see it."),
    ] = ""

    def __repr__(self) -> str:
        return "<Tenant>"  # it holds secrets


class CommandPolicy(Section, frozen=True):
    """A command policy: what is refused, renamed or read-only."""

    deny: Annotated[
        tuple[str, ...],
        _text('Commands, subcommands and categories: "KEYS", "CONFIG|SET", "@dangerous".'),
    ] = ()
    deny_keys: Annotated[tuple[str, ...], _text("Patterns of keys that no command may name.")] = ()
    read_only: Annotated[bool, _text("No command that may change keys.")] = False
    read_only_keys: Annotated[
        tuple[str, ...], _text("Patterns of keys that no command may change.")
    ] = ()
    rename: Annotated[
        dict[str, str],
        _text(
            "What clients call a command = what the server calls it. The server's own name is then "
            "unknown to them."
        ),
    ] = msgspec.field(default_factory=dict)


# Policies that every file has.
BUILT_IN_POLICIES = ("production",)


class IdentitiesFile(msgspec.Struct, frozen=True, kw_only=True):
    """What the file says. Without a file it is empty."""

    principals: Mapping[str, Principal] = {}
    tenants: Mapping[str, Tenant] = {}
    policies: Mapping[str, CommandPolicy] = {}

    def __repr__(self) -> str:
        return (
            f"<IdentitiesFile: {len(self.principals)} identities, {len(self.tenants)} tenants, "
            f"{len(self.policies)} policies>"
        )

    def has_policy(self, name: str) -> bool:
        """Whether a command policy of this name is there."""
        return name in self.policies or name in BUILT_IN_POLICIES
