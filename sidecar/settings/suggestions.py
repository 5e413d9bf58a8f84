"""What somebody may have meant who has mistyped a setting, or put it into a wrong section. Pure.

The last word counts most: it is what people remember, and what is right of a setting that stands in
a wrong section.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher

# How alike two words must be, from 0 to 1, to be meant for each other.
ALIKE = 0.72
# The part of the last word in how alike two paths are.
LAST_WORD = 0.75
MOST = 3


def suggested(path: str, known: Iterable[str]) -> Sequence[str]:
    """The known paths that may be meant, the likeliest first: one, or several if they have the same
    last word and nothing else tells them apart; none if nothing is alike."""
    section, _, leaf = path.rpartition(".")
    scores = {}
    for each in known:
        its_section, _, its_leaf = each.rpartition(".")
        last = _alike(leaf, its_leaf)
        first = (
            _alike(section, its_section) if section else 1.0
        )  # none is written: any may be meant
        # A word of a section may have been mistyped, as well as a key.
        if last >= ALIKE or (_alike(path, each) >= ALIKE and last >= 0.5):
            scores[each] = LAST_WORD * last + (1 - LAST_WORD) * first
    best = sorted(scores, key=lambda each: scores[each], reverse=True)
    if not best:
        return ()
    # Where the section says nothing, all that end so are as likely.
    if _alike(section, best[0].rpartition(".")[0]) >= 0.5:
        return best[:1]
    ending = best[0].rpartition(".")[2]
    return [each for each in best if each.rpartition(".")[2] == ending][:MOST]


def _alike(one: str, other: str) -> float:
    return 1.0 if one == other else SequenceMatcher(None, one, other).ratio()
