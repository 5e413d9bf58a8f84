"""Whether a certificate, or a revocation list, must be renewed soon. Pure: the time is an argument.

What is renewed by a program is renewed when about a third of its life is left. So a file is late
with two weeks left, but one that lives for a day only when a third of the day is.
"""

from __future__ import annotations

from typing import Literal

SOON = 14 * 86400.0  # seconds
SHARE = 1 / 3

State = Literal["valid", "early", "soon", "over"]


def state_of(begins: float, ends: float, now: float) -> State:
    """All in Unix time. `early`: it is not valid yet. `soon`: it should have been renewed by now.
    `over`: it has ended."""
    if now >= ends:
        return "over"
    if now < begins:
        return "early"
    return "soon" if ends - now < min(SOON, SHARE * (ends - begins)) else "valid"


def words(begins: float, ends: float, now: float) -> str:
    """What is wrong with it, to follow its name; empty: nothing."""
    state = state_of(begins, ends, now)
    if state == "valid":
        return ""
    if state == "soon":
        return f"ends in {_span(ends - now)}"
    if state == "early":
        return f"is valid only in {_span(begins - now)}"
    return f"has ended {_span(now - ends)} ago"


def _span(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
