from collections.abc import Iterable, Mapping
from typing import Self

from typing_extensions import disjoint_base

from sidecar.core.protocol.commands import CommandTable

@disjoint_base
class Policy:
    """What clients may do, by command, subcommand and key."""

    def __new__(cls, table: CommandTable) -> Self: ...
    def put(
        self,
        denied: Iterable[bytes],
        subcommands: Mapping[bytes, Mapping[bytes, bool]],
        *,
        containers: Iterable[bytes] = (),
        unknown_denied: bool = False,
        deny_keys: Iterable[bytes] = (),
        read_only_keys: Iterable[bytes] = (),
    ) -> None: ...
    def judge(self, request: bytes) -> str: ...
