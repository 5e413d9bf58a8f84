"""For Cython only; see replies.pyx."""

from typing import Self

from typing_extensions import disjoint_base

from sidecar.core.rewrite.rules import RewriteRules

@disjoint_base
class ReplyRewriter:
    def __new__(cls, rules: RewriteRules, chance: int, protocol: int) -> Self: ...
