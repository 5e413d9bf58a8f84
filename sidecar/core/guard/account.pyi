from collections.abc import Mapping

from typing_extensions import disjoint_base

NAMES: tuple[str, ...]

@disjoint_base
class Account:
    """What the clients of one identity, or of one address, may use together."""

    def set_limits(
        self,
        *,
        commands: float = 0.0,
        burst: float = 0.0,
        delays: bool = True,
        in_flight: int = 0,
        request: int = 0,
        reply: int = 0,
        pipeline: int = 0,
        blocked: int = 0,
        subscribed: int = 0,
    ) -> None: ...
    def count(self, reason: str) -> None: ...
    @property
    def refused(self) -> Mapping[str, int]: ...
    @property
    def delayed(self) -> int: ...
    @property
    def in_use(self) -> tuple[int, int, int]: ...
