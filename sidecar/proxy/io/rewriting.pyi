"""A client whose names are not the server's: a key prefix, or renamed commands."""

from typing_extensions import disjoint_base

from sidecar.core.rewrite.rules import RewriteRules
from sidecar.proxy.io.plane import PlaneConnection

@disjoint_base
class RewritingConnection(PlaneConnection):
    def use_rewriter(self, rules: RewriteRules, chance: int, protocol: int) -> None: ...
    @property
    def rewrite_rules(self) -> RewriteRules | None: ...
