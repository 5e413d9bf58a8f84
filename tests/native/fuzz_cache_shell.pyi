"""The sidecar of a fuzzed world with a near cache: for tests only."""

from typing import Final, Self

from typing_extensions import disjoint_base

from sidecar.core.protocol.commands import CommandTable

KEY_NAMES: Final[tuple[bytes, ...]]

@disjoint_base
class CacheShell:
    def __new__(
        cls,
        table: CommandTable,
        seed: int,
        *,
        mode: str = "rules",
        losses: bool = True,
        follows: bool = False,
        acks: int = 0,
    ) -> Self: ...
    @property
    def fed(self) -> int: ...
