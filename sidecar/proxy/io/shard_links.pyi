"""The shared links of one identity to the shards of a cluster, as the core sees them: by number."""

from typing_extensions import disjoint_base

from sidecar.proxy.io.upstream import Upstream

@disjoint_base
class ShardLinks:
    """Links by the shards' numbers."""

    any: int
    def __init__(self) -> None: ...
    @property
    def links(self) -> dict[int, Upstream]: ...
    def put(self, number: int, link: Upstream | None) -> None: ...
