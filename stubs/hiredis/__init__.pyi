"""What the sidecar uses of hiredis: its own stub takes pack_command's tuple for one of length 1."""

from collections.abc import Callable
from typing import Any

class HiredisError(Exception): ...
class ProtocolError(HiredisError): ...
class ReplyError(HiredisError): ...

class Reader:
    def __init__(
        self,
        protocolError: Callable[[str], Exception] = ...,
        replyError: Callable[[str], Exception] = ...,
        encoding: str | None = None,
        errors: str | None = None,
        notEnoughData: object = ...,
    ) -> None: ...
    def feed(
        self, buf: str | bytes | bytearray | memoryview, off: int = ..., len: int = ..., /
    ) -> None: ...
    def gets(self, shouldDecode: bool = ..., /) -> Any: ...
    def has_data(self) -> bool: ...

def pack_command(
    cmd: tuple[str | int | float | bytes | memoryview, ...],
) -> bytes: ...
