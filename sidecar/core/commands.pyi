"""The command table: what the data path must know of a command, by name."""

from collections.abc import Iterable, Mapping
from typing import Final, Self, TypedDict

from typing_extensions import disjoint_base

class _CommandRow(TypedDict):
    name: bytes
    route: int
    flags: int
    family: str
    arity: int
    keys: tuple[int, int, int]

ROUTES: Final[dict[str, int]]
READ: Final[int]
WRITES: Final[int]
UNKNOWN: Final[int]

@disjoint_base
class CommandTable:
    def __new__(cls, seed: int, families: Iterable[str]) -> Self: ...
    @property
    def count(self) -> int: ...
    @property
    def families(self) -> list[str]: ...
    def update(self, rows: Mapping[bytes, tuple[int, int, int, int, int, int, int]]) -> None: ...
    def lookup(self, name: bytes) -> _CommandRow | None: ...
    def name(self, command_id: int) -> str: ...
