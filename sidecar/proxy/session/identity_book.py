"""The file of identities that is in use, read again when it changes.

Other parts read `file` when they need it, and say with `on_change` that they want to know of
changes. A file that has become bad is not used: the log says why, and the one before stays. The
same goes for files with passwords that it names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from sidecar.file_version import Version, file_version
from sidecar.proxy.tasks import for_each
from sidecar.settings.identities_file import (
    IdentitiesError,
    read_identities,
    read_password,
)
from sidecar.settings.identity_rules import identity_problems
from sidecar.settings.schema import Settings
from sidecar.settings.sections.principals import IdentitiesFile

log = structlog.get_logger()

LOOK = 0.5  # seconds between two looks at the files


@dataclass(frozen=True)
class UpstreamUser:
    """The server's user that a principal acts as."""

    name: bytes
    password: bytes

    def __repr__(self) -> str:
        return f"<UpstreamUser {self.name!r}>"


class IdentityBook:
    """What `identities.file` says. Raises IdentitiesError if it cannot be used at the start."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._changed: list[Callable[[], None]] = []
        self._looked = 0.0
        self.file = IdentitiesFile()
        self._users: Mapping[str, UpstreamUser | None] = {}
        self._used: Mapping[str, Version] = {}
        self._read(settings)
        self._last = self._used

    def on_change(self, call: Callable[[], None]) -> None:
        """Have this called whenever the file in use is another one."""
        self._changed.append(call)

    def upstream_user(self, name: str) -> UpstreamUser | None:
        """The server's user that this principal acts as; None: the sidecar's own. Raises KeyError
        if there is no such principal."""
        return self._users[name]

    def tenant(self, name: str) -> str:
        """The tenant of this principal; empty: it has none, or there is no such principal."""
        principal = self.file.principals.get(name)
        return principal.tenant if principal is not None else ""

    def use(self, settings: Settings) -> None:
        """Use these settings: read the file that they name. A bad one is logged, and not used."""
        self._settings = settings
        self._take()

    def tick(self, now: float) -> None:
        """Read the files again if they have changed, and change no more."""
        if now - self._looked < LOOK:
            return
        self._looked = now
        versions, last = self._versions(), self._last
        self._last = versions
        if versions != self._used and versions == last:
            self._used = versions
            self._take()

    def _take(self) -> None:
        before = (self.file, self._users)
        try:
            if problems := list(identity_problems(self._settings)):
                raise IdentitiesError(problems)
            self._read(self._settings)
        except IdentitiesError as error:
            log.error("identities reload failed", error="; ".join(error.problems))
            return
        if (self.file, self._users) != before:
            log.info("identities reloaded", identities=len(self.file.principals))
            for_each(self._changed, lambda call: call())

    def _read(self, settings: Settings) -> None:
        """Raises IdentitiesError: then nothing has changed."""
        file = read_identities(settings.identities.file)
        users = {name: _user_of(file, name) for name in file.principals}
        self.file, self._users = file, users
        self._used = self._last = self._versions()

    def _versions(self) -> dict[str, Version]:
        paths = [self._settings.identities.file]
        paths += [each.upstream_password_file for each in self.file.principals.values()]
        paths += [each.password_file for each in self.file.tenants.values()]
        return {path: file_version(path) for path in paths if path}


def _user_of(file: IdentitiesFile, name: str) -> UpstreamUser | None:
    principal = file.principals[name]
    if principal.tenant:
        tenant = file.tenants[principal.tenant]
        user = tenant.username or principal.tenant
        path = f"tenants.{principal.tenant}.password_file"
        return UpstreamUser(
            user.encode(), read_password(path, tenant.password, tenant.password_file)
        )
    if not principal.upstream_username:
        return None
    path = f"identities.{name}.upstream_password_file"
    password = read_password(path, principal.upstream_password, principal.upstream_password_file)
    return UpstreamUser(principal.upstream_username.encode(), password)
