"""Finding where a request ends."""

from typing import Final, Literal

from typing_extensions import disjoint_base

_Event = (
    tuple[Literal["request"], list[bytes], bytes]
    | tuple[Literal["empty"]]
    | tuple[Literal["error"], bytes]
)

TEXTS: Final[dict[int, bytes]]

@disjoint_base
class RequestDecoder:
    def __init__(self, *, max_bulk: int = ..., authenticated: bool = True) -> None: ...
    def feed(self, data: bytes) -> list[_Event]: ...

def normalise_inline(line: bytes, joined: bool = False) -> bytes | None: ...
def split_arguments(raw: bytes) -> list[bytes]: ...
