"""Repeated log events: the first ones of each are logged, further ones are only counted.

Time is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass

BURST = 20  # lines of one event in each window
WINDOW = 10.0
MOST_EVENTS = 1000  # remembered; names are the program's, so this is never reached


@dataclass
class _Event:
    since: float
    told: int = 0
    left_out: int = 0


class Repeats:
    """Lets BURST lines of each event through in WINDOW seconds, and counts the others."""

    def __init__(self) -> None:
        self.suppressed = 0
        self._events: dict[str, _Event] = {}

    def allows(self, event: str, now: float) -> int:
        """-1 if the line must be left out; otherwise how many like it were left out before it."""
        known = self._events.get(event)
        if known is None:
            if len(self._events) >= MOST_EVENTS:
                self._events.clear()
            known = self._events[event] = _Event(now)
        elif now - known.since >= WINDOW:
            known.since, known.told = now, 0
        if known.told >= BURST:
            known.left_out += 1
            self.suppressed += 1
            return -1
        known.told += 1
        left_out, known.left_out = known.left_out, 0
        return left_out

    def due(self, now: float) -> list[tuple[str, int]]:
        """Events whose lines were left out and which have not come again: (event, how many)."""
        found = []
        for event, known in self._events.items():
            if known.left_out and now - known.since >= WINDOW:
                found.append((event, known.left_out))
                known.left_out = 0
        return found
