"""Which keys a request names."""

from typing import Final

from sidecar.core.protocol.commands import CommandTable

UNKNOWN: Final[int]
TOO_MANY: Final[int]
UNDECLARED: Final[int]
ANY: Final[int]

def found_keys(
    table: CommandTable, request: bytes, most: int = 1024
) -> list[tuple[bytes, bool]] | int: ...
def keys_of(table: CommandTable, request: bytes, most: int = 1024) -> list[bytes] | None: ...
def first_key_of(table: CommandTable, request: bytes) -> tuple[bytes, bool] | None: ...
