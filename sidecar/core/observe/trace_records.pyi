"""Records of single commands: those that are sampled, slow or failed."""

from typing import Final, Self, TypedDict

from typing_extensions import disjoint_base

from sidecar.core.protocol.commands import CommandTable

SAMPLED: Final[int]
SLOW: Final[int]
FAILED: Final[int]
CACHED: Final[int]
FILLED: Final[int]
WAITED: Final[int]
RESENT: Final[int]
LOCAL: Final[int]

class _Stats(TypedDict):
    sampled: int
    slow: int
    failed: int
    dropped: int

_Record = tuple[str, int, int, int, int, int, int, int, int, int, int, int, str, bytes, int, bytes]

@disjoint_base
class Traces:
    def __new__(
        cls,
        table: CommandTable,
        seed: int,
        *,
        share: float = 0,
        failed: bool = True,
        keys: bool = False,
    ) -> Self: ...
    def use(self, *, share: float, failed: bool, keys: bool) -> None: ...
    def allow(self, records: int, reserve: int = 0) -> None: ...
    @property
    def allowed(self) -> int: ...
    def take(self) -> list[_Record]: ...
    def stats(self) -> _Stats: ...
