"""A native fuzzer of sessions and links: for tests only."""

from typing import Self

from typing_extensions import disjoint_base

from sidecar.core.protocol.commands import CommandTable

@disjoint_base
class World:
    def __new__(
        cls,
        table: CommandTable,
        seed: int,
        *,
        losses: bool = True,
        follows: bool = False,
        acks: int = 0,
        holds: bool = False,
    ) -> Self: ...
    @property
    def fed(self) -> int: ...
    def run(self, steps: int) -> None: ...

def fuzz_world(
    table: CommandTable,
    seed: int,
    steps: int,
    *,
    losses: bool = True,
    follows: bool = False,
    acks: int = 0,
    holds: bool = False,
) -> int: ...
