"""A violation in words, with the operations that show it."""

from __future__ import annotations

from .contract import MILLISECOND, READ, Violation
from .history import History


def around(history: History, violation: Violation, most: int = 12) -> list[int]:
    """The newest rows of that key, but for direct reads, that had begun when the one that breaks
    the rule ended."""
    key, end = history.key[violation.row], history.end[violation.row]
    rows = [
        row
        for row, of in enumerate(history.key)
        if of == key
        and history.begin[row] <= end
        and (history.kind[row] != READ or history.site[row] == history.site[violation.row])
    ]
    return sorted(rows, key=history.begin.__getitem__)[-most:]


def explain(history: History, violation: Violation, *, more: bool = False) -> str:
    """A violation with the rows that show it; with `more`, those around it as well."""
    rows = [row for row in (violation.because, violation.row) if row >= 0]
    since = min(history.begin[row] for row in rows)
    lines = [f"{violation.rule}: saw {violation.seen}, at least {violation.needed} was known"]
    if violation.because >= 0:
        lines[0] += f" {violation.late / MILLISECOND:.3f} ms before"
        lines.append("  known by  " + history.describe(violation.because, since))
    lines.append("  but then  " + history.describe(violation.row, since))
    if more:
        lines += ["  around    " + history.describe(r, since) for r in around(history, violation)]
    return "\n".join(lines)
