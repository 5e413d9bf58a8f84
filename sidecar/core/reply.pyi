"""Finding where a reply ends."""

from typing import Literal

class ReplyDecoder:
    def __init__(self) -> None: ...
    def feed(self, data: bytes) -> list[tuple[Literal["reply", "push"], bytes]]: ...
