"""A native fuzzer of the near cache: for tests only."""

from typing import Any

from typing_extensions import disjoint_base

from sidecar.core.protocol.commands import CommandTable
from tests.native.fuzz_cache_shell import CacheShell

@disjoint_base
class CacheWorld(CacheShell):
    @property
    def counts(self) -> dict[str, Any]: ...
    @property
    def hits(self) -> int: ...
    def run(self, steps: int) -> None: ...

def fuzz_cache_world(
    table: CommandTable,
    seed: int,
    steps: int,
    *,
    mode: str = "rules",
    losses: bool = True,
    follows: bool = False,
    acks: int = 0,
) -> tuple[int, int]: ...
