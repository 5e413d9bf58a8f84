"""Restricts clients: gives each the guard that its identity, its listener and its address call for.

A guard has at most two command policies and two accounts. Policies are compiled when they are
first needed, and again when the file of identities, or the server's commands, have changed: guards
hold them by reference, so what is new holds for clients that are connected as well. Accounts count
what is refused: one for each principal of the file, one for all who are none, one for each address.

A client that nothing restricts has no guard, and costs nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import structlog

from sidecar.core.guard.account import Account
from sidecar.core.guard.command_rules import Policy
from sidecar.core.guard.guard import MOST_POLICIES, ClientGuard, GuardTexts
from sidecar.policy.command_policy import (
    BUILT_IN,
    Known,
    catalogue_from_command,
    compiled,
    unknown_rules,
)
from sidecar.policy.server_version import ServerVersion
from sidecar.proxy.io.client import PINNED_MODE, SHARED_MODE, Client
from sidecar.proxy.io.plane import Plane
from sidecar.proxy.links.identity import Identity
from sidecar.proxy.tasks import TICK
from sidecar.settings.schema import Settings
from sidecar.settings.sections.principals import (
    CommandPolicy,
    IdentitiesFile,
    Principal,
    PrincipalLimits,
)
from sidecar.telemetry.snapshots import Restrictions

log = structlog.get_logger()

TOO_MANY = b"-LIMITED too many clients are connected\r\n"
# Who is no principal of the file, or one too many for labels of their own.
OTHERS = "other"
MOST_LABELS = 100


class Book(Protocol):
    """The file of identities that is in use."""

    @property
    def file(self) -> IdentitiesFile: ...
    def on_change(self, call: Callable[[], None]) -> None: ...


@dataclass
class _Shared:
    """What the clients of one principal, or of one address, have together."""

    account: Account = field(default_factory=Account)
    clients: set[Client] = field(default_factory=set)
    connections: int = 0  # at most so many clients; 0: any number
    limited: bool = False  # whether any other limit is set


class Guards:
    """Gives clients their guards. `catalogue` is of the commands that are known before the server
    has told its own. `principal_of` names who a client is; the file need not have that name."""

    def __init__(
        self,
        plane: Plane,
        settings: Settings,
        book: Book,
        catalogue: Mapping[str, Known],
        principal_of: Callable[[Client, Identity], str],
    ) -> None:
        self._plane = plane
        self._settings = settings
        self._book = book
        self._catalogue = catalogue
        self._principal_of = principal_of
        self._workers = settings.workers
        self._texts = GuardTexts()
        self._nobody = _everything_denied(plane)
        self._policies: dict[str, Policy] = {}
        self._principals: dict[str, _Shared] = {OTHERS: _Shared()}
        self._addresses: dict[str, _Shared] = {}
        self._ticked = 0.0
        self.rejected = 0
        self._judges = settings.identities.mode == "terminate"
        self._texts.see_logins(not self._judges)
        book.on_change(self.refresh)

    # Clients

    def join(self, client: Client, identity: Identity) -> None:
        """A client has an identity, or another one: restrict it accordingly."""
        if not self._counts(client):
            return
        name = self._principal_of(client, identity)
        principal = self._book.file.principals.get(name)
        shared = self._shared(name, principal) if principal is not None else None
        before = client.restricted_as
        if before is not None and before is not shared:
            before.clients.discard(client)
        client.restricted_as = shared
        if shared is not None and client not in shared.clients:
            if shared.connections and len(shared.clients) >= shared.connections:
                shared.account.count("connections")
                self._turn_away(client)
                return
            shared.clients.add(client)
        self._restrict(client, identity, shared, self.policy_names(client, identity))

    def policy_names(self, client: Client, identity: Identity) -> list[str]:
        """The policies that hold for a client: its principal's and its listener's."""
        principal = self._book.file.principals.get(self._principal_of(client, identity))
        policy = principal.policy if principal is not None else ""
        names = [policy, client.listener_policy or self._settings.listen.policy]
        return [name for name in names if name]

    def _counts(self, client: Client) -> bool:
        """Count a client of its address. False: there are too many, and it has been told so."""
        address = self._addresses.setdefault(_host(client), _Shared())
        if client in address.clients:
            return True
        self._limit_address(address)
        if address.connections and len(address.clients) >= address.connections:
            self._principals[OTHERS].account.count("connections")
            self._turn_away(client)
            return False
        address.clients.add(client)
        return True

    def _restrict(
        self, client: Client, identity: Identity, shared: _Shared | None, policies: Sequence[str]
    ) -> None:
        address = self._addresses.get(_host(client))
        by_address = address if address is not None and address.limited else None
        limited = shared is not None and shared.limited
        sheds = self._settings.limits.loop_lag > 0
        if not (policies or by_address or limited or sheds or self._by_user or client.guard):
            return
        counts = shared or self._principals[OTHERS]
        user = getattr(identity.login, "user", b"") or b"default"
        accounts = [counts.account, by_address.account if by_address is not None else None]
        compiled_policies = [self._policy(name) for name in dict.fromkeys(policies)]
        client.use_guard(ClientGuard(self._texts, user, compiled_policies, accounts))

    def _shared(self, name: str, principal: Principal) -> _Shared:
        if name not in self._principals:
            self._principals[name] = _Shared()
            self._limit(self._principals[name], principal.limits)
        return self._principals[name]

    def sees_login(self, client: Client, name: bytes, args: Sequence[bytes]) -> bool:
        """Whether the request at the head, of this name, is a login on a link of the client's own.
        What the server makes of it is not seen, so from now on the client is restricted as the
        users that it names are, and as it was before; refusals name the last one."""
        guard = client.guard
        if self._judges or guard is None or name not in (b"AUTH", b"HELLO"):
            return False
        if client.mode == SHARED_MODE or (client.mode != PINNED_MODE and client.queued is None):
            return False
        policies, accounts, user = list(guard.policies), list(guard.accounts), guard.user
        for user in _users_in(args):
            principal = self._book.file.principals.get(user.decode("utf-8", "replace"))
            if principal is None:
                continue
            if principal.policy:
                policies.append(self._policy(principal.policy))
            shared = self._shared(user.decode("utf-8", "replace"), principal)
            accounts[0] = shared.account
        policies = list(dict.fromkeys(policies))
        if len(policies) > MOST_POLICIES:
            policies = [self._nobody]
        guard = ClientGuard(self._texts, user, policies, accounts)
        guard.let_login_pass()
        client.use_guard(guard)
        client.resume()
        return True

    def _turn_away(self, client: Client) -> None:
        """Tell a client that there are too many, and close it; nothing it sends is executed."""
        self.rejected += 1
        client.use_guard(ClientGuard(self._texts, b"default", [self._nobody], []))
        client.refuse_last(TOO_MANY)

    def gone(self, client: Client) -> None:
        """A client has gone."""
        host = _host(client)
        if client.restricted_as is not None:
            client.restricted_as.clients.discard(client)
        if (address := self._addresses.get(host)) is not None:
            address.clients.discard(client)
            if not address.clients and not address.limited:
                del self._addresses[host]

    # Policies and limits

    def use(self, settings: Settings) -> None:
        """Use these settings from now on."""
        self._settings = settings
        self.refresh()

    @property
    def _by_user(self) -> bool:
        """Whether clients are restricted by the user as whom they log in at the server."""
        return not self._judges and bool(self._book.file.principals)

    def refresh(self) -> None:
        """The settings or the file have changed: restrict all clients accordingly."""
        principals = self._book.file.principals
        for name, shared in self._principals.items():
            if name != OTHERS or name in principals:
                of = principals[name].limits if name in principals else PrincipalLimits()
                self._limit(shared, of)
        for address in self._addresses.values():
            self._limit_address(address)
        self._compile()
        if not self._settings.limits.loop_lag:
            self._texts.shed(False)
        for client in list(self._plane.clients):
            self.join(client, client.identity)

    def learnt(self, commands: Any, server: ServerVersion) -> None:
        """The server has told its commands (None: they are known) and its version."""
        self._texts.use(*server.refusals)
        if isinstance(commands, list):
            self._catalogue = catalogue_from_command(commands)
            self._compile()

    def _policy(self, name: str) -> Policy:
        if name not in self._policies:
            self._policies[name] = Policy(self._plane.table)
            self._compile_one(name, self._policies[name])
        return self._policies[name]

    def _compile(self) -> None:
        for name, policy in self._policies.items():
            self._compile_one(name, policy)

    def _compile_one(self, name: str, policy: Policy) -> None:
        written = self._book.file.policies.get(name) or BUILT_IN.get(name)
        if written is None:
            written = CommandPolicy(deny=("@all",))  # it was checked; a fault must not allow all
        rules = compiled(written, self._catalogue)
        policy.put(
            rules.denied,
            rules.subcommands,
            containers=rules.containers,
            unknown_denied=rules.unknown_denied,
            deny_keys=[pattern.encode() for pattern in written.deny_keys],
            read_only_keys=[pattern.encode() for pattern in written.read_only_keys],
        )
        if name not in BUILT_IN and (strange := list(unknown_rules(written, self._catalogue))):
            log.warning("policy rules unknown", policy=name, rules=strange)

    def _limit(self, shared: _Shared, limits: PrincipalLimits) -> None:
        """The limits of a principal: what is counted together is divided among the workers."""
        each = self._each
        shared.connections = each(limits.connections)
        shared.limited = limits != PrincipalLimits()
        shared.account.set_limits(
            commands=limits.commands / self._workers,
            burst=limits.burst / self._workers,
            delays=limits.over == "delay",
            in_flight=each(limits.in_flight),
            request=limits.request,
            reply=limits.reply,
            pipeline=limits.pipeline,
            blocked=each(limits.blocked),
            subscribed=each(limits.subscribed),
        )

    def _each(self, whole: int) -> int:
        return -(-whole // self._workers)

    def _limit_address(self, shared: _Shared) -> None:
        """The settings are this worker's share already."""
        limits = self._settings.limits
        shared.connections = limits.address_connections
        shared.limited = bool(limits.address_commands)
        shared.account.set_limits(commands=limits.address_commands)

    # Load

    def tick(self, now: float) -> None:
        """Refuse commands while the loop lags; called every TICK."""
        late = time.monotonic() - self._ticked - TICK if self._ticked else 0.0
        self._ticked = now
        most = self._settings.limits.loop_lag
        sheds = bool(most) and late > most
        if sheds != self._texts.sheds:
            self._texts.shed(sheds)
            if sheds:
                log.warning("load shed", lag=round(late, 3))

    # Figures

    def snapshot(self) -> Restrictions:
        """What was refused, and who waits."""
        refused: dict[tuple[str, str], int] = {}
        delayed: dict[str, int] = {}
        for label, account in self._labelled():
            for reason, count in account.refused.items():
                refused[label, reason] = refused.get((label, reason), 0) + count
            if account.delayed:
                delayed[label] = delayed.get(label, 0) + account.delayed
        return Restrictions(refused=refused, delayed=delayed, waiting=self._plane.limited_count)

    def _labelled(self) -> Iterator[tuple[str, Account]]:
        for number, (name, shared) in enumerate(self._principals.items()):
            yield name if number < MOST_LABELS else OTHERS, shared.account
        for address in self._addresses.values():
            if address.account.delayed:
                yield OTHERS, address.account


def _everything_denied(plane: Plane) -> Policy:
    policy = Policy(plane.table)
    policy.put(
        [plane.table.name(i).encode() for i in range(1, plane.table.count)], {}, unknown_denied=True
    )
    return policy


def _users_in(args: Sequence[bytes]) -> Iterator[bytes]:
    """The users that AUTH or HELLO may log in as."""
    if args[0].upper() == b"AUTH":
        yield args[1] if len(args) > 2 else b"default"
        return
    for word, user in pairwise(args[1:]):
        if word.upper() == b"AUTH":
            yield user


def _host(client: Client) -> str:
    """The address of a client's host; all on unix sockets have one."""
    return str(client.peer[0]) if isinstance(client.peer, tuple) and client.peer else "unix"
