"""What is done with each command of a client whose names are rewritten."""

from collections.abc import Mapping, Set
from typing import Final, Self

from typing_extensions import disjoint_base

from sidecar.core.protocol.commands import CommandTable

ACTS: Final[dict[str, int]]
SHAPES: Final[dict[str, int]]

@disjoint_base
class RewriteRules:
    def __new__(
        cls,
        table: CommandTable,
        given: Mapping[bytes, tuple[int, int, Set[bytes] | None]],
        prefix: bytes = b"",
        renames: Mapping[bytes, bytes] | None = None,
        from_start: bool = False,
    ) -> Self: ...
    @property
    def table(self) -> CommandTable: ...
    @property
    def prefix(self) -> bytes: ...
