"""Giving a client's whole requests the server's names."""

from typing_extensions import disjoint_base

from sidecar.core.rewrite.giving import Giving

@disjoint_base
class RequestRewriter(Giving):
    @property
    def waits(self) -> bool: ...
