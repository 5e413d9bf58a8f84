"""Finding where a reply ends."""

from typing import Literal

from typing_extensions import disjoint_base

@disjoint_base
class ReplyDecoder:
    def feed(self, data: bytes) -> list[tuple[Literal["reply", "push"], bytes]]: ...
