"""The command table: what the data path must know of a command, by name."""

from collections.abc import Iterable, Mapping
from typing import Final, Self, TypeAlias, TypedDict

from typing_extensions import disjoint_base

# keyword, at, find, flags, last, step, limit, count_at, first (see KeySpec in commands.pxd)
_Spec: TypeAlias = tuple[bytes, int, int, int, int, int, int, int, int]
# form, specs, subcommands by name
_Rule: TypeAlias = tuple[int, tuple[_Spec, ...], tuple[tuple[bytes, _Rule], ...]]
# name, route, arity
_SubcommandRoute: TypeAlias = tuple[bytes, int, int]
# route, flags, family, arity, where the keys are, subcommands with a route of their own
_Row: TypeAlias = tuple[int, int, int, int, _Rule | None, tuple[_SubcommandRoute, ...]]

class _CommandRow(TypedDict):
    name: bytes
    route: int
    flags: int
    family: str
    arity: int
    keys: int
    subcommands: tuple[_SubcommandRoute, ...]

ROUTES: Final[dict[str, int]]
READ: Final[int]
WRITES: Final[int]
CACHEABLE: Final[int]
CACHEABLE_EACH: Final[int]
OPAQUE: Final[int]
AUDITED: Final[int]
TELLS: Final[int]
SPLIT: Final[int]
BY_CHANNEL: Final[int]
FANS_OUT: Final[int]
MAY_BE_HELD: Final[int]
FORMS: Final[dict[str, int]]
FINDS: Final[dict[str, int]]
SPEC_WRITES: Final[int]
SPEC_OPTIONAL: Final[int]
MOST_SPECS: Final[int]
LONGEST_KEYWORD: Final[int]
LONGEST_SUBCOMMAND: Final[int]
UNKNOWN: Final[int]

@disjoint_base
class CommandTable:
    def __new__(cls, seed: int, families: Iterable[str]) -> Self: ...
    @property
    def count(self) -> int: ...
    @property
    def families(self) -> list[str]: ...
    def update(self, rows: Mapping[bytes, _Row]) -> None: ...
    def lookup(self, name: bytes) -> _CommandRow | None: ...
    def name(self, command_id: int) -> str: ...
