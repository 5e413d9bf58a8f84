"""The command table: what the data path must know of a command, by name."""

from collections.abc import Iterable, Mapping
from typing import Final, TypedDict

class CommandRow(TypedDict):
    name: bytes
    route: int
    flags: int
    family: str
    arity: int
    keys: tuple[int, int, int]

ROUTES: Final[dict[str, int]]
READ: Final[int]
UNKNOWN: Final[int]

class CommandTable:
    def __init__(self, seed: int, families: Iterable[str]) -> None: ...
    @property
    def count(self) -> int: ...
    @property
    def families(self) -> list[str]: ...
    def update(self, rows: Mapping[bytes, tuple[int, int, int, int, int, int, int]]) -> None: ...
    def lookup(self, name: bytes) -> CommandRow | None: ...
    def name(self, command_id: int) -> str: ...
