"""One more link of a cluster's subscriber."""

from typing import Final

from typing_extensions import disjoint_base

from sidecar.proxy.io.client import Client
from sidecar.proxy.io.plane import Plane
from sidecar.proxy.io.upstream import Upstream
from sidecar.proxy.links.identity import NodeLinks

ENDED_BY_SERVER: Final[str]

@disjoint_base
class SideLink(Upstream):
    """A link beside a client's own."""

    def __init__(self, plane: Plane, owner: NodeLinks, client: Client) -> None: ...
    def send(self, request: bytes) -> None: ...
