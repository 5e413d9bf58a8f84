"""Passing requests on: as they are, with the prefix in its places, or refused."""

from typing import Self

from typing_extensions import disjoint_base

from sidecar.core.rewrite.rules import RewriteRules

@disjoint_base
class Giving:
    def __new__(cls, rules: RewriteRules, chance: int, protocol: int = 2) -> Self: ...
    @property
    def rules(self) -> RewriteRules: ...
    @property
    def broken(self) -> bool: ...
