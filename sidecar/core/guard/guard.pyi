from collections.abc import Sequence
from typing import Self

from typing_extensions import disjoint_base

from sidecar.core.guard.account import Account
from sidecar.core.guard.command_rules import Policy

@disjoint_base
class GuardTexts:
    """The server's own words for what it refuses, and what all guards of a plane share."""

    def use(self, command: bytes, key: bytes, subcommands: bool) -> None: ...
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
    @property
    def user(self) -> bytes: ...
    @property
    def policies(self) -> tuple[Policy | None, ...]: ...
    @property
    def accounts(self) -> tuple[Account | None, ...]: ...
    @property
    def texts(self) -> GuardTexts: ...
