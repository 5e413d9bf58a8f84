from collections.abc import Sequence
from typing import Final, Self

from typing_extensions import disjoint_base

from sidecar.core.guard.account import Account
from sidecar.core.guard.command_rules import Policy

MOST_POLICIES: Final[int]

@disjoint_base
class GuardTexts:
    """The server's own words for what it refuses, and what all guards of a plane share."""

    def use(self, command: bytes, key: bytes, subcommands: bool) -> None: ...
    def see_logins(self, yes: bool) -> None: ...
    def shed(self, yes: bool) -> None: ...
    @property
    def sheds(self) -> bool: ...

@disjoint_base
class ClientGuard:
    """What restricts one client."""

    def __new__(
        cls,
        texts: GuardTexts,
        user: bytes,
        policies: Sequence[Policy | None],
        accounts: Sequence[Account | None],
    ) -> Self: ...
    def let_login_pass(self) -> None: ...
    @property
    def user(self) -> bytes: ...
    @property
    def policies(self) -> tuple[Policy | None, ...]: ...
    @property
    def accounts(self) -> tuple[Account | None, ...]: ...
    @property
    def texts(self) -> GuardTexts: ...
