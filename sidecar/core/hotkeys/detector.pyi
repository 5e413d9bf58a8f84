"""The hot-key detector: which keys get most of the traffic."""

from typing import Literal, Self, TypedDict

from typing_extensions import Buffer, disjoint_base

class _Stats(TypedDict):
    total: int
    sampled: int
    interval: int
    window_total: float
    admitted: int
    ranked: int
    hot: int
    error: float
    error_probability: float
    memory: int

def name_of(number: int) -> bytes: ...

@disjoint_base
class HotKeys:
    def __new__(
        cls,
        seed: int,
        *,
        width: int = 16384,
        depth: int = 4,
        top: int = 256,
        window: float = 1.0,
        samples_per_second: float = 200000,
        hot_share: float = 0.005,
        cool_share: float = 0.0025,
        key_max: int = 128,
    ) -> Self: ...
    def use(
        self,
        *,
        window: float,
        samples_per_second: float,
        hot_share: float,
        cool_share: float,
    ) -> None: ...
    def tick(self, now: float) -> None: ...
    def add(self, space: int, key: bytes, write: bool = False) -> None: ...
    def drive(
        self, picks: Buffer, space: int = 0, write: bool = False, hash_only: bool = False
    ) -> int: ...
    def hash(self, space: int, key: bytes) -> int: ...
    def is_hot(self, space: int, key: bytes) -> bool: ...
    def estimate(self, space: int, key: bytes) -> float: ...
    def top(self, n: int) -> list[tuple[int, bytes, float, float, float, float, bool]]: ...
    def take_events(self) -> list[tuple[Literal["hot", "cool"], int, bytes, float]]: ...
    def stats(self) -> _Stats: ...
